"""The same plan and the same fixed-point arithmetic in this process, without servers and without secrecy."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from private_keras.cluster.audit import Head, Log
from private_keras.cluster.delivery import Delivery
from private_keras.cluster.display import Facts
from private_keras.cluster.handle import Handle, Stats, Traffic
from private_keras.cluster.interface import ACTIVE, OWNER_ONLY, RUN_SECONDS, Cluster, decoded, kept_handles
from private_keras.cluster.loop import Given, Loop, Rows, bind
from private_keras.cluster.named import Named, Tensor
from private_keras.cluster.putting import Column, Progress, check_columns, encoded
from private_keras.cluster.saving import check_save
from private_keras.cluster.stock import Item, content
from private_keras.errors import ClusterError, DeadlineExceeded, HandleNotFound, InputError, UnsupportedError
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server import limits
from private_keras.server.execute import Program
from private_keras.server.identity import LOCAL
from private_keras.server.loop import Feed, TakeRows, paced, run_steps
from private_keras.server.plans import CLIENT
from private_keras.server.policy import Policy
from private_keras.server.storage import check_name, check_names


@dataclass(frozen=True)
class _Saved:
    """What is kept under a name."""

    tensors: dict[str, tuple[Handle, np.ndarray]] = field(repr=False)
    about: str
    policy: Policy
    created: float = field(default_factory=time.time)


class SimulatedCluster(Cluster):
    """For accuracy studies: what a model gives on shares, without what that costs. Keeps nothing secret.

    There is no disk behind it: what is saved is kept in memory, as long as the cluster.
    """

    protocol = "simulate"

    def __init__(self) -> None:
        self.stats = Stats()
        self._kernel = default_kernel()
        self._incarnation = secrets.token_hex(8)
        self._stored: dict[bytes, np.ndarray] = {}
        self._saved: dict[str, _Saved] = {}
        self._programs: dict[str, Program] = {}
        self._closed = False

    @property
    def incarnation(self) -> str:
        self._check_open()
        return self._incarnation

    def _check_open(self) -> None:
        if self._closed:
            raise ClusterError("this cluster is closed; call pk.connect() for a new one")

    @property
    def identity(self) -> str:
        return LOCAL

    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        incarnation = self.incarnation
        elements = fixedpoint.encode(values, fraction, name)
        if not elements.size:
            raise InputError(f"{name}: expected at least one element. Received: shape {elements.shape}")
        handle = Handle(name, elements.shape, fraction, incarnation, secrets.token_bytes(16))
        self._stored[handle.id] = elements
        return handle

    def delete(self, *handles: Handle | Item) -> None:
        for handle in handles:
            self._stored.pop(handle.id, None)

    def run(
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None,
        item: Item | None = None, delivery: str = "",
    ) -> dict[str, np.ndarray | Handle]:
        others = {receiver for output in plan.outputs for receiver in output.receivers} - {CLIENT, LOCAL}
        if others or delivery:
            raise UnsupportedError(
                f"plan {plan.name!r} opens results to {', '.join(sorted(others)) or 'nobody else'}, and a simulated "
                "cluster has nobody beside this client: connect to servers for results to others"
            )
        if not deadline > 0:
            raise InputError(f"expected a deadline in seconds. Received: {deadline}")
        incarnation = self.incarnation
        began = time.monotonic()
        bound = bind(plan, inputs, loop)
        if item is not None:
            item.use(incarnation, content(plan, bound))
        fixed = {name: SimulatedShare(self._held(given)) for name, given in bound.secret.items()}
        rows = {name: (self._taker(given), given.indices) for name, given in bound.rows.items()}

        def on_step(index: int, step: object) -> None:
            if time.monotonic() - began > deadline:
                raise DeadlineExceeded(
                    "the job took longer than its deadline; give a longer one or use smaller batches"
                )

        protocol = Simulate(self._kernel)
        program = self._program(plan)
        tell = (lambda done: None) if loop is None or loop.on_step is None else loop.on_step
        steps = paced(run_steps(program, protocol, Feed(bound.steps, fixed, rows, bound.public), on_step))
        while True:
            try:
                tell(next(steps))
            except StopIteration as end:
                shares = end.value
                break
        tell(bound.steps)
        opened = program.open(protocol, shares)
        kept = kept_handles(plan, incarnation)
        for handle, (value, _) in zip(kept.values(), protocol.keep(*(shares[name] for name in kept)), strict=True):
            self._stored[handle.id] = value
        seconds = time.monotonic() - began
        self.stats.add(Traffic(runs=1, seconds=seconds, computing=seconds), None if item is None else item.made)
        return {**decoded(plan, opened), **kept}

    def prepare(self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS) -> Item:
        # There is nothing to do ahead; a program that prepares runs here as it does on servers.
        incarnation = self.incarnation
        bound = bind(plan, inputs, None, ahead=True)
        item = Item(secrets.token_bytes(16), incarnation, content(plan, bound), {}, Traffic(runs=1))
        self.stats.add_ahead(item.made)
        return item

    def _held(self, given: Handle | np.ndarray) -> np.ndarray:
        if not isinstance(given, Handle):
            return given
        if given.id not in self._stored:
            raise HandleNotFound(f"the shares of {given.name!r} are not on this cluster; share them again")
        return self._stored[given.id]

    def _taker(self, rows: Rows) -> TakeRows:
        held = self._held(rows.handle)
        return lambda indices: SimulatedShare(np.take(held, indices, 0))

    def _program(self, plan: Plan) -> Program:
        program = self._programs.get(plan.digest)
        if program is None:
            if len(self._programs) >= limits.MAX_PLANS:
                self._programs.clear()
            program = self._programs[plan.digest] = Program(plan)
        return program

    def save(
        self, name: str, handles: Mapping[str, Handle], about: str = "", policy: Policy = OWNER_ONLY
    ) -> None:
        check_save(name, handles, about, self.incarnation)
        tensors = {label: (handle, self._held(handle)) for label, handle in handles.items()}
        self._saved[name] = _Saved(tensors, about, policy)

    def put(
        self, name: str, columns: Mapping[str, Column], about: str = "", policy: Policy = OWNER_ONLY,
        progress: Progress | None = None,
    ) -> None:
        incarnation = self.incarnation
        total = check_columns(name, columns, about)
        tensors, done = {}, 0
        for label, column in columns.items():
            parts = []
            for elements in encoded(label, column):
                parts.append(elements)
                done += elements.size
                if progress is not None:
                    progress(done, total)
            handle = Handle(label, column.shape, column.fraction, incarnation, b"", "", column.dtype)
            tensors[label] = handle, np.concatenate(parts).reshape(column.shape)
        self._saved[name] = _Saved(tensors, about, policy)

    def load(self, name: str, owner: str | None = None) -> tuple[dict[str, Handle], str]:
        incarnation = self.incarnation
        if check_name(name) not in self._saved or owner is not None:
            raise HandleNotFound(f"no shares are saved as {name!r} on this cluster that this client may use")
        saved = self._saved[name]
        result = {}
        for label, (handle, elements) in saved.tensors.items():
            new = secrets.token_bytes(16)
            result[label] = Handle(label, handle.shape, handle.fraction, incarnation, new, "", handle.dtype)
            self._stored[result[label].id] = elements
        return result, saved.about

    def saved(self) -> list[str]:
        self._check_open()
        return sorted(self._saved)

    def forget(self, name: str) -> bool:
        self._check_open()
        return self._saved.pop(check_name(name), None) is not None

    def forget_policies(self, name: str) -> int:
        """What is forgotten leaves nothing here."""
        self._check_open()
        check_names(name)
        return 0

    def names(self, others: bool = False) -> list[Named]:
        self._check_open()
        found = []
        for name, saved in sorted(self._saved.items()) if not others else ():
            entries = tuple(Tensor(label, h.shape, h.fraction, h.dtype) for label, (h, _) in saved.tensors.items())
            size = sum(elements.nbytes for _, elements in saved.tensors.values())
            found.append(Named(LOCAL, name, entries, saved.policy, size, saved.created))
        return found

    def set_policy(self, name: str, policy: Policy) -> None:
        self._check_open()
        if check_name(name) not in self._saved:
            raise HandleNotFound(f"no shares are saved as {name!r} on this cluster")
        self._saved[name] = replace(self._saved[name], policy=policy)

    def deliveries(self) -> list[Delivery]:
        self._check_open()
        return []

    def fetch(self, delivery: Delivery) -> dict[str, np.ndarray]:
        raise HandleNotFound(f"the result {delivery} is not on this cluster")

    def received(self, delivery: Delivery) -> None:
        """There is none."""

    def plan_text(self, digest: str) -> str:
        program = self._programs.get(digest.removeprefix("sha256:"))
        if program is None:
            raise HandleNotFound(f"no plan with digest {digest[:23]!r} was run on this cluster")
        return program.plan.to_json()

    def audit(self, seen: Mapping[str, Head] | None = None, archives: Sequence[Path] = ()) -> list[Log]:
        raise UnsupportedError("a simulated cluster has no servers that keep a log: connect to servers for it")

    def broken_logs(self, seen: Mapping[str, Head]) -> list[str]:
        """There are none."""
        return []

    def _facts(self) -> Facts:
        state = "closed" if self._closed else "in this process, without secrecy"
        return [("protocol", self.protocol), ("state", state)]

    def close(self) -> None:
        self._closed = True
        ACTIVE.remove(self)
        self._stored.clear()
        self._saved.clear()
