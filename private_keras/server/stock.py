"""Stock: what jobs to come were given ahead, in memory, each item for one job of its owner and for no second.

An item holds masks. Whoever saw two jobs under the same masks would learn how their values differ, so an item leaves
the stock in the moment in which a job names it, whatever becomes of that job.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.protocols.trio import PIECE_BYTES, Supply
from private_keras.server import limits
from private_keras.server.material import Stored
from private_keras.server.schedule import Schedule
from private_keras.server.store import Room, Store, StoreFull


@dataclass(frozen=True)
class Item:
    """What this server made ahead for one job.

    Attributes:
        id: of the job that made it.
        content: digest of plan, handles, rows and public values: what the job to come is about.
        stored: by input name, the stored tensors that it was made for.
        handles: their handles, by input name.
        seeds: by input name, of this party's masks of the batch to come.
        pair: names the job that made it, as this evaluator and the other one know it: what it made fits together.
    """

    id: bytes
    owner: str
    content: bytes
    stored: Mapping[str, Stored] = field(repr=False)
    handles: Mapping[str, bytes] = field(repr=False)
    seeds: Mapping[str, bytes] = field(repr=False)
    supply: Supply = field(repr=False)
    pair: bytes

    @property
    def nbytes(self) -> int:
        """In memory, at most."""
        return self.supply.nbytes + PIECE_BYTES * (len(self.stored) + len(self.seeds))

    def check(self, schedule: Schedule, material: Mapping[str, Stored]) -> None:
        """Raises `InputError` for a job that the item was not made for."""
        same = all(name in material and material[name].token is part.token for name, part in self.stored.items())
        if schedule.content != self.content or not same or schedule.kept:
            raise InputError(
                "expected the plan, weights and public values that this item of stock was made for. Received: others; "
                "the item is used up. Prepare another one for this job"
            )


class Stock:
    """Thread safe.

    Args:
        store: where the items' weights are, and whose quota they share.
        limit: of items, of all clients together.
        each: of items of one client.
    """

    def __init__(self, store: Store, limit: int = limits.MAX_ITEMS, each: int = limits.MAX_ITEMS_EACH):
        self._store = store
        self._limit, self._limit_each = limit, each
        self._lock = threading.Lock()
        self._items: dict[bytes, Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, room: Room) -> None:
        """Keeps an item; its part of the room is its own from now.

        Raises:
            HandleNotFound: a weight that it was made for was deleted meanwhile.
            SecurityError: there is an item with this id.
            StoreFull: as many items as there may be, of this owner or of all.
        """
        with self._lock:
            if item.id in self._items:
                raise SecurityError("this item's id is taken; every item needs a fresh random one")
            self._check_free(item.owner)
            if not self._store.holds([(item.handles[name], part) for name, part in item.stored.items()], item.owner):
                raise HandleNotFound("a tensor that this item of stock was made for was deleted; share it again")
            self._items[item.id] = item
            room.nbytes -= item.nbytes

    def check_free(self, owner: str) -> None:
        """Raises what `put` would: for work whose result is to be put."""
        with self._lock:
            self._check_free(owner)

    def _check_free(self, owner: str) -> None:
        own = sum(item.owner == owner for item in self._items.values())
        if own >= self._limit_each or len(self._items) >= self._limit:
            raise StoreFull(
                f"{own} items of stock of this client are kept, {len(self._items)} of all clients, of at most "
                f"{self._limit_each} and {self._limit} items; use some, or prepare fewer"
            )

    @contextmanager
    def taken(self, item_id: bytes, owner: str) -> Iterator[Item | None]:
        """Takes an item for the length of a `with` block, after which it is gone; None where no id is given.

        Raises:
            SecurityError: not an id.
            ItemNotFound: used up, deleted, or of another identity, which looks the same.
        """
        if not item_id:
            yield None
            return
        if len(item_id) != limits.ID_BYTES:
            raise SecurityError(f"expected the id of an item of {limits.ID_BYTES} bytes. Received: {len(item_id)}")
        with self._lock:
            item = self._items.get(item_id)
            if item is None or item.owner != owner:
                raise ItemNotFound(
                    "this item of stock is not on this server: used, deleted, lost in a restart, or of another "
                    "identity; prepare another one"
                )
            del self._items[item_id]
        try:
            yield item
        finally:
            self._store.release(item.nbytes, owner)

    def delete(self, ids: Sequence[bytes], owner: str) -> int:
        """Forgets the owner's items among these ids, and those made for handles among them; returns how many."""
        gone = set(ids)
        with self._lock:
            found = [
                item for item in self._items.values()
                if item.owner == owner and (item.id in gone or not gone.isdisjoint(item.handles.values()))
            ]  # fmt: skip
            for item in found:
                del self._items[item.id]
        self._store.release(sum(item.nbytes for item in found), owner)
        return len(found)


class ItemNotFound(HandleNotFound):
    """The server does not have an item of stock (any more); the job can run without."""
