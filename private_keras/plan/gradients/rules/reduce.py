"""Gradients of sums and maxima. Sums are local; maxima are unfolded again, unless the plan has them unfolded."""
import math
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.rules.shape import fitted, part, spread
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step


def _reduce_sum(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    shape, axes = tape.shape(step.inputs[0]), step.attributes["axes"]
    kept = tape.reshaped(g.value, [1 if axis in axes else n for axis, n in enumerate(shape)])
    return [Gradient(tape.expanded(kept, shape), g.scale)]


def _sum_pool(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    a, shape = step.attributes, tape.shape(step.inputs[0])
    sizes = tape.shape(g.value)[1:-1]
    if a["window"] == a["strides"] and not any(map(any, a["padding"])):
        return [_repeated(tape, g, a["window"], shape)]
    padding = []
    for axis, (n, window, stride) in enumerate(zip(shape[1:-1], a["window"], a["strides"], strict=True), start=1):
        low = a["padding"][axis - 1][0]
        g = spread(tape, g, axis, stride)
        # The gradient at padded places: all of them, of which the input's own are taken.
        g = fitted(tape, g, axis, window - 1, low + n + window - 1)
        padding.append([0, 0])
    g = tape.through(g, "sum_pool", window=a["window"], strides=[1] * len(sizes), padding=padding)
    start = [0, *(low for low, _ in a["padding"]), 0]
    return [part(tape, g, start, [low + n for low, n in zip(start, shape, strict=True)])]


def _repeated(tape: Tape, g: Gradient, window: Sequence[int], shape: tuple[int, ...]) -> Gradient:
    """Each window's gradient at all its places; zero behind the last window."""
    batch, *sizes, channels = tape.shape(g.value)
    apart = [batch, *(m for size in sizes for m in (size, 1)), channels]
    side = [batch, *(m for pair in zip(sizes, window, strict=True) for m in pair), channels]
    g = tape.through(g, "reshape", shape=apart)
    g = tape.through(g, "broadcast", shape=side)
    g = tape.through(g, "reshape", shape=[batch, *map(math.prod, zip(sizes, window, strict=True)), channels])
    for axis, n in enumerate(shape[1:-1], start=1):
        g = fitted(tape, g, axis, 0, n)
    return g


RULES = {"reduce_sum": _reduce_sum, "sum_pool": _sum_pool}
