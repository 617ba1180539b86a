"""Lowering of metrics' results: sums over a whole epoch, and quotients of them that are exact to about 2^-21.

Numbers here have another size than in a model. A count goes up to 2^30, and a quotient of two counts is what the user
wants to see. So the divisor's leading bit is found first, and it and the dividend are brought to a scale where the
divisor is between 1 and 2; an inverse from there, made better by one step of Newton's, and one product.
It runs once an epoch on a few hundred numbers.
"""

import functools
from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules import TABLE, comparison
from private_keras.tracing.values import Known, Secret, Value

# Sums: below 2^30. Products of a sum that is no integer with another number: below 2^29.
COUNT_BITS = 30
# Quotients: at 24 bits, below 2^7 where they meet another factor, below 2^14 as results.
QUOTIENT = 24
QUOTIENT_BITS = 7
# Fraction at which a divisor between 1 and 2 is brought, and how many octaves are cut off together above it.
UNIT = 30
WINDOW = 9

# The spline of a logarithm between 1 and 2.
LOG_PIECES, LOG_OPERAND = 32, 20

# Fractions of the factors of a product: of the sum, if it has a fraction, and of what it is multiplied with.
SUM_FACTOR, FACTOR = 14, 18
# A quotient is taken to reach a limit from here on below it: that is how far off it may be.
SLACK = 2.0**-19

_MOVING = ("add", "subtract", "negate", "truncate", "shift", "reshape", "transpose", "slice", "gather", "broadcast")
_KEEPING = (*_MOVING, "concatenate", "pad", "reduce_sum", "multiply", "maximum", "minimum", "select", "abs", "relu",
            "reduce_max", "reduce_min", "matmul", "sum_pool")


class ResultLowering(Lowering):
    """A lowering whose inputs are sums. `divisors`: what was divided by, by name of the quotient."""

    def __init__(self, owner: str):
        super().__init__(20, "accurate", owner)
        self.divisors: dict[str, Secret] = {}
        self._sums: dict[str, bool] = {}

    def is_sum(self, x: Secret) -> bool:
        """Whether x is as large as a sum over an epoch may be: a state, or made of states by other than quotients."""
        order = [x.name]
        while order:
            name = order[-1]
            step = self.builder.maker(name)
            if name in self._sums:
                order.pop()
            elif step is None:
                self._sums[order.pop()] = True
            elif name in self.divisors or step.op not in _KEEPING:
                self._sums[order.pop()] = False
            elif waiting := [n for n in step.inputs if n not in self._sums]:
                order.extend(waiting)
            else:
                self._sums[order.pop()] = any(self._sums[n] for n in step.inputs)
        return self._sums[x.name]

    def upto(self, x: Secret, fraction: int) -> Secret:
        return x if x.fraction <= fraction else self.at(x, fraction)


def quotient(lo: ResultLowering, x: Value, y: Value) -> Value:
    """x / y for y > 0, and 0 for all other y; below 2^14."""
    if isinstance(y, Known):
        return multiply(lo, None, x, lo.derive("reciprocal or 0", _inverse_or_zero, y))
    divisor = lo.as_secret(y)
    dividend = lo.known(x, 0 if _whole(x) else lo.fraction) if isinstance(x, Known) else lo.as_secret(x)
    large = lo.is_sum(divisor) or lo.is_sum(dividend)
    fraction = min(max(divisor.fraction, dividend.fraction), 18 if large else QUOTIENT)
    a, b = lo.at(dividend, fraction), lo.at(divisor, fraction)
    shape = np.broadcast_shapes(a.shape, b.shape)
    top, bottom = _scaled(lo, a, b, fraction + (COUNT_BITS if large else QUOTIENT_BITS))
    inverse = lo.step("reciprocal", lo.at(bottom, 26), low=0, high=1, fraction=24)
    two = lo.secret(lo.builder.constant(np.int64(2 << QUOTIENT), QUOTIENT))
    error = lo.step("subtract", two, lo.at(lo.step("multiply", lo.at(bottom, 26), inverse), QUOTIENT))
    inverse = lo.at(lo.step("multiply", inverse, error), 22)
    z = lo.at(lo.step("multiply", lo.at(top, QUOTIENT), inverse), QUOTIENT)
    if z.shape != shape:
        z = lo.step("broadcast", z, shape=list(shape))
    lo.divisors[z.name] = divisor
    return z


def _scaled(lo: Lowering, x: Secret, y: Secret, width: int) -> tuple[Secret, Secret]:
    """x and y times the power of two that brings y to [1, 2), at `UNIT` bits; both 0 where y is not positive.

    `width`: y is below 2^width units.
    """
    bits = _octaves(lo, y, width)
    x_parts: list[Secret] = []
    y_parts: list[Secret] = []
    for window in range(max(0, -(-(width - 1 - UNIT) // WINDOW)) + 1):
        cut = window * WINDOW
        octaves = np.arange(width)
        low = UNIT + cut - WINDOW if window else -1
        power = np.where((octaves > low) & (octaves <= UNIT + cut), UNIT + cut - octaves, -1)
        factors = np.where(power < 0, 0, np.left_shift(1, np.maximum(power, 0)))
        # bits are 1 up to the leading one: differences leave that of the leading bit.
        column = lo.builder.constant(np.diff(factors, prepend=0)[:, None], UNIT - (y.fraction - cut))
        flat = lo.secret(shapes.reshape(lo, bits, (-1, width)).name)
        factor = shapes.reshape(lo, lo.step("matmul", flat, lo.secret(column)), y.shape)
        for parts, value in ((x_parts, x), (y_parts, y)):
            parts.append(lo.step("multiply", lo.at(value, value.fraction - cut), lo.secret(factor.name)))
    return _sum(lo, x_parts), _sum(lo, y_parts)


def _octaves(lo: Lowering, y: Secret, width: int) -> Secret:
    """[y >= 2^j units] for j below `width`, on a new last axis: 1 up to the leading bit."""
    limits = lo.secret(lo.builder.constant(np.left_shift(1, np.arange(width, dtype=np.int64)), y.fraction))
    return lo.step("greater_equal", lo.secret(shapes.reshape(lo, y, (*y.shape, 1)).name), limits)


def logarithm(lo: ResultLowering, op: Any, x: Value) -> Secret:
    """log(x) for x of at least a unit, off by at most 2e-6: that of the leading bit, and a spline from 1 to 2."""
    y = lo.upto(lo.as_secret(x), 18 if lo.is_sum(lo.as_secret(x)) else QUOTIENT)
    width = y.fraction + (COUNT_BITS if lo.is_sum(y) else QUOTIENT_BITS)
    bits = _octaves(lo, y, width)
    octave = lo.step("reduce_sum", bits, axes=[len(bits.shape) - 1])
    octave = lo.step("add", octave, lo.known(public(np.int64(-1 - y.fraction)), 0))
    first = lo.step("multiply", octave, lo.known(public(np.log(2)), UNIT))
    rest = lo.step("spline", lo.at(_scaled(lo, y, y, width)[1], LOG_OPERAND), **_log_spline())
    return lo.step("add", lo.at(first, QUOTIENT), rest)


@functools.cache
def _log_spline() -> dict[str, Any]:
    """log on [1, 2): each piece by its values at Chebyshev's points, coefficients rounded one by one."""
    unit, scale, edges = 2.0**LOG_OPERAND, 58, np.linspace(1, 2, LOG_PIECES + 1)
    rows = []
    for low, high in zip(edges, edges[1:], strict=False):
        x = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(12) + 0.5) / 12)
        left, row = np.log(x), []
        for degree in (2, 1, 0):
            found = np.polynomial.polynomial.polyfit(x, left, degree)[degree]
            row.append(int(round(found * 2.0**scale / unit**degree)))
            left = left - row[-1] / 2.0**scale * (x * unit) ** degree
        rows.append(row[::-1])
    knots = [int(round(k * unit)) for k in edges[1:-1]]
    return {"knots": knots, "coefficients": rows, "scale": scale, "fraction": QUOTIENT, "label": "log"}


def _sum(lo: Lowering, parts: list[Secret]) -> Secret:
    total = parts[0]
    for part in parts[1:]:
        total = lo.step("add", total, part)
    return total


def _inverse_or_zero(v: np.ndarray) -> np.ndarray:
    return np.divide(1.0, v, out=np.zeros_like(v), where=v != 0)


def _whole(x: Known) -> bool:
    return bool(np.array_equal(x.value, np.rint(x.value)))


def divide(lo: ResultLowering, op: Any, x: Any, y: Any) -> Value:
    return quotient(lo, value_of(x), value_of(y))


def multiply(lo: ResultLowering, op: Any, x: Any, y: Any) -> Value:
    """x * y, with as many bits of each as their sizes leave."""
    x, y = value_of(x), value_of(y)
    if isinstance(x, Known) and isinstance(y, Known):
        return arithmetic.multiply(lo, x, y)
    if isinstance(x, Known) or isinstance(y, Known):
        known, other = (x, y) if isinstance(x, Known) else (y, x)
        value = lo.as_secret(other)
        if lo.is_sum(value) and not _whole(known):
            value = lo.upto(value, SUM_FACTOR)
        return arithmetic.multiply(lo, value, known)
    a, b = lo.as_secret(x), lo.as_secret(y)
    if lo.is_sum(b):
        a, b = b, a
    if lo.is_sum(b):
        return lo.step("multiply", lo.upto(a, 7), lo.upto(b, 7))
    if not lo.is_sum(a):
        return lo.at(lo.step("multiply", lo.upto(a, QUOTIENT - 1), lo.upto(b, QUOTIENT - 1)), QUOTIENT)
    return lo.step("multiply", lo.upto(a, SUM_FACTOR), lo.upto(b, FACTOR if a.fraction else QUOTIENT))


def square(lo: ResultLowering, op: Any, x: Value) -> Value:
    return multiply(lo, op, x, x)


def greater_equal(lo: ResultLowering, op: Any, x: Any, y: Any) -> Value:
    """As elsewhere, but a quotient that is a limit, to the accuracy that it has, reaches it."""
    x, y = value_of(x), value_of(y)
    if isinstance(y, Known) and isinstance(x, Secret) and x.name in lo.divisors:
        y = lo.derive("slack", lambda v: v - SLACK, y)
    return comparison.greater_equal(lo, op, x, y)


def infinite(lo: ResultLowering, op: Any, x: Value) -> Value:
    """Whether there was a division by zero on the way to x."""
    y = lo.as_secret(x)
    found: list[Secret] = []
    names = [y.name]
    while names:
        name = names.pop()
        step = lo.builder.maker(name)
        if name in lo.divisors:
            found.append(lo.divisors[name])
        elif step is not None and step.op in _MOVING:
            names.extend(step.inputs)
    if not found:
        return public(np.zeros(y.shape, np.bool_))
    truths = [comparison.less_equal(lo, op, divisor, 0.0) for divisor in found]
    total = truths[0]
    for truth in truths[1:]:
        total = lo.step("logical_or", total, truth)
    return shapes.broadcast(lo, total, y.shape)


RESULTS = {
    **TABLE,
    knp.Divide: divide,
    knp.TrueDivide: divide,
    knp.DivideNoNan: divide,
    knp.Multiply: multiply,
    knp.Square: square,
    knp.Log: logarithm,
    knp.GreaterEqual: greater_equal,
    knp.Isinf: infinite,
}
