"""The key under which a server seals what it keeps on disk."""

import contextlib
import os
import secrets
from pathlib import Path

from private_keras.errors import ClusterError, SecurityError
from private_keras.server import disk
from private_keras.server.sealed import KEY_BYTES


def key_file(keys: Path, server: str) -> Path:
    """Where a server's key is."""
    return keys / f"{server}.store"


def keys_beside(storage: Path) -> Path:
    """The directory for keys of servers without certificates: never in the one that is copied or stolen as a whole."""
    return storage.with_name(storage.name + ".keys")


def read_key(path: Path) -> bytes:
    """A server's key.

    Raises:
        ClusterError: there is none, or it is damaged.
        SecurityError: others than this user may read it.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        raise ClusterError(
            f"the key that seals this server's storage, {path}, is missing: put it back from your copy. Without it "
            "what was saved is lost; to begin anew, move the storage away"
        ) from None
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SecurityError(
            f"the key that seals a server's storage, {path}, must belong to this user and have mode 0600. "
            f"Received: owner {found.st_uid}, mode {found.st_mode & 0o777:04o}"
        )
    if len(key) != KEY_BYTES:
        raise ClusterError(f"{path}: expected a key of {KEY_BYTES} bytes. Received: another size; put back your copy")
    return key


def make_key(path: Path) -> None:
    """A fresh key, unless there is one; on disk when this returns, whole, whoever else makes one at the same time.

    Raises:
        ClusterError: the directory cannot be written to.
    """
    if path.exists():
        return
    try:
        _make_key(path)
    except OSError as error:
        raise ClusterError(
            f"the key that is to seal this server's storage, {path}, cannot be made: {error.strerror}. Make it "
            f"yourself, for the server's user alone: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path.name})"
        ) from None


def _make_key(path: Path) -> None:
    disk.make(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, never in place of another's
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    disk.sync(path.parent)
