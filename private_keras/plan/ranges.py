"""Bounds on every value of a plan from bounds on its inputs: proves, without data, that nothing wraps.

One rule for each primitive: spans of the operands to the span of the result. Bounds hold for whatever the inputs are,
so they grow with every layer; where they prove too little, `shadow` looks at the data.
"""
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from private_keras.plan.domains import FUNCTIONS, LIMIT_BITS, depth_domain, domain, saturated
from private_keras.plan.plan import Plan
from private_keras.plan.primitives.constant import decode
from private_keras.plan.records import Step, TensorType
from private_keras.plan.spans import Span, hull, inside, product, spline

# One bit less than servers need: for rounding, and for the errors of functions.
_PROVEN_BITS = LIMIT_BITS - 1
_TRUTH = Span(0.0, 1.0)
# Steps whose results are not exact.
_ROUNDS = {"truncate", "rescale", "relu", "gate", "exp", "reciprocal", "rsqrt", "sqrt", "log", "softmax", "spline"}


@dataclass(frozen=True)
class Condition:
    """Something that the bounds do not prove: where, and in which step."""

    layer: str
    op: str
    value: str


@dataclass(frozen=True)
class Ranges:
    """What bounds on the inputs say of a plan.

    Attributes:
        spans: of every value, by name.
        overflows: steps and inputs whose numbers are not proven to be below 2^61 ring units.
        outside: steps whose operand is not proven to be in the accurate domain of the function.
    """

    spans: dict[str, Span]
    overflows: tuple[Condition, ...]
    outside: tuple[Condition, ...]

    @property
    def proven(self) -> bool:
        """Whether no value can wrap and every function is in its domain."""
        return not self.overflows and not self.outside


@dataclass(frozen=True)
class _At:
    """A step with what is known about its operands."""

    step: Step
    types: list[TensorType]
    result: TensorType
    arrays: list[np.ndarray | None] = field(repr=False)
    makers: dict[str, Step]


def ranges(
    plan: Plan, inputs: Mapping[str, Span], weights: Mapping[str, np.ndarray], rounding: float = 0.0
) -> Ranges:
    """Bounds on all values of a plan.

    Args:
        plan: a valid plan.
        inputs: span of each input, in real numbers, but for those in `weights`.
        weights: real values of inputs that are known, by name: products with them are bounded by sums of their
            columns.
        rounding: units of its result that a step which rounds may err by, and that its span takes in.

    Returns:
        Spans hold up to rounding, a few units for each truncation, unless `rounding` covers it.

    Cost: the order of the sizes of weights and constants; nothing of the order of the plan's other tensors.
    """
    arrays = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    spans = {name: _of_array(array) for name, array in arrays.items()} | dict(inputs)
    makers: dict[str, Step] = {}
    overflows, outside = [], []
    for item in plan.inputs:
        if not spans[item.name].size * 2.0**item.type.fraction < 2.0**_PROVEN_BITS:
            overflows.append(Condition(item.label, "input", item.name))
    for step in plan.steps:
        kind = plan.types[step.output]
        operands = [spans[name] for name in step.inputs]
        types = [plan.types[name] for name in step.inputs]
        if step.op == "constant":
            arrays[step.output] = decode(step.attributes).astype(np.int64) / 2.0**kind.fraction
        at = _At(step, types, kind, [arrays.get(name) for name in step.inputs], makers)
        if step.op == "constant":
            span = _of_array(arrays[step.output])
        else:
            span = RULES[step.op](at, *operands)
        # Infinite bounds cancel to NaN, which would compare as proven.
        span = Span(*(b if not math.isnan(b) else s * math.inf for b, s in zip(span, (-1, 1), strict=True)))
        if rounding and step.op in _ROUNDS:
            error = rounding / 2.0**kind.fraction
            # What is not negative rounds to what is not.
            span = Span(max(span.low - error, min(span.low, 0.0)), span.high + error)
        spans[step.output] = span
        makers[step.output] = step
        largest = max(span.size * 2.0**kind.fraction, inside(step, operands, types))
        if not largest < 2.0**_PROVEN_BITS:
            overflows.append(Condition(step.layer, step.op, step.output))
        if not _inside_domain(step, operands, types):
            outside.append(Condition(step.layer, step.op, step.output))
    return Ranges(spans, tuple(overflows), tuple(outside))


def _of_array(array: np.ndarray) -> Span:
    return Span(float(array.min()), float(array.max()))


def _inside_domain(step: Step, operands: list[Span], types: list[TensorType]) -> bool:
    if step.op in FUNCTIONS:
        low, high = domain(step.op, types[0].fraction, step.attributes)
    elif step.op == "one_hot":
        low, high = depth_domain(step.attributes["depth"])
    else:
        return True
    return low <= operands[0].low and operands[0].high <= high


# --- rules ------------------------------------------------------------------------------------------------------------
def _same(at: _At, x: Span) -> Span:
    return x


def _hull(at: _At, *xs: Span) -> Span:
    return hull(*xs)


def _with_zero(at: _At, x: Span) -> Span:
    return hull(x, Span(0.0, 0.0))


def _truth(at: _At, *xs: Span) -> Span:
    return _TRUTH


def _add(at: _At, x: Span, y: Span) -> Span:
    return Span(x.low + y.low, x.high + y.high)


def _subtract(at: _At, x: Span, y: Span) -> Span:
    # What is subtracted from itself by its maximum is at most 0: logarithms of sums of exponentials rest on it.
    first, second = at.step.inputs
    maker = at.makers.get(second)
    while maker is not None and maker.op == "reduce_max" and maker.inputs[0] != first:
        maker = at.makers.get(maker.inputs[0])
    own = maker is not None and maker.op == "reduce_max"
    return Span(x.low - y.high, min(x.high - y.low, 0.0) if own else x.high - y.low)


def _negate(at: _At, x: Span) -> Span:
    return Span(-x.high, -x.low)


def _multiply(at: _At, x: Span, y: Span) -> Span:
    if at.step.inputs[0] == at.step.inputs[1]:
        return Span(0.0 if x.low <= 0 <= x.high else min(x.low**2, x.high**2), x.size * x.size)
    return product(x, y)


def _matmul(at: _At, x: Span, y: Span) -> Span:
    left, right = at.arrays
    if right is not None:
        return _columns(right, (-2,), x)
    if left is not None:
        return _columns(left, (-1,), y)
    return _repeated(at.types[0].shape[-1], product(x, y))


def _conv(at: _At, x: Span, w: Span) -> Span:
    x = _with_zero(at, x)  # padding, and gaps between spread elements
    kernel = at.arrays[1]
    if kernel is not None:
        return _columns(kernel, tuple(range(kernel.ndim - 1)), x)
    *window, filters = at.types[1].shape
    return _repeated(math.prod(window), product(x, w))


def _columns(known: np.ndarray, axes: tuple[int, ...], x: Span) -> Span:
    """Span of sums over axes of known numbers times any numbers in x."""
    up, down = np.maximum(known, 0).sum(axes), np.minimum(known, 0).sum(axes)
    if not math.isfinite(x.size):
        return Span(-math.inf, math.inf)
    return Span(float((x.low * up + x.high * down).min()), float((x.high * up + x.low * down).max()))


def _repeated(count: int, x: Span) -> Span:
    """Span of a sum of `count` numbers of x."""
    return Span(count * x.low, count * x.high)


def _reduce_sum(at: _At, x: Span) -> Span:
    return _repeated(at.types[0].size // at.result.size, x)


def _sum_pool(at: _At, x: Span) -> Span:
    return _repeated(math.prod(at.step.attributes["window"]), _with_zero(at, x))


def _relu(at: _At, x: Span) -> Span:
    return Span(max(x.low, 0.0), max(x.high, 0.0))


def _gate(at: _At, x: Span, g: Span) -> Span:
    return _with_zero(at, g)


def _abs(at: _At, x: Span) -> Span:
    return Span(max(x.low, -x.high, 0.0), x.size)


def _sign(at: _At, x: Span) -> Span:
    return Span(-1.0, 1.0)


def _maximum(at: _At, x: Span, y: Span) -> Span:
    return Span(max(x.low, y.low), max(x.high, y.high))


def _minimum(at: _At, x: Span, y: Span) -> Span:
    return Span(min(x.low, y.low), min(x.high, y.high))


def _index(at: _At, x: Span) -> Span:
    return Span(0.0, at.types[0].shape[at.step.attributes["axis"]] - 1.0)


def _select(at: _At, c: Span, x: Span, y: Span) -> Span:
    return hull(x, y)


def _spline(at: _At, x: Span) -> Span:
    return spline(at.step.attributes, x, at.types[0].fraction)[0] if math.isfinite(x.size) else _ANY


def _function(at: _At, x: Span) -> Span:
    fraction, attributes = at.types[0].fraction, at.step.attributes
    ends = [float(saturated(at.step.op, np.float64(end), fraction, attributes)) for end in x]
    return Span(min(ends), max(ends))


def _random(at: _At, seed: Span) -> Span:
    # Normal numbers end at 18, see `ring/noise.py`.
    return Span(-18.0, 18.0) if at.step.attributes["distribution"] == "normal" else _TRUTH


_ANY = Span(-math.inf, math.inf)

# One for each primitive but `constant`, which has its values with it.
RULES: dict[str, Callable[..., Span]] = {
    "add": _add,
    "subtract": _subtract,
    "negate": _negate,
    "shift": _same,
    "truncate": _same,
    "rescale": _multiply,
    "multiply": _multiply,
    "matmul": _matmul,
    "conv": _conv,
    "reshape": _same,
    "transpose": _same,
    "concatenate": _hull,
    "slice": _same,
    "pad": _with_zero,
    "gather": _same,
    "broadcast": _same,
    "reduce_sum": _reduce_sum,
    "sum_pool": _sum_pool,
    "reduce_max": _same,
    "reduce_min": _same,
    "argmax": _index,
    "argmin": _index,
    "max_pool": _same,
    "relu": _relu,
    "gate": _gate,
    "abs": _abs,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "greater_equal": _truth,
    "less": _truth,
    "equal": _truth,
    "logical_not": _truth,
    "logical_and": _truth,
    "logical_or": _truth,
    "select": _select,
    "one_hot": _truth,
    "exp": _function,
    "reciprocal": _function,
    "rsqrt": _function,
    "sqrt": _function,
    "log": _function,
    "softmax": _truth,
    "spline": _spline,
    "random": _random,
}
