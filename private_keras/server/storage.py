"""Named shares on one server's disk: written whole or not at all, sealed, found again after a restart.

The catalogue says what there is; a file counts when its row says so, and a row says so when the file is on disk with
all its bytes. A second call commits a generation, which can then be loaded. Between the two all servers have it, so a
client that commits on all of them leaves, wherever it or they break off, either an older generation or the new one on
all three, never half of one.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import secrets
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from private_keras.errors import ClusterError, HandleNotFound, InputError, PrivateKerasError
from private_keras.ring.kernel import Kernel
from private_keras.server import disk, limits
from private_keras.server.catalogue import COMMITTED, FORGOTTEN, WRITING, WRITTEN, Catalogue, Row
from private_keras.server.entries import SavedTensor, to_json
from private_keras.server.keyfile import key_file, keys_beside, make_key, read_key
from private_keras.server.mapped import Mapped, disk_bytes
from private_keras.server.policy import Policy
from private_keras.server.sealed import Cache, Sealed, Writer, sealed_bytes
from private_keras.server.terms import Source
from private_keras.transport.unix import check_private

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,79}", re.ASCII)
NONCE_BYTES = 8
FILES, ENDING = "shares", ".sealed"


class NoStorage(ClusterError):
    """The server keeps nothing on disk."""


@dataclass(frozen=True, order=True)
class Generation:
    """One of those that a client saved under a name; the largest is the newest."""

    name: str
    number: int
    nonce: bytes

    def of(self, owner: str) -> Source:
        """It as what shares come from."""
        return Source(owner, self.name, self.number, self.nonce.hex())


def generation_of(source: Source) -> Generation:
    """A source without its owner."""
    return Generation(source.name, source.number, bytes.fromhex(source.nonce))


def check_name(name: str) -> str:
    """A name that can be saved under; raises `InputError`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            "expected a name of 1 to 80 letters, digits and _ . : / - that starts with a letter, digit or _. "
            f"Received: {ascii(name)[:100]}"
        )
    return name


class Storage:
    """One server's directory; thread safe, and several servers may use one directory.

    Args:
        directory: made when something is saved first; None: nothing can be saved.
        protocol, party: whose shares these are.
        keys: directory of the key that seals them, made with it; None: beside `directory`.
    """

    def __init__(self, directory: Path | None, protocol: str, party: int, keys: Path | None = None):
        self._party = party
        self._place = f"{protocol}-server{party}"
        self._root = None if directory is None else directory / self._place
        self.catalogue = Catalogue(self._root)
        self._cache = Cache(limits.CACHE_BYTES)
        self._lock = threading.Lock()
        self._key: bytes | None = None
        self._files: weakref.WeakValueDictionary[str, Sealed] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()
        if directory is not None:
            self._key_path = key_file(keys_beside(directory) if keys is None else keys, f"server{party}")
            # What is wrong with the directory is said when it is used, and not before: predictions need none.
            with contextlib.suppress(PrivateKerasError, OSError):
                self._sweep()

    def problem(self) -> str:
        """What keeps it from being used, for whoever operates the server; empty if nothing does."""
        try:
            with disk.errors():
                self._opened()
                if self.catalogue.fact("key") is not None:
                    self._unsealing(make=False)
        except NoStorage:
            return ""
        except PrivateKerasError as error:
            return str(error)
        return ""

    @contextlib.contextmanager
    def writing(
        self, owner: str, generation: Generation, about: str, entries: Sequence[SavedTensor], policy: Policy
    ) -> Iterator[Writer]:
        """A new generation's file, to be filled in the `with` block, entry by entry; counts once it is committed.

        Raises:
            NoStorage: the server was started without a directory.
            ClusterError: no room, the disk refuses, or the key is missing.
            InputError: a generation that exists, or that was not filled.
        """
        source, entries = generation.of(owner), tuple(entries)
        length = sum(disk_bytes(self._party, e.size, e.seeded) for e in entries)
        directory = self._opened() / FILES
        with disk.errors():
            key = self._unsealing(make=True)
            disk.make(directory)
            path, file = _new_file(directory)
        row = None
        try:
            with file, disk.errors():
                row = self.catalogue.names.begin(source, about, entries, policy, sealed_bytes(length), path.name)
                # Room on the disk is taken now, and not found missing at the end of a long upload.
                os.posix_fallocate(file.fileno(), 0, sealed_bytes(length))
                writer = Writer(file, key, self._context(source, about, to_json(entries)), length)
                yield writer
                if writer.left:
                    raise InputError(f"expected {length} bytes of material. Received: {length - writer.left}")
                file.flush()
                os.fsync(file.fileno())
                disk.sync(directory)
                self.catalogue.names.finish(row)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            if row is not None:
                with contextlib.suppress(PrivateKerasError):
                    self.catalogue.names.drop(row)
            raise

    def commit(self, owner: str, generation: Generation) -> None:
        """Makes a generation that was written one that can be loaded; without effect on one that is committed."""
        self._opened()
        if not self.catalogue.names.commit(generation.of(owner)):
            raise _missing(generation.name)

    def saved(self, owner: str, name: str = "") -> Iterator[Row]:
        """The owner's generations, of one name or of all, committed or not yet."""
        self._opened()
        return self.catalogue.names.listed(owner, name)

    def usable(self, party: str, name: str = "") -> Iterator[Row]:
        """What others own and let the party use."""
        self._opened()
        return self.catalogue.names.usable(party, name)

    def opened(self, owner: str, generation: Generation) -> "Opened":
        """A committed generation of this owner.

        Raises:
            HandleNotFound: there is none.
            FileError: damaged, or not what the catalogue says.
        """
        self._opened()
        row = self.catalogue.names.find(generation.of(owner))
        if row is None or row.state != COMMITTED:
            raise _missing(generation.name)
        what = f"saved shares {generation.name!r}"
        with self._lock, disk.errors():
            sealed = self._files.get(row.file)
            if sealed is None:
                key = self._unsealing(make=False)
                length = sum(disk_bytes(self._party, e.size, e.seeded) for e in row.entries)
                context = self._context(row.source, row.about, row.entries_text)
                try:
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    descriptor = os.open(self._opened() / FILES / row.file, flags)
                except FileNotFoundError:
                    raise ClusterError(f"{what}: the file is gone; load an older copy of the directory") from None
                sealed = Sealed(descriptor, next(self._numbers), key, context, length, self._cache, what)
                self._files[row.file] = sealed
        return Opened(row, sealed, self._party)

    def forget(self, owner: str, generations: Sequence[Generation]) -> int:
        """Removes the owner's generations among these; returns how many there were. Their policies stay."""
        removed = 0
        root = self._opened()
        for generation in generations:
            file = self._forgotten(generation.of(owner))
            if file is not None:
                removed += 1
                self._remove(root / FILES / file)
        return removed

    def _forgotten(self, source: Source) -> str | None:
        try:
            return self.catalogue.names.forget(source)
        except ClusterError:
            # A disk without room even for that has some when the file is gone. A crash between the two leaves a row
            # without a file, which can be forgotten again.
            row = self.catalogue.names.find(source)
            if row is None or row.state not in (WRITTEN, COMMITTED):
                raise
            with disk.errors(), contextlib.suppress(FileNotFoundError):
                os.unlink(self._opened() / FILES / row.file)
            return self.catalogue.names.forget(source)

    def _remove(self, path: Path) -> None:
        with disk.errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.catalogue.names.removed(path.name)

    def _context(self, source: Source, about: str, entries: str) -> bytes:
        """What a file is bound to: all that its row says and that does not change."""
        said = [self._place, source.owner, source.name, source.number, source.nonce, about, entries]
        return hashlib.sha256(json.dumps(said).encode()).digest()

    def _unsealing(self, make: bool) -> bytes:
        """The server's key; made when the first file is."""
        if self._key is None:
            known = self.catalogue.fact("key")
            if make and known is None:
                make_key(self._key_path)
            key = read_key(self._key_path)
            print_ = hashlib.sha256(b"private_keras key of storage\0" + key).digest()
            if known is None and make:
                self.catalogue.remember("key", print_)
            elif known != print_:
                raise ClusterError(
                    f"{self._key_path} is not the key that this server's storage was sealed with: put that one back"
                )
            self._key = key
        return self._key

    def _opened(self) -> Path:
        if self._root is None:
            raise NoStorage(
                "this server keeps nothing on disk: start it with --storage DIRECTORY to save shares there"
            )
        if self._root.is_dir():
            check_private(self._root)
        return self._root

    def _sweep(self) -> None:
        """Removes what a server that was killed left half written, and what no client came back for."""
        directory = self._opened() / FILES
        known = self.catalogue.names.files()
        for path in directory.glob(f"*{ENDING}") if directory.is_dir() else ():
            # A file that the catalogue does not know may belong to a catalogue that was lost: only an empty one goes.
            if path.name not in known and not path.lstat().st_size and not _in_use(path):
                path.unlink()
        for row in self.catalogue.names.unfinished():
            path = directory / row.file
            if row.state == FORGOTTEN:
                self._remove(path)
            elif row.state == WRITING and not _in_use(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                self.catalogue.names.drop(row.id)
            elif row.state == WRITTEN and row.created < time.time() - 2 * limits.MAX_SECONDS:
                self.forget(row.source.owner, [generation_of(row.source)])


@dataclass(frozen=True)
class Opened:
    """A generation that can be read."""

    row: Row
    sealed: Sealed
    party: int

    def tensors(self, kernel: Kernel) -> list[Mapped]:
        """All of its tensors, on disk; raises `FileError` where one's beginning is damaged."""
        result, start = [], 0
        for entry in self.row.entries:
            result.append(Mapped(self.sealed, start, self.party, kernel, entry.size, entry.seeded))
            start += disk_bytes(self.party, entry.size, entry.seeded)
        return result


def _missing(name: str) -> HandleNotFound:
    return HandleNotFound(f"no shares are saved as {name!r} on this server, or by another identity")


def _new_file(directory: Path) -> tuple[Path, BinaryIO]:
    """A new file, locked as long as it is open: in use, and not what a sweep removes."""
    while True:
        path = directory / (secrets.token_hex(16) + ENDING)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = open(os.open(path, flags, 0o600), "wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # swept before it was locked


def _in_use(path: Path) -> bool:
    """Whether a process is writing this file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
