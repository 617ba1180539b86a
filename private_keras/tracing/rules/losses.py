"""Cross-entropies, from logits wherever an activation made the probabilities; their gradient is p - y.

Where Keras recognises the activation before the loss it does the same, so it is Keras' gradient also for targets whose
sum is not 1.
"""

import warnings
from typing import Any

import numpy as np
from keras.src.ops import nn

from private_keras.plan.gradients import Gradient, Joint, Tape, difference
from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.curves import activation
from private_keras.tracing.entropy import largest, log_of, log_sum_exp, origin
from private_keras.tracing.lowering import SPARE, Lowering
from private_keras.tracing.rules.activation import curve
from private_keras.tracing.values import Secret, Value


def categorical(lo: Lowering, op: nn.CategoricalCrossentropy, target: Any, output: Any) -> Value:
    """sum(y) logsumexp(z) - sum(y z): the sum of y is 1 for labels, and what it is for anything else."""
    y, x = lo.operand(value_of(target), SPARE), lo.as_secret(value_of(output))
    axis = _last(lo, op, x)
    found = _softmax(lo, op, x)
    if found is None:
        return _from_probabilities(lo, y, lo.at(x))
    z, p = found
    total = lo.step("reduce_sum", y, axes=[axis])
    level = log_sum_exp(lo, z, p, x)
    chosen = lo.step("reduce_sum", lo.step("multiply", y, z), axes=[axis])
    flat = lo.as_secret(shapes.reshape(lo, level, total.shape))
    loss = lo.step("subtract", lo.step("multiply", total, flat), chosen)
    by_logits = difference(z.name, p.name, y.name, axis)

    def backward(tape: Tape, g: Gradient) -> list[Gradient | None]:
        # By the target it is -log(p); what nobody asks for is left out of the plan.
        column = Gradient(tape.reshaped(g.value, level.shape), g.scale)
        return [*by_logits.backward(tape, g), tape.multiply(column, tape.minus(level.name, z.name))]

    lo.joints[loss.name] = Joint((z.name, y.name), backward)
    return loss


def _from_probabilities(lo: Lowering, y: Secret, p: Secret) -> Value:
    """-sum(y log(p / sum(p))), with sum(p) under a logarithm of its own."""
    axis = len(p.shape) - 1
    total = lo.step("log", lo.step("reduce_sum", p, axes=[axis], keepdims=True))
    away = lo.step("subtract", lo.step("log", p), total)
    return lo.step("negate", lo.step("reduce_sum", lo.step("multiply", y, away), axes=[axis]))


def sparse(lo: Lowering, op: nn.SparseCategoricalCrossentropy, target: Any, output: Any) -> Value:
    """logsumexp(z) - z[y]. With k where the largest p is: z[k] - z[y] - log(p[k]), one product for both places."""
    x = lo.as_secret(value_of(output))
    axis, n = _last(lo, op, x), x.shape[-1]
    places = lo.as_secret(value_of(target))
    if places.fraction:
        raise lo.refuse(
            "sparse categorical crossentropy of real labels",
            "labels are places of classes: give them as integers, or use categorical_crossentropy for probabilities.",
        )
    if len(places.shape) == len(x.shape):
        places = shapes.reshape(lo, places, places.shape[:-1])
    y = lo.step("one_hot", places, depth=n)
    found = _softmax(lo, op, x)
    if found is None:
        p = lo.at(x)
        chosen = lo.step("log", lo.step("reduce_sum", lo.step("multiply", y, p), axes=[axis]))
        return lo.step("subtract", lo.step("log", lo.step("reduce_sum", p, axes=[axis])), chosen)
    z, p = found
    where = largest(lo, x)
    ahead = lo.step("reduce_sum", lo.step("multiply", lo.step("subtract", where, y), z), axes=[axis])
    loss = lo.step("subtract", ahead, lo.secret(shapes.reshape(lo, log_of(lo, p, where), ahead.shape).name))
    lo.joints[loss.name] = difference(z.name, p.name, y.name, axis)
    return loss


def binary(lo: Lowering, op: nn.BinaryCrossentropy, target: Any, output: Any) -> Value:
    """softplus(z) - y z, elementwise."""
    y, x = lo.operand(value_of(target), SPARE), lo.as_secret(value_of(output))
    found = _logits(lo, op, x, "sigmoid")
    if found is None:
        p = lo.at(x)
        one = public(np.float64(1))
        hit = lo.step("multiply", y, lo.step("log", p))
        rest = arithmetic.subtract(lo, one, y), lo.step("log", lo.as_secret(arithmetic.subtract(lo, one, p)))
        return lo.step("negate", lo.as_secret(arithmetic.add(lo, hit, arithmetic.multiply(lo, *rest))))
    z, given = found
    loss = lo.as_secret(arithmetic.subtract(lo, curve("softplus")(lo, op, z), lo.step("multiply", y, z)))
    sigmoid = activation("sigmoid", lo.approximation).attributes(lo.fraction)

    def backward(tape: Tape, g: Gradient) -> list[Gradient | None]:
        p = tape.step("spline", z.name, **sigmoid) if given is None else given.name
        return [tape.multiply(g, tape.minus(p, y.name)), tape.scaled(tape.multiply(g, z.name), -1.0)]

    lo.joints[loss.name] = Joint((z.name, y.name), backward)
    return loss


def _last(lo: Lowering, op: Any, x: Secret) -> int:
    """The axis of classes, which has to be the last one."""
    rank = len(x.shape)
    if op.axis % rank != rank - 1:
        raise lo.refuse(
            f"{type(op).__name__} over axis {op.axis}", "classes have to be the last axis; transpose with ops.moveaxis."
        )
    return rank - 1


def _logits(lo: Lowering, op: Any, x: Secret, kind: str) -> tuple[Secret, Secret | None] | None:
    """Logits of a loss, and their `kind` of probabilities where these are there; None if there are only probabilities.

    Keras on TensorFlow takes the logits of a softmax or sigmoid that stands right before the loss, whichever of the two
    the loss is for, and whatever `from_logits` says. So does this, for the same training.
    """
    made, z = lo.logits.get(x.name, ("", x))
    if made in ("softmax", "sigmoid"):
        if op.from_logits:
            warnings.warn(
                f"{type(op).__name__} received from_logits=True, but its output comes from a {made}: as in Keras, the "
                "loss is taken of what that was applied to. Leave out one of the two.",
                stacklevel=2,
            )
        return z, x if made == kind else None
    if op.from_logits:
        return lo.at(x), None
    found = origin(lo, x)
    return None if found is None or found[0] != kind else found[1:]


def _softmax(lo: Lowering, op: Any, x: Secret) -> tuple[Secret, Secret] | None:
    """Logits and their softmax, or None if there are only probabilities."""
    found = _logits(lo, op, x, "softmax")
    if found is None or found[1] is not None:
        return found
    return found[0], lo.step("softmax", found[0], axis=len(x.shape) - 1)


RULES = {
    nn.CategoricalCrossentropy: categorical,
    nn.SparseCategoricalCrossentropy: sparse,
    nn.BinaryCrossentropy: binary,
}
