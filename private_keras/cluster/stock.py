"""One run of a plan that the servers have made ready: what the client keeps of it until the batch is there."""

import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass, field, replace

from private_keras.cluster.client import ServerClient
from private_keras.cluster.handle import Traffic
from private_keras.cluster.loop import Bound, Given, bind
from private_keras.cluster.running import Inputs, run_job
from private_keras.errors import InputError, SecurityError
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.schedule import Schedule
from private_keras.server.sizes import SEED_BYTES

Seeds = tuple[bytes, bytes]


def content(plan: Plan, bound: Bound) -> bytes:
    """Digest of what servers know of a run: plan, handles and public values. The batch is not in it."""
    handles = {name: given.id for name, given in bound.stored.items()}
    handles |= {name: rows.handle.id for name, rows in bound.rows.items()}
    indices = {name: rows.indices for name, rows in bound.rows.items()}
    return Schedule(plan.digest, bound.steps, handles, indices, bound.public, {}).content


def about(plan: Plan, known: Mapping[str, Given]) -> bytes:
    """`content` of a run from all its inputs but the batch; of items that fit it, too."""
    return content(plan, bind(plan, known, None, ahead=True))


@dataclass(eq=False)
class Item:
    """Material for one run, to be used once: `cluster.prepare` makes it, `cluster.run(..., item=)` uses it up.

    Attributes:
        id: the servers' name for it.
        incarnation: start of the servers that hold it.
        content: what the run is about, see `content`.
        made: rounds, bytes and seconds that it took.
        stored: bytes that each server holds of it.
    """

    id: bytes = field(repr=False)
    incarnation: str = field(repr=False)
    content: bytes = field(repr=False)
    seeds: Mapping[str, Seeds] = field(repr=False)
    made: Traffic = Traffic()
    stored: tuple[int, ...] = ()
    _used: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def use(self, incarnation: str, about: bytes) -> Mapping[str, Seeds]:
        """The seeds of the batch's masks, which nobody gets a second time.

        Raises:
            InputError: the run is another one than it was made for. It is not used up.
            SecurityError: it was used before.
        """
        if about != self.content or incarnation != self.incarnation:
            raise InputError(
                "expected the cluster, plan, weights and public values that this item was prepared for. Received: "
                "others; prepare another item for this run"
            )
        with self._lock:
            if self._used:
                raise SecurityError("this item was used before; a second run under its masks would give values away")
            self._used = True
        return self.seeds


def make_item(
    clients: list[ServerClient], pool: futures.Executor, plan: Plan, bound: Bound, incarnation: str, seconds: float,
    abandon: Callable[[list[bytes]], None],
) -> Item:
    """Lets the servers make an item for a run of a plan that they know.

    Args:
        clients: by party.
        pool: as for `run_job`.
        bound: all inputs but the batch.
        seconds: deadline.
        abandon: called with the item's id when it was not made everywhere.
    """
    known = bound.secret.keys() | bound.rows.keys() | bound.public.keys()
    seeds = {
        item.name: (secrets.token_bytes(SEED_BYTES), secrets.token_bytes(SEED_BYTES))
        for item in plan.inputs if item.name not in known
    }  # fmt: skip
    item = Item(secrets.token_bytes(limits.ID_BYTES), incarnation, content(plan, bound), seeds)
    inputs = Inputs(bound.secret, bound.rows, bound.public, {}, bound.steps, ahead=True, seeds=seeds)
    try:
        made = run_job(clients, pool, plan, inputs, seconds, None, item.id)
    except BaseException:  # a server that came to the end before another one failed keeps its part
        abandon([item.id])
        raise
    return replace(item, made=made.traffic, stored=made.stored)
