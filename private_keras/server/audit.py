"""The audit log of one server: what was done with named shares and opened to whom; never a value.

Entries are JSON texts in a chain: an entry's `chain` is SHA-256 of the chain before it (32 zeros at first) and of the
text's own SHA-256, its `content`. Who keeps a chain value notices whatever is changed, removed, put in or reordered
before it, and who keeps the largest number that the log is cut short. Parties see entries that concern them, and the
two hashes of all others, which is enough to verify the chain.

What a client does with data of its own alone is not in it: it concerns nobody else.
"""

import datetime
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from private_keras.errors import FileError, SecurityError
from private_keras.server import disk, limits, segments
from private_keras.server.catalogue import AuditRow, Catalogue, Segment, Sign
from private_keras.server.chain import chained, content_of

_PARTIES = "parties"
_SIGNED = b"private_keras audit head\0"


class Audit:
    """Thread safe.

    Args:
        catalogue: where entries are kept: on disk, or in memory alone where the server has no storage.
        server: its name.
        sign: signs heads.
    """

    def __init__(self, catalogue: Catalogue, server: str, sign: Sign = lambda count, chain: (b"", b"")):
        self._catalogue = catalogue
        self._log = catalogue.log
        self._server = server
        self._directory = None if catalogue.directory is None else catalogue.directory / segments.FOLDER
        self.sign = sign
        self._lock = threading.Lock()
        self._refused: OrderedDict[str, tuple[float, int]] = OrderedDict()

    @property
    def durable(self) -> bool:
        """Whether it outlives the process."""
        return self._catalogue.durable

    def write(self, event: str, parties: Iterable[str], **facts: Any) -> None:
        """Appends an entry, on disk when this returns.

        Args:
            event: what happened.
            parties: whom it concerns, and who may read it.
            **facts: for JSON; names, sizes and digests, never values.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        entry = {"time": now, "server": self._server, "event": event, _PARTIES: sorted(set(parties)), **facts}
        self._catalogue.log.append(json.dumps(entry, sort_keys=True, separators=(",", ":")))

    def refused(self, caller: str, owners: Iterable[str], call: str, reason: str) -> None:
        """Appends a refusal, as long as a caller is not refused more than so often an hour: a log must not be filled by
        who is turned away.

        Args:
            owners: whose policies it was for.
        """
        now = time.monotonic()
        with self._lock:
            began, count = self._refused.pop(caller, (now, 0))
            if now - began > 3600:
                began, count = now, 0
            self._refused[caller] = began, count + 1
            while len(self._refused) > limits.MAX_HANDLES:
                self._refused.popitem(last=False)
        if count < limits.REFUSALS:
            more = {"more": "not logged for an hour"} if count + 1 == limits.REFUSALS else {}
            reason = reason[: limits.DETAIL_CHARACTERS]
            self.write("refused", [caller, *owners], caller=caller, call=call, reason=reason, **more)

    def tend(self) -> None:
        """Closes a part of the log that is long enough, and moves closed parts from the catalogue to files: so that
        the catalogue stays small, and the operator can move them on. To be called now and then.
        """
        if self._directory is None:
            return
        with disk.errors():
            if self._log.full():
                self._log.close(self.sign)
            if all(segment.exported for segment in self._log.segments()):
                return
            with segments.exporting(self._directory):
                for segment in self._log.segments():
                    if not segment.exported:
                        segments.write(self._directory, self._server, segment, self._rows(segment))
                        self._log.exported(segment)
            self._log.tidy()

    def _rows(self, segment: Segment) -> Iterator[AuditRow]:
        """Entries of a part that are in the catalogue."""
        at = segment.first
        while at < segment.count:
            rows = self._log.read(at, min(1000, segment.count - at))
            if [row.number for row in rows] != list(range(at, at + max(1, len(rows)))):
                raise FileError(f"the catalogue is damaged: of entries {at} to {segment.count - 1} some are missing")
            yield from rows
            at += len(rows)

    def entries(self, start: int, reader: str) -> Iterator[AuditRow]:
        """All entries from a number on that this server still has, without the texts that do not concern the reader."""
        at = start
        while True:
            segment = next(iter(self._log.segments(at)), None)
            if segment is not None and segment.exported:
                for row in self._exported(segment):
                    if row.number >= at:
                        yield _told(row, reader)
                at = segment.count
                continue
            rows = self._log.read(at)
            if rows and rows[0].number > at and any(s.exported for s in self._log.segments(at)):
                continue  # moved to a file meanwhile
            for row in rows:
                yield _told(row, reader)
            if not rows:
                return
            at = rows[-1].number + 1

    def _exported(self, segment: Segment) -> Iterator[AuditRow]:
        """Entries of a part that are in a file; none where that was moved away."""
        with disk.errors():
            try:
                yield from segments.rows_in(self._directory, segment)
            except FileNotFoundError:
                return

    def segments(self, start: int = 0) -> list[Segment]:
        """Closed parts of the log with entries from a number on, whether these are here or not."""
        return self._log.segments(start)


def _told(row: AuditRow, reader: str) -> AuditRow:
    return row if concerns(row.text, reader) else AuditRow(row.number, "", row.content, row.chain)


def concerns(text: str, reader: str) -> bool:
    """Whether an entry is for somebody to read."""
    try:
        return reader in json.loads(text)[_PARTIES]
    except (ValueError, KeyError, TypeError):  # damaged, which the chain shows
        return False


# --- heads ------------------------------------------------------------------------------------------------------------
def _statement(server: str, count: int, chain: bytes) -> bytes:
    return _SIGNED + f"{server}\0{count}\0".encode() + chain


def sign_head(key: bytes, server: str, count: int, chain: bytes) -> bytes:
    """A server's signature on how long its log is and what its chain ends with.

    Args:
        key: the server's private key, PEM. TLS signs texts of another form with it.
    """
    return load_pem_private_key(key, None).sign(_statement(server, count, chain), ec.ECDSA(hashes.SHA256()))


def check_head(certificate: x509.Certificate, server: str, count: int, chain: bytes, signature: bytes) -> None:
    """Raises `SecurityError` for a signature that the server with this certificate did not make."""
    try:
        certificate.public_key().verify(signature, _statement(server, count, chain), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SecurityError(f"{server}: the signature on its audit log's head is not its own") from None


# --- verification -----------------------------------------------------------------------------------------------------
def verify(rows: Iterable[AuditRow], before: bytes, number: int, fault: Callable[[str], None]) -> bytes:
    """Checks consecutive entries of a log.

    Args:
        before: chain before the first of them.
        number: of the first.
        fault: told each place where the log is not what it should be.

    Returns:
        The chain after the last one.
    """
    for row in rows:
        if row.number != number:
            fault(f"entry {number} is missing: {row.number} comes next")
        if row.text and content_of(row.text) != row.content:
            fault(f"entry {row.number}: the text is not what was logged")
        if chained(before, row.content) != row.chain:
            fault(f"entry {row.number}: changed, or put here later")
        before, number = row.chain, row.number + 1
    return before
