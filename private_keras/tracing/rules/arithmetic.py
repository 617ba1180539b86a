"""Elementwise arithmetic.

Losses divide by sums over a batch. A sum of many terms can be large, and 1 / 1000 at 18 bits is off by a thousandth:
the inverse of a sum is kept at 28 bits.
"""

from typing import Any

import numpy as np
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.curves import activation
from private_keras.tracing.entropy import log_softmax, log_sum_exp_with_slope, origin, unlimited
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.activation import spline, with_slope
from private_keras.tracing.values import Known, Secret, Value


def add(lo: Lowering, op: knp.Add, x: Any, y: Any) -> Value:
    """x + y. A probability and an epsilon below half a unit stay a probability, whose logits are known."""
    x, y = value_of(x), value_of(y)
    for one, other in ((x, y), (y, x)):
        if _not_negative(lo, other) and unlimited(lo, one, other, np.inf):
            return one
    return arithmetic.add(lo, x, y)


def subtract(lo: Lowering, op: knp.Subtract, x: Any, y: Any) -> Value:
    return arithmetic.subtract(lo, value_of(x), value_of(y))


def multiply(lo: Lowering, op: knp.Multiply, x: Any, y: Any) -> Value:
    return arithmetic.multiply(lo, value_of(x), value_of(y))


# A divisor of at least so many terms is a sum; its inverse is at `INVERSE` bits, for divisors of these powers of two.
MANY = 16
INVERSE = 28
DIVISORS = {"low": -12, "high": 20}
# Steps through which a sum stays a sum.
_STILL_SUMS = ("truncate", "shift", "reshape", "broadcast", "add", "subtract", "multiply", "maximum")


def divide(lo: Lowering, op: knp.Divide, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    if isinstance(y, Known):
        return arithmetic.divide(lo, x, y)
    y = lo.as_secret(y)
    if isinstance(x, Secret) and _total_of(lo, x, y):
        return x
    if not _sums(lo, y):
        return arithmetic.divide(lo, x, y)
    inverse, sign = _long_inverse(lo, y)
    quotient = _times_inverse(lo, x, inverse)
    return quotient if sign is None else lo.step("multiply", quotient, sign)


def divide_no_nan(lo: Lowering, op: knp.DivideNoNan, x: Any, y: Any) -> Value:
    """0 where y is 0: sign(y) is 0 there."""
    x, y = value_of(x), value_of(y)
    if isinstance(y, Known):
        inverse = lo.derive("reciprocal or 0", lambda v: np.divide(1, v, out=np.zeros_like(v), where=v != 0), y)
        return arithmetic.multiply(lo, x, inverse)
    z = lo.at(y)
    if _sums(lo, z):
        inverse, sign = _long_inverse(lo, z)
        return lo.step("multiply", _times_inverse(lo, x, inverse), sign or lo.step("sign", z))
    return arithmetic.multiply(lo, x, lo.step("multiply", lo.step("reciprocal", lo.step("abs", z)), lo.step("sign", z)))


def _total_of(lo: Lowering, x: Secret, y: Secret) -> bool:
    """Whether y is the sum of x over its last axis, and x a softmax: that is 1."""
    step = lo.builder.maker(y.name)
    if step is None or step.op != "reduce_sum" or step.inputs[0] != x.name or not step.attributes["keepdims"]:
        return False
    found = origin(lo, x) if step.attributes["axes"] == [len(x.shape) - 1] else None
    return found is not None and found[0] == "softmax" and found[2].name == x.name


def _sums(lo: Lowering, y: Secret) -> bool:
    """Whether y comes from a sum over `MANY` elements or more."""
    names, seen = [y.name], set()
    while names:
        name = names.pop()
        step = lo.builder.maker(name)
        if step is None or name in seen:
            continue
        seen.add(name)
        if step.op == "reduce_sum":
            if lo.builder.type(step.inputs[0]).size >= MANY * lo.builder.type(name).size:
                return True
        elif step.op in _STILL_SUMS:
            names.extend(step.inputs)
    return False


def _long_inverse(lo: Lowering, y: Secret) -> tuple[Secret, Secret | None]:
    """1 / |y| at `INVERSE` bits, and the sign of y where it may be negative."""
    z = lo.at(y)
    if lo.is_positive(z):
        return lo.positive(lo.step("reciprocal", z, fraction=INVERSE, **DIVISORS)), None
    return lo.positive(lo.step("reciprocal", lo.step("abs", z), fraction=INVERSE, **DIVISORS)), lo.step("sign", z)


def _times_inverse(lo: Lowering, x: Value, inverse: Secret) -> Secret:
    """x / |y|, below 2^16, at the working fraction. A whole number below 2^20 keeps all bits of the inverse."""
    if isinstance(x, Known) and not x.secret and x.value.ndim == 0 and float(x.value) == int(x.value) < 2**20:
        return lo.at(lo.step("multiply", inverse, lo.known(x, 0)))
    return lo.at(lo.step("multiply", lo.operand(x), inverse))


def negative(lo: Lowering, op: knp.Negative, x: Value) -> Value:
    return arithmetic.negate(lo, x)


def reciprocal(lo: Lowering, op: knp.Reciprocal, x: Value) -> Value:
    return arithmetic.reciprocal(lo, x)


def square(lo: Lowering, op: knp.Square, x: Value) -> Value:
    return lo.positive(lo.as_secret(arithmetic.square(lo, x)))


def power(lo: Lowering, op: knp.Power, x: Any, y: Any) -> Value:
    """Public whole powers from -8 to 8 by repeated squaring, the root -1/2, and of positive x any power to 8."""
    y = value_of(y)
    exponent = float(y.value) if isinstance(y, Known) and not y.secret and y.value.ndim == 0 else None
    if isinstance(x, Known | Secret) or not np.isscalar(x):
        if exponent in (0.5, -0.5):
            return lo.positive(lo.step("sqrt" if exponent > 0 else "rsqrt", lo.at(x)))
        if exponent is not None and exponent == int(exponent) and 0 < abs(exponent) <= 8:
            z = whole_power(lo, x, abs(int(exponent)))
            return z if exponent > 0 else arithmetic.reciprocal(lo, z)
        if exponent is not None and 0 < exponent <= 8:
            return fractional_power(lo, x, exponent)
    base = value_of(x)
    if isinstance(base, Known) and not base.secret and base.value.ndim == 0 and base.value > 0:
        return lo.positive(lo.step("exp", lo.at(arithmetic.scale(lo, y, float(np.log(base.value))))))
    raise lo.refuse(
        "power",
        "expected a public exponent of 0 to 8 (of positive numbers, if it is not whole), a whole one down to -8, -0.5, "
        "or a public positive base; for positive x write exp(y * log(x)).",
    )


def fractional_power(lo: Lowering, x: Value, exponent: float) -> Value:
    """x^exponent for x >= 0: a whole power times a root where it is half of something, else e^(exponent log x)."""
    whole = int(exponent)
    if exponent - whole == 0.5:
        root = lo.positive(lo.step("sqrt", lo.at(x)))
        return arithmetic.multiply(lo, lo.at(whole_power(lo, x, whole)), root)
    return lo.positive(lo.step("exp", lo.at(arithmetic.scale(lo, logarithm(lo, x), exponent))))


def whole_power(lo: Lowering, x: Value, n: int) -> Value:
    """x^n for n >= 1."""
    if n == 1:
        return x
    half = lo.at(whole_power(lo, x, n // 2))
    z = lo.positive(lo.step("multiply", half, half))
    return z if n % 2 == 0 else arithmetic.multiply(lo, z, lo.at(x))


def exp(lo: Lowering, op: knp.Exp, x: Value) -> Value:
    z = lo.at(x)
    y = lo.positive(lo.step("exp", z))
    lo.logits[y.name] = ("exp", z)
    return y


def exp2(lo: Lowering, op: knp.Exp2, x: Value) -> Value:
    return lo.positive(lo.step("exp", lo.at(arithmetic.scale(lo, x, float(np.log(2))))))


def expm1(lo: Lowering, op: knp.Expm1, x: Value) -> Value:
    return arithmetic.subtract(lo, exp(lo, op, x), public(np.float64(1)))


def log(lo: Lowering, op: knp.Log, x: Value) -> Value:
    return logarithm(lo, x)


def logarithm(lo: Lowering, x: Value) -> Secret:
    """log(x): of probabilities from their logits, of a quotient as a difference; else by the primitive."""
    y = lo.as_secret(x)
    found = origin(lo, y)
    if found is not None:
        kind, z, p = found
        if kind == "exp":
            return z
        if kind == "softmax":
            return log_softmax(lo, z, p, p)
        return with_slope(lo, spline(lo, z, activation("log_sigmoid", lo.approximation)), "log_sigmoid", {})
    parts = _quotient(lo, y)
    if parts is not None:
        return lo.step("subtract", *lo.common(*(logarithm(lo, part) for part in parts)))
    return lo.step("log", lo.at(y))


def _quotient(lo: Lowering, y: Secret) -> tuple[Secret, Secret] | None:
    """Numerator and denominator, both positive, where y is a quotient."""
    step = lo.builder.maker(y.name)
    if step is None or step.op != "multiply":
        return None
    for top, inverse in (step.inputs, step.inputs[::-1]):
        made = lo.builder.maker(inverse)
        if made is not None and made.op == "reciprocal" and lo.is_positive(lo.secret(top)):
            return lo.secret(top), lo.secret(made.inputs[0])
    return None


def log1p(lo: Lowering, op: knp.Log1p, x: Value) -> Value:
    return lo.step("log", lo.at(arithmetic.add(lo, x, public(np.float64(1)))))


def log2(lo: Lowering, op: knp.Log2, x: Value) -> Value:
    return arithmetic.scale(lo, log(lo, op, x), float(1 / np.log(2)))


def log10(lo: Lowering, op: knp.Log10, x: Value) -> Value:
    return arithmetic.scale(lo, log(lo, op, x), float(1 / np.log(10)))


def logsumexp(lo: Lowering, op: kmath.Logsumexp, x: Value) -> Value:
    """max + log(sum(exp(x - max))); in training by the softmax, which is the gradient."""
    axes = [op.axis] if isinstance(op.axis, int) else list(range(len(x.shape)) if op.axis is None else op.axis)
    axes = sorted(a % len(x.shape) for a in axes)
    rest = [n for a, n in enumerate(x.shape) if a not in axes]
    y = lo.at(x)
    if lo.training:
        order = [a for a in range(len(x.shape)) if a not in axes] + axes
        y = lo.at(shapes.reshape(lo, shapes.transpose(lo, y, order), (*rest, -1)))
        z: Value = log_sum_exp_with_slope(lo, y)
    else:
        largest = y
        for axis in axes:
            largest = lo.step("reduce_max", largest, axis=axis, keepdims=True)
        total = shapes.reduce_sum(lo, lo.step("exp", lo.step("subtract", y, largest)), axes, True)
        z = lo.step("add", largest, lo.step("log", lo.as_secret(total)))
    return shapes.reshape(lo, z, [1 if a in axes else n for a, n in enumerate(x.shape)] if op.keepdims else rest)


def absolute(lo: Lowering, op: knp.Absolute, x: Value) -> Value:
    return lo.positive(lo.step("abs", lo.as_secret(x)))


def sign(lo: Lowering, op: knp.Sign, x: Value) -> Value:
    return lo.step("sign", lo.as_secret(x))


def maximum(lo: Lowering, op: knp.Maximum, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    for one, other in ((x, y), (y, x)):
        if unlimited(lo, one, other, np.inf):
            return one
    z = lo.step("maximum", *lo.common(x, y))
    return lo.positive(z) if _not_negative(lo, x) or _not_negative(lo, y) else z


def minimum(lo: Lowering, op: knp.Minimum, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    for one, other in ((x, y), (y, x)):
        if unlimited(lo, one, -np.inf, other):
            return one
    z = lo.step("minimum", *lo.common(x, y))
    return lo.positive(z) if _not_negative(lo, x) and _not_negative(lo, y) else z


def _not_negative(lo: Lowering, x: Value) -> bool:
    if isinstance(x, Known):
        return not x.secret and bool(np.all(x.value >= 0))
    return isinstance(x, Secret) and lo.is_positive(x)


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
