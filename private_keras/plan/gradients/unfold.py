"""Maxima as differences and relus, so that their gradients find comparisons that are paid already.

max(x, y) = y + relu(x - y), and a maximum of many is a tournament of those. Forward this costs what the primitives
cost; backward, a `gate` on the same difference sends each gradient to the winner. Ties go to the second of two.
"""
from collections.abc import Callable
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes.graph import HEADROOM_FRACTION, SHIFTED_BY
from private_keras.plan.primitives import TABLE
from private_keras.plan.records import Step

Pair = Callable[["Writer", str, str], str]


class Writer:
    """Adds steps for one layer."""

    def __init__(self, builder: PlanBuilder, layer: str):
        self.builder = builder
        self.layer = layer

    def step(self, op: str, *names: str, **attributes: Any) -> str:
        return self.builder.add(op, *names, layer=self.layer, **attributes)

    def shape(self, name: str) -> list[int]:
        return list(self.builder.type(name).shape)

    def reshaped(self, name: str, shape: list[int]) -> str:
        return name if self.shape(name) == shape else self.step("reshape", name, shape=shape)

    def part(self, name: str, axis: int, start: int, stop: int) -> str:
        """start .. stop of an axis."""
        starts, stops = [0] * len(self.shape(name)), self.shape(name)
        if (start, stop) == (0, stops[axis]):
            return name
        starts[axis], stops[axis] = start, stop
        return self.step("slice", name, start=starts, stop=stops, step=[1] * len(starts))


def unfold(builder: PlanBuilder, op: str, *inputs: str, layer: str = "", **attributes: Any) -> str:
    """Appends what a step of `op` computes as subtractions, relus and movements; to be used as `PlanBuilder.add` is.

    For plans that ask for gradients. Padding never takes part: windows at the edge repeat elements of their own.
    A max_pool of a relu or of a truncation comes before them, which leaves fewer elements to compare and truncate.

    Args:
        builder: the plan.
        op: one of `UNFOLDED`.
        *inputs: as the primitive has them.
        layer: the Keras layer it belongs to.
        **attributes: as the primitive has them.

    Returns:
        Name of the value, of the type that the primitive would have.

    Raises:
        PlanError: as for the primitive.

    Cost: that of the primitive, about: one relu for each pair of elements that meet, in log2(n) levels.
    """
    if op not in UNFOLDED:
        raise PlanError(f"unfold: expected one of {', '.join(UNFOLDED)}. Received: {limits.shown(op)}")
    primitive = TABLE[op]
    try:
        attributes = primitive.read_attributes(attributes)
        result = primitive.type_rule(attributes, *(builder.type(name) for name in inputs))
        limits.shape(result.shape, "result")
    except PlanError as error:
        where = f"layer {layer!r}, " if layer else ""
        raise PlanError(f"{where}{op}: {error}") from None
    to, moved = Writer(builder, layer), []
    if op == "max_pool" and any(stride > 1 for stride in attributes["strides"]):
        inputs, moved = _before_relu(builder, *inputs)
    value = UNFOLDED[op](to, attributes, *inputs)
    for step in moved:
        value = builder.add(step.op, value, layer=step.layer, **step.attributes)
    return value


def unfold_step(builder: PlanBuilder, step: Step) -> str:
    """Appends what a step of a plan computes, from its own operands, as `unfold` does."""
    return UNFOLDED[step.op](Writer(builder, step.layer), step.attributes, *step.inputs)


def _larger(to: Writer, x: str, y: str) -> str:
    return to.step("add", y, to.step("relu", to.step("subtract", x, y)))


def _smaller(to: Writer, x: str, y: str) -> str:
    return to.step("subtract", y, to.step("relu", to.step("subtract", y, x)))


def _pair(pair: Pair) -> Callable[..., str]:
    return lambda to, attributes, x, y: pair(to, x, y)


def _abs(to: Writer, attributes: dict[str, Any], x: str) -> str:
    # The gradient takes the same sign, which is 0 at 0.
    return to.step("multiply", x, to.step("sign", x))


def _tournament(to: Writer, x: str, axis: int, pair: Pair) -> str:
    """The extreme over an axis, which stays with one element."""
    count = to.shape(x)[axis]
    while count > 1:
        half = count // 2
        won = pair(to, to.part(x, axis, 0, half), to.part(x, axis, half, 2 * half))
        x = to.step("concatenate", won, to.part(x, axis, 2 * half, count), axis=axis) if count % 2 else won
        count = half + count % 2
    return x


def _reduce(pair: Pair) -> Callable[..., str]:
    def reduce(to: Writer, attributes: dict[str, Any], x: str) -> str:
        axis, shape = attributes["axis"], to.shape(x)
        x = _tournament(to, x, axis, pair)
        return x if attributes["keepdims"] else to.reshaped(x, [*shape[:axis], *shape[axis + 1 :]])

    return reduce


def _max_pool(to: Writer, attributes: dict[str, Any], x: str) -> str:
    parts = zip(attributes["window"], attributes["strides"], attributes["padding"], strict=True)
    for axis, (window, stride, (low, high)) in enumerate(parts, start=1):
        shape = to.shape(x)
        count = (shape[axis] + low + high - window) // stride + 1
        if stride == window and low == 0 and count * window <= shape[axis]:
            x = to.part(x, axis, 0, count * window)
        else:
            x = to.step("gather", x, axis=axis, indices=_places(shape[axis], window, stride, low, count))
        x = to.reshaped(x, [*shape[:axis], count, window, *shape[axis + 1 :]])
        x = _tournament(to, x, axis + 1, _larger)
        x = to.reshaped(x, [*shape[:axis], count, *shape[axis + 1 :]])
    return x


def _places(n: int, window: int, stride: int, low: int, count: int) -> list[int]:
    """Elements of all windows over an axis of n, one window after the other; a window's edge instead of padding."""
    result = []
    for first in range(-low, -low + count * stride, stride):
        result += [min(max(place, 0), n - 1) for place in range(first, first + window)]
    return result


def _before_relu(builder: PlanBuilder, x: str) -> tuple[tuple[str], list[Step]]:
    """What relus and truncations made x of, and these: both keep order, so the maxima can be taken before."""
    moved: list[Step] = []
    step = builder.maker(x)
    while step is not None and step.op in SHIFTED_BY and builder.type(step.inputs[0]).fraction <= HEADROOM_FRACTION:
        moved.append(step)
        x = step.inputs[0]
        step = builder.maker(x)
    return (x,), moved[::-1]


UNFOLDED: dict[str, Callable[..., str]] = {
    "maximum": _pair(_larger),
    "minimum": _pair(_smaller),
    "abs": _abs,
    "reduce_max": _reduce(_larger),
    "reduce_min": _reduce(_smaller),
    "max_pool": _max_pool,
}
