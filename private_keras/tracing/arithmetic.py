"""Sums and products of traced values, folding known factors and terms into a product that precedes them."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from private_keras.tracing.lowering import HEADROOM, LONGEST, Lowering
from private_keras.tracing.values import Known, Product, Refused, Secret, Value

# Relative precision of a public factor that is no short binary fraction: 2^-20, finer than the working fraction.
FACTOR_BITS = 20


def add(lo: Lowering, x: Value, y: Value) -> Value:
    """x + y. A known y of one number per channel becomes the bias of the product x."""
    if isinstance(x, Known) and isinstance(y, Known):
        return lo.derive("add", np.add, x, y)
    if isinstance(x, Known):
        x, y = y, x
    if isinstance(y, Known) and not y.secret and not np.any(y.value) and len(y.shape) == 0:
        return x
    if isinstance(x, Product) and isinstance(y, Known):
        channel = per_channel(lo, y, x.shape)
        if channel is not None:
            return replace(x, bias=channel if x.bias is None else lo.derive("add", np.add, x.bias, channel))
    a, b = lo.common(x, y)
    z = lo.step("add", a, b)
    return lo.positive(z) if _not_negative(lo, x, a) and _not_negative(lo, y, b) else z


def _not_negative(lo: Lowering, x: Value, written: Secret) -> bool:
    if isinstance(x, Known):
        return not x.secret and bool(np.all(x.value >= 0))
    return lo.is_positive(written)


def subtract(lo: Lowering, x: Value, y: Value) -> Value:
    """x - y."""
    if isinstance(x, Known) and isinstance(y, Known):
        return lo.derive("subtract", np.subtract, x, y)
    if isinstance(y, Known):
        return add(lo, x, lo.derive("negative", np.negative, y))
    if isinstance(x, Known) and isinstance(y, Product):
        return add(lo, negate(lo, y), x)
    a, b = lo.common(x, y)
    return lo.step("subtract", a, b)


def negate(lo: Lowering, x: Value) -> Value:
    """-x."""
    if isinstance(x, Known):
        return lo.derive("negative", np.negative, x)
    if isinstance(x, Product):
        return _fold_factor(lo, x, public(np.float64(-1)))
    return lo.step("negate", x)


def multiply(lo: Lowering, x: Value, y: Value) -> Value:
    """x * y. A known y of one number per channel folds into the weights of the product x; nothing is truncated."""
    if isinstance(x, Known) and isinstance(y, Known):
        return lo.derive("multiply", np.multiply, x, y)
    if isinstance(x, Known):
        x, y = y, x
    if isinstance(y, Known):
        if isinstance(x, Product):
            channel = per_channel(lo, y, x.shape)
            if channel is not None:
                return _fold_factor(lo, x, channel)
        if not y.secret:
            return scale(lo, x, y.value)
    return lo.step("multiply", lo.operand(x), lo.operand(y))


def square(lo: Lowering, x: Value) -> Value:
    """x * x."""
    y = lo.operand(x)
    return lo.step("multiply", y, y)


def affine(lo: Lowering, x: Value, factor: Known, term: Known) -> Value:
    """x * factor + term, folded into x where x is a product."""
    return add(lo, multiply(lo, x, factor), term)


def scale(lo: Lowering, x: Value, factor: float | np.ndarray) -> Value:
    """x times a public factor, number or array. Powers of two and small integers are exact; nothing is truncated."""
    factor = np.asarray(factor, dtype=np.float64)
    if isinstance(x, Known):
        return lo.derive("multiply", np.multiply, x, public(factor))
    if isinstance(x, Product):
        channel = per_channel(lo, public(factor), x.shape)
        if channel is not None:
            return _fold_factor(lo, x, channel)
    if np.all(factor == 1) and factor.ndim == 0:
        return x
    if np.all(factor == -1) and factor.ndim == 0:
        return lo.step("negate", lo.as_secret(x))
    bits = factor_bits(factor)
    size = int(np.max(np.abs(np.rint(factor * 2.0**bits)), initial=0)).bit_length()
    y = lo.as_secret(x)
    # |x| < 2^HEADROOM in ring units, times an integer below 2^size, has to stay below 2^62.
    if y.fraction > lo.fraction and (y.fraction + size > LONGEST or y.fraction + bits > 58):
        y = lo.at(y)
    if y.fraction + size + HEADROOM > 61 or y.fraction + bits > 58:
        raise lo.refuse(
            "multiplication by a public factor", f"the factor needs {size} bits; keep factors below 2^20 in size."
        )
    z = lo.step("multiply", y, lo.known(public(factor), bits))
    return lo.positive(z) if lo.is_positive(y) and np.all(factor >= 0) else z


def factor_bits(factor: np.ndarray) -> int:
    """Fractional bits for a public factor: as many as make it exact, or FACTOR_BITS significant ones."""
    for bits in range(FACTOR_BITS):
        scaled = factor * 2.0**bits
        if np.array_equal(scaled, np.rint(scaled)):
            return bits
    largest = float(np.max(np.abs(factor)))
    return int(np.clip(FACTOR_BITS - np.floor(np.log2(largest)), 0, 36))


def value_of(x: Any) -> Value:
    """x, or the public constant that a plain number stands for."""
    return x if isinstance(x, Known | Secret | Product | Refused) else public(np.asarray(x))


def public(value: float | np.ndarray) -> Known:
    """A public constant."""
    value = np.asarray(value)
    return Known(value, False, f"public:{value.dtype}:{value.shape}:{hashlib.sha256(value.tobytes()).hexdigest()}")


def per_channel(lo: Lowering, k: Known, shape: tuple[int, ...]) -> Known | None:
    """k as one number per element of the last axis of `shape`, or None if it varies along other axes."""
    if len(k.shape) > len(shape) or any(n != 1 for n in k.shape[:-1]):
        return None
    channels = shape[-1]
    if k.value.size not in (1, channels):
        return None
    return lo.derive(f"per channel {channels}", lambda v: np.broadcast_to(v.reshape(-1), (channels,)).copy(), k)


def _fold_factor(lo: Lowering, x: Product, factor: Known) -> Product:
    bias = None if x.bias is None else lo.derive("scale bias", np.multiply, x.bias, factor)
    return replace(x, weight=lo.derive("scale weight", np.multiply, x.weight, factor), bias=bias)


def divide(lo: Lowering, x: Value, y: Value) -> Value:
    """x / y; a secret y may have either sign but must lie in the domain of `reciprocal`."""
    if isinstance(y, Known):
        if not y.secret and np.any(y.value == 0):
            raise lo.refuse("division by a constant zero", "the quotient is not finite; divide by something else.")
        return multiply(lo, x, lo.derive("reciprocal", np.reciprocal, y))
    inverse = reciprocal(lo, y)
    if isinstance(x, Known) and not x.secret and x.value.ndim == 0:
        return scale(lo, inverse, x.value)
    return multiply(lo, x, inverse)


def reciprocal(lo: Lowering, y: Value) -> Secret:
    """1 / y."""
    z = lo.at(y)
    if lo.is_positive(z):
        return lo.positive(lo.step("reciprocal", z))
    return lo.step("multiply", lo.step("reciprocal", lo.step("abs", z)), lo.step("sign", z))
