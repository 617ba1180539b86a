"""Whether a model's rows have anything to do with each other: whether a batch can hold several callers' rows."""
from collections.abc import Mapping

import numpy as np

from private_keras.plan.shadow import outputs_of
from private_keras.tracing import Traced
from private_keras.tracing.training.traced import TracedStep

# Numbers that look like none in particular: sines of multiples of this.
_STEP = 0.7390851332
# Of the outputs' size: what changed rows may move another one by, which is rounding.
_ROUNDING = 1e-9


def rows_apart(traced: Traced | TracedStep) -> bool:
    """Whether no row of the outputs changes when other rows of the inputs do.

    It is tried out in the clear, with made-up data, and made-up weights where nobody knows them: what a row depends on
    follows from the plan. Where functions have no value for these, the answer is no.

    Args:
        traced: a prediction of at least two rows.

    Cost: six predictions in float64.
    """
    weights = traced.weights if isinstance(traced, Traced) else {}
    names = {spec.name for spec in traced.inputs}
    rows = traced.inputs[0].shape[0]
    for low, high in ((-0.3, 0.3), (0.1, 0.7)):
        others = [item for item in traced.plan.inputs if item.name not in names]
        fixed = {item.name: weights.get(item.name, _wave(item.type.shape, low, high, 1.0)) for item in others}
        before = outputs_of(traced.plan, {**fixed, **_data(traced, 2.0)})
        if all(np.isfinite(output).all() and output.shape[:1] == (rows,) for output in before):
            return all(_keeps(traced, fixed, before, row) for row in (0, rows - 1))
    return False


def _keeps(traced: Traced | TracedStep, fixed: Mapping[str, np.ndarray], before: list[np.ndarray], row: int) -> bool:
    """Whether a row of the outputs stays what it is when all other rows of the inputs change."""
    data = _data(traced, 2.0)
    for name, other in _data(traced, 5.0).items():
        other[row] = data[name][row]
        data[name] = other
    after = outputs_of(traced.plan, {**fixed, **data})
    return all(
        np.abs(new[row] - old[row]).max() <= _ROUNDING * max(1.0, np.abs(old).max())
        for old, new in zip(before, after, strict=True)
    )


def _data(traced: Traced | TracedStep, phase: float) -> dict[str, np.ndarray]:
    """Made-up inputs that the model takes."""
    made = {}
    for spec in traced.inputs:
        if spec.fraction:
            made[spec.name] = _wave(spec.shape, max(spec.low, -0.9), min(spec.high, 0.9), phase)
        else:
            span = min(spec.high - spec.low, 5.0)
            made[spec.name] = np.floor(_wave(spec.shape, 0.0, span, phase)) + max(spec.low, 0.0)
    return made


def _wave(shape: tuple[int, ...], low: float, high: float, phase: float) -> np.ndarray:
    count = int(np.prod(shape))
    return (low + (high - low) * (0.5 + 0.499 * np.sin(phase + _STEP * phase * np.arange(count)))).reshape(shape)
