"""A server's directory of sealed files, and the key that opens them. Several processes may use one directory."""

import contextlib
import fcntl
import hashlib
import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from private_keras.errors import ClusterError, PrivateKerasError
from private_keras.server import disk, limits
from private_keras.server.catalogue import Catalogue
from private_keras.server.keyfile import make_key, read_key
from private_keras.server.sealed import Cache, Sealed, Writer, sealed_bytes
from private_keras.transport.unix import check_private

ENDING = ".sealed"


class NoStorage(ClusterError):
    """The server keeps nothing on disk."""


class NewFile:
    """A file that is being written, locked as long as it is.

    Attributes:
        name: random.
    """

    def __init__(self, path: Path, file: BinaryIO, key: bytes):
        self.name = path.name
        self._directory = path.parent
        self._file = file
        self._key = key

    def writer(self, context: bytes, length: int) -> Writer:
        """Takes room on the disk for so many bytes, and seals them as they come."""
        # Now, and not found missing at the end of a long upload.
        os.posix_fallocate(self._file.fileno(), 0, sealed_bytes(length))
        return Writer(self._file, self._key, context, length)

    def sync(self) -> None:
        """All of it is on disk when this returns, and its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        disk.sync(self._directory)


class Vault:
    """Thread safe.

    Args:
        root: the server's directory, made when something is kept first; None: nothing can be kept.
        key: file of the key, made with the first file.
        catalogue: where the key's print is remembered.
    """

    def __init__(self, root: Path | None, key: Path | None, catalogue: Catalogue):
        self._root = root
        self._key_path = key
        self._catalogue = catalogue
        self._key: bytes | None = None
        self._cache = Cache(limits.CACHE_BYTES)
        self._numbers = itertools.count()

    def opened(self) -> Path:
        """The directory; raises `NoStorage` where there is to be none, `SecurityError` where others may enter it."""
        if self._root is None:
            raise NoStorage(
                "this server keeps nothing on disk: start it with --storage DIRECTORY to save shares there"
            )
        if self._root.is_dir():
            check_private(self._root)
        return self._root

    def problem(self) -> str:
        """What keeps it from being used, for whoever operates the server; empty if nothing does."""
        try:
            with disk.errors():
                self.opened()
                if self._catalogue.fact("key") is not None:
                    self.key(make=False)
        except NoStorage:
            return ""
        except PrivateKerasError as error:
            return str(error)
        return ""

    def key(self, make: bool) -> bytes:
        """The server's key; made when there is none yet, and `make`.

        Raises:
            ClusterError: it is missing, another one than it was, or cannot be made.
        """
        if self._key is None:
            known = self._catalogue.fact("key")
            if make and known is None:
                make_key(self._key_path)
            key = read_key(self._key_path)
            print_ = hashlib.sha256(b"private_keras key of storage\0" + key).digest()
            if known is None and make:
                self._catalogue.remember("key", print_)
            elif known != print_:
                raise ClusterError(
                    f"{self._key_path} is not the key that this server's storage was sealed with: put that one back"
                )
            self._key = key
        return self._key

    @contextlib.contextmanager
    def new(self, folder: str) -> Iterator[NewFile]:
        """A file to be filled in a `with` block; gone where that raises."""
        directory = self.opened() / folder
        with disk.errors():
            key = self.key(make=True)
            disk.make(directory)
            path, file = _new_file(directory)
        try:
            with file, disk.errors():
                yield NewFile(path, file, key)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def open(self, folder: str, name: str, context: bytes, length: int, what: str) -> Sealed:
        """A file for reading.

        Raises:
            FileError: of another size than it should be.
            ClusterError: it is gone.
        """
        key = self.key(make=False)
        try:
            descriptor = os.open(self.opened() / folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ClusterError(f"{what}: the file is gone; load an older copy of the directory") from None
        return Sealed(descriptor, next(self._numbers), key, context, length, self._cache, what)

    def remove(self, folder: str, name: str) -> None:
        """Removes a file that may be there."""
        with disk.errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self.opened() / folder / name)

    def finished(self, folder: str) -> Iterator[Path]:
        """Files that nobody is writing, each locked while it is looked at."""
        directory = self.opened() / folder
        for path in sorted(directory.glob(f"*{ENDING}")) if directory.is_dir() else ():
            with locked(path) as free:
                if free:
                    yield path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether no process is writing this file, and none begins to in the `with` block."""
    with contextlib.ExitStack() as held:
        try:
            fcntl.flock(held.enter_context(open(path, "rb")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except FileNotFoundError:
            free = True
        except OSError:
            free = False
        yield free


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
