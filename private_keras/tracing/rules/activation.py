"""Activation functions. Curves and piecewise linear functions are one `spline`; see `tracing.curves`.

Gradients of curves are in `tracing.slopes`; what is piecewise linear has its own, by the rules of `plan.gradients`.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.activations import activations
from keras.src.ops import math as kmath
from keras.src.ops import nn
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.curves import Activation, activation
from private_keras.tracing.entropy import log_softmax as from_logits
from private_keras.tracing.entropy import unlimited
from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.slopes import slope
from private_keras.tracing.values import Known, Secret, Value


def curve(name: str, *parameters: str, positive: bool = False) -> Callable[..., Value]:
    """The rule of an activation that is one spline; `parameters` are attributes of the operation."""

    def rule(lo: Lowering, op: keras.Operation, x: Value) -> Value:
        given = {p: getattr(op, p) for p in parameters}
        y = spline(lo, x, activation(name, lo.approximation, **given))
        return lo.positive(with_slope(lo, y, name, given)) if positive else with_slope(lo, y, name, given)

    return rule


def with_slope(lo: Lowering, y: Secret, name: str, parameters: dict[str, Any]) -> Secret:
    """y, a spline step of this activation, with its gradient."""
    x = lo.builder.maker(y.name).inputs[0]
    joint = slope(name, x, y.name, lo.approximation, **parameters)
    if joint is not None:
        lo.joints[y.name] = joint
    return y


def sigmoid(lo: Lowering, op: nn.Sigmoid, x: Value) -> Value:
    """A curve, and a note of what it is of, for losses."""
    z = lo.at(x)
    y = curve("sigmoid")(lo, op, z)
    lo.logits[y.name] = ("sigmoid", z)
    return y


def spline(lo: Lowering, x: Value, made: Activation) -> Secret:
    """The activation's step. Where all its slopes are whole, x may be a product: the step truncates it on the way."""
    y = lo.as_secret(x)
    rows = [(*row, 0.0)[:2] if not any(row[2:]) else None for row in made.spline.polynomials]
    whole = all(row is not None and row[1] == int(row[1]) for row in rows) and made.slopes == (0.0, 0.0)
    if not whole or y.fraction <= lo.fraction:
        return lo.step("spline", lo.at(y), **made.attributes(lo.fraction))
    unit = 2.0**y.fraction
    return lo.step(
        "spline",
        y,
        knots=[math.ceil(k * unit) for k in made.spline.knots],
        coefficients=[[round(c * unit), int(s)] for c, s in rows],
        scale=y.fraction,
        fraction=lo.fraction,
        label=made.label,
    )


def relu(lo: Lowering, op: nn.Relu, x: Value) -> Value:
    """max(x, 0), truncating on the way."""
    y = lo.as_secret(x)
    return lo.positive(lo.step("relu", y, truncate=max(y.fraction - lo.fraction, 0)))


def relu_layer(lo: Lowering, op: activations.ReLU, x: Value) -> Value:
    """Keras' ReLU with slope, ceiling and threshold; plain relu where it is one."""
    if not op.negative_slope and op.max_value is None and not op.threshold:
        return relu(lo, op, x)
    parameters = {
        "negative_slope": float(op.negative_slope),
        "threshold": float(op.threshold),
        "max_value": None if op.max_value is None else float(op.max_value),
    }
    return spline(lo, x, activation("relu", lo.approximation, **parameters))


def clip(lo: Lowering, op: knp.Clip, x: Value) -> Value:
    """A spline of three pieces for public limits; a maximum and a minimum otherwise."""
    low, high = value_of(op.x_min), value_of(op.x_max)
    y = lo.as_secret(x)
    if unlimited(lo, y, low, high):
        return y
    simple = _scalar(low) and _scalar(high) and float(low.value) < float(high.value)
    if not simple or not y.fraction or max(abs(float(low.value)), abs(float(high.value))) >= 2**HEADROOM:
        return lo.step("minimum", *lo.common(lo.step("maximum", *lo.common(y, low)), high))
    a, b = (round(float(v.value) * 2**y.fraction) for v in (low, high))
    z = lo.step(
        "spline",
        y,
        knots=[a, b],
        coefficients=[[a, 0], [0, 1], [b, 0]],
        scale=y.fraction,
        fraction=min(y.fraction, lo.fraction),
        label="clip",
    )
    return lo.positive(z) if a >= 0 else z


def _scalar(x: Value) -> bool:
    return isinstance(x, Known) and not x.secret and x.value.size == 1


def softmax(lo: Lowering, op: nn.Softmax, x: Value) -> Value:
    y = lo.at(x)
    if op.axis is None:
        flat = lo.step("softmax", lo.as_secret(shapes.reshape(lo, y, (-1,))), axis=0)
        return lo.positive(lo.as_secret(shapes.reshape(lo, flat, y.shape)))
    if isinstance(op.axis, tuple | list):
        raise lo.refuse("softmax over several axes", "reshape them into one first.")
    axis = op.axis % len(y.shape)
    z = lo.positive(lo.step("softmax", y, axis=axis))
    if axis == len(y.shape) - 1:
        lo.logits[z.name] = ("softmax", y)
    return z


def log_softmax(lo: Lowering, op: nn.LogSoftmax, x: Value) -> Value:
    """x - max - log(sum(exp(x - max))); in training by the softmax, which the gradient needs."""
    y = lo.at(x)
    if not isinstance(op.axis, int):
        raise lo.refuse("log_softmax over several axes", "reshape them into one first.")
    axis = op.axis % len(y.shape)
    if lo.training and axis == len(y.shape) - 1:
        return from_logits(lo, y, lo.step("softmax", y, axis=axis), y)
    centred = lo.step("subtract", y, lo.step("reduce_max", y, axis=axis, keepdims=True))
    total = lo.step("reduce_sum", lo.step("exp", centred), axes=[axis], keepdims=True)
    return lo.step("subtract", centred, lo.step("log", total))


def exponential_linear(name: str) -> Callable[..., Value]:
    def rule(lo: Lowering, op: nn.Elu, x: Value) -> Value:
        alpha = float(op.alpha)
        return with_slope(lo, spline(lo, x, activation(name, lo.approximation, alpha=alpha)), name, {"alpha": alpha})

    return rule


def glu(lo: Lowering, op: nn.Glu, x: Value) -> Value:
    """One half times the sigmoid of the other."""
    axis = op.axis % len(x.shape)
    half = x.shape[axis] // 2
    y = lo.as_secret(x)
    a, b = (
        shapes.cut(lo, y, [slice(s, s + half) if k == axis else slice(None) for k in range(len(x.shape))])
        for s in (0, half)
    )
    return arithmetic.multiply(lo, a, sigmoid(lo, op, b))


def erfc(lo: Lowering, op: kmath.Erfc, x: Value) -> Value:
    return arithmetic.subtract(lo, public(np.float64(1)), curve("erf")(lo, op, x))


RULES: dict[type, Callable[..., Any]] = {
    nn.Relu: relu,
    activations.ReLU: relu_layer,
    nn.Relu6: curve("relu6", positive=True),
    nn.LeakyRelu: curve("leaky_relu", "negative_slope"),
    nn.Sigmoid: sigmoid,
    nn.SparseSigmoid: curve("sparse_sigmoid"),
    nn.HardSigmoid: curve("hard_sigmoid"),
    nn.LogSigmoid: curve("log_sigmoid"),
    nn.Softplus: curve("softplus"),
    nn.SparsePlus: curve("sparse_plus"),
    nn.Squareplus: curve("squareplus", "b"),
    nn.Softsign: curve("softsign"),
    nn.SoftShrink: curve("soft_shrink", "threshold"),
    nn.HardShrink: curve("hard_shrink", "threshold"),
    nn.TanhShrink: curve("tanh_shrink"),
    nn.HardTanh: curve("hard_tanh"),
    nn.Threshold: curve("threshold", "threshold", "default_value"),
    nn.Silu: curve("silu"),
    nn.HardSilu: curve("hard_silu"),
    nn.Gelu: curve("gelu", "approximate"),
    nn.Selu: curve("selu"),
    nn.Elu: exponential_linear("elu"),
    nn.Celu: exponential_linear("celu"),
    nn.Glu: glu,
    activations.Mish: curve("mish"),
    knp.Tanh: curve("tanh"),
    kmath.Erf: curve("erf"),
    kmath.Erfc: erfc,
    knp.Clip: clip,
    nn.Softmax: softmax,
    nn.LogSoftmax: log_softmax,
}
