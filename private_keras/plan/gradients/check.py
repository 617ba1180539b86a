"""The gradient checker: gradients of a plan against central differences of what its steps mean in real numbers."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients.records import Gradient, Joint
from private_keras.plan.gradients.reverse import gradients
from private_keras.plan.plan import Plan
from private_keras.plan.reference import MEANINGS, At

Build = Callable[[PlanBuilder], str]
Joints = Callable[[PlanBuilder, str], Mapping[str, Joint]]

_PROBE = "probe"
_VALUE = "value"


def _no_joints(builder: PlanBuilder, value: str) -> Mapping[str, Joint]:
    return {}


def real_values(plan: Plan, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every value of a plan in real numbers: no rounding, no wrapping, functions as they are defined.

    Args:
        plan: a valid plan.
        inputs: real values of every input, by name.
    """
    values = {item.name: np.asarray(inputs[item.name], np.float64).reshape(item.type.shape) for item in plan.inputs}
    makers: dict[str, str] = {}
    for step in plan.steps:
        fraction = plan.types[step.inputs[0]].fraction if step.inputs else 0
        sources = tuple(makers.get(name, "input") for name in step.inputs)
        at = At(step.op, step.attributes, fraction, sources, plan.types[step.output], False)
        values[step.output] = np.asarray(MEANINGS[step.op](at, *(values[name] for name in step.inputs)), np.float64)
        makers[step.output] = step.op
    return values


def gradient_plan(
    build: Build, inputs: Mapping[str, np.ndarray], wrt: Sequence[str], *, fractions: Mapping[str, int] | None = None,
    joints: Joints = _no_joints, fraction: int = 24,
) -> tuple[Plan, dict[str, float]]:
    """A plan of a value's steps and of its gradients, times a further input `probe` of its shape and 18 bits.

    Args: as `check_gradients`.

    Returns:
        The plan, whose outputs are `value` and each of `wrt` by its name (without those of gradient zero), and the
        public scale of each gradient.
    """
    builder = PlanBuilder()
    for name, value in inputs.items():
        builder.input(name, np.shape(value), (fractions or {}).get(name, 18), "client")
    value = build(builder)
    builder.input(_PROBE, builder.type(value).shape, 18, "client")
    seeds = {value: Gradient(_PROBE)}
    found = gradients(builder, seeds, wrt, fraction=fraction, joints=joints(builder, value))
    builder.output(value, _VALUE, ())
    scales = {}
    for name, g in found.items():
        if g is not None:
            builder.output(g.value, name, ())
            scales[name] = g.scale
    return builder.build("gradients", "train"), scales


def probe(shape: Sequence[int]) -> np.ndarray:
    """Numbers from -1 to 1 without pattern: a direction in which no two elements' gradients cancel."""
    count = int(np.prod(shape))
    return np.round(np.cos(1.7 * np.arange(1, count + 1) ** 2) * 1024).reshape(shape) / 1024


def check_gradients(
    build: Build, inputs: Mapping[str, np.ndarray], wrt: Sequence[str] | None = None, *, tolerance: float = 1e-4,
    nudge: float = 1e-5, **options: Any,
) -> dict[str, float]:
    """Compares gradients with central differences in float64.

    Inputs must keep `nudge` away from where functions have kinks.

    Args:
        build: writes the steps into a builder that has the inputs, and returns the name of the value.
        inputs: real values of the inputs, by name.
        wrt: inputs whose gradients are checked; all of them by default.
        tolerance: largest difference, absolute or relative to the largest gradient of an input.
        nudge: half the distance of two function values.
        **options: `fractions`, of each input (18 by default); `joints`, (builder, value) to joints; `fraction`, as in
            `gradients`.

    Returns:
        The largest difference of each input.

    Raises:
        PlanError: naming the inputs whose gradient is wrong.

    Cost: two runs of the plan for each element of `wrt`.
    """
    wrt = list(inputs) if wrt is None else list(wrt)
    plan, scales = gradient_plan(build, inputs, wrt, **options)
    outputs = {item.name: item.value for item in plan.outputs}
    direction = probe(plan.types[outputs[_VALUE]].shape)
    values = real_values(plan, {**inputs, _PROBE: direction})

    def objective(changed: Mapping[str, np.ndarray]) -> float:
        return float((real_values(plan, {**changed, _PROBE: direction})[outputs[_VALUE]] * direction).sum())

    errors = {}
    for name in wrt:
        base = np.asarray(inputs[name], np.float64)
        slopes = np.zeros(base.size)
        for index in range(base.size):
            ends = []
            for sign in (1, -1):
                moved = base.copy().reshape(-1)
                moved[index] += sign * nudge
                ends.append(objective({**inputs, name: moved.reshape(base.shape)}))
            slopes[index] = (ends[0] - ends[1]) / (2 * nudge)
        found = values[outputs[name]].ravel() * scales[name] if name in scales else np.zeros(base.size)
        errors[name] = float(np.abs(found - slopes).max() / max(1.0, np.abs(slopes).max()))
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        raise PlanError(f"expected gradients within {tolerance} of central differences. Received: {wrong}")
    return errors
