"""Audit logs as servers send them: signatures checked, entries as rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from private_keras.cluster.audit import Head, Log, checked
from private_keras.cluster.client import ServerClient
from private_keras.errors import SecurityError
from private_keras.server.audit import check_head
from private_keras.server.catalogue import AuditRow, Segment
from private_keras.server.config import ClusterConfig
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import check_pin, name_of


def read_logs(
    clients: Sequence[ServerClient],
    told: Sequence[tuple[list[wire.AuditEntry], wire.Head, list[wire.Segment]]], config: ClusterConfig,
    seen: Mapping[str, Head], archives: Sequence[tuple[str, Sequence[AuditRow]]] = (),
) -> list[Log]:  # fmt: skip
    """Logs of all servers, with what is wrong with each.

    Args:
        told: by server, what it sent.
        seen: ends of logs that were read before, by server.
        archives: entries that servers do not have any more, with the server's name.
    """
    logs = []
    for client, (entries, head, parts) in zip(clients, told, strict=True):
        faults, signed = [], False
        if head.signature:
            try:
                _check_signature(client.name, head, config)
                signed = True
            except (SecurityError, ValueError) as error:
                faults.append(str(error))
        elif not config.local and head.count:
            faults.append("it is not signed")
        for part in parts:
            faults.extend(_closing_faults(client.name, part, config))
        rows = _with(as_rows(entries), [given for server, given in archives if server == client.name])
        end = Head(head.count, head.chain, signed, head.durable)
        log = checked(client.name, rows, end, seen.get(client.name), as_segments(parts))
        log.faults.extend(faults)
        logs.append(log)
    return logs


def as_rows(entries: Iterable[wire.AuditEntry]) -> list[AuditRow]:
    """Entries as a server sends them."""
    return [AuditRow(e.number, e.text, e.content, e.chain) for e in entries]


def as_segments(parts: Iterable[wire.Segment]) -> list[Segment]:
    """Closed parts as a server sends them; their signatures are not checked."""
    return [Segment(p.first, p.head.count, p.before, p.head.chain, p.head.seconds) for p in parts]


def _with(rows: list[AuditRow], archives: Sequence[Sequence[AuditRow]]) -> list[AuditRow]:
    """Entries in order: what the server has, and of what it does not, what is in archives."""
    here = {row.number for row in rows}
    more = {row.number: row for archive in archives for row in archive if row.number not in here}
    return sorted([*rows, *more.values()], key=lambda row: row.number) if more else rows


def _closing_faults(server: str, part: wire.Segment, config: ClusterConfig) -> Iterator[str]:
    """What is wrong with the signature under a closed part. Under which key it was is no matter: keys change, and the
    log's head, under today's, fixes what every part ended with.
    """
    where = f"entries {part.first} to {part.head.count - 1}: "
    if part.head.signature:
        try:
            _check_own(server, part.head)
        except (SecurityError, ValueError) as error:
            yield where + str(error)
    elif not config.local:
        yield where + "they were closed without a signature"


def _check_own(server: str, head: wire.Head) -> x509.Certificate:
    """The certificate that comes with a head, which is of the server's name, and under which it was signed."""
    certificate = x509.load_pem_x509_certificate(head.certificate)
    if name_of(certificate) != server:
        raise SecurityError(f"{server}: its log is signed by {name_of(certificate)}")
    check_head(certificate, server, head.count, head.chain, head.signature)
    return certificate


def _check_signature(server: str, head: wire.Head, config: ClusterConfig) -> None:
    """Who signed is who the cluster's description says, with a certificate that its channel shows too."""
    certificate = _check_own(server, head)
    check_pin(certificate, server, config.pins)
    if config.authority is not None:
        authority = x509.load_pem_x509_certificate(config.authority.read_bytes())
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, TypeError, ValueError):  # its key's kind and its issuer's name count as well
            raise SecurityError(f"{server}: its log is signed with a certificate of another authority") from None
