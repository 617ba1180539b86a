"""A plan that runs for many steps in one job: which rows of stored data each step takes, and the public schedule.

    cluster.run(plan, {"x": Rows(images, shuffled), "rate": PublicValue(rates), "weight/0": weights}, loop=Loop(steps))

What a plan's outputs carry becomes the input of the next step; what they keep after the last step comes back as new
handles. Which rows a step takes is known to all servers (docs/security.md, "Training runs").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from private_keras.cluster.handle import Handle
from private_keras.errors import InputError
from private_keras.plan.plan import Plan
from private_keras.plan.records import PlanInput
from private_keras.ring import fixedpoint
from private_keras.server import limits


@dataclass(frozen=True)
class Rows:
    """Rows of a stored tensor, others at each step.

    Attributes:
        handle: shape (n, ...); the plan's input has shape (rows, ...).
        indices: integers, shape (steps, rows): step s takes handle[indices[s]]. All servers know them.
    """

    handle: Handle
    indices: np.ndarray


@dataclass(frozen=True)
class PublicValue:
    """What all servers know, for a plan's public input.

    Attributes:
        values: real numbers of the input's shape, the same at every step, or of shape (steps, *shape).
    """

    values: np.ndarray


@dataclass(frozen=True)
class Loop:
    """How often a plan runs in one job.

    Attributes:
        steps: at least 1.
        on_step: called with the number of steps that are done, now and then and after the last one, in the thread that
            called `run`; what it raises ends the job.
    """

    steps: int = 1
    on_step: Callable[[int], None] | None = None


Given = Handle | np.ndarray | Rows | PublicValue


@dataclass(frozen=True)
class Bound:
    """Inputs that fit a plan, by name; every input in one of the three.

    Attributes:
        secret: stored handles, or ring elements.
        rows: of stored handles, with indices as uint32 (steps, rows).
        public: ring elements (1, *shape) for all steps or (steps, *shape).
        steps: how often the plan runs.
    """

    secret: dict[str, Handle | np.ndarray] = field(repr=False)
    rows: dict[str, Rows]
    public: dict[str, np.ndarray]
    steps: int

    @property
    def stored(self) -> dict[str, Handle]:
        """Stored tensors that are inputs as they are, by name of the input."""
        return {name: given for name, given in self.secret.items() if isinstance(given, Handle)}

    @property
    def handles(self) -> list[Handle]:
        """All stored tensors that the run uses."""
        return [*self.stored.values(), *(rows.handle for rows in self.rows.values())]


def bind(plan: Plan, inputs: Mapping[str, Given], loop: Loop | None, ahead: bool = False) -> Bound:
    """Inputs checked against the plan, real numbers as ring elements.

    Args:
        ahead: whether secret inputs may be missing: they will be given with the batch.

    Raises:
        InputError: naming the input and what it should be.
    """
    steps = _steps(loop)
    expected = {item.name for item in plan.inputs}
    later = {item.name for item in plan.inputs if not item.public} - set(inputs) if ahead else set()
    if set(inputs) | later != expected:
        raise InputError(
            f"plan {plan.name!r}: missing inputs {sorted(expected - set(inputs))}, "
            f"unknown inputs {sorted(set(inputs) - expected)}"
        )
    carried = {item.carry for item in plan.outputs}
    bound = Bound({}, {}, {}, steps)
    for item in plan.inputs:
        if item.name in later:
            continue
        given = inputs[item.name]
        what = item.label or item.name
        if item.public:
            if not isinstance(given, PublicValue):
                raise InputError(
                    f"{what}: this input is public. Received: {type(given).__name__}; say so with PublicValue(values)"
                )
            bound.public[item.name] = _public(item, given.values, steps, what)
        elif isinstance(given, PublicValue):
            raise InputError(f"{what}: expected secret values. Received: PublicValue, which all servers would know")
        elif isinstance(given, Rows):
            if item.name in carried:
                raise InputError(f"{what}: is carried from step to step. Received: Rows, which would overwrite it")
            bound.rows[item.name] = replace(given, indices=_rows(item, given, steps, what))
        else:
            bound.secret[item.name] = _secret(item, given, what)
    return bound


def _steps(loop: Loop | None) -> int:
    steps = 1 if loop is None else loop.steps
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not 1 <= steps <= limits.MAX_LOOP_STEPS:
        raise InputError(f"expected a loop of 1 to {limits.MAX_LOOP_STEPS} steps. Received: {steps!r}")
    return int(steps)


def _secret(item: PlanInput, given: Handle | np.ndarray, what: str) -> Handle | np.ndarray:
    if isinstance(given, Handle):
        if (given.shape, given.fraction) != (item.type.shape, item.type.fraction):
            raise InputError(
                f"{what}: expected shape {item.type.shape} with {item.type.fraction} fractional bits. "
                f"Received: shares of {given.name!r} with shape {given.shape} and {given.fraction}"
            )
        return given
    array = np.asarray(given)
    if array.shape != item.type.shape:
        raise InputError(f"{what}: expected shape {item.type.shape}. Received: shape {array.shape}")
    return fixedpoint.encode(array, item.type.fraction, what)


def _public(item: PlanInput, values: np.ndarray, steps: int, what: str) -> np.ndarray:
    array = np.asarray(values)
    shape = item.type.shape
    if array.shape == shape:
        array = array[np.newaxis]
    elif array.shape != (steps, *shape):
        raise InputError(f"{what}: expected shape {shape} or {(steps, *shape)}. Received: shape {array.shape}")
    return fixedpoint.encode(array, item.type.fraction, what)


def _rows(item: PlanInput, given: Rows, steps: int, what: str) -> np.ndarray:
    shape, handle, indices = item.type.shape, given.handle, np.asarray(given.indices)
    if not shape or handle.shape[1:] != shape[1:] or not handle.shape or handle.fraction != item.type.fraction:
        raise InputError(
            f"{what}: expected rows of shape {shape[1:]} with {item.type.fraction} fractional bits. "
            f"Received: shares of {handle.name!r} with shape {handle.shape} and {handle.fraction}"
        )
    if indices.dtype.kind not in "iu" or indices.shape != (steps, shape[0]):
        raise InputError(
            f"{what}: expected integer indices of shape {(steps, shape[0])}: steps, rows of a step. "
            f"Received: {indices.dtype} of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= handle.shape[0]:
        raise InputError(
            f"{what}: expected indices from 0 to {handle.shape[0] - 1}. "
            f"Received: {int(indices.min())} to {int(indices.max())}"
        )
    return indices.astype(np.uint32)
