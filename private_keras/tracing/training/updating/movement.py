"""Sums, products of matrices and movements in updates. A public factor goes on waiting."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import shapes
from private_keras.tracing.rules.normalization import axes_of
from private_keras.tracing.training.updating.public import ONE, constant, product
from private_keras.tracing.training.updating.roots import Lazy, Square, force
from private_keras.tracing.training.updating.scaled import BUDGET, FACTOR_SIZE, PLAIN, Scaled, Writer
from private_keras.tracing.values import Secret

# Fractional bits of a number whose squares are summed up: norms of gradients are below 2^14, of weights below 2^12.
OF_GRADIENT, OF_WEIGHT = 16, 18


def sum_(w: Writer, op: Any, x: Lazy) -> Scaled:
    return total(w, x, axes_of(op.axis, len(_shape(x))), op.keepdims)


def mean(w: Writer, op: Any, x: Lazy) -> Scaled:
    shape = _shape(x)
    axes = axes_of(op.axis, len(shape))
    count = math.prod(shape[a] for a in axes)
    y = total(w, x, axes, op.keepdims)
    return replace(y, factor=product(y.factor, constant(np.float64(1 / count))))


def _shape(x: Lazy) -> tuple[int, ...]:
    return x.base.shape if isinstance(x, Square) else x.shape


def total(w: Writer, x: Lazy, axes: Sequence[int], keepdims: bool) -> Scaled:
    """The sum over axes; of squares with the range that a norm needs."""
    if isinstance(x, Square):
        base = w.start(x.base)
        fraction = OF_WEIGHT if base.secret.fraction <= OF_WEIGHT else OF_GRADIENT
        y = w.lo.at(base.secret, min(base.secret.fraction, fraction))
        squares = w.lo.step("multiply", y, y)
        z = _summed(w, squares, axes, keepdims)
        size = BUDGET - 1 - z.fraction
        return Scaled(z, size, factor=product(base.factor, base.factor), square=True, positive=True)
    y = w.start(force(w, x))
    count = math.prod(y.shape[a] for a in axes)
    size = y.size + max(count - 1, 0).bit_length()
    secret = w.lo.at(y.secret, min(y.secret.fraction, max(BUDGET - size, 0)))
    return replace(y, secret=_summed(w, secret, axes, keepdims), size=size, low=None)


def _summed(w: Writer, x: Secret, axes: Sequence[int], keepdims: bool) -> Secret:
    return w.lo.as_secret(shapes.reduce_sum(w.lo, x, axes, keepdims)) if axes else x


def stack(w: Writer, op: Any, xs: Sequence[Any]) -> Scaled:
    parts = [w.start(force(w, x)) for x in xs]
    if any(p.factor.key != ONE.key for p in parts):
        parts = [w.settle(p) for p in parts]
    fraction = min(p.secret.fraction for p in parts)
    axis = op.axis % (len(parts[0].shape) + 1)
    shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
    secrets = [w.lo.as_secret(shapes.reshape(w.lo, w.lo.at(p.secret, fraction), shape)) for p in parts]
    z = secrets[0] if len(secrets) == 1 else w.lo.step("concatenate", *secrets, axis=axis)
    return Scaled(
        z, max(p.size for p in parts), square=any(p.square for p in parts), positive=all(p.positive for p in parts)
    )


def matmul(w: Writer, op: Any, x: Lazy, y: Lazy) -> Scaled:
    """A product of matrices, elements taken to be below 2^FACTOR_SIZE."""
    a, b = w.start(force(w, x)), w.start(force(w, y))
    z, size = product_of(w, a, b, min(a.size, FACTOR_SIZE), min(b.size, FACTOR_SIZE))
    return Scaled(z, size, factor=product(a.factor, b.factor))


def product_of(w: Writer, x: Scaled, y: Scaled, size_x: int, size_y: int) -> tuple[Secret, int]:
    """x @ y, untruncated, and its size."""
    size = size_x + size_y + max(x.shape[-1] - 1, 0).bit_length()
    fraction = min((BUDGET - size) // 2, PLAIN)
    if fraction < 8:
        raise w.lo.refuse("a matrix product in an update", "its values need more than 62 bits.")
    a, b = (w.lo.at(v.secret, min(v.secret.fraction, fraction)) for v in (x, y))
    return w.lo.step("matmul", a, b), size


def _moved(move: Callable[..., Any]) -> Callable[..., Scaled]:
    def rule(w: Writer, op: Any, x: Lazy, *_: Any) -> Scaled:
        y = w.start(force(w, x))
        return replace(y, secret=w.lo.as_secret(move(w, op, y.secret)))

    return rule


def _transpose(w: Writer, op: Any, x: Secret) -> Any:
    return shapes.transpose(w.lo, x, op.axes if op.axes is not None else list(reversed(range(len(x.shape)))))


def _expand(w: Writer, op: Any, x: Secret) -> Any:
    axes = [op.axis] if isinstance(op.axis, int) else list(op.axis)
    rank = len(x.shape) + len(axes)
    places = {a % rank for a in axes}
    sizes = iter(x.shape)
    return shapes.reshape(w.lo, x, [1 if a in places else next(sizes) for a in range(rank)])


RULES = {
    knp.Sum: sum_,
    knp.Mean: mean,
    knp.Stack: stack,
    knp.Matmul: matmul,
    knp.Reshape: _moved(lambda w, op, x: shapes.reshape(w.lo, x, op.newshape)),
    knp.Transpose: _moved(_transpose),
    knp.ExpandDims: _moved(_expand),
    knp.BroadcastTo: _moved(lambda w, op, x: shapes.broadcast(w.lo, x, op.shape)),
}
