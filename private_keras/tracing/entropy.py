"""Logarithms of probabilities from the logits that they came from: exact where the probabilities are 0 or 1.

A softmax that fixed point rounds to 0 has lost what its logarithm is; the logits have not. So what is a softmax,
sigmoid or exponential of what stays known (`Lowering.logits`), through steps that leave its value alone, and logarithms
of it are written from there.
"""

from typing import Any

import numpy as np

from private_keras.plan.gradients import Gradient, Joint, Tape
from private_keras.plan.primitives.constant import decode
from private_keras.plan.records import Step
from private_keras.tracing.curves import log_of_largest
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.values import Known, Secret, Value

# Up to here the largest of n probabilities is large enough for a short spline of its logarithm.
LONGEST_SPLINE = 64

Origin = tuple[str, Secret, Secret]


def origin(lo: Lowering, x: Secret) -> Origin | None:
    """(kind, logits, probabilities) where x is a "softmax" over its last axis, a "sigmoid" or an "exp"; else None.

    It is one still after a change of scale or shape. Rows of a softmax that are replaced by zeros are uniform ones, as
    they are to Keras, which takes logarithms of them at its epsilon.
    """
    if x.name in lo.logits:
        return (*lo.logits[x.name], x)
    step = lo.builder.maker(x.name)
    if step is None:
        return None
    if step.op in ("truncate", "shift"):
        return origin(lo, lo.secret(step.inputs[0]))
    if step.op == "reshape":
        return _reshaped(lo, x, step)
    return _masked(lo, x, step) if step.op == "select" else None


def unlimited(lo: Lowering, x: Any, low: Any, high: Any) -> bool:
    """Whether limits leave x alone: it is a probability, or an exponential, and they are public and no narrower.

    A limit that rounds to 0 is none: so Keras' epsilon of 1e-7 is none at 18 fractional bits.

    Args:
        x: what is limited.
        low, high: numbers or values; infinite where there is no limit.
    """
    low, high = (v.value if isinstance(v, Known) and not v.secret else v for v in (low, high))
    if not isinstance(x, Secret) or any(isinstance(v, Value) or np.ndim(v) > 0 for v in (low, high)):
        return False
    found = origin(lo, x)
    if found is None:
        return False
    half = 0.5 * 2.0**-x.fraction
    return float(low) <= half and (float(high) >= 1 - half if found[0] != "exp" else float(high) == np.inf)


def _reshaped(lo: Lowering, x: Secret, step: Step) -> Origin | None:
    found = origin(lo, lo.secret(step.inputs[0]))
    if found is None:
        return None
    kind, z, p = found
    if kind == "softmax" and (not x.shape or x.shape[-1] != z.shape[-1]):
        return None
    shape = list(x.shape)
    return kind, lo.step("reshape", z, shape=shape), lo.step("reshape", p, shape=shape)


def _masked(lo: Lowering, x: Secret, step: Step) -> Origin | None:
    condition, kept, other = step.inputs
    zeros = lo.builder.maker(other)
    found = origin(lo, lo.secret(kept))
    mask = lo.secret(condition)
    if zeros is None or zeros.op != "constant" or np.any(decode(zeros.attributes)):
        return None
    if found is None or found[0] != "softmax":
        return None
    if found[1].shape != x.shape or not mask.shape or mask.shape[-1] != 1:
        return None
    zero = lo.secret(lo.builder.constant(np.zeros((), np.int64), found[1].fraction, layer=lo.layer))
    return "softmax", lo.step("select", mask, found[1], zero), lo.at(x)


def ordered(lo: Lowering, x: Secret) -> Secret:
    """What has the order of x along the last axis: of a softmax its logits, which are known earlier and not rounded."""
    kind, z = lo.logits.get(x.name, ("", x))
    return z if kind == "softmax" else x


def largest(lo: Lowering, predicted: Secret) -> Secret:
    """Truth values: where the largest element of the last axis is. A metric that asks for it finds it computed."""
    place = lo.step("argmax", ordered(lo, predicted), axis=len(predicted.shape) - 1)
    return lo.step("one_hot", place, depth=predicted.shape[-1])


def log_of(lo: Lowering, probabilities: Secret, where: Secret) -> Secret:
    """The logarithm of the largest of n probabilities, which is between 1 / n and 1; last axis of size 1."""
    axis, n = len(probabilities.shape) - 1, probabilities.shape[-1]
    chosen = lo.step("reduce_sum", lo.step("multiply", where, probabilities), axes=[axis], keepdims=True)
    if n > LONGEST_SPLINE:
        return lo.step("log", chosen)
    return lo.step("spline", chosen, **log_of_largest(n).attributes(lo.fraction))


def log_sum_exp(lo: Lowering, z: Secret, p: Secret, predicted: Secret) -> Secret:
    """log(sum(exp(z))) over the last axis, which keeps size 1.

    z_k - log(p_k) is the same for every k; for the largest p_k, which is no less than 1 / n, it is accurate.

    Args:
        z: logits.
        p: their softmax.
        predicted: z or p, whichever others will ask for the largest element of.

    Cost: argmax of z, and a spline (from 65 elements a log) of one element in n.
    """
    if z.shape[-1] == 1:
        return z
    where = largest(lo, predicted)
    chosen = lo.step("reduce_sum", lo.step("multiply", where, z), axes=[len(z.shape) - 1], keepdims=True)
    return lo.step("subtract", chosen, log_of(lo, p, where))


def log_sum_exp_with_slope(lo: Lowering, z: Secret) -> Secret:
    """log(sum(exp(z))) over the last axis, which keeps size 1; its gradient is the softmax."""
    p = lo.step("softmax", z, axis=len(z.shape) - 1)
    y = log_sum_exp(lo, z, p, p)
    if y.name != z.name:
        lo.joints[y.name] = Joint((z.name,), lambda tape, g: [tape.multiply(g, p.name)])
    return y


def log_softmax(lo: Lowering, z: Secret, p: Secret, predicted: Secret) -> Secret:
    """log(softmax(z)) over the last axis, from z; its gradient is g - p sum(g)."""
    y = lo.step("subtract", z, log_sum_exp(lo, z, p, predicted))

    def backward(tape: Tape, g: Gradient) -> list[Gradient]:
        total = tape.through(g, "reduce_sum", axes=[len(z.shape) - 1], keepdims=True)
        return [tape.add(g, tape.scaled(tape.multiply(total, p.name), -1.0))]

    lo.joints[y.name] = Joint((z.name,), backward)
    return y
