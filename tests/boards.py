"""A board in memory, for tests of who says what to whom: policies are enforced as servers do, means are computed by the
simulated protocol, and nothing is secret.
"""

import datetime
import itertools
import threading
import time
from dataclasses import dataclass, field

from private_keras.cluster.loop import PublicValue
from private_keras.cluster.simulated import SimulatedCluster
from private_keras.errors import HandleNotFound, SecurityError
from private_keras.federated.board import Board, Listed, Unusable
from private_keras.plan.aggregate import SEED, mean_of
from private_keras.ring import fixedpoint


@dataclass
class Kept:
    """What lies under a name."""

    tensors: dict
    about: str
    policy: object
    created: float
    uses: int = 0


@dataclass
class Space:
    """What all parties' boards have in common.

    Attributes:
        opened: (party, what) of everything that anybody has seen.
        before: called with (party, call, name) before each call; what it raises is raised.
    """

    kept: dict = field(default_factory=dict)
    opened: list = field(default_factory=list)
    before: object = None
    lock: object = field(default_factory=threading.RLock)
    clock: object = field(default_factory=itertools.count)

    def of(self, identity):
        return MemoryBoard(self, identity)


class MemoryBoard(Board):
    def __init__(self, space, identity):
        self._space = space
        self._identity = identity
        self._cluster = SimulatedCluster()

    @property
    def identity(self):
        return self._identity

    def _called(self, call, name):
        if self._space.before is not None:
            self._space.before(self._identity, call, name)

    def put(self, name, tensors, about, policy):
        self._called("put", name)
        assert len(name) <= 80
        encoded = {label: (fixedpoint.encode(t.values, t.fraction, label), t.fraction) for label, t in tensors.items()}
        with self._space.lock:
            created = time.time() + 1e-6 * next(self._space.clock)
            self._space.kept[self._identity, name] = Kept(encoded, about, policy, created)

    def forget(self, name):
        self._called("forget", name)
        with self._space.lock:
            self._space.kept.pop((self._identity, name), None)

    def listed(self):
        self._called("listed", "")
        with self._space.lock:
            return [
                Listed("" if owner == self._identity else owner, name,
                       {label: (words.shape, fraction) for label, (words, fraction) in kept.tensors.items()},
                       kept.created)
                for (owner, name), kept in self._space.kept.items()
                if self._identity in (owner, *kept.policy.use)
            ]  # fmt: skip

    def _find(self, owner, name, kind):
        owner = owner or self._identity
        kept = self._space.kept.get((owner, name))
        if kept is None:
            raise HandleNotFound(f"no shares as {owner}/{name}")
        policy = kept.policy
        if owner != self._identity:
            if self._identity not in policy.use or self._identity not in policy.reveal_to:
                raise SecurityError(f"{owner}/{name} is not for {self._identity}")
            if policy.until is not None and policy.until < datetime.datetime.now(datetime.UTC):
                raise SecurityError(f"{owner}/{name} is past its time")
            if policy.least_owners is None if kind == "aggregate" else kind not in policy.plans:
                raise SecurityError(f"{owner}/{name} is not for plans of kind {kind}")
            if policy.uses is not None and kept.uses >= policy.uses:
                raise SecurityError(f"{owner}/{name} is used up")
        return kept

    def open(self, owner, name):
        self._called("open", name)
        with self._space.lock:
            kept = self._find(owner, name, "reveal")
            self._space.opened.append((self._identity, name))
            return {label: fixedpoint.decode(*each) for label, each in kept.tensors.items()}, kept.about

    def mean(self, plan, updates, seed):
        self._called("mean", "")
        mean = mean_of(plan)
        assert set(mean.owners) == set(updates)
        with self._space.lock:
            given = {SEED: PublicValue(seed)}
            kept = []
            for owner, name in updates.items():
                try:
                    kept.append(self._find(owner, name, "aggregate"))
                except HandleNotFound as error:
                    raise Unusable(owner, str(error)) from error
                for label, each in kept[-1].tensors.items():
                    given[f"{owner}/{label}"] = fixedpoint.decode(*each)
            for each in kept:
                if mean.minimum < each.policy.least_owners:
                    raise SecurityError(f"a mean of {mean.minimum} owners")
            for each in kept:
                each.uses += 1
            self._called("job", "")
            self._space.opened.append((self._identity, f"mean of {len(mean.owners)}"))
            return self._cluster.run(plan, given)
