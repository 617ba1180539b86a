"""SQLite under a server's catalogue: every change is one transaction that is on disk when its call returns (WAL,
synchronous FULL). Several processes may use one file.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from private_keras.errors import ClusterError, FileError
from private_keras.server import disk
from private_keras.transport.unix import check_private

FILE = "catalogue.db"
TURN = "catalogue.turn"
BUSY_SECONDS = 30.0  # for the next turn, and for the transaction before
_LOOK_AGAIN = 0.002  # seconds
# One script for each format: what it has more than the one before.
_FORMATS = (
    """
CREATE TABLE snapshots (
  id INTEGER PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, number TEXT NOT NULL, nonce TEXT NOT NULL,
  state TEXT NOT NULL, about TEXT NOT NULL, entries TEXT NOT NULL, policy TEXT NOT NULL, bytes INTEGER NOT NULL,
  created REAL NOT NULL, file TEXT NOT NULL, uses INTEGER NOT NULL DEFAULT 0,
  UNIQUE (owner, name, number, nonce));
CREATE TABLE audit (number INTEGER PRIMARY KEY, text TEXT NOT NULL, content BLOB, chain BLOB);
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
""",
    """
CREATE TABLE deliveries (
  job BLOB NOT NULL, receiver TEXT NOT NULL, sender TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
  servers INTEGER NOT NULL, outputs TEXT NOT NULL, created REAL NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (job, receiver));
""",
    # Whether others may have made something of it: of what was there before nobody knows.
    "ALTER TABLE snapshots ADD COLUMN lent INTEGER NOT NULL DEFAULT 1",
    """
CREATE TABLE segments (
  first INTEGER PRIMARY KEY, count INTEGER NOT NULL, before BLOB NOT NULL, chain BLOB NOT NULL, closed REAL NOT NULL,
  signature BLOB NOT NULL, certificate BLOB NOT NULL, exported INTEGER NOT NULL DEFAULT 0);
""",
    "ALTER TABLE snapshots ADD COLUMN ties BLOB NOT NULL DEFAULT x''",
)
VERSION = len(_FORMATS)


class Database:
    """Thread safe.

    Args:
        directory: where its file is, made when something is written first; None: in memory, gone with the process.
    """

    def __init__(self, directory: Path | None):
        self._path = None if directory is None else directory / FILE
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._nothing: sqlite3.Connection | None = None

    @property
    def durable(self) -> bool:
        """Whether it outlives the process."""
        return self._path is not None

    @property
    def directory(self) -> Path | None:
        """Where its file is; None: nowhere."""
        return None if self._path is None else self._path.parent

    def fact(self, name: str) -> bytes | None:
        """What was remembered under a name."""
        with self.reading() as database:
            found = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return None if found is None else found[0]

    def remember(self, name: str, value: bytes) -> None:
        """Remembers a value under a name, for ever: it cannot be changed; raises `ClusterError` if it is another."""
        with self.transaction() as database:
            database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
            if self.fact(name) != value:
                raise ClusterError(f"the catalogue has another {name}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All changes of a `with` block or none; on disk at its end. One inside another is part of that one."""
        with self._lock, disk.errors(), _errors():
            database = self._connected()
            if database.in_transaction:
                yield database
                return
            with self._turn():
                _begin(database)
            try:
                yield database
                _commit(database)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The database for queries in a `with` block; makes no file where there is none."""
        with self._lock, disk.errors(), _errors():
            if self._database is None and self._path is not None and not self._path.exists():
                if self._nothing is None:
                    self._nothing = _prepared(_connect(":memory:"))
                yield self._nothing
            else:
                yield self._connected()

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            name = ":memory:" if self._path is None else str(self._path)
            if self._path is not None:
                disk.make(self._path.parent)
                check_private(self._path.parent)
                self._make()
            database = _connect(name)
            try:
                with self._turn():
                    self._database = _prepared(database)
            except BaseException:
                database.close()
                raise
        return self._database

    def _make(self) -> None:
        """The file, for this user alone; SQLite gives its other files the mode of this one.

        A file that is there is not opened: closing it would take the locks of other connections of this process.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if self._path.is_symlink():
            raise FileError("expected the catalogue to be a file. Received: a symbolic link")

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else asks SQLite for its write lock in the `with` block.

        SQLite's own wait looks again now and then, ever more rarely, and who writes one transaction after another is
        nearly always there first where a disk is slow. A writer that waits with the turn in its hands is the next one.
        """
        if self._path is None:
            yield
            return
        path, flags = self._path.with_name(TURN), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        until = time.monotonic() + BUSY_SECONDS
        with open(os.open(path, flags, 0o600)) as turn:
            while True:
                try:
                    fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise ClusterError(
                            f"the catalogue is locked by another process for {BUSY_SECONDS:.0f} s"
                        ) from None
                time.sleep(_LOOK_AGAIN)
            yield

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            for database in (self._database, self._nothing):
                if database is not None:
                    database.close()
            self._database = self._nothing = None


def _begin(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")


def _commit(database: sqlite3.Connection) -> None:
    database.execute("COMMIT")


def _connect(name: str) -> sqlite3.Connection:
    return sqlite3.connect(name, BUSY_SECONDS, check_same_thread=False, isolation_level=None)


def _prepared(database: sqlite3.Connection) -> sqlite3.Connection:
    if not 0 <= _version(database) <= VERSION:
        raise FileError(
            f"expected a catalogue of format {VERSION} or before. Received: format {_version(database)}, of a later "
            "release"
        )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA trusted_schema = OFF")
    if _version(database) < VERSION:
        _begin(database)
        # Another process may have been first.
        for script in _FORMATS[_version(database):]:
            for statement in script.split(";"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {VERSION}")
        _commit(database)
    return database


def _version(database: sqlite3.Connection) -> int:
    return database.execute("PRAGMA user_version").fetchone()[0]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """SQLite's errors as errors of ours, without paths and values."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ClusterError(f"the server's disk refuses: catalogue: {error}") from None
    except sqlite3.DatabaseError as error:
        raise FileError(f"the catalogue is damaged: {error}; load an older copy of the directory") from None
