"""Roots and quotients. A root waits until it is known what becomes of it: most are divided by.

x / sqrt(v) is one function on shares, 1 / sqrt(v), instead of two. x / (sqrt(v) + epsilon) is the same where epsilon is
below 2^-20: there it keeps from dividing by zero, which the function's own lower end does, at 2^-22. A clipped norm
divided by the norm is exactly 1 where nothing is clipped, so that weights within bounds stay as they are.
"""

from dataclasses import dataclass, replace

import numpy as np

from private_keras.tracing.training.updating.public import ONE, Public, constant, fold, product, quotient
from private_keras.tracing.training.updating.scaled import (
    BUDGET,
    PLAIN,
    RATIO,
    SIZE,
    SQUARE,
    Scaled,
    Writer,
)

# Smaller epsilons are taken for 0.
TINY = 2.0**-20
# Where nothing is known of a divisor.
LOW = -20
# Octaves of `reciprocal`, and bits that ranges and results of functions may have.
OCTAVES, BITS, RESULT, LEAST = 32, 60, 28, 12
# Fractional bits of a dividend that is a product, and may be small.
LONG = 30


@dataclass(frozen=True)
class Square:
    """base^2, not yet written: a sum of squares wants other fractions than a square."""

    base: Scaled


@dataclass(frozen=True)
class Root:
    """factor * sqrt(base) + epsilon."""

    base: Scaled
    factor: Public = ONE
    epsilon: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape


@dataclass(frozen=True)
class Clipped:
    """clipped * clip(root, low, high) + rest * root, for constants."""

    root: Root
    low: float
    high: float
    clipped: float = 1.0
    rest: float = 0.0


Lazy = Scaled | Square | Root | Clipped


def force(w: Writer, x: Lazy) -> Scaled:
    """x as a value that steps take."""
    if isinstance(x, Square):
        return w.times(x.base, x.base)
    if isinstance(x, Root):
        low, high = _range(x.base)
        y = w.lo.step("sqrt", x.base.secret, low=low, high=high, fraction=PLAIN)
        z = Scaled(y, -(-high // 2), factor=x.factor, positive=True)
        return z if x.epsilon == 0 else w.offset(z, constant(np.float64(x.epsilon)))
    if isinstance(x, Clipped):
        root = w.settle(force(w, x.root))
        bounded = bound(w, bound(w, root, x.low, "maximum"), x.high, "minimum")
        if x.rest == 0:
            return replace(bounded, factor=constant(np.float64(x.clipped)))
        factors = (constant(np.float64(x.clipped)), constant(np.float64(x.rest)))
        return w.add(replace(bounded, factor=factors[0]), replace(root, factor=factors[1]))
    return x


def bound(w: Writer, x: Scaled, limit: float, op: str) -> Scaled:
    """The maximum or minimum of a settled x and a number."""
    if op == "maximum" and limit == 0:
        return replace(x, secret=w.lo.step("relu", x.secret), positive=True)
    z = w.lo.step(op, x.secret, w.number(constant(np.float64(limit)), x.secret.fraction))
    exponent = int(np.frexp(abs(limit))[1])
    if op == "maximum":
        low = exponent - 1 if limit > 0 else None
        return replace(x, secret=z, size=max(x.size, exponent), positive=x.positive or limit >= 0, low=low)
    size = min(x.size, exponent) if x.positive and limit > 0 else max(x.size, exponent)
    return replace(x, secret=z, size=size, positive=x.positive and limit >= 0, low=None)


def root(w: Writer, x: Scaled) -> Root:
    """sqrt(x) for x >= 0."""
    x = w.start(x)
    taken = w.lo.at(x.secret, min(x.secret.fraction, SQUARE))
    base = replace(x, secret=taken, factor=ONE)
    return Root(base, ONE if x.factor.key == ONE.key else fold("sqrt", np.sqrt, x.factor))


def _range(base: Scaled, epsilon: float = 0.0) -> tuple[int, int]:
    """Powers of two between which a root is taken."""
    fraction = base.secret.fraction
    low = -fraction if base.low is None else max(base.low, -fraction)
    if epsilon > 0:
        low = max(low, 2 * (int(np.frexp(epsilon)[1]) - 1))
    return low, BITS - fraction if base.size > SIZE else min(SIZE, BITS - fraction)


def inverse_root(w: Writer, y: Root, fraction: int) -> Scaled:
    """1 / y, where its epsilon is tiny; the factor waits."""
    low, high = _range(y.base, y.epsilon)
    r = w.lo.step("rsqrt", y.base.secret, low=low, high=high, fraction=fraction)
    return Scaled(r, -(low // 2), factor=quotient(ONE, y.factor), positive=True)


def inverse(w: Writer, y: Scaled, fraction: int) -> Scaled:
    """1 / y; the factor waits. Divisors of unknown size may be from 2^-20 to 2^12."""
    y = w.start(y)
    secret = w.lo.at(y.secret, min(y.secret.fraction, PLAIN))
    low = max(y.low if y.low is not None and y.positive else LOW, -secret.fraction)
    high = max(min(y.size, BITS - secret.fraction, OCTAVES + min(low, 0)), low + 1)
    factor = quotient(ONE, y.factor)
    attributes = {"low": low, "high": high, "fraction": fraction}
    if y.positive:
        return Scaled(w.lo.step("reciprocal", secret, **attributes), -low, factor=factor, positive=True)
    r = w.lo.step("reciprocal", w.lo.step("abs", secret), **attributes)
    return Scaled(w.lo.step("multiply", r, w.lo.step("sign", secret)), -low, factor=factor)


def divide(w: Writer, x: Lazy | Public, y: Lazy) -> Scaled:
    """x / y, taken to be below 2^RATIO before public factors."""
    if isinstance(x, Clipped) and isinstance(y, Root) and x.root.base == y.base and y.epsilon <= TINY:
        return _clipped_ratio(w, x, y)
    rooted = isinstance(y, Root) and y.epsilon <= TINY
    divisor = y if rooted else force(w, y)
    if isinstance(x, Public):
        z = inverse_root(w, divisor, RESULT) if rooted else inverse(w, divisor, PLAIN)
        return replace(z, factor=product(x, z.factor))
    x = force(w, x)
    x = x if x.scale == 1 else w.start(x)
    dividend = w.lo.at(x.secret, min(x.secret.fraction, LONG))
    fraction = int(np.clip(BUDGET - RATIO - dividend.fraction, LEAST, RESULT))
    z = inverse_root(w, divisor, fraction) if rooted else inverse(w, divisor, fraction)
    quotient_ = w.lo.step("multiply", dividend, z.secret)
    return Scaled(quotient_, RATIO, factor=product(x.factor, z.factor), positive=x.positive and z.positive)


def _clipped_ratio(w: Writer, x: Clipped, y: Root) -> Scaled:
    """clip(r, low, high) / r = max(min(1, high / r), low / r)."""
    inverted = inverse_root(w, y, RESULT)
    limited = [
        w.settle(replace(inverted, factor=product(constant(np.float64(limit)), inverted.factor)))
        for limit in (x.high, x.low)
        if limit > 0
    ]
    ratio = bound(w, limited[0], 1.0, "minimum")
    if x.low > 0:
        z = w.lo.step("maximum", ratio.secret, limited[1].secret)
        ratio = replace(ratio, secret=z, size=limited[1].size)
    ratio = replace(ratio, factor=constant(np.float64(x.clipped)))
    return ratio if x.rest == 0 else w.offset(w.settle(ratio), constant(np.float64(x.rest)))
