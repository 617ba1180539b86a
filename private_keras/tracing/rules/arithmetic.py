"""Elementwise arithmetic."""

from typing import Any

import numpy as np
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.values import Known, Secret, Value


def add(lo: Lowering, op: knp.Add, x: Any, y: Any) -> Value:
    return arithmetic.add(lo, value_of(x), value_of(y))


def subtract(lo: Lowering, op: knp.Subtract, x: Any, y: Any) -> Value:
    return arithmetic.subtract(lo, value_of(x), value_of(y))


def multiply(lo: Lowering, op: knp.Multiply, x: Any, y: Any) -> Value:
    return arithmetic.multiply(lo, value_of(x), value_of(y))


def divide(lo: Lowering, op: knp.Divide, x: Any, y: Any) -> Value:
    return arithmetic.divide(lo, value_of(x), value_of(y))


def divide_no_nan(lo: Lowering, op: knp.DivideNoNan, x: Any, y: Any) -> Value:
    """0 where y is 0: sign(y) is 0 there."""
    x, y = value_of(x), value_of(y)
    if isinstance(y, Known):
        inverse = lo.derive("reciprocal or 0", lambda v: np.divide(1, v, out=np.zeros_like(v), where=v != 0), y)
        return arithmetic.multiply(lo, x, inverse)
    z = lo.at(y)
    return arithmetic.multiply(lo, x, lo.step("multiply", lo.step("reciprocal", lo.step("abs", z)), lo.step("sign", z)))


def negative(lo: Lowering, op: knp.Negative, x: Value) -> Value:
    return arithmetic.negate(lo, x)


def reciprocal(lo: Lowering, op: knp.Reciprocal, x: Value) -> Value:
    return arithmetic.reciprocal(lo, x)


def square(lo: Lowering, op: knp.Square, x: Value) -> Value:
    return lo.positive(lo.as_secret(arithmetic.square(lo, x)))


def power(lo: Lowering, op: knp.Power, x: Any, y: Any) -> Value:
    """Public whole powers from -8 to 8 by repeated squaring, and the roots 1/2 and -1/2."""
    y = value_of(y)
    exponent = float(y.value) if isinstance(y, Known) and not y.secret and y.value.ndim == 0 else None
    if isinstance(x, Known | Secret) or not np.isscalar(x):
        if exponent in (0.5, -0.5):
            return lo.positive(lo.step("sqrt" if exponent > 0 else "rsqrt", lo.at(x)))
        if exponent is not None and exponent == int(exponent) and 0 < abs(exponent) <= 8:
            z = whole_power(lo, x, abs(int(exponent)))
            return z if exponent > 0 else arithmetic.reciprocal(lo, z)
    base = value_of(x)
    if isinstance(base, Known) and not base.secret and base.value.ndim == 0 and base.value > 0:
        return lo.positive(lo.step("exp", lo.at(arithmetic.scale(lo, y, float(np.log(base.value))))))
    raise lo.refuse(
        "power",
        "expected a public whole exponent of size 1 to 8, 0.5 or -0.5, or a public positive base; "
        "for positive x write exp(y * log(x)).",
    )


def whole_power(lo: Lowering, x: Value, n: int) -> Value:
    """x^n for n >= 1."""
    if n == 1:
        return x
    half = lo.at(whole_power(lo, x, n // 2))
    z = lo.positive(lo.step("multiply", half, half))
    return z if n % 2 == 0 else arithmetic.multiply(lo, z, lo.at(x))


def exp(lo: Lowering, op: knp.Exp, x: Value) -> Value:
    return lo.positive(lo.step("exp", lo.at(x)))


def exp2(lo: Lowering, op: knp.Exp2, x: Value) -> Value:
    return lo.positive(lo.step("exp", lo.at(arithmetic.scale(lo, x, float(np.log(2))))))


def expm1(lo: Lowering, op: knp.Expm1, x: Value) -> Value:
    return arithmetic.subtract(lo, exp(lo, op, x), public(np.float64(1)))


def log(lo: Lowering, op: knp.Log, x: Value) -> Value:
    return lo.step("log", lo.at(x))


def log1p(lo: Lowering, op: knp.Log1p, x: Value) -> Value:
    return lo.step("log", lo.at(arithmetic.add(lo, x, public(np.float64(1)))))


def log2(lo: Lowering, op: knp.Log2, x: Value) -> Value:
    return arithmetic.scale(lo, log(lo, op, x), float(1 / np.log(2)))


def log10(lo: Lowering, op: knp.Log10, x: Value) -> Value:
    return arithmetic.scale(lo, log(lo, op, x), float(1 / np.log(10)))


def logsumexp(lo: Lowering, op: kmath.Logsumexp, x: Value) -> Value:
    """max + log(sum(exp(x - max))): the sum is between 1 and the number of elements."""
    axes = [op.axis] if isinstance(op.axis, int) else list(range(len(x.shape)) if op.axis is None else op.axis)
    axes = sorted(a % len(x.shape) for a in axes)
    y = lo.at(x)
    largest = y
    for axis in axes:
        largest = lo.step("reduce_max", largest, axis=axis, keepdims=True)
    total = shapes.reduce_sum(lo, lo.step("exp", lo.step("subtract", y, largest)), axes, True)
    z = lo.step("add", largest, lo.step("log", lo.as_secret(total)))
    return z if op.keepdims else shapes.reshape(lo, z, [n for a, n in enumerate(z.shape) if a not in axes])


def absolute(lo: Lowering, op: knp.Absolute, x: Value) -> Value:
    return lo.positive(lo.step("abs", lo.as_secret(x)))


def sign(lo: Lowering, op: knp.Sign, x: Value) -> Value:
    return lo.step("sign", lo.as_secret(x))


def maximum(lo: Lowering, op: knp.Maximum, x: Any, y: Any) -> Value:
    return lo.step("maximum", *lo.common(value_of(x), value_of(y)))


def minimum(lo: Lowering, op: knp.Minimum, x: Any, y: Any) -> Value:
    return lo.step("minimum", *lo.common(value_of(x), value_of(y)))


def same(lo: Lowering, op: Any, x: Value) -> Value:
    """An operation that changes nothing on real, finite numbers."""
    return x


RULES = {
    knp.Add: add,
    knp.Subtract: subtract,
    knp.Multiply: multiply,
    knp.Divide: divide,
    knp.TrueDivide: divide,
    knp.DivideNoNan: divide_no_nan,
    knp.Negative: negative,
    knp.Reciprocal: reciprocal,
    knp.Square: square,
    knp.Power: power,
    knp.Exp: exp,
    knp.Exp2: exp2,
    knp.Expm1: expm1,
    knp.Log: log,
    knp.Log1p: log1p,
    knp.Log2: log2,
    knp.Log10: log10,
    kmath.Logsumexp: logsumexp,
    knp.Abs: absolute,
    knp.Absolute: absolute,
    knp.Fabs: absolute,
    knp.Sign: sign,
    knp.Maximum: maximum,
    knp.Minimum: minimum,
    knp.Fmax: maximum,
    knp.Fmin: minimum,
    knp.Copy: same,
    knp.Conj: same,
    knp.Conjugate: same,
    knp.Real: same,
    knp.NanToNum: same,
}
