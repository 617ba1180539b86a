"""Comparisons, truth values and choices between values."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan.primitives.attributes import WIDTH, Int
from private_keras.plan.primitives.elementwise import truncated
from private_keras.plan.primitives.primitive import Primitive
from private_keras.plan.primitives.rules import broadcast_shape, equal_fractions, same, truth
from private_keras.plan.records import TensorType


def _relu(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return truncated(x, attributes["truncate"])


def _gate(attributes: dict[str, Any], x: TensorType, g: TensorType) -> TensorType:
    if x.shape != g.shape:
        raise PlanError(f"expected operands of equal shapes. Received: {list(x.shape)} and {list(g.shape)}")
    return truncated(g, attributes["truncate"])


def _sign(_: dict[str, Any], x: TensorType) -> TensorType:
    return TensorType(x.shape, 0)


def _extreme(_: dict[str, Any], x: TensorType, y: TensorType) -> TensorType:
    return TensorType(broadcast_shape(x.shape, y.shape), equal_fractions(x, y))


def _order(_: dict[str, Any], x: TensorType, y: TensorType) -> TensorType:
    equal_fractions(x, y)
    return TensorType(broadcast_shape(x.shape, y.shape), 0)


def _logical(_: dict[str, Any], *xs: TensorType) -> TensorType:
    truth(*xs)
    return TensorType(broadcast_shape(*(x.shape for x in xs)), 0)


def _select(_: dict[str, Any], c: TensorType, x: TensorType, y: TensorType) -> TensorType:
    truth(c)
    return TensorType(broadcast_shape(c.shape, x.shape, y.shape), equal_fractions(x, y))


def _one_hot(attributes: dict[str, Any], x: TensorType) -> TensorType:
    if x.fraction:
        raise PlanError(f"expected integers, of fraction 0. Received: {x.fraction}")
    return TensorType((*x.shape, attributes["depth"]), 0)


PRIMITIVES = (
    Primitive("relu", (1, 1), _relu, {"truncate": Int(0, 58, required=False, default=0), "width": WIDTH}),
    Primitive("gate", (2, 2), _gate, {"truncate": Int(0, 58, required=False, default=0)}),
    Primitive("abs", (1, 1), same),
    Primitive("sign", (1, 1), _sign),
    Primitive("maximum", (2, 2), _extreme),
    Primitive("minimum", (2, 2), _extreme),
    Primitive("greater_equal", (2, 2), _order),
    Primitive("less", (2, 2), _order),
    Primitive("equal", (2, 2), _order),
    Primitive("logical_not", (1, 1), _logical),
    Primitive("logical_and", (2, 2), _logical),
    Primitive("logical_or", (2, 2), _logical),
    Primitive("select", (3, 3), _select),
    Primitive("one_hot", (1, 1), _one_hot, {"depth": Int(1, 2**20)}),
)
