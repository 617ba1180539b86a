"""The audit log of one server: what was done with named shares and opened to whom; never a value.

Entries are JSON texts in a chain: an entry's `chain` is SHA-256 of the chain before it (32 zeros at first) and of the
text's own SHA-256, its `content`. Who keeps a chain value notices whatever is changed, removed, put in or reordered
before it, and who keeps the largest number that the log is cut short. Parties see entries that concern them, and the
two hashes of all others, which is enough to verify the chain.

What a client does with data of its own alone is not in it: it concerns nobody else.
"""

import datetime
import hashlib
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

from private_keras.errors import SecurityError
from private_keras.server import limits
from private_keras.server.catalogue import AuditRow, Catalogue

START = bytes(32)
_PARTIES = "parties"
_SIGNED = b"private_keras audit head\0"


def content_of(text: str) -> bytes:
    """SHA-256 of an entry's text."""
    return hashlib.sha256(text.encode()).digest()


def chained(before: bytes, content: bytes) -> bytes:
    """The chain after an entry."""
    return hashlib.sha256(before + content).digest()


class Audit:
    """Thread safe.

    Args:
        catalogue: where entries are kept: on disk, or in memory alone where the server has no storage.
        server: its name.
    """

    def __init__(self, catalogue: Catalogue, server: str):
        self._catalogue = catalogue
        self._server = server
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

    def entries(self, start: int, reader: str) -> Iterator[AuditRow]:
        """All entries from a number on, without the texts that do not concern the reader."""
        while rows := self._catalogue.log.read(start):
            for row in rows:
                yield row if concerns(row.text, reader) else AuditRow(row.number, "", row.content, row.chain)
            start = rows[-1].number + 1


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
