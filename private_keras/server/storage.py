"""Saved shares on one server's disk: written whole or not at all, found again after a restart.

A generation is written under a temporary name, synced, and renamed to `*.written`; a second call renames it to
`*.shares`. Between the two all servers have it, so a client that commits on all of them leaves, wherever it or they
break off, either an older generation or the new one on all three, never half of one.
"""

import base64
import binascii
import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from private_keras.errors import ClusterError, FileError, HandleNotFound, InputError, SecurityError
from private_keras.server import limits
from private_keras.server.material import Material
from private_keras.server.snapshot import Head, SavedTensor, read_head, read_parts, write
from private_keras.transport.unix import check_private

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,79}", re.ASCII)
NONCE_BYTES = 8
WRITTEN, COMMITTED, TEMPORARY = ".written", ".shares", ".tmp"
_FILE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})(\.written|\.shares)")


class NoStorage(ClusterError):
    """The server keeps nothing on disk."""


@dataclass(frozen=True, order=True)
class Generation:
    """One of those that a client saved under a name; the largest is the newest."""

    name: str
    number: int
    nonce: bytes

    @property
    def file(self) -> str:
        """Its file's name without the ending."""
        return f"{self.number:016x}-{self.nonce.hex()}"


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
    """

    def __init__(self, directory: Path | None, protocol: str, party: int):
        self._protocol = protocol
        self._party = party
        self._lock = threading.Lock()
        self._root = None if directory is None else directory / f"{protocol}-server{party}"
        # A directory that others may enter is refused when it is used, and not before: predictions need none.
        with contextlib.suppress(SecurityError):
            if self._root is not None and self._root.is_dir():
                check_private(self._root)
                _sweep(self._root)

    def save(
        self, owner: str, generation: Generation, about: str, items: Sequence[tuple[SavedTensor, Material]]
    ) -> None:
        """Writes a generation, which counts once it is committed.

        Raises:
            NoStorage: the server was started without a directory.
            ClusterError: no room, or the disk refuses.
            InputError: a generation that exists.
        """
        entries = tuple(item for item, _ in items)
        nonce = generation.nonce.hex()
        head = Head(
            self._protocol, self._party, owner, generation.name, generation.number, nonce, about, entries
        )  # fmt: skip
        with self._lock, _disk():
            root = self._opened()
            used, files = _usage(root)
            if used + 8 * head.words > limits.STORAGE_BYTES or files >= limits.MAX_SAVED:
                raise ClusterError(
                    f"no room for {8 * head.words} bytes more on disk: {used} of {limits.STORAGE_BYTES} bytes and "
                    f"{files} of {limits.MAX_SAVED} files are taken; forget what is no longer used"
                )
            directory = self._directory(owner, generation.name)
            _make(directory)
            target = directory / (generation.file + WRITTEN)
            if target.exists() or target.with_suffix(COMMITTED).exists():
                raise InputError("this generation is saved already; every save needs a fresh one")
            _write_whole(target, head, [part for _, part in items])

    def commit(self, owner: str, generation: Generation) -> None:
        """Makes a generation that was written one that can be loaded; without effect on one that is committed."""
        with self._lock, _disk():
            written = self._directory(owner, generation.name) / (generation.file + WRITTEN)
            committed = written.with_suffix(COMMITTED)
            if written.exists():
                os.rename(written, committed)
                _sync(committed.parent)
            elif not committed.exists():
                raise _missing(generation.name)

    def saved(self, owner: str, name: str = "") -> list[tuple[Generation, bool]]:
        """The owner's generations, of one name or of all, and whether they are committed."""
        with self._lock, _disk():
            base = self._opened() / _encoded(owner)
            names = [name] if name else sorted(filter(None, map(_decoded, _children(base))))
            found = []
            for each in names:
                for file in _children(self._directory(owner, each)):
                    match = _FILE.fullmatch(file)
                    if match:
                        number, nonce, kind = int(match[1], 16), bytes.fromhex(match[2]), match[3]
                        found.append((Generation(each, number, nonce), kind == COMMITTED))
            return found

    @contextlib.contextmanager
    def opened(self, owner: str, generation: Generation) -> Iterator["Opened"]:
        """A committed generation of this owner, open for reading.

        Raises:
            HandleNotFound: there is none.
            FileError: damaged, or another's.
        """
        what = f"saved shares {generation.name!r}"
        path = self._directory(owner, generation.name) / (generation.file + COMMITTED)
        with _disk():
            try:
                file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
            except FileNotFoundError:
                raise _missing(generation.name) from None
        with file, _disk():
            head = read_head(file, what)
            said = (head.protocol, head.party, head.owner, head.name, head.number, head.nonce)
            expected = (self._protocol, self._party, owner, generation.name, generation.number, generation.nonce.hex())
            if said != expected:
                raise FileError(f"{what}: the file belongs to another owner, server or generation")
            yield Opened(file, head, what)

    def forget(self, owner: str, generations: Sequence[Generation]) -> int:
        """Removes the owner's files among these; returns how many there were."""
        removed = 0
        with self._lock, _disk():
            for generation in generations:
                directory = self._directory(owner, generation.name)
                for kind in (WRITTEN, COMMITTED):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(directory / (generation.file + kind))
                        removed += 1
                with contextlib.suppress(OSError):
                    directory.rmdir()  # if it was the last
        return removed

    def _opened(self) -> Path:
        if self._root is None:
            raise NoStorage(
                "this server keeps nothing on disk: start it with --storage DIRECTORY to save shares there"
            )
        if self._root.is_dir():
            check_private(self._root)
        return self._root

    def _directory(self, owner: str, name: str) -> Path:
        return self._opened() / _encoded(owner) / _encoded(name)


@dataclass(frozen=True)
class Opened:
    """A snapshot's head, and its tensors when they are wanted."""

    file: BinaryIO
    head: Head
    what: str

    def read(self) -> list[Material]:
        """All tensors; raises `FileError` for a damaged file."""
        return read_parts(self.file, self.head, self.what)


def _missing(name: str) -> HandleNotFound:
    return HandleNotFound(f"no shares are saved as {name!r} on this server, or by another identity")


def _encoded(name: str) -> str:
    """A name as a file's: any text, no case, no dots, never empty."""
    return "n" + base64.b32encode(name.encode()).decode().rstrip("=").lower()


def _decoded(file: str) -> str:
    """The name; empty for a file that is none of ours."""
    try:
        name = base64.b32decode(file[1:].upper() + "=" * (-len(file[1:]) % 8)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        return ""
    return name if NAME.fullmatch(name) and _encoded(name) == file else ""


def _children(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _usage(root: Path) -> tuple[int, int]:
    """Bytes and number of all files."""
    sizes = [path.lstat().st_size for path in root.glob("*/*/*")]
    return sum(sizes), len(sizes)


def _make(directory: Path) -> None:
    """The directory and those above it, on disk, for this user alone."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        _sync(each.parent)


def _write_whole(target: Path, head: Head, parts: Sequence[Material]) -> None:
    """A file that is either there with all its bytes on disk, or not there."""
    temporary = target.parent / f"{target.stem}.{secrets.token_hex(4)}{TEMPORARY}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # in use: not what `_sweep` removes
            write(file, head, parts)
            file.flush()
            os.fsync(file.fileno())
            os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync(target.parent)


def _sync(directory: Path) -> None:
    """Puts the directory's entries on disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(root: Path) -> None:
    """Removes what a server that was killed left half written."""
    for path in root.glob(f"*/*/*{TEMPORARY}"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Errors of the file system as errors of ours, without the path."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise ClusterError(f"the server's disk refuses: {error.strerror or type(error).__name__}") from None
