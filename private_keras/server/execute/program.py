"""Runs a plan on one party's shares: the only place where a plan and a protocol meet."""
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from private_keras.errors import InputError, PlanError, PrivateKerasError
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import place
from private_keras.protocols.protocol import Protocol, Share
from private_keras.protocols.public import Public
from private_keras.server.execute import bilinear, compare, linear, nonlinear, random, reduce, shape
from private_keras.server.execute.gates import kept_bits
from private_keras.server.execute.graph import Graph, Walk
from private_keras.server.execute.values import Operation, Value, as_public, as_share

OPERATIONS: dict[str, Callable[..., Value]] = {
    **shape.OPERATIONS,
    **linear.OPERATIONS,
    **bilinear.OPERATIONS,
    **reduce.OPERATIONS,
    **compare.OPERATIONS,
    **nonlinear.OPERATIONS,
    **random.OPERATIONS,
}

OnStep = Callable[[int, Step], None]
InPublic = Callable[..., np.ndarray]


def computed(p: Protocol, at: Operation, *operands: np.ndarray) -> np.ndarray:
    """A step on public operands: every server computes it for itself, to the same bits."""
    return as_public(OPERATIONS[at.step.op](Public(p.kernel), at, *operands))


class Program:
    """A plan made ready to run any number of times: constants decoded, uses and repeated comparisons found.

    Holds nothing of a run, so that several may share it. Steps that do not need each other's results share their rounds
    (`protocols.rounds`).

    Args:
        plan: a valid plan; `plan.types` is computed here if it was not yet.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.graph = Graph(plan, _operations(plan))
        self._results = {item.value for item in plan.outputs}

    def run(
        self, p: Protocol, inputs: Mapping[str, Share | np.ndarray], on_step: OnStep | None = None
    ) -> dict[str, np.ndarray]:
        """One run, as one party; opens the outputs that have receivers.

        Args: see `compute`.

        Returns:
            By output name, this party's contribution to the opening: uint64, they add up to the value.
        """
        return self.open(p, self.compute(p, inputs, on_step))

    def open(self, p: Protocol, shares: Mapping[str, Share]) -> dict[str, np.ndarray]:
        """By output name, this party's contributions to the outputs that have receivers; `shares` is of `compute`."""
        return {item.name: p.output(shares[item.name]) for item in self.plan.outputs if item.receivers}

    def compute(
        self, p: Protocol, inputs: Mapping[str, Share | np.ndarray], on_step: OnStep | None = None,
        in_public: InPublic = computed,
    ) -> dict[str, Share]:
        """One run, as one party; the outputs stay shares.

        Args:
            p: this party's protocol; it sends and receives what the steps cost (see `account`).
            inputs: by name, this party's share of every secret input of the plan, and the value of every public one:
                ring elements, uint64, the same at all parties.
            on_step: called after each step with its number and the step, but for steps that only rearrange a value,
                which are part of the step that uses them; what it raises ends the run.
            in_public: computes steps whose operands are all public.

        Returns:
            By output name, this party's share.

        Raises:
            InputError: inputs that are missing, not in the plan, or of another shape.
            PrivateKerasError: whatever goes wrong in a step, naming layer and step.
        """
        walk = self.walk(p, inputs, in_public)

        def after(index: int) -> list[int]:
            ready = walk.after(index)
            if on_step is not None:
                on_step(index, self.plan.steps[index])
            return ready

        p.rounds.run(self.graph.first, walk.work, after, walk.local)
        return {item.name: as_share(p, walk.values[item.value]) for item in self.plan.outputs}

    def walk(self, p: Protocol, inputs: Mapping[str, Share | np.ndarray], in_public: InPublic) -> Walk:
        """A run that has not begun; see `compute`."""

        def results(index: int, operands: list[Value]) -> Sequence[Value]:
            at = self.graph.operations[index]
            try:
                run = in_public if at.public else OPERATIONS[at.step.op]
                result = run(p, at, *operands)
                kept = ()
                if at.keeps:
                    result, *kept = result
                if result.shape != at.shape:
                    raise PlanError(f"expected a result of shape {list(at.shape)}. Received: {list(result.shape)}")
                # A result of the plan is made a share here, so that the cost falls on the step.
                return (as_share(p, result) if at.step.output in self._results else result, *kept)
            except PrivateKerasError as error:
                error.args = (f"{place(index, at.step)}: {error}",)
                raise
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
                # Its text may quote what arrays hold, so only its kind is told.
                where = place(index, at.step)
                raise PrivateKerasError(f"{where}: the step failed with {type(error).__name__}") from error

        return Walk(self.graph, self._checked(inputs), p, results)

    def _checked(self, inputs: Mapping[str, Share | np.ndarray]) -> dict[str, Value]:
        names = {item.name for item in self.plan.inputs}
        if set(inputs) != names:
            missing, extra = sorted(names - set(inputs)), sorted(set(inputs) - names)
            raise InputError(
                f"expected values of the plan's inputs. Missing: {missing[:8]}. Not in the plan: {extra[:8]}"
            )
        for item in self.plan.inputs:
            value = inputs[item.name]
            what = f"input {item.name!r} of {item.owner!r}"
            if item.public and not (isinstance(value, np.ndarray) and value.dtype == np.uint64):
                received = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
                raise InputError(f"{what}: expected a public value, ring elements as uint64. Received: {received}")
            if not item.public and isinstance(value, np.ndarray):
                raise InputError(f"{what}: expected a share of a secret value. Received: a public array")
            if tuple(value.shape) != item.type.shape:
                raise InputError(f"{what}: expected shape {list(item.type.shape)}. Received: {list(value.shape)}")
        return dict(inputs)


def _operations(plan: Plan) -> list[Operation]:
    """The steps, ready to run."""
    types, public = plan.types, {item.name for item in plan.inputs if item.public}
    for step in plan.steps:
        if public.issuperset(step.inputs):
            public.add(step.output)
    operations = []
    for step, (uses, keeps) in zip(plan.steps, kept_bits(plan.steps, public), strict=True):
        ready = shape.PREPARE.get(step.op, lambda attributes: attributes)(step.attributes)
        operands = tuple(types[name] for name in step.inputs)
        inputs = (*step.inputs, uses) if uses else step.inputs
        operations.append(Operation(step, ready, operands, types[step.output], inputs, keeps, step.output in public))
    return operations
