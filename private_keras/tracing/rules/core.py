"""Conversions between types, and what has no effect in prediction."""

import keras
from keras.src.ops import core

from private_keras.plan.gradients import Joint
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.comparison import truth
from private_keras.tracing.symbols import Settle
from private_keras.tracing.values import Known, Value


def cast(lo: Lowering, op: core.Cast, x: Value) -> Value:
    """To float changes nothing; to bool asks whether x is 0; float to integer would need rounding."""
    kind = keras.backend.standardize_dtype(op.dtype) if op.dtype else "float32"
    if kind.startswith(("float", "bfloat")):
        return x
    if kind == "bool":
        return truth(lo, x)
    if lo.as_secret(x).fraction:
        raise lo.refuse(
            f"cast from real numbers to {kind}",
            "rounding is not available on shares; declare the input as integers, or round it before `predict`.",
        )
    return x


def convert_to_tensor(lo: Lowering, op: core.ConvertToTensor, x: Value) -> Value:
    return cast(lo, op, x) if op.dtype else x


def stop_gradient(lo: Lowering, op: core.StopGradient, x: Value) -> Value:
    if not lo.training or isinstance(x, Known):
        return x
    y = lo.step("shift", lo.as_secret(x), bits=0)  # a name of its own, for what passes no gradient on
    lo.joints[y.name] = Joint((), lambda tape, gradient: [])
    return y


def settle(lo: Lowering, op: Settle, x: Value) -> Value:
    return lo.at(x)


RULES = {
    Settle: settle,
    core.Cast: cast,
    core.SaturateCast: cast,
    core.ConvertToTensor: convert_to_tensor,
    core.StopGradient: stop_gradient,
}
