"""Muon's orthogonalisation: a Newton-Schulz iteration on a matrix of norm 1, whose elements stay below 2."""

from dataclasses import replace
from typing import Any

import numpy as np

from private_keras.tracing import shapes
from private_keras.tracing.training.updating import movement
from private_keras.tracing.training.updating.public import constant
from private_keras.tracing.training.updating.roots import Lazy, Square, divide, force, root
from private_keras.tracing.training.updating.scaled import PLAIN, Scaled, Writer

# Keras' addend to the norm.
EPSILON = 1e-7


def orthogonalise(w: Writer, op: Any, x: Lazy) -> Scaled:
    """x / |x|, then X = a X + (b A + c A A) X with A = X X^T, `op.steps` times; on the wide side of the matrix."""
    x = w.settle(force(w, x))
    turned = x.shape[-2] > x.shape[-1]
    if turned:
        x = replace(x, secret=_turned(w, x))
    norm = root(w, movement.total(w, Square(x), [len(x.shape) - 2, len(x.shape) - 1], True))
    y = w.settle(replace(divide(w, x, replace(norm, epsilon=EPSILON)), size=0))
    a, b, c = (constant(np.float64(v)) for v in op.coefficients)
    for _ in range(op.steps):
        y = replace(y, size=1)
        gram = _product(w, y, replace(y, secret=_turned(w, y)), 1)
        twice = _product(w, gram, gram, 1)
        inner = w.settle(w.add(replace(gram, factor=b), replace(twice, factor=c)))
        outer = _product(w, replace(inner, size=3), y, 2)
        y = w.settle(w.add(replace(y, factor=a), outer))
    return replace(y, size=1, secret=_turned(w, y) if turned else y.secret)


def _turned(w: Writer, x: Scaled) -> Any:
    axes = list(range(len(x.shape)))
    axes[-2:] = axes[-1], axes[-2]
    return w.lo.as_secret(shapes.transpose(w.lo, x.secret, axes))


def _product(w: Writer, x: Scaled, y: Scaled, size: int) -> Scaled:
    """x @ y at the fraction of plain values; the result is known to be below 2^size."""
    z, _ = movement.product_of(w, x, y, max(x.size, 1), max(y.size, 1))
    return Scaled(w.lo.at(z, PLAIN), size)
