"""Spans: from the least to the largest real value of a tensor, and what steps need inside beyond their results."""
import math
from typing import Any, NamedTuple

from private_keras.plan.domains import LIMIT_BITS
from private_keras.plan.records import Step, TensorType

_DIFFERENCES = {"maximum", "minimum", "greater_equal", "less", "equal"}
_SPREADS = {"reduce_max", "reduce_min", "argmax", "argmin", "max_pool"}
_BASE_TWO = 2.0**18  # units in which exponentials hold half of 1.44 x, whatever x has


class Span(NamedTuple):
    """All values are in low <= value <= high; real, not ring units."""

    low: float
    high: float

    @property
    def size(self) -> float:
        """Upper bound on |value|."""
        return max(abs(self.low), abs(self.high))


def times(a: float, b: float) -> float:
    """a * b, where 0 times what is unbounded is 0."""
    return 0.0 if a == 0 or b == 0 else a * b


def product(x: Span, y: Span) -> Span:
    corners = [times(a, b) for a in x for b in y]
    return Span(min(corners), max(corners))


def hull(*xs: Span) -> Span:
    """The least span that holds all."""
    return Span(min(x.low for x in xs), max(x.high for x in xs))


def inside(step: Step, operands: list[Span], types: list[TensorType]) -> float:
    """The largest number, in ring units, that a step compares or truncates on its way; 0 where its result is all.

    Where a comparison looks at fewer bits than 62, its numbers count for as much more.

    Args:
        step: with attributes in normal form.
        operands: spans of the step's inputs.
        types: of the step's inputs.
    """
    unit = 2.0 ** types[0].fraction if types else 1.0
    narrow = 2.0 ** (LIMIT_BITS - step.attributes.get("width", LIMIT_BITS))
    if step.op == "relu":
        # With all bits it needs no more than what it is computed from; with fewer, room for those it does not look at.
        unseen = min(step.attributes["truncate"] - 2, step.attributes["width"] - 4)
        return (operands[0].size * unit + 2.0 ** max(unseen, 0)) * narrow if narrow > 1 else 0.0
    if step.op in _DIFFERENCES:
        x, y = operands
        return max(x.high - y.low, y.high - x.low, 0.0) * unit
    if step.op in _SPREADS:
        return (operands[0].high - operands[0].low) * unit * narrow
    if step.op == "softmax":
        # Differences are limited to half of what others are; so is their logarithm to base 2.
        return max(2 * (operands[0].high - operands[0].low), 1.5 * operands[0].size) * max(unit, _BASE_TWO)
    if step.op == "exp":
        return 2 * operands[0].size * max(unit, _BASE_TWO)
    if step.op == "spline":
        return spline(step.attributes, operands[0], types[0].fraction)[1]
    return 0.0


def compared(step: Step, x: Span, fraction: int) -> float:
    """The largest number, in ring units, that a step with a `width` compares on its way.

    Args:
        step: a relu, max_pool or spline, with attributes in normal form.
        x: span of its operand.
        fraction: of its operand.
    """
    unit = 2.0**fraction
    if step.op == "relu":
        return x.size * unit
    if step.op == "max_pool":
        return (x.high - x.low) * unit
    return _from_knots(step.attributes["knots"], x.low * unit, x.high * unit)


def _from_knots(knots: list[int], low: float, high: float) -> float:
    return max(abs(e - k) for e in (low, high) for k in (knots or [0]))


def spline(attributes: dict[str, Any], x: Span, fraction: int) -> tuple[Span, float]:
    """Span of a `spline` step's result, and the largest number in ring units inside the step.

    Args:
        attributes: of the step, in normal form.
        x: span of the operand.
        fraction: of the operand.
    """
    low, high = x.low * 2.0**fraction, x.high * 2.0**fraction
    left, right = attributes["slopes"]
    edges = [-math.inf, *attributes["knots"], math.inf]
    spans = []
    largest = _from_knots(attributes["knots"], low, high) * 2.0 ** (LIMIT_BITS - attributes["width"])
    for row, start, stop in zip(attributes["coefficients"], edges, edges[1:], strict=False):
        a, b = max(start, low), min(stop, high)
        if a > b:
            continue
        curve = _row(row, a, b)
        tails = [times(left, min(e, 0.0)) + times(right, max(e, 0.0)) for e in (a, b, min(max(0.0, a), b))]
        if attributes["scale"] > attributes["fraction"]:
            largest = max(largest, curve.size)
        if attributes["slope_bits"]:
            largest = max(largest, *map(abs, tails))
        bend = 2.0 ** (attributes["scale"])
        tail = 2.0 ** (attributes["slope_bits"] + attributes["fraction"])
        spans.append(Span(curve.low / bend + min(tails) / tail, curve.high / bend + max(tails) / tail))
    return hull(*spans), largest


def limit(step: Step, types: list[TensorType], result: TensorType, from_inside: bool) -> float:
    """The real size below which values do not wrap: of the step's result, or of its operands if the step wraps inside.

    Args:
        step: with attributes in normal form.
        types: of the step's inputs.
        result: of its result.
        from_inside: whether `inside` is what is too large.
    """
    if not from_inside:
        return 2.0 ** (LIMIT_BITS - result.fraction)
    if step.op == "spline":
        factors = [(a, degree) for row in step.attributes["coefficients"] for degree, a in enumerate(row) if degree]
        factors += [(slope, 1) for slope in step.attributes["slopes"]]
        units = [(2.0**LIMIT_BITS / abs(a)) ** (1 / degree) for a, degree in factors if a]
        return min([*units, 2.0 ** step.attributes["width"]]) / 2.0 ** types[0].fraction
    bits = step.attributes.get("width", LIMIT_BITS)
    if step.op == "relu":
        return 2.0 ** (bits - types[0].fraction)
    # Two operands of this size differ by twice as much.
    unit = max(2.0 ** types[0].fraction, _BASE_TWO) if step.op in ("exp", "softmax") else 2.0 ** types[0].fraction
    return 2.0 ** (bits - (2 if step.op == "softmax" else 1)) / unit


def _row(row: list[int], low: float, high: float) -> Span:
    """Span of a polynomial of degree 2 at most on low <= X <= high."""
    places = [low, high]
    square = row[2] if len(row) > 2 else 0
    if square and low < -row[1] / (2 * square) < high:
        places.append(-row[1] / (2 * square))
    values = [row[0] + times(place, row[1] + times(square, place)) for place in places]
    return Span(min(values), max(values))
