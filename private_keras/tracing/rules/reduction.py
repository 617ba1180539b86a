"""Sums, products, extremes and where they are. Means and variances are in `normalization`."""

from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.entropy import ordered
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.comparison import truth
from private_keras.tracing.rules.normalization import axes_of
from private_keras.tracing.values import Known, Secret, Value

MOST_FACTORS = 64


def sum_(lo: Lowering, op: knp.Sum, x: Value) -> Value:
    return shapes.reduce_sum(lo, x, axes_of(op.axis, len(x.shape)), op.keepdims)


def extreme(lo: Lowering, op: Any, x: Value, step: str) -> Value:
    y = lo.as_secret(x)
    axes = axes_of(op.axis, len(x.shape))
    for axis in reversed(axes):
        y = lo.step(step, y, axis=axis, keepdims=op.keepdims)
    initial = getattr(op, "initial", None)
    if initial is not None:
        y = lo.step("maximum" if step == "reduce_max" else "minimum", *lo.common(y, value_of(initial)))
    return y


def max_(lo: Lowering, op: knp.Max, x: Value) -> Value:
    return extreme(lo, op, x, "reduce_max")


def min_(lo: Lowering, op: knp.Min, x: Value) -> Value:
    return extreme(lo, op, x, "reduce_min")


def ptp(lo: Lowering, op: knp.Ptp, x: Value) -> Value:
    return lo.positive(lo.step("subtract", extreme(lo, op, x, "reduce_max"), extreme(lo, op, x, "reduce_min")))


def argmax(lo: Lowering, op: knp.Argmax, x: Value) -> Value:
    return _arg(lo, op, x, "argmax")


def argmin(lo: Lowering, op: knp.Argmin, x: Value) -> Value:
    return _arg(lo, op, x, "argmin")


def _arg(lo: Lowering, op: Any, x: Value, step: str) -> Value:
    if op.axis is None:
        y = lo.step(step, lo.as_secret(shapes.reshape(lo, x, (-1,))), axis=0)
        return shapes.reshape(lo, y, [1] * len(x.shape)) if op.keepdims else y
    axis = op.axis % len(x.shape)
    y = lo.as_secret(x)
    y = lo.step(step, ordered(lo, y) if axis == len(x.shape) - 1 else y, axis=axis)
    return shapes.reshape(lo, y, [1 if a == axis else n for a, n in enumerate(x.shape)]) if op.keepdims else y


def prod(lo: Lowering, op: knp.Prod, x: Value) -> Value:
    """Halves multiplied with each other, truncated at each level."""
    axes = axes_of(op.axis, len(x.shape))
    rest = [a for a in range(len(x.shape)) if a not in axes]
    shape = [x.shape[a] for a in rest]
    y = lo.at(shapes.reshape(lo, shapes.transpose(lo, x, rest + axes), (*shape, -1)))
    if y.shape[-1] > MOST_FACTORS:
        raise lo.refuse(f"prod of {y.shape[-1]} elements", f"use at most {MOST_FACTORS}, or a sum of logarithms.")
    whole = [slice(None)] * len(shape)
    while (n := y.shape[-1]) > 1:
        a = shapes.cut(lo, y, [*whole, slice(0, n // 2)])
        b = shapes.cut(lo, y, [*whole, slice(n // 2, n // 2 * 2)])
        z = lo.at(lo.step("multiply", a, b))
        y = shapes.concatenate(lo, [z, shapes.cut(lo, y, [*whole, slice(n - 1, n)])], -1) if n % 2 else z
    return shapes.reshape(lo, y, [1 if a in axes else n for a, n in enumerate(x.shape)] if op.keepdims else shape)


def any_(lo: Lowering, op: knp.Any, x: Value) -> Value:
    """At least one: the number of true elements is not 0."""
    return lo.step("logical_not", lo.step("equal", _count(lo, op, x), lo.known(public(np.int64(0)), 0)))


def all_(lo: Lowering, op: knp.All, x: Value) -> Value:
    """The number of true elements is the number of elements."""
    size = int(np.prod([x.shape[a] for a in axes_of(op.axis, len(x.shape))], dtype=np.int64))
    return lo.step("equal", _count(lo, op, x), lo.known(public(np.int64(size)), 0))


def count_nonzero(lo: Lowering, op: knp.CountNonzero, x: Value) -> Value:
    return shapes.reduce_sum(lo, truth(lo, x), axes_of(op.axis, len(x.shape)))


def _count(lo: Lowering, op: Any, x: Value) -> Secret:
    return lo.as_secret(shapes.reduce_sum(lo, truth(lo, x), axes_of(op.axis, len(x.shape)), op.keepdims))


def average(lo: Lowering, op: knp.Average, x: Value, weights: Any = None) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    if weights is None:
        count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
        return arithmetic.scale(lo, shapes.reduce_sum(lo, x, axes), 1 / count)
    w = value_of(weights)
    if len(w.shape) == 1 and len(axes) == 1:
        w = shapes.reshape(lo, w, [n if a == axes[0] else 1 for a, n in enumerate(x.shape)])
    if isinstance(w, Known):
        full = lo.derive(f"weights {x.shape}", lambda v: np.broadcast_to(v, x.shape), w)
        share = lo.derive(f"share {axes}", lambda v: v / v.sum(axis=tuple(axes), keepdims=True), full)
        return shapes.reduce_sum(lo, arithmetic.multiply(lo, x, share), axes)
    total = shapes.reduce_sum(lo, shapes.broadcast(lo, w, x.shape), axes)
    return arithmetic.divide(lo, shapes.reduce_sum(lo, arithmetic.multiply(lo, x, w), axes), total)


RULES = {
    knp.Sum: sum_,
    knp.Max: max_,
    knp.Amax: max_,
    knp.Min: min_,
    knp.Amin: min_,
    knp.Ptp: ptp,
    knp.Argmax: argmax,
    knp.Argmin: argmin,
    knp.Prod: prod,
    knp.Any: any_,
    knp.All: all_,
    knp.CountNonzero: count_nonzero,
    knp.Average: average,
}
