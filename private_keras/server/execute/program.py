"""Runs a plan on one party's shares: the only place where a plan and a protocol meet."""
from collections.abc import Callable, Mapping

import numpy as np

from private_keras.errors import InputError, PlanError, PrivateKerasError
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import place
from private_keras.protocols.protocol import Protocol, Share
from private_keras.protocols.public import Public
from private_keras.server.execute import bilinear, compare, linear, nonlinear, random, reduce, shape
from private_keras.server.execute.gates import kept_bits
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
    """A plan made ready to run any number of times: constants decoded, last uses and repeated comparisons found.

    Holds nothing of a run, so that several may share it.

    Args:
        plan: a valid plan; `plan.types` is computed here if it was not yet.

    Attributes:
        live_elements: the most elements that results of steps hold at one time, beside the inputs.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self._operations = _operations(plan)
        self._results = {item.value for item in plan.outputs}
        self._free = _last_uses(plan, self._operations, self._results)
        self.live_elements = _live_elements(plan, self._operations, self._free)

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
            on_step: called after each step with its number and the step; what it raises ends the run.
            in_public: computes steps whose operands are all public.

        Returns:
            By output name, this party's share.

        Raises:
            InputError: inputs that are missing, not in the plan, or of another shape.
            PrivateKerasError: whatever goes wrong in a step, naming layer and step.
        """
        values: dict[str, Value] = self._checked(inputs)
        for name in self._free[0]:
            del values[name]
        for index, at in enumerate(self._operations):
            try:
                run = in_public if at.public else OPERATIONS[at.step.op]
                result = run(p, at, *(values[name] for name in at.inputs))
                if at.keeps:
                    result, values[at.keeps] = result
                if tuple(result.shape) != at.shape:
                    raise PlanError(f"expected a result of shape {list(at.shape)}. Received: {list(result.shape)}")
                # A result of the plan is made a share here, so that the cost falls on the step.
                values[at.step.output] = as_share(p, result) if at.step.output in self._results else result
            except PrivateKerasError as error:
                error.args = (f"{place(index, at.step)}: {error}",)
                raise
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
                # Its text may quote what arrays hold, so only its kind is told.
                where = place(index, at.step)
                raise PrivateKerasError(f"{where}: the step failed with {type(error).__name__}") from error
            for name in self._free[index + 1]:
                del values[name]
            if on_step is not None:
                on_step(index, at.step)
        return {item.name: as_share(p, values[item.value]) for item in self.plan.outputs}

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


def _results(at: Operation) -> tuple[str, ...]:
    return (at.step.output, at.keeps) if at.keeps else (at.step.output,)


def _last_uses(plan: Plan, operations: list[Operation], results: set[str]) -> list[tuple[str, ...]]:
    """Names to forget before the first step (entry 0) and after each step i (entry i + 1)."""
    last = {item.name: 0 for item in plan.inputs}
    for index, at in enumerate(operations, start=1):
        for name in (*at.inputs, *_results(at)):
            last[name] = index
    free: list[list[str]] = [[] for _ in range(len(operations) + 1)]
    for name, index in last.items():
        if name not in results:
            free[index].append(name)
    return [tuple(names) for names in free]


def _live_elements(plan: Plan, operations: list[Operation], free: list[tuple[str, ...]]) -> int:
    """The most elements of steps' results that there are at the end of a step; kept bits are counted as elements."""
    sizes: dict[str, int] = {}
    live = most = 0
    for at, forgotten in zip(operations, free[1:], strict=True):
        for name in _results(at):
            sizes[name] = at.result.size if name == at.step.output else at.operands[0].size
            live += sizes[name]
        most = max(most, live)
        live -= sum(sizes.pop(name, 0) for name in forgotten)
    return most
