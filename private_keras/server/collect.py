"""What a client announces and sends for a job, checked against the plan before memory is taken for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from private_keras.errors import HandleNotFound, InputError
from private_keras.plan.plan import Plan
from private_keras.plan.records import PlanInput
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.execute.account import ahead_bytes
from private_keras.server.jobs import Job
from private_keras.server.material import Receiver, Stored, helper_material
from private_keras.server.oversight import Judge
from private_keras.server.plans import Prepared
from private_keras.server.schedule import INDEX, Schedule, Table
from private_keras.server.sizes import HELPER, WORD, seed_bytes, stored_bytes
from private_keras.server.stock import Item
from private_keras.server.store import Room, Store
from private_keras.server.terms import Terms
from private_keras.server.ties import NO_TIE, Common, Ties, common, seed_ties
from private_keras.server.wire import messages_pb2 as wire


@dataclass(frozen=True)
class Collected:
    """All that one server needs for a job.

    Attributes:
        material: by name, of every secret input; of one that takes rows, the tensor that they are taken of.
        room: what the job took of the store, from which it may keep results.
        terms: by output name, what kept results come from.
        item: what was made ahead for this job, if anything was.
        seeds: of a job that is made ahead: by name, of this party's masks of the batch to come.
        dealt: of such a job: bytes that the helper will deal.
        ties: by name, of each secret input, in the plan's order.
    """

    schedule: Schedule
    material: dict[str, Stored] = field(repr=False)
    room: Room
    terms: Mapping[str, Terms] = field(default_factory=dict)
    item: Item | None = None
    seeds: dict[str, bytes] = field(default_factory=dict, repr=False)
    dealt: int = 0
    ties: Mapping[str, Ties] = field(default_factory=dict, repr=False)

    def common(self, peer: int) -> Common:
        """What another server must have in common with this one of the inputs."""
        return common(self.ties, peer, b"" if self.item is None else self.item.pair)


class Collector:
    """Collects the inputs of jobs on one server; holds nothing of any of them."""

    def __init__(self, party: int, kernel: Kernel, store: Store):
        self._party = party
        self._kernel = kernel
        self._store = store

    @contextmanager
    def collect(
        self, job: Job, prepared: Prepared, first: wire.RunRequest, rest: Iterator[wire.RunRequest],
        judge: Judge, stocked: Item | None = None,
    ) -> Iterator[Collected]:
        """Inputs, from the store or from the call itself; their memory is given back at the end.

        Args:
            judge: looks at what stored inputs come from, before any is read, and at the whole job at the end.
            stocked: the item of stock that the job has taken.

        Room for what the run itself holds, and for what it will keep, is taken from the store's quota as well, so that
        no plan, whoever wrote it, makes a server run out of memory by the number and size of its values.

        Raises:
            ClusterError: no room for the run beside what is stored.
            InputError: inputs that are missing, unknown, or of another size than the plan says.
            HandleNotFound: a handle that this server does not have for this identity.
            SecurityError: results under handles that are taken, or a job that an owner's policy does not allow.
        """
        plan = prepared.program.plan
        if not 1 <= first.steps <= limits.MAX_LOOP_STEPS:
            raise InputError(f"expected 1 to {limits.MAX_LOOP_STEPS} steps. Received: {first.steps}")
        specs = {item.name: item for item in plan.inputs}
        names = [item.name for item in first.inputs]
        if sorted(names) != sorted(specs):
            raise InputError(f"expected the inputs {sorted(specs)[:20]}. Received: {sorted(names)[:20]}")
        kept = self._kept(prepared, first, job.owner)
        carried = {item.carry for item in plan.outputs if item.carry}
        for item in first.inputs:
            _check(item, specs[item.name], first.steps, carried)
        seeds = self._seeds(first, kept, stocked)
        held = {
            item.name: self._store.held(item.handle, job.owner, f"input {item.name!r}")
            for item in first.inputs if item.handle
        }  # fmt: skip
        rows = frozenset(item.name for item in first.inputs if item.rows or not (item.handle or item.values))
        terms = judge.inputs({name: terms for name, (_, terms) in held.items()}, rows, first.steps)
        found = {
            item.name: self._stored(job, item, specs[item.name], first.ahead, held[item.name][0])
            for item in first.inputs if item.handle
        }  # fmt: skip
        shares = [specs[item.name].type.size for item in first.inputs if not item.handle and not item.values]
        # Rows are copied at each step; what is carried is held beside what it came from.
        shares += [specs[item.name].type.size for item in first.inputs if item.rows or item.name in carried]
        # Each output has words of its own, even where many are of one value.
        shares += [plan.types[item.value].size for item in plan.outputs]
        shares.append(prepared.room.elements)
        nbytes = sum(stored_bytes(size) for size in shares)
        nbytes += max(prepared.working_bytes, _masking_bytes(plan))
        nbytes += sum(_table_bytes(item, specs[item.name], first.steps) for item in first.inputs)
        dealt, beside = ahead_bytes(prepared.program) if first.ahead else (0, 0)
        nbytes += (beside, dealt + beside, 0)[self._party]
        with self._store.room(nbytes, job.owner) as room:
            receivers: dict[int, Receiver | Table] = {}
            for index, item in enumerate(first.inputs):
                if first.ahead and item.name in seeds:
                    if self._party == HELPER:  # evaluators need none before the batch is there
                        size, of = specs[item.name].type.size, seeds[item.name]
                        made = helper_material(self._kernel, of, size)
                        found[item.name] = replace(made, ties=seed_ties(self._party, of, size))
                    continue
                receiver = self._receiver(item, specs[item.name], first.steps, seeds.get(item.name, b""))
                if receiver is not None:
                    receivers[index] = receiver
            _feed(job, receivers, first, rest)
            handles = {item.name: item.handle for item in first.inputs if item.handle}
            sources = {name: of.identity for name, (_, of) in held.items() if of.shows}
            schedule = Schedule(
                plan.digest, first.steps, handles, {}, {}, kept, first.ahead, first.item, sources, job.owner
            )
            for index, receiver in receivers.items():
                item = first.inputs[index]
                if isinstance(receiver, Receiver):
                    found[item.name] = receiver.finish(self._kernel)
                elif item.values:
                    schedule.public[item.name] = receiver.finish()
                else:
                    rows = found[item.name].size // (specs[item.name].type.size // specs[item.name].type.shape[0])
                    schedule.rows[item.name] = _below(receiver.finish(), rows, item.name)
            if stocked is not None:
                stocked.check(schedule, found)
            judge.begin(schedule)
            ties = {item.name: self._ties(item, found, seeds) for item in plan.inputs if not item.public}
            yield Collected(schedule, found, room, terms, stocked, seeds, dealt, ties)

    def _ties(self, item: PlanInput, found: Mapping[str, Stored], seeds: Mapping[str, bytes]) -> Ties:
        if item.name in found:
            return found[item.name].ties
        # Of a batch that is still to come; words are compared when they are there.
        return {1 - self._party: NO_TIE, **seed_ties(self._party, seeds[item.name], item.type.size)}

    def _seeds(self, first: wire.RunRequest, kept: dict[str, bytes], stocked: Item | None) -> dict[str, bytes]:
        """By name, the seeds of the batch's masks where they come ahead of the batch, or have come."""
        given = {item.name: item.seeds for item in first.inputs if not item.handle and not item.values}
        if stocked is not None:
            if given != dict.fromkeys(stocked.seeds, b""):
                raise InputError(f"expected words of {sorted(stocked.seeds)[:20]}. Received: {sorted(given)[:20]}")
            return dict(stocked.seeds)
        if not first.ahead:
            if any(given.values()):
                raise InputError("expected seeds ahead of a job only. Received: some for a job that runs now")
            return {}
        if first.steps != 1 or kept:
            raise InputError(
                "ahead can be made what one run of a plan needs that keeps nothing. Received: "
                f"{first.steps} steps, {len(kept)} outputs to keep"
            )
        for name, seeds in given.items():
            if len(seeds) != seed_bytes(self._party):
                raise InputError(
                    f"input {name!r}: expected {seed_bytes(self._party)} bytes of seeds. Received: {len(seeds)}"
                )
        return given

    def _kept(self, prepared: Prepared, first: wire.RunRequest, owner: str) -> dict[str, bytes]:
        outputs = prepared.program.plan.outputs
        wanted = [index for index, item in enumerate(outputs) if not item.receivers]
        given = sorted(item.output for item in first.kept)
        if given != wanted:
            raise InputError(f"expected handles for the outputs {wanted[:20]}, which are kept. Received: {given[:20]}")
        self._store.check_free([item.handle for item in first.kept], owner)
        # In the plan's order: servers mask one after the other, and a client could name them in any.
        handles = {item.output: item.handle for item in first.kept}
        return {outputs[index].name: handles[index] for index in wanted}

    def _stored(self, job: Job, item: wire.Input, spec: PlanInput, ahead: bool, material: Stored) -> Stored:
        what, size, of = f"input {item.name!r}", material.size, spec.type.size
        if item.rows:
            of //= spec.type.shape[0]
            if size % of:
                raise InputError(
                    f"input {item.name!r}: expected rows of {of} elements. Received: shares of {size} elements"
                )
        elif size != of:
            raise InputError(
                f"input {item.name!r}: expected shape {spec.type.shape} with {of} elements. "
                f"Received: shares of {size} elements"
            )
        else:
            take = self._store.with_operand if ahead and self._party != HELPER else self._store.whole
            whole = take(item.handle, job.owner, what)
            if whole.token is not material.token:  # the handle is another tensor's by now, of other terms
                raise HandleNotFound(f"the shares of {what} were deleted while the job began; share them again")
            return whole
        return material

    def _receiver(self, item: wire.Input, spec: PlanInput, steps: int, seeds: bytes) -> Receiver | Table | None:
        what = f"input {item.name!r}"
        if item.values:
            return Table((item.values, *spec.type.shape), WORD, f"{what}: public values")
        if item.rows:
            return Table((steps, spec.type.shape[0]), INDEX, f"{what}: indices of rows")
        return None if item.handle else Receiver(self._party, spec.type.size, what, seeds)


def _check(item: wire.Input, spec: PlanInput, steps: int, carried: set[str]) -> None:
    """An input is given in a way that its plan allows."""
    what = f"input {item.name!r}"
    if spec.public:
        if item.values not in (1, steps) or item.handle or item.rows:
            raise InputError(f"{what} is public: expected 1 or {steps} values. Received: {item.values}")
    elif item.values:
        raise InputError(f"{what} is secret: expected shares. Received: public values")
    elif item.rows and (not item.handle or not spec.type.shape or item.name in carried):
        raise InputError(f"{what}: expected rows of a stored tensor, for an input that has rows and is not carried")


def _masking_bytes(plan: Plan) -> int:
    """What it takes to mask all that is kept, or all that is carried, in one go: drawn, sent, received and added up."""
    kept = sum(plan.types[item.value].size for item in plan.outputs if not item.receivers)
    return 4 * WORD.itemsize * kept


def _table_bytes(item: wire.Input, spec: PlanInput, steps: int) -> int:
    if item.values:
        return WORD.itemsize * item.values * spec.type.size
    return INDEX.itemsize * steps * spec.type.shape[0] if item.rows else 0


def _below(indices: np.ndarray, rows: int, name: str) -> np.ndarray:
    if indices.max() >= rows:
        raise InputError(f"input {name!r}: expected rows 0 to {rows - 1}. Received: row {int(indices.max())}")
    return indices


def _feed(
    job: Job, receivers: dict[int, Receiver | Table], first: wire.RunRequest, rest: Iterator[wire.RunRequest]
) -> None:
    request: wire.RunRequest | None = first
    while request is not None:
        for piece in request.pieces:
            if piece.input not in receivers:
                raise InputError(f"expected no material for input number {piece.input}. Received: some")
            receivers[piece.input].feed(piece.data)
        job.check()
        request = next(rest, None)
