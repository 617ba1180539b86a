"""Sums and scales: local in every protocol, but for `truncate`."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan.primitives.attributes import Int
from private_keras.plan.primitives.primitive import Flow, Primitive
from private_keras.plan.primitives.rules import broadcast_shape, equal_fractions, same
from private_keras.plan.records import TensorType


def _sum(_: dict[str, Any], x: TensorType, y: TensorType) -> TensorType:
    return TensorType(broadcast_shape(x.shape, y.shape), equal_fractions(x, y))


def _shift(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return TensorType(x.shape, x.fraction + attributes["bits"])


def truncated(x: TensorType, bits: int) -> TensorType:
    """The type after dividing by 2^bits as ring units."""
    if bits > x.fraction:
        raise PlanError(f"expected at most {x.fraction} bits, the operand's fraction. Received: {bits}")
    return TensorType(x.shape, x.fraction - bits)


def _truncate(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return truncated(x, attributes["bits"])


def _rescale(attributes: dict[str, Any], x: TensorType, factor: TensorType) -> TensorType:
    if factor.shape:
        raise PlanError(f"expected a factor of shape []. Received: {list(factor.shape)}")
    return truncated(TensorType(x.shape, x.fraction + factor.fraction), attributes["bits"])


PRIMITIVES = (
    Primitive("add", (2, 2), _sum, flow=Flow.SUM),
    Primitive("subtract", (2, 2), _sum, flow=Flow.SUM),
    Primitive("negate", (1, 1), same, flow=Flow.MOVE),
    Primitive("shift", (1, 1), _shift, {"bits": Int(0, 58)}, Flow.MOVE),
    Primitive("truncate", (1, 1), _truncate, {"bits": Int(1, 58)}, Flow.MOVE),
    Primitive("rescale", (2, 2), _rescale, {"bits": Int(1, 62)}, Flow.MOVE, public=(1,)),
)
