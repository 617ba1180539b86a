"""Runs a plan on one party's shares: the only place where a plan and a protocol meet."""
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from private_keras.errors import InputError, PlanError, PrivateKerasError
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import place
from private_keras.protocols.protocol import Protocol, Share
from private_keras.protocols.public import Public
from private_keras.server.execute import bilinear, compare, linear, nonlinear, random, reduce, shape
from private_keras.server.execute.cuts import taken_in
from private_keras.server.execute.gates import kept_bits
from private_keras.server.execute.graph import Compute, Graph, Walk
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


def passed_on(p: Protocol, at: Operation, x: Value) -> Value:
    """A step that the one behind it does."""
    return as_share(p, x)


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
        results = {item.value for item in plan.outputs}
        # By step: what it does, and whether it is a result of the plan.
        self._runs = [
            (passed_on if at.passes else OPERATIONS[at.step.op], at.step.output in results)
            for at in self.graph.operations
        ]
        self._names = {item.name for item in plan.inputs}
        self._shapes = [(item, item.type.shape) for item in plan.inputs]

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
        walk = Walk(self.graph, self._checked(inputs), p, self.computing(p, in_public))

        def after(index: int) -> list[int]:
            ready = walk.after(index)
            on_step(index, self.plan.steps[index])
            return ready

        p.rounds.run(self.graph.first, walk.work, walk.after if on_step is None else after, walk.local)
        return {item.name: as_share(p, walk.values[item.value]) for item in self.plan.outputs}

    def computing(self, p: Protocol, in_public: InPublic) -> Compute:
        """What steps do, on a protocol; see `compute`."""
        operations, runs = self.graph.operations, self._runs

        def results(index: int, operands: list[Value]) -> Sequence[Value]:
            at = operations[index]
            try:
                run, is_result = runs[index]
                result = (in_public if at.public else run)(p, at, *operands)
                kept: Sequence[Value] = ()
                if at.keeps:
                    result, *kept = result
                if result.shape != at.result.shape:
                    raise PlanError(f"expected a result of shape {list(at.shape)}. Received: {list(result.shape)}")
                # A result of the plan is made a share here, so that the cost falls on the step.
                return (as_share(p, result) if is_result else result, *kept)
            except PrivateKerasError as error:
                error.args = (f"{place(index, at.step)}: {error}",)
                raise
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
                # Its text may quote what arrays hold, so only its kind is told.
                where = place(index, at.step)
                raise PrivateKerasError(f"{where}: the step failed with {type(error).__name__}") from error

        return results

    def _checked(self, inputs: Mapping[str, Share | np.ndarray]) -> Mapping[str, Value]:
        if inputs.keys() != self._names:
            missing, extra = sorted(self._names - set(inputs)), sorted(set(inputs) - self._names)
            raise InputError(
                f"expected values of the plan's inputs. Missing: {missing[:8]}. Not in the plan: {extra[:8]}"
            )
        for item, expected in self._shapes:
            value = inputs[item.name]
            if not item.public and not isinstance(value, np.ndarray) and value.shape == expected:
                continue
            what = f"input {item.name!r} of {item.owner!r}"
            if item.public and not (isinstance(value, np.ndarray) and value.dtype == np.uint64):
                received = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
                raise InputError(f"{what}: expected a public value, ring elements as uint64. Received: {received}")
            if not item.public and isinstance(value, np.ndarray):
                raise InputError(f"{what}: expected a share of a secret value. Received: a public array")
            if tuple(value.shape) != expected:
                raise InputError(f"{what}: expected shape {list(expected)}. Received: {list(value.shape)}")
        return inputs


def _operations(plan: Plan) -> list[Operation]:
    """The steps, ready to run."""
    types, public = plan.types, {item.name for item in plan.inputs if item.public}
    for step in plan.steps:
        if public.issuperset(step.inputs):
            public.add(step.output)
    cuts = taken_in(plan, public)
    operations = []
    for step, (uses, keeps) in zip(plan.steps, kept_bits(plan.steps, public), strict=True):
        ready = shape.PREPARE.get(step.op, lambda attributes: attributes)(step.attributes)
        operands = tuple(types[name] for name in step.inputs)
        inputs = (*step.inputs, uses) if uses else step.inputs
        cut = cuts.get(step.inputs[0], 0) if step.op == "spline" else 0
        passes = step.output in cuts
        operations.append(
            Operation(step, ready, operands, types[step.output], inputs, keeps, step.output in public, cut, passes)
        )
    return operations
