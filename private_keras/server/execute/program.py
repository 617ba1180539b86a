"""Runs a plan on one party's shares: the only place where a plan and a protocol meet."""
from collections.abc import Callable, Mapping

import numpy as np

from private_keras.errors import InputError, PlanError, PrivateKerasError
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import TensorType, place
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute import bilinear, compare, linear, nonlinear, reduce, shape
from private_keras.server.execute.values import Operation, Value, as_share

OPERATIONS: dict[str, Callable[..., Value]] = {
    **shape.OPERATIONS,
    **linear.OPERATIONS,
    **bilinear.OPERATIONS,
    **reduce.OPERATIONS,
    **compare.OPERATIONS,
    **nonlinear.OPERATIONS,
}

OnStep = Callable[[int, Step], None]


class Program:
    """A plan made ready to run any number of times: constants decoded, last uses found.

    Holds nothing of a run, so that several may share it.

    Args:
        plan: a valid plan; `plan.types` is computed here if it was not yet.

    Attributes:
        live_elements: the most elements that results of steps hold at one time, beside the inputs.
    """

    def __init__(self, plan: Plan):
        types = plan.types
        self.plan = plan
        self._operations = []
        for step in plan.steps:
            ready = shape.PREPARE.get(step.op, lambda attributes: attributes)(step.attributes)
            self._operations.append(Operation(step, ready, tuple(types[n] for n in step.inputs), types[step.output]))
        self._opened = {item.value for item in plan.outputs}
        self._free = _last_uses(plan, self._opened)
        self.live_elements = _live_elements(plan, types, self._free)

    def run(self, p: Protocol, inputs: Mapping[str, Share], on_step: OnStep | None = None) -> dict[str, np.ndarray]:
        """One run, as one party; opens the outputs.

        Args: see `compute`.

        Returns:
            By output name, this party's contribution to the opening: uint64, they add up to the value.
        """
        return self.open(p, self.compute(p, inputs, on_step))

    def open(self, p: Protocol, shares: Mapping[str, Share]) -> dict[str, np.ndarray]:
        """By output name, this party's contributions to the outputs that have receivers; `shares` is of `compute`."""
        return {item.name: p.output(shares[item.name]) for item in self.plan.outputs if item.receivers}

    def compute(self, p: Protocol, inputs: Mapping[str, Share], on_step: OnStep | None = None) -> dict[str, Share]:
        """One run, as one party; the outputs stay shares.

        Args:
            p: this party's protocol; it sends and receives what the steps cost (see `account`).
            inputs: this party's share of every input of the plan, by name.
            on_step: called after each step with its number and the step; what it raises ends the run.

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
                result = OPERATIONS[at.step.op](p, at, *(values[name] for name in at.step.inputs))
                if tuple(result.shape) != at.shape:
                    raise PlanError(f"expected a result of shape {list(at.shape)}. Received: {list(result.shape)}")
                # What is opened is made a share here, so that the cost falls on the step.
                values[at.step.output] = as_share(p, result) if at.step.output in self._opened else result
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

    def _checked(self, inputs: Mapping[str, Share]) -> dict[str, Value]:
        names = {item.name for item in self.plan.inputs}
        if set(inputs) != names:
            missing, extra = sorted(names - set(inputs)), sorted(set(inputs) - names)
            raise InputError(
                f"expected shares of the plan's inputs. Missing: {missing[:8]}. Not in the plan: {extra[:8]}"
            )
        for item in self.plan.inputs:
            if tuple(inputs[item.name].shape) != item.type.shape:
                raise InputError(
                    f"input {item.name!r} of {item.owner!r}: expected shape {list(item.type.shape)}. "
                    f"Received: {list(inputs[item.name].shape)}"
                )
        return dict(inputs)


def _last_uses(plan: Plan, opened: set[str]) -> list[tuple[str, ...]]:
    """Names to forget before the first step (entry 0) and after each step i (entry i + 1)."""
    last = {item.name: 0 for item in plan.inputs}
    for index, step in enumerate(plan.steps, start=1):
        for name in (*step.inputs, step.output):
            last[name] = index
    free: list[list[str]] = [[] for _ in range(len(plan.steps) + 1)]
    for name, index in last.items():
        if name not in opened:
            free[index].append(name)
    return [tuple(names) for names in free]


def _live_elements(plan: Plan, types: Mapping[str, TensorType], free: list[tuple[str, ...]]) -> int:
    """The most elements of steps' results that there are at the end of a step."""
    inputs = {item.name for item in plan.inputs}
    live = most = 0
    for step, forgotten in zip(plan.steps, free[1:], strict=True):
        live += types[step.output].size
        most = max(most, live)
        live -= sum(types[name].size for name in forgotten if name not in inputs)
    return most
