"""Sums, maxima and their windows."""
import math
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import AXES, AXIS, PADDING, WIDTH, Bool, Ints
from private_keras.plan.primitives.primitive import Flow, Primitive
from private_keras.plan.primitives.rules import per_axis, reduced, windows
from private_keras.plan.records import TensorType

_KEEPDIMS = Bool(required=False, default=False)
_POOL = {"window": Ints(1, limits.MAX_WINDOW), "strides": Ints(1, limits.MAX_ELEMENTS), "padding": PADDING}


def _reduce_sum(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return TensorType(reduced(x, attributes["axes"], attributes["keepdims"]), x.fraction)


def _reduce_extreme(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return TensorType(reduced(x, [attributes["axis"]], attributes["keepdims"]), x.fraction)


def _arg_extreme(attributes: dict[str, Any], x: TensorType) -> TensorType:
    return TensorType(reduced(x, [attributes["axis"]], False), 0)


def _pooled(attributes: dict[str, Any], x: TensorType) -> TensorType:
    space = len(x.shape) - 2
    if space < 1:
        raise PlanError(f"expected (batch, *space, channels). Received: {list(x.shape)}")
    for name in ("window", "strides", "padding"):
        per_axis(name, attributes[name], space)
    parts = zip(x.shape[1:-1], attributes["window"], attributes["strides"], attributes["padding"], strict=True)
    sizes = tuple(windows(*part) for part in parts)
    return TensorType((x.shape[0], *sizes, x.shape[-1]), x.fraction)


def _sum_pool(attributes: dict[str, Any], x: TensorType) -> TensorType:
    result = _pooled(attributes, x)
    padded = (n + lo + hi for n, (lo, hi) in zip(x.shape[1:-1], attributes["padding"], strict=True))
    padded = limits.shape((x.shape[0], *padded, x.shape[-1]), "padded input")
    limits.products(math.prod(padded) * sum(attributes["window"]))
    return result


def _max_pool(attributes: dict[str, Any], x: TensorType) -> TensorType:
    result = _pooled(attributes, x)
    # A window that lies in the padding altogether has no maximum.
    for size, (lo, hi) in zip(attributes["window"], attributes["padding"], strict=True):
        if lo >= size or hi >= size:
            raise PlanError(f"expected padding below the window {size}. Received: {[lo, hi]}")
    # Axes are pooled one after the other, each with the elements of all its windows side by side.
    sizes = list(x.shape)
    for axis, size in enumerate(attributes["window"], start=1):
        sizes[axis] = result.shape[axis] * size
        limits.shape((math.prod(sizes),), "elements of all windows over an axis")
        sizes[axis] = result.shape[axis]
    return result


PRIMITIVES = (
    Primitive("reduce_sum", (1, 1), _reduce_sum, {"axes": AXES, "keepdims": _KEEPDIMS}, Flow.MOVE),
    Primitive("sum_pool", (1, 1), _sum_pool, _POOL, Flow.MOVE),
    Primitive("reduce_max", (1, 1), _reduce_extreme, {"axis": AXIS, "keepdims": _KEEPDIMS}),
    Primitive("reduce_min", (1, 1), _reduce_extreme, {"axis": AXIS, "keepdims": _KEEPDIMS}),
    Primitive("argmax", (1, 1), _arg_extreme, {"axis": AXIS}),
    Primitive("argmin", (1, 1), _arg_extreme, {"axis": AXIS}),
    Primitive("max_pool", (1, 1), _max_pool, {**_POOL, "width": WIDTH}),
)
