"""The audit log as a server keeps it: its newest entries, in a chain of hashes, and what closed parts ended with.

Entries of a closed part stay until they are in a file of their own (server/segments.py); its row here stays for ever.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from private_keras.server import limits
from private_keras.server.catalogue.database import Database
from private_keras.server.chain import START, chained, content_of

_AT_ONCE = 10_000  # entries that one transaction removes
_MEASURE = 1000  # entries after which the size of the open part is looked at again
_SEGMENT = "first, count, before, chain, closed, signature, certificate, exported"


@dataclass(frozen=True)
class AuditRow:
    """One entry of the audit log.

    Attributes:
        content: SHA-256 of the text.
        chain: SHA-256 of the chain before, 32 zeros at first, and of `content`.
    """

    number: int
    text: str
    content: bytes
    chain: bytes


@dataclass(frozen=True)
class Segment:
    """A closed part of the log.

    Attributes:
        first: number of its first entry.
        count: of the first entry after it.
        before: chain of the entry before the first; `chain`: of its last one.
        closed: seconds since 1970.
        signature: of the server on `count` and `chain`, as on the head of a log; empty without a certificate.
        certificate: the server's then, PEM.
        exported: whether its entries are in a file.
    """

    first: int
    count: int
    before: bytes
    chain: bytes
    closed: float
    signature: bytes = b""
    certificate: bytes = b""
    exported: bool = False


# Signs how many entries there are and the chain of the last one; signature and certificate, empty without one.
Sign = Callable[[int, bytes], tuple[bytes, bytes]]


class LogTable:
    """Thread safe."""

    def __init__(self, database: Database):
        self._database = database
        self._measured = 0

    def append(self, text: str) -> int:
        """Appends an entry, on disk when this returns; its number, from 0."""
        content = content_of(text)
        with self._database.transaction() as database:
            number, chain = self.end()
            entry = number, text, content, chained(chain, content)
            database.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", entry)
            return number

    def end(self) -> tuple[int, bytes]:
        """How many entries there ever were, and the chain of the last one."""
        with self._database.reading() as database:
            last = database.execute("SELECT number + 1, chain FROM audit ORDER BY number DESC LIMIT 1").fetchone()
            if last is None:
                last = database.execute("SELECT count, chain FROM segments ORDER BY first DESC LIMIT 1").fetchone()
        return (0, START) if last is None else last

    def read(self, start: int = 0, count: int = 1000) -> list[AuditRow]:
        """Up to `count` entries from number `start` on, of those that are here."""
        query = "SELECT number, text, content, chain FROM audit WHERE number >= ? ORDER BY number LIMIT ?"
        with self._database.reading() as database:
            return [AuditRow(*found) for found in database.execute(query, (start, count))]

    # --- closed parts -------------------------------------------------------------------------------------------------
    def segments(self, start: int = 0) -> list[Segment]:
        """Closed parts with entries from number `start` on, oldest first."""
        query = f"SELECT {_SEGMENT} FROM segments WHERE count > ? ORDER BY first"
        with self._database.reading() as database:
            return [Segment(*found[:-1], bool(found[-1])) for found in database.execute(query, (start,))]

    def full(self) -> bool:
        """Whether the open part is long enough to be closed."""
        first, count = self._opened()[0], self.end()[0]
        if count - first >= limits.SEGMENT_ENTRIES:
            return True
        if not 0 <= count - self._measured < _MEASURE:
            self._measured = count
            with self._database.reading() as database:
                query = "SELECT coalesce(sum(length(text)), 0) FROM audit WHERE number >= ?"
                return database.execute(query, (first,)).fetchone()[0] >= limits.SEGMENT_BYTES
        return False

    def _opened(self) -> tuple[int, bytes]:
        """Number of the first entry of the open part, and the chain before it."""
        with self._database.reading() as database:
            last = database.execute("SELECT count, chain FROM segments ORDER BY first DESC LIMIT 1").fetchone()
        return (0, START) if last is None else last

    def close(self, sign: Sign) -> None:
        """Closes the open part where it is, if there is anything in it."""
        with self._database.transaction() as database:
            (first, before), (count, chain) = self._opened(), self.end()
            if count > first:
                signature, certificate = sign(count, chain)
                row = first, count, before, chain, time.time(), signature, certificate, False
                database.execute(f"INSERT INTO segments ({_SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def exported(self, segment: Segment) -> None:
        """The part's entries are in a file, on disk."""
        with self._database.transaction() as database:
            database.execute("UPDATE segments SET exported = 1 WHERE first = ?", (segment.first,))

    def tidy(self) -> None:
        """Removes entries that are in files."""
        with self._database.reading() as database:
            query = "SELECT coalesce(max(count), 0) FROM segments WHERE exported"
            (end,) = database.execute(query).fetchone()
            (first,) = database.execute("SELECT coalesce(min(number), ?) FROM audit", (end,)).fetchone()
        while first < end:
            first = min(first + _AT_ONCE, end)
            with self._database.transaction() as database:
                database.execute("DELETE FROM audit WHERE number < ?", (first,))
