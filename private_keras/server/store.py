"""Shares that clients keep on a server: in memory, under random handles, each for its owner alone."""

import threading
from dataclasses import dataclass

from private_keras.errors import ClusterError, HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.server.material import Material


@dataclass(frozen=True)
class _Entry:
    owner: str
    nbytes: int
    material: Material


class Store:
    """Thread safe.

    Args:
        quota: bytes of all shares together.
    """

    def __init__(self, quota: int = limits.STORE_BYTES):
        self._quota = quota
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes kept and reserved."""
        return self._bytes

    def reserve(self, nbytes: int) -> None:
        """Takes `nbytes` of the quota before memory is allocated; raises `StoreFull`."""
        with self._lock:
            if self._bytes + nbytes > self._quota:
                raise StoreFull(
                    f"no room for {nbytes} bytes of shares: {self._bytes} of {self._quota} are taken; "
                    "delete models that are no longer used, or use smaller batches"
                )
            self._bytes += nbytes

    def release(self, nbytes: int) -> None:
        """Gives a reservation back."""
        with self._lock:
            self._bytes -= nbytes

    def put(self, handle: bytes, owner: str, material: Material, reserved: int) -> None:
        """Keeps material under a new handle; the reservation is its own from now.

        Raises:
            SecurityError: not a handle, or one that is taken.
        """
        if len(handle) != limits.ID_BYTES:
            raise SecurityError(f"expected a handle of {limits.ID_BYTES} bytes. Received: {len(handle)}")
        with self._lock:
            if handle in self._entries:
                raise SecurityError("this handle is taken; every upload needs a fresh random one")
            if len(self._entries) >= limits.MAX_HANDLES:
                raise StoreFull(f"{limits.MAX_HANDLES} tensors are stored already; delete some")
            self._entries[handle] = _Entry(owner, reserved, material)

    def get(self, handle: bytes, owner: str, what: str) -> Material:
        """The owner's material. Another identity's handle looks like one that does not exist.

        Raises:
            HandleNotFound: naming `what` it was for.
        """
        with self._lock:
            entry = self._entries.get(handle)
        if entry is None or entry.owner != owner:
            raise HandleNotFound(
                f"the shares of {what} are not on this server: deleted, lost in a restart, or of another identity; "
                "share them again"
            )
        return entry.material

    def delete(self, handles: list[bytes], owner: str) -> int:
        """Forgets the owner's handles among these; returns how many there were."""
        deleted = 0
        with self._lock:
            for handle in handles:
                entry = self._entries.get(handle)
                if entry is not None and entry.owner == owner:
                    del self._entries[handle]
                    self._bytes -= entry.nbytes
                    deleted += 1
        return deleted


class StoreFull(ClusterError):
    """The server keeps as many shares as it may."""
