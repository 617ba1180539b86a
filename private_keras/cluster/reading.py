"""Audit logs as servers send them: signatures checked, entries as rows."""

from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from private_keras.cluster.audit import Head, Log, checked
from private_keras.cluster.client import ServerClient
from private_keras.errors import SecurityError
from private_keras.server.audit import check_head
from private_keras.server.catalogue import AuditRow
from private_keras.server.config import ClusterConfig
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import check_pin, name_of


def read_logs(
    clients: Sequence[ServerClient], told: Sequence[tuple[list[wire.AuditEntry], wire.Head]], config: ClusterConfig,
    seen: Mapping[str, Head],
) -> list[Log]:  # fmt: skip
    """Logs of all servers, with what is wrong with each.

    Args:
        told: by server, what it sent.
        seen: ends of logs that were read before, by server.
    """
    logs = []
    for client, (entries, head) in zip(clients, told, strict=True):
        rows = [AuditRow(e.number, e.text, e.content, e.chain) for e in entries]
        fault, signed = "", False
        if head.signature:
            try:
                _check_signature(client.name, head, config)
                signed = True
            except (SecurityError, ValueError) as error:
                fault = str(error)
        elif not config.local and head.count:
            fault = "it is not signed"
        log = checked(client.name, rows, Head(head.count, head.chain, signed, head.durable), seen.get(client.name))
        log.faults.extend([fault] * bool(fault))
        logs.append(log)
    return logs


def _check_signature(server: str, head: wire.Head, config: ClusterConfig) -> None:
    """Who signed is who the cluster's description says, with a certificate that its channel shows too."""
    certificate = x509.load_pem_x509_certificate(head.certificate)
    if name_of(certificate) != server:
        raise SecurityError(f"{server}: its log is signed by {name_of(certificate)}")
    check_pin(certificate, server, config.pins)
    if config.authority is not None:
        authority = x509.load_pem_x509_certificate(config.authority.read_bytes())
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, TypeError, ValueError):  # its key's kind and its issuer's name count as well
            raise SecurityError(f"{server}: its log is signed with a certificate of another authority") from None
    check_head(certificate, server, head.count, head.chain, head.signature)
