"""The audit log's entries as a server keeps them, in a chain of hashes."""

import hashlib
from dataclasses import dataclass

from private_keras.server.catalogue.database import Database


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


class LogTable:
    """Thread safe."""

    def __init__(self, database: Database):
        self._database = database

    def append(self, text: str) -> int:
        """Appends an entry, on disk when this returns; its number, from 0."""
        content = hashlib.sha256(text.encode()).digest()
        with self._database.transaction() as database:
            last = database.execute("SELECT number, chain FROM audit ORDER BY number DESC LIMIT 1").fetchone()
            number, chain = (0, bytes(32)) if last is None else (last[0] + 1, last[1])
            entry = number, text, content, hashlib.sha256(chain + content).digest()
            database.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", entry)
            return number

    def read(self, start: int = 0, count: int = 1000) -> list[AuditRow]:
        """Up to `count` entries from number `start` on."""
        query = "SELECT number, text, content, chain FROM audit WHERE number >= ? ORDER BY number LIMIT ?"
        with self._database.reading() as database:
            return [AuditRow(*found) for found in database.execute(query, (start, count))]
