"""Gradients of movements: movements, and sums over what was repeated. All local."""
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step

# A table may have so many places for each copy; beyond, copies are summed in rows of so many first.
_FILLING = 4
_ROW = 8


def part(
    tape: Tape, g: Gradient, start: Sequence[int], stop: Sequence[int], step: Sequence[int] | None = None
) -> Gradient:
    """A slice of a gradient; the gradient itself where the slice is all of it."""
    shape = tape.shape(g.value)
    step = [1] * len(shape) if step is None else step
    if not any(start) and tuple(stop) == shape and set(step) <= {1}:
        return g
    return tape.through(g, "slice", start=list(start), stop=list(stop), step=list(step))


def spread(tape: Tape, g: Gradient, axis: int, distance: int) -> Gradient:
    """Zeros between the elements of an axis, and behind the last: n elements become n * distance."""
    if distance == 1:
        return g
    shape = tape.shape(g.value)
    g = tape.through(g, "reshape", shape=[*shape[: axis + 1], 1, *shape[axis + 1 :]])
    padding = [[0, 0] for _ in range(len(shape) + 1)]
    padding[axis + 1] = [0, distance - 1]
    g = tape.through(g, "pad", padding=padding)
    return tape.through(g, "reshape", shape=[*shape[:axis], shape[axis] * distance, *shape[axis + 1 :]])


def fitted(tape: Tape, g: Gradient, axis: int, before: int, size: int) -> Gradient:
    """`before` zeros in front of an axis (so many elements cut off, if negative), and as many behind as make `size`."""
    shape = list(tape.shape(g.value))
    start, stop = max(-before, 0), min(size - before, shape[axis])
    starts = [0] * len(shape)
    starts[axis], shape[axis] = start, stop
    g = part(tape, g, starts, shape)
    padding = [[0, 0] for _ in shape]
    padding[axis] = [max(before, 0), size - max(before, 0) - (stop - start)]
    return tape.through(g, "pad", padding=padding) if any(padding[axis]) else g


def _reshape(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [Gradient(tape.reshaped(g.value, tape.shape(step.inputs[0])), g.scale)]


def _transpose(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    axes = step.attributes["axes"]
    return [tape.through(g, "transpose", axes=[axes.index(i) for i in range(len(axes))])]


def _concatenate(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    axis, at, result = step.attributes["axis"], 0, []
    for name, want in zip(step.inputs, wanted, strict=True):
        start, stop = [0] * len(tape.shape(name)), list(tape.shape(name))
        start[axis], stop[axis] = at, at + stop[axis]
        at = stop[axis]
        result.append(part(tape, g, start, stop) if want else None)
    return result


def _slice(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    a = step.attributes
    for axis, n in enumerate(tape.shape(step.inputs[0])):
        taken = range(n)[slice(a["start"][axis], a["stop"][axis], a["step"][axis])]
        if taken.step < 0:
            g = _flipped(tape, g, axis)
            taken = taken[::-1]
        g = fitted(tape, spread(tape, g, axis, taken.step), axis, taken.start, n)
    return [g]


def _flipped(tape: Tape, g: Gradient, axis: int) -> Gradient:
    shape = tape.shape(g.value)
    start, stop, steps = [0] * len(shape), list(shape), [1] * len(shape)
    start[axis], stop[axis], steps[axis] = shape[axis] - 1, -shape[axis] - 1, -1
    return part(tape, g, start, stop, steps)


def _pad(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    padding, shape = step.attributes["padding"], tape.shape(step.inputs[0])
    start = [low for low, _ in padding]
    return [part(tape, g, start, [low + n for low, n in zip(start, shape, strict=True)])]


def _gather(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    """Each element's gradient is the sum of those of its copies: a table of where they are, gathered and summed."""
    axis, indices = step.attributes["axis"], step.attributes["indices"]
    n = tape.shape(step.inputs[0])[axis]
    places = _places(indices, n)
    # Where few elements have most of the copies, a table of all would be mostly empty: short rows are summed first.
    while n * max(map(len, places)) > n + _FILLING * len(indices):
        owners = [index for index, row in enumerate(places) for _ in range(0, len(row), _ROW)]
        rows = [row[at : at + _ROW] for row in places for at in range(0, len(row), _ROW)]
        g, indices = _summed(tape, g, axis, rows), owners
        places = _places(indices, n)
    return [_summed(tape, g, axis, places)]


def _places(indices: Sequence[int], n: int) -> list[list[int]]:
    """For each of n elements, where it stands in the indices."""
    places: list[list[int]] = [[] for _ in range(n)]
    for place, index in enumerate(indices):
        places[index].append(place)
    return places


def _summed(tape: Tape, g: Gradient, axis: int, places: Sequence[Sequence[int]]) -> Gradient:
    """Along an axis, for each list of places the sum of the gradients there."""
    most = max(map(len, places))
    shape = tape.shape(g.value)
    end = shape[axis]
    if any(len(row) < most for row in places):
        # One element of zeros behind the last, for lists that are shorter.
        g = fitted(tape, g, axis, 0, end + 1)
    table = [place for row in places for place in (*row, *[end] * (most - len(row)))]
    if table != list(range(tape.shape(g.value)[axis])):
        g = tape.through(g, "gather", axis=axis, indices=table)
    if most > 1:
        g = tape.through(g, "reshape", shape=[*shape[:axis], len(places), most, *shape[axis + 1 :]])
        g = tape.through(g, "reduce_sum", axes=[axis + 1])
    return g


def _broadcast(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [tape.reduce_to(g, tape.shape(step.inputs[0]))]


RULES = {
    "reshape": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "broadcast": _broadcast,
}
