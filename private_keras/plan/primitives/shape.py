"""Movements of elements: local, exact, the fraction is kept."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import AXES, AXIS, PADDING, SHAPE, Ints
from private_keras.plan.primitives.primitive import Flow, Primitive
from private_keras.plan.primitives.rules import broadcast_shape, checked_axis, equal_fractions, per_axis
from private_keras.plan.records import TensorType

_EDGE = limits.MAX_ELEMENTS + 1
_EDGES = Ints(-_EDGE, _EDGE)
_INDICES = Ints(0, limits.MAX_ELEMENTS, limits.MAX_LIST)


def _reshape(attributes: dict[str, Any], x: TensorType) -> TensorType:
    result = TensorType(limits.shape(attributes["shape"], "attribute 'shape'"), x.fraction)
    if result.size != x.size:
        raise PlanError(f"expected a shape of {x.size} elements. Received: {list(result.shape)} with {result.size}")
    return result


def _transpose(attributes: dict[str, Any], x: TensorType) -> TensorType:
    axes = attributes["axes"]
    if sorted(axes) != list(range(len(x.shape))):
        raise PlanError(f"expected a permutation of {len(x.shape)} axes. Received: {axes}")
    return TensorType(tuple(x.shape[axis] for axis in axes), x.fraction)


def _concatenate(attributes: dict[str, Any], *xs: TensorType) -> TensorType:
    axis = checked_axis(attributes["axis"], xs[0])
    others = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in xs}
    if len(others) != 1 or len({len(x.shape) for x in xs}) != 1:
        received = [list(x.shape) for x in xs[:8]]
        raise PlanError(f"expected shapes that differ in axis {axis} alone. Received: {received}")
    joined = sum(x.shape[axis] for x in xs)
    return TensorType((*xs[0].shape[:axis], joined, *xs[0].shape[axis + 1 :]), equal_fractions(*xs))


def _slice(attributes: dict[str, Any], x: TensorType) -> TensorType:
    for name in ("start", "stop", "step"):
        per_axis(name, attributes[name], len(x.shape))
    if 0 in attributes["step"]:
        raise PlanError("step: expected steps that are not 0. Received: 0")
    parts = zip(attributes["start"], attributes["stop"], attributes["step"], x.shape, strict=True)
    shape = tuple(len(range(*slice(start, stop, step).indices(n))) for start, stop, step, n in parts)
    if 0 in shape:
        raise PlanError(f"expected a slice with elements in it. Received: a slice of shape {list(shape)}")
    return TensorType(shape, x.fraction)


def _pad(attributes: dict[str, Any], x: TensorType) -> TensorType:
    per_axis("padding", attributes["padding"], len(x.shape))
    shape = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, attributes["padding"], strict=True))
    return TensorType(shape, x.fraction)


def _gather(attributes: dict[str, Any], x: TensorType) -> TensorType:
    axis, indices = checked_axis(attributes["axis"], x), attributes["indices"]
    if not indices or max(indices) >= x.shape[axis]:
        received = f"up to {max(indices)}" if indices else "none"
        raise PlanError(f"expected indices below {x.shape[axis]}, at least one. Received: {received}")
    return TensorType((*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), x.fraction)


def _broadcast(attributes: dict[str, Any], x: TensorType) -> TensorType:
    shape = limits.shape(attributes["shape"], "attribute 'shape'")
    if broadcast_shape(x.shape, shape) != shape:
        raise PlanError(f"expected a shape that {list(x.shape)} broadcasts to. Received: {list(shape)}")
    return TensorType(shape, x.fraction)


PRIMITIVES = (
    Primitive("reshape", (1, 1), _reshape, {"shape": SHAPE}, Flow.MOVE),
    Primitive("transpose", (1, 1), _transpose, {"axes": AXES}, Flow.MOVE),
    Primitive("concatenate", (1, limits.MAX_OPERANDS), _concatenate, {"axis": AXIS}, Flow.JOIN),
    Primitive("slice", (1, 1), _slice, {"start": _EDGES, "stop": _EDGES, "step": _EDGES}, Flow.MOVE),
    Primitive("pad", (1, 1), _pad, {"padding": PADDING}, Flow.MOVE),
    Primitive("gather", (1, 1), _gather, {"axis": AXIS, "indices": _INDICES}, Flow.MOVE),
    Primitive("broadcast", (1, 1), _broadcast, {"shape": SHAPE}, Flow.MOVE),
)
