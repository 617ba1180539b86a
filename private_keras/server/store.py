"""Shares that clients keep on a server: in memory, under random handles, each for its owner alone."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from private_keras.errors import ClusterError, HandleNotFound, SecurityError
from private_keras.ring.steps import Twofold
from private_keras.server import limits
from private_keras.server.material import Material, Stored, read_only
from private_keras.server.terms import Terms


@dataclass(frozen=True)
class _Entry:
    owner: str
    nbytes: int
    material: Stored
    terms: Terms


@dataclass
class Room:
    """What is left of a reservation."""

    nbytes: int
    owner: str


@dataclass(frozen=True)
class Kept:
    """A tensor on its way into the store.

    Attributes:
        nbytes: what it takes of the room that was reserved for it.
        terms: what it comes from, where that is not its owner alone.
    """

    handle: bytes
    material: Stored
    nbytes: int
    terms: Terms = field(default_factory=Terms)


class Store:
    """Thread safe.

    Args:
        quota: bytes of all shares together.
        share: of the quota, and of the handles that there may be, that one owner may take.
    """

    def __init__(self, quota: int = limits.STORE_BYTES, share: float = 1.0):
        self._quota = quota
        self._each = int(quota * share)
        self._share = share
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._taken: Counter[str] = Counter()  # bytes by owner
        self._handles: Counter[str] = Counter()

    @property
    def nbytes(self) -> int:
        """Bytes kept and reserved."""
        return self._bytes

    @contextmanager
    def room(self, nbytes: int, owner: str = "") -> Iterator[Room]:
        """Takes `nbytes` of the quota before memory is allocated; gives back what was not put into the store.

        Args:
            owner: whose share of the quota it is; empty until something of an owner is put.

        Raises:
            StoreFull: with advice.
        """
        with self._lock:
            if self._bytes + nbytes > self._quota:
                raise StoreFull(
                    f"no room for {nbytes} bytes of shares: {self._bytes} of {self._quota} are taken; "
                    "delete models that are no longer used, or use smaller batches"
                )
            if self._taken[owner] + nbytes > self._each:
                raise StoreFull(
                    f"no room for {nbytes} bytes of shares: {self._taken[owner]} of {self._each} that one client may "
                    "take are taken; delete models that are no longer used, or use smaller batches"
                )
            self._take(nbytes, owner)
        room = Room(nbytes, owner)
        try:
            yield room
        finally:
            self.release(room.nbytes, owner)

    def release(self, nbytes: int, owner: str) -> None:
        """Gives back what was kept of an owner's room outside the store."""
        with self._lock:
            self._take(-nbytes, owner)

    def _take(self, nbytes: int, owner: str) -> None:
        self._bytes += nbytes
        self._taken[owner] += nbytes
        if not self._taken[owner]:
            del self._taken[owner]

    def holds(self, tensors: Iterable[tuple[bytes, Stored]], owner: str) -> bool:
        """Whether all these are here, the owner's, and the very same: a handle can be given to another."""
        with self._lock:
            found = [(self._entries.get(handle), part) for handle, part in tensors]
        return all(
            entry is not None and entry.owner == owner and entry.material.token is part.token for entry, part in found
        )

    def put(self, owner: str, items: Sequence[Kept], room: Room) -> None:
        """Keeps all these or none; their part of the room is theirs from now.

        Raises:
            SecurityError: not a handle, or one that is taken.
        """
        with self._lock:
            self._check([item.handle for item in items], owner)
            self._handles[owner] += len(items)
            for item in items:
                self._entries[item.handle] = _Entry(owner, item.nbytes, item.material, item.terms)
                room.nbytes -= item.nbytes
                self._take(-item.nbytes, room.owner)
                self._take(item.nbytes, owner)

    def check_free(self, handles: Sequence[bytes], owner: str) -> None:
        """Raises what `put` would: for work whose results are to be put."""
        with self._lock:
            self._check(handles, owner)

    def _check(self, handles: Sequence[bytes], owner: str) -> None:
        for handle in handles:
            if len(handle) != limits.ID_BYTES:
                raise SecurityError(f"expected a handle of {limits.ID_BYTES} bytes. Received: {len(handle)}")
            if handle in self._entries:
                raise SecurityError("this handle is taken; every tensor needs a fresh random one")
        if len(set(handles)) != len(handles):
            raise SecurityError("expected a handle of its own for every tensor. Received: one twice")
        own, new, each = self._handles[owner], len(handles), int(limits.MAX_HANDLES * self._share)
        if len(self._entries) + new > limits.MAX_HANDLES or own + new > each:
            raise StoreFull(
                f"{own} tensors of this client are stored, {len(self._entries)} of all clients, of at most "
                f"{each} and {limits.MAX_HANDLES}; delete some"
            )

    def get(self, handle: bytes, owner: str, what: str) -> Stored:
        """The owner's material, wherever it is. Another identity's handle looks like one that does not exist.

        Raises:
            HandleNotFound: naming `what` it was for.
        """
        return self._entry(handle, owner, what).material

    def held(self, handle: bytes, owner: str, what: str) -> tuple[Stored, Terms]:
        """The owner's material and what it comes from, of one and the same tensor; errors as in `get`."""
        entry = self._entry(handle, owner, what)
        return entry.material, entry.terms

    def _entry(self, handle: bytes, owner: str, what: str) -> _Entry:
        with self._lock:
            entry = self._entries.get(handle)
        if entry is None or entry.owner != owner:
            raise HandleNotFound(
                f"the shares of {what} are not on this server: deleted, lost in a restart, or of another identity; "
                "share them again"
            )
        return entry

    def whole(self, handle: bytes, owner: str, what: str) -> Material:
        """The owner's material in memory, and there from now on; errors as in `get`, and of `room` and of its disk."""
        material = self.get(handle, owner, what)
        if isinstance(material, Material):
            return material
        return self._replaced(handle, owner, what, material, material.memory_bytes, material.whole)

    def with_operand(self, handle: bytes, owner: str, what: str) -> Material:
        """The owner's material in memory, from now on with its operand, made once; errors as in `whole`.

        Cost: half as much memory again, as long as the handle lives.
        """
        material = self.whole(handle, owner, what)
        if material.operand is not None:
            return material

        def made() -> Material:
            return replace(material, operand=read_only(Twofold(material.words, material.mask).words))

        return self._replaced(handle, owner, what, material, material.mask.nbytes, made)

    def _replaced(
        self, handle: bytes, owner: str, what: str, before: Stored, nbytes: int, make: Callable[[], Material]
    ) -> Material:
        """Another form of a tensor, which takes so much more memory; the one of another call if that was first."""
        with self.room(nbytes, owner) as room:
            made = make()
            with self._lock:
                entry = self._entries.get(handle)
                if entry is not None and entry.material is before:
                    self._entries[handle] = _Entry(owner, entry.nbytes + nbytes, made, entry.terms)
                    room.nbytes -= nbytes
                    return made
        return (self.whole if made.operand is None else self.with_operand)(handle, owner, what)


    def delete(self, handles: Sequence[bytes], owner: str) -> int:
        """Forgets the owner's handles among these; returns how many there were."""
        deleted = 0
        with self._lock:
            for handle in handles:
                entry = self._entries.get(handle)
                if entry is not None and entry.owner == owner:
                    del self._entries[handle]
                    self._handles[owner] -= 1
                    self._take(-entry.nbytes, owner)
                    deleted += 1
            if not self._handles[owner]:
                del self._handles[owner]
        return deleted


class StoreFull(ClusterError):
    """The server keeps as many shares as it may."""
