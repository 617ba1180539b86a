"""Normalisation by statistics: of the training data (known, folded into weights) or of the batch at hand (computed)."""

import math
from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
from keras.src.ops import math as kmath
from keras.src.ops import nn
from keras.src.ops import numpy as knp

from private_keras.plan.gradients import Gradient, Joint, Tape
from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.symbols import BatchNorm, Standardize
from private_keras.tracing.values import Known, Secret, Value

# Elements, as a power of two, whose sum is taken to be of another size than they are.
MANY = 12


def axes_of(axis: int | Sequence[int] | None, rank: int) -> list[int]:
    """Axes as a sorted list of non-negative numbers; None means all."""
    if axis is None:
        return list(range(rank))
    axes = [axis] if isinstance(axis, int | np.integer) else list(axis)
    return sorted({int(a) % rank for a in axes})


def mean(lo: Lowering, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """Sum over axes, times one over their size.

    A sum of many, or of long products, is first divided by a power of two, which is exact: in size it is a mean then,
    and leaves room for the factor that is left.
    """
    count = int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
    total = shapes.reduce_sum(lo, x, axes, keepdims)
    if isinstance(total, Known):
        return arithmetic.scale(lo, total, 1 / count)
    total, halvings = lo.as_secret(total), min(count.bit_length() - 1, arithmetic.FACTOR_BITS - 1)
    if (total.fraction > lo.fraction or halvings >= MANY) and total.fraction + halvings <= 58:
        total = arithmetic.scale(lo, total, 0.5**halvings)
        return arithmetic.scale(lo, total, 2.0**halvings / count)
    return arithmetic.scale(lo, total, 1 / count)


def variance(lo: Lowering, x: Value, axes: Sequence[int], keepdims: bool) -> tuple[Value, Value]:
    """Mean squared distance from the mean, and that distance; x^2 - mean^2 would lose all precision."""
    _, distance, spread = _moments(lo, lo.as_secret(x), axes, keepdims)
    return spread, distance


def _moments(lo: Lowering, y: Secret, axes: Sequence[int], keepdims: bool) -> tuple[Value, Secret, Value]:
    """Mean (with all axes), distance from it, and variance."""
    centre = mean(lo, y, axes, True)
    # The mean has few elements: truncate it, unless x has to be truncated anyway.
    distance = lo.at(arithmetic.subtract(lo, y, lo.at(centre) if y.fraction <= lo.fraction else centre))
    # Sums of many squares stay below 2^62 in ring units where distances are below 2^7.
    count = int(np.prod([y.shape[a] for a in axes], dtype=np.int64))
    short = lo.at(distance, min(lo.fraction, (48 - (count - 1).bit_length()) // 2))
    return centre, distance, mean(lo, lo.positive(arithmetic.square(lo, short)), axes, keepdims)


def standardize(lo: Lowering, op: Standardize, x: Value) -> list[Value]:
    y = lo.as_secret(x)
    normal, centre, spread = _standardized(lo, y, op.axes, op.epsilon)
    rest = [n for a, n in enumerate(y.shape) if a not in op.axes]
    return [normal, *(shapes.reshape(lo, lo.at(v), rest) for v in (centre, spread))]


def _standardized(lo: Lowering, y: Secret, axes: Sequence[int], epsilon: float) -> tuple[Secret, Value, Value]:
    """(y - mean) / sqrt(variance + epsilon), with its gradient in closed form, mean and variance."""
    centre, distance, spread = _moments(lo, y, axes, True)
    inverse = root_inverse(lo, spread, epsilon)
    normal = lo.at(arithmetic.multiply(lo, distance, inverse))
    if lo.training:
        lo.joints[normal.name] = Joint((y.name,), partial(_gradient, normal.name, inverse.name, list(axes)))
    return normal, centre, spread


def _gradient(normal: str, inverse: str, axes: list[int], tape: Tape, g: Gradient) -> list[Gradient]:
    """(g - mean(g) - normal mean(g normal)) inverse: the gradient through mean and variance as well."""
    count = math.prod(tape.shape(normal)[a] for a in axes)
    # Sums over many elements have to stay below 2^62 in ring units.
    value = tape.at(g, min(tape.fraction, 36 - (count - 1).bit_length()))

    def average(name: str) -> str:
        total = tape.step("reduce_sum", name, axes=axes, keepdims=True)
        return tape.plain(Gradient(total, 1 / count))

    along = tape.times(normal, average(tape.step("multiply", value, normal)), 18)
    rest = tape.minus(tape.minus(value, average(value)), along)
    return [tape.multiply(Gradient(rest, g.scale), inverse)]


def root_inverse(lo: Lowering, x: Value, epsilon: float) -> Secret:
    """1 / sqrt(x + epsilon) for x >= 0."""
    y = arithmetic.add(lo, lo.at(x), public(np.float64(epsilon)))
    return lo.positive(lo.step("rsqrt", lo.at(y)))


def batch_norm(
    lo: Lowering,
    op: nn.BatchNorm,
    x: Value,
    mean: Value,
    variance: Value,
    offset: Value | None = None,
    scale: Value | None = None,
) -> Value:
    """x * s + t with s = scale / sqrt(variance + epsilon), t = offset - mean * s: known, so one factor and one term."""
    shape = [1] * len(x.shape)
    shape[op.axis] = x.shape[op.axis]
    epsilon = float(op.epsilon)
    if not all(v is None or isinstance(v, Known) for v in (mean, variance, offset, scale)):
        factor = root_inverse(lo, variance, epsilon)
        factor = factor if scale is None else lo.at(arithmetic.multiply(lo, factor, scale))
        y = arithmetic.multiply(
            lo, arithmetic.subtract(lo, x, shapes.reshape(lo, mean, shape)), shapes.reshape(lo, factor, shape)
        )
        return y if offset is None else arithmetic.add(lo, y, shapes.reshape(lo, offset, shape))
    one = public(np.ones(mean.shape))
    factor = lo.derive(
        f"batch norm factor {epsilon} {shape}",
        lambda v, g: (g / np.sqrt(v + epsilon)).reshape(shape),
        variance,
        scale or one,
    )
    term = lo.derive(
        f"batch norm term {shape}",
        lambda b, m, s: b.reshape(shape) - m.reshape(shape) * s,
        offset or public(np.zeros(mean.shape)),
        mean,
        factor,
    )
    return arithmetic.affine(lo, x, factor, term)


def layer_norm(
    lo: Lowering, op: nn.LayerNorm, x: Value, gamma: Value | None = None, beta: Value | None = None
) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
    epsilon = keras.backend.epsilon() if op.epsilon is None else float(op.epsilon)
    y: Value
    if op.rms_scaling:
        y = lo.at(arithmetic.multiply(lo, x, root_inverse(lo, variance(lo, x, axes, True)[0], epsilon)))
    else:
        y = _standardized(lo, lo.as_secret(x), axes, epsilon)[0]
    if gamma is not None:
        y = arithmetic.multiply(lo, y, shapes.reshape(lo, gamma, shape) if len(gamma.shape) != len(shape) else gamma)
    if beta is not None and not op.rms_scaling:
        y = arithmetic.add(lo, y, shapes.reshape(lo, beta, shape) if len(beta.shape) != len(shape) else beta)
    return y


def rms_norm(lo: Lowering, op: nn.RMSNorm, x: Value, scale: Value | None = None) -> Value:
    axes = axes_of(op.axis, len(x.shape))
    squares = lo.positive(arithmetic.square(lo, x))
    epsilon = keras.backend.epsilon() if op.epsilon is None else float(op.epsilon)
    y = lo.at(arithmetic.multiply(lo, x, root_inverse(lo, mean(lo, squares, axes, True), epsilon)))
    return y if scale is None else arithmetic.multiply(lo, y, scale)


def normalize(lo: Lowering, op: nn.Normalize, x: Value) -> Value:
    """x over its norm of order 1, 2 or infinity, which the domain of `rsqrt` and `reciprocal` keeps away from 0."""
    axes = axes_of(op.axis, len(x.shape))
    if op.order == 2:
        total = shapes.reduce_sum(lo, lo.positive(arithmetic.square(lo, x)), axes, True)
        return arithmetic.multiply(lo, x, lo.step("rsqrt", lo.at(total)))
    if op.order != 1:
        raise lo.refuse(f"normalize of order {op.order}", "use order 1 or 2.")
    size = shapes.reduce_sum(lo, lo.positive(lo.step("abs", lo.at(x))), axes, True)
    return arithmetic.multiply(lo, x, lo.step("reciprocal", lo.at(size)))


def moments(lo: Lowering, op: nn.Moments, x: Value) -> list[Value]:
    axes = axes_of(op.axes, len(x.shape))
    return [mean(lo, x, axes, op.keepdims), variance(lo, x, axes, op.keepdims)[0]]


def mean_rule(lo: Lowering, op: knp.Mean, x: Value) -> Value:
    return mean(lo, x, axes_of(op.axis, len(x.shape)), op.keepdims)


def var_rule(lo: Lowering, op: knp.Var, x: Value) -> Value:
    return variance(lo, x, axes_of(op.axis, len(x.shape)), op.keepdims)[0]


def std_rule(lo: Lowering, op: knp.Std, x: Value) -> Value:
    return lo.positive(lo.step("sqrt", lo.at(var_rule(lo, op, x))))


def rsqrt(lo: Lowering, op: kmath.Rsqrt, x: Value) -> Value:
    return lo.positive(lo.step("rsqrt", lo.at(x)))


def sqrt(lo: Lowering, op: knp.Sqrt, x: Value) -> Value:
    return lo.positive(lo.step("sqrt", lo.at(x)))


RULES = {
    nn.BatchNorm: batch_norm,
    BatchNorm: batch_norm,
    Standardize: standardize,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    nn.Normalize: normalize,
    nn.Moments: moments,
    knp.Mean: mean_rule,
    knp.Var: var_rule,
    knp.Std: std_rule,
    kmath.Rsqrt: rsqrt,
    knp.Sqrt: sqrt,
}
