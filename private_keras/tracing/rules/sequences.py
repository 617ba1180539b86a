"""Running sums, differences, norms and other linear maps along an axis."""

import numpy as np
from keras.src.ops import linalg as klinalg
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.image import along
from private_keras.tracing.rules.movement import anyhow
from private_keras.tracing.rules.normalization import axes_of
from private_keras.tracing.values import Value


def cumsum(lo: Lowering, op: knp.Cumsum, x: Value) -> Value:
    """A product with a triangle of ones."""
    if op.axis is None:
        x = shapes.reshape(lo, x, (-1,))
    n = x.shape[op.axis or 0]
    return along(lo, x, np.tril(np.ones((n, n))), op.axis or 0)


def diff(lo: Lowering, op: knp.Diff, x: Value) -> Value:
    axis = op.axis % len(x.shape)
    for _ in range(op.n):
        n = x.shape[axis]
        later, earlier = (
            shapes.cut(lo, x, [slice(s, s + n - 1) if a == axis else slice(None) for a in range(len(x.shape))])
            for s in (1, 0)
        )
        x = arithmetic.subtract(lo, later, earlier)
    return x


def trace(lo: Lowering, op: knp.Trace, x: Value) -> Value:
    diagonal = anyhow(lo, knp.Diagonal(offset=op.offset, axis1=op.axis1, axis2=op.axis2), x)[0]
    return shapes.reduce_sum(lo, diagonal, [-1])


def norm(lo: Lowering, op: klinalg.Norm, x: Value) -> Value:
    """Vector norms of order 1, 2 and infinity, and the Frobenius norm."""
    axes = axes_of(op.axis, len(x.shape))
    if op.ord in (None, 2, "fro", "euclidean") and not (op.ord == 2 and len(axes) > 1):
        total = shapes.reduce_sum(lo, lo.positive(lo.as_secret(arithmetic.square(lo, x))), axes, op.keepdims)
        return lo.positive(lo.step("sqrt", lo.at(total)))
    if len(axes) == 1 and op.ord in (1, np.inf, "inf"):
        size = lo.positive(lo.step("abs", lo.as_secret(x)))
        if op.ord == 1:
            return shapes.reduce_sum(lo, size, axes, op.keepdims)
        return lo.step("reduce_max", size, axis=axes[0], keepdims=bool(op.keepdims))
    raise lo.refuse(f"norm of order {op.ord!r}", "use a vector norm of order 1, 2 or inf, or the Frobenius norm.")


def always(answer: bool):
    """A question about values that fixed point cannot hold: infinity, NaN."""

    def rule(lo: Lowering, op: knp.Isfinite, x: Value) -> Value:
        return public(np.full(x.shape, answer))

    return rule


RULES = {
    knp.Cumsum: cumsum,
    knp.Diff: diff,
    knp.Trace: trace,
    klinalg.Norm: norm,
    knp.Isfinite: always(True),
    knp.Isreal: always(True),
    knp.Isnan: always(False),
    knp.Isinf: always(False),
    knp.Isposinf: always(False),
    knp.Isneginf: always(False),
}
