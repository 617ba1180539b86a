"""Products: local where one operand is public, one protocol step where both are secret. Fractions add up.

With `twice`, units of the result hold twice the product of the operands' units: the same number with one fractional bit
more, at one product of each server instead of two of each evaluator.
"""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import PADDING, Bool, Int, Ints
from private_keras.plan.primitives.primitive import Flow, Primitive
from private_keras.plan.primitives.rules import broadcast_shape, per_axis, windows
from private_keras.plan.records import TensorType

TWICE = Bool(required=False, default=False)


def _multiply(_: dict[str, Any], x: TensorType, y: TensorType) -> TensorType:
    return TensorType(broadcast_shape(x.shape, y.shape), x.fraction + y.fraction)


def _matmul(attributes: dict[str, Any], x: TensorType, y: TensorType) -> TensorType:
    if len(x.shape) < 2 or len(y.shape) < 2 or x.shape[-1] != y.shape[-2]:
        raise PlanError(f"expected (..., m, k) and (..., k, n). Received: {list(x.shape)} and {list(y.shape)}")
    result = TensorType(
        (*broadcast_shape(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]),
        x.fraction + y.fraction + attributes["twice"],
    )
    limits.products(result.size * x.shape[-1])
    return result


def _conv(attributes: dict[str, Any], x: TensorType, w: TensorType) -> TensorType:
    space = len(x.shape) - 2
    if not 1 <= space <= 3 or len(w.shape) != space + 2:
        raise PlanError(
            "expected (batch, *space, channels) and (*window, channels/groups, filters) with 1, 2 or 3 space axes. "
            f"Received: {list(x.shape)} and {list(w.shape)}"
        )
    for name in ("strides", "padding", "dilation", "input_dilation"):
        per_axis(name, attributes[name], space)
    groups, channels, filters = attributes["groups"], x.shape[-1], w.shape[-1]
    if channels % groups or filters % groups or channels // groups != w.shape[-2]:
        raise PlanError(
            f"expected channels and filters that split in {groups} groups, with channels/groups in the kernel. "
            f"Received: {channels} channels, {filters} filters, kernel {list(w.shape)}"
        )
    sizes, spread = [], []
    for axis in range(space):
        spread.append((x.shape[1 + axis] - 1) * attributes["input_dilation"][axis] + 1)
        window = (w.shape[axis] - 1) * attributes["dilation"][axis] + 1
        sizes.append(windows(spread[axis], window, attributes["strides"][axis], attributes["padding"][axis]))
    padded = (n + lo + hi for n, (lo, hi) in zip(spread, attributes["padding"], strict=True))
    limits.shape((x.shape[0], *padded, channels), "padded input")
    if 1 < groups == channels:
        # Kernels may repeat each channel for all of its filters.
        limits.shape((x.shape[0], *spread, filters), "input repeated for the filters of each channel")
    result = TensorType((x.shape[0], *sizes, filters), x.fraction + w.fraction + attributes["twice"])
    limits.products(result.size * (w.size // filters))
    return result


PRIMITIVES = (
    Primitive("multiply", (2, 2), _multiply, flow=Flow.PRODUCT),
    Primitive("matmul", (2, 2), _matmul, {"twice": TWICE}, Flow.PRODUCT),
    Primitive(
        "conv", (2, 2), _conv,
        {
            "strides": Ints(1, limits.MAX_ELEMENTS),
            "padding": PADDING,
            "dilation": Ints(1, limits.MAX_ELEMENTS),
            "input_dilation": Ints(1, limits.MAX_ELEMENTS),
            "groups": Int(1, limits.MAX_ELEMENTS, required=False, default=1),
            "twice": TWICE,
        },
        Flow.PRODUCT,
    ),
)
