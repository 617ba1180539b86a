"""Calls that say which plans they would run, and run none."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from private_keras.cluster import display
from private_keras.cluster.audit import Head, Log
from private_keras.cluster.delivery import Delivery
from private_keras.cluster.handle import Handle, Stats
from private_keras.cluster.interface import OWNER_ONLY, RUN_SECONDS, Cluster, kept_handles
from private_keras.cluster.loop import Given, Loop, bind
from private_keras.cluster.named import Named
from private_keras.cluster.putting import Column, Progress
from private_keras.cluster.stock import Item
from private_keras.errors import UnsupportedError
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.plans import CLIENT
from private_keras.server.policy import Policy


@dataclass(frozen=True)
class Noted:
    """A plan that a call would run.

    Attributes:
        jobs: how many jobs of it.
        steps: of all these jobs together.
    """

    plan: Plan
    jobs: int
    steps: int


class PlanningCluster(Cluster):
    """Stands for a cluster as long as a call says what it would run there: notes plans, and sends and shares nothing.

    What the call would be given back is made up: handles of nothing, and zeros.

    Args:
        real: the cluster. It is asked for named shares, whose owners are in plans, and for nothing else.

    Attributes:
        copies: by id of a model, what it keeps between calls, as a copy that the call may change.
    """

    def __init__(self, real: Cluster):
        self.protocol = real.protocol
        self.stats = Stats()
        self.copies: dict[int, Any] = {}
        self._real = real
        self._noted: dict[str, Noted] = {}
        self._loaded: list[Handle] = []

    @property
    def noted(self) -> list[Noted]:
        """Each plan once, in the order in which they would run first."""
        return list(self._noted.values())

    def holds(self, cluster: Cluster | None) -> bool:
        return cluster is self or cluster is self._real

    @property
    def incarnation(self) -> str:
        return self._real.incarnation

    @property
    def identity(self) -> str:
        return self._real.identity

    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        return Handle(name, np.shape(values), fraction, self.incarnation, secrets.token_bytes(limits.ID_BYTES))

    def delete(self, *handles: Handle | Item) -> None:
        """There is nothing to delete."""

    def run(
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None,
        item: Item | None = None, delivery: str = "",
    ) -> dict[str, np.ndarray | Handle]:
        steps = bind(plan, inputs, loop).steps
        before = self._noted.get(plan.digest, Noted(plan, 0, 0))
        self._noted[plan.digest] = Noted(plan, before.jobs + 1, before.steps + steps)
        own = {CLIENT, self.identity}
        opened = {
            output.name: np.zeros(plan.types[output.value].shape)
            for output in plan.outputs if not own.isdisjoint(output.receivers)
        }  # fmt: skip
        return {**opened, **kept_handles(plan, self.incarnation)}

    def load(self, name: str, owner: str | None = None) -> tuple[dict[str, Handle], str]:
        handles, about = self._real.load(name, owner)
        self._loaded += handles.values()
        return handles, about

    def saved(self) -> list[str]:
        return self._real.saved()

    def names(self, others: bool = False) -> list[Named]:
        return self._real.names(others)

    def plan_text(self, digest: str) -> str:
        return self._real.plan_text(digest)

    def deliveries(self) -> list[Delivery]:
        return self._real.deliveries()

    def audit(self, seen: Mapping[str, Head] | None = None, archives: Sequence[Path] = ()) -> list[Log]:
        return self._real.audit(seen, archives)

    def broken_logs(self, seen: Mapping[str, Head]) -> list[str]:
        return self._real.broken_logs(seen)

    def prepare(self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS) -> Item:
        raise self._refused("prepare")

    def save(
        self, name: str, handles: Mapping[str, Handle], about: str = "", policy: Policy = OWNER_ONLY
    ) -> None:
        raise self._refused("save")

    def put(
        self, name: str, columns: Mapping[str, Column], about: str = "", policy: Policy = OWNER_ONLY,
        progress: Progress | None = None,
    ) -> None:
        raise self._refused("put")

    def forget(self, name: str) -> bool:
        raise self._refused("forget")

    def set_policy(self, name: str, policy: Policy) -> None:
        raise self._refused("set_policy")

    def forget_policies(self, name: str) -> int:
        raise self._refused("forget_policies")

    def fetch(self, delivery: Delivery) -> dict[str, np.ndarray]:
        return self._real.fetch(delivery)

    def received(self, delivery: Delivery) -> None:
        raise self._refused("received")

    @staticmethod
    def _refused(what: str) -> UnsupportedError:
        return UnsupportedError(f"{what} changes what is on the servers, and a call that says its plans does not")

    def _facts(self) -> display.Facts:
        return [("stands for", type(self._real).__name__), ("plans noted", str(len(self._noted)))]

    def close(self) -> None:
        """Lets the servers forget what was loaded."""
        self._real.delete(*self._loaded)


_PLANNING: ContextVar[PlanningCluster | None] = ContextVar("planning", default=None)


@contextmanager
def planning(real: Cluster) -> Iterator[PlanningCluster]:
    """For the length of a `with` block, what this thread does on the cluster in use is noted and not done."""
    made = PlanningCluster(real)
    token = _PLANNING.set(made)
    try:
        yield made
    finally:
        _PLANNING.reset(token)
        made.close()


def planned() -> PlanningCluster | None:
    """What stands for the cluster in use; None where calls do what they say."""
    return _PLANNING.get()
