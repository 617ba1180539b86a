"""What a step's result shows, from what its operands show: one rule for each primitive."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from private_keras.plan.provenance.shown import (
    MOST_JOINED,
    NOTHING,
    REDUCED,
    ROWS_OF_OWN,
    Level,
    Place,
    Shown,
    Value,
    in_pieces,
    joined,
    piece_at,
    place_of,
    settled,
)
from private_keras.plan.records import Step

Shape = tuple[int, ...]
Rule = Callable[[Step, list[Value], list[bool], list[Shape], Shape], Value]


def unknown(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    """Of a step that nothing is known of: whatever its operands show, anywhere."""
    keys = {key for value in operands for key in value}
    return {key: Shown(max(v[key].level for v in operands if key in v)) for key in keys}


# --- single elements --------------------------------------------------------------------------------------------------
def _elementwise(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    """Functions of single elements, of one operand or of several that broadcast."""
    rank = len(shape)
    moved = [{key: _moved(s, rank - len(given)) for key, s in value.items()}
             for value, given in zip(operands, shapes, strict=True)]
    parts = [s for value in moved for s in value.values() if s.level > Level.REDUCED]
    ends = {tuple(end for end, _ in s.pieces) for s in parts}
    # Where all are of the same pieces, and none is stretched over the others.
    apart = len(ends) == 1 and all(s.pieces and s.pieces[-1][0] == shape[0] for s in parts)
    if not apart:
        return _combined(step.op, moved, shapes, rank)
    pieces = []
    for at, end in enumerate(ends.pop()):
        cut = [{key: s if s.level is Level.REDUCED else s.pieces[at][1] for key, s in value.items()} for value in moved]
        there = [{key: s for key, s in value.items() if s is not None} for value in cut]
        pieces.append((end, _combined(step.op, there, shapes, rank)))
    result = {}
    for key in {key for value in moved for key in value}:
        levels = [piece[key].level for _, piece in pieces if key in piece]
        result[key] = in_pieces(Shown(max(levels)), tuple((end, piece.get(key)) for end, piece in pieces))
    return result


def _combined(op: str, operands: list[Value], shapes: list[Shape], rank: int) -> Value:
    sums = op in ("add", "subtract")
    # Operands that neither the source's owner nor owners of other sources have a part in.
    free = [not any(s.level > Level.REDUCED for key, s in value.items() if key is not ROWS_OF_OWN)
            for value in operands]
    result = {}
    for key in {key for value in operands for key in value}:
        parts = [value[key] for value in operands if key in value]
        # What operands do to each other is known of the whole, and not of its pieces.
        found = replace(joined(parts, hidden=sums or op == "multiply"), pieces=())
        if sums and found.single and REDUCED in parts:
            found = REDUCED  # one row more in a sum over many
        elif found.level is Level.RAW and found.place is not None:
            # Whoever chooses a factor, a bit or a threshold for each row can choose the row that is left.
            axis = found.place.axis - rank
            chosen = any(known and _size(s, axis) > 1 for known, s in zip(free, shapes, strict=True))
            if sums:
                found = replace(found, shifted=found.shifted or chosen)
            else:
                linear = op in ("multiply", "rescale") and len(parts) == 1
                found = found if linear else found.bent
                found = replace(found, chosen=found.chosen or chosen)
        result[key] = found
    return settled(result)


def _size(shape: Shape, axis: int) -> int:
    """Of an axis that is counted from the end; 1 where there is none."""
    return shape[axis] if -axis <= len(shape) else 1


def _moved(shown: Shown, by: int) -> Shown:
    place = None if shown.place is None else replace(shown.place, axis=shown.place.axis + by)
    return replace(shown, place=place, pieces=()) if by else shown


def _softmax(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    axis = step.attributes["axis"]
    return _bent(_placed(operands[0], lambda place: None if place.axis == axis else place))


# --- movements --------------------------------------------------------------------------------------------------------
def _placed(value: Value, move: Callable[[Place], Place | None]) -> dict:
    """The same, with rows somewhere else, or nobody knows where."""
    return {
        key: replace(s, place=None if s.place is None else move(s.place), pieces=()) for key, s in value.items()
    }  # fmt: skip


def _reshape(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    (before,) = shapes

    def move(place: Place) -> Place | None:
        behind = math.prod(before[place.axis + 1 :])
        for axis, size in enumerate(shape):
            rest = math.prod(shape[axis + 1 :])
            if rest == behind and size == before[place.axis]:
                return replace(place, axis=axis)
            stride = behind * place.inner
            if place.whole and stride % rest == 0 and (rest * size) % (stride * place.count) == 0:
                return Place(axis, stride // rest, place.count)
        return None

    return _placed(operands[0], move)


def _transpose(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    axes = step.attributes["axes"]
    return _placed(operands[0], lambda place: replace(place, axis=axes.index(place.axis)))


def _broadcast(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    by = len(shape) - len(shapes[0])
    return {key: _moved(shown, by) for key, shown in operands[0].items()}


def _alone(place: Place, size: int) -> bool:
    """Whether an axis of this size is the rows, each one element."""
    return place.inner == 1 and (place.count == size or not place.whole)


def _concatenate(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    axis = step.attributes["axis"]
    found: dict[Any, list[Shown]] = {}
    for value, s in zip(operands, shapes, strict=True):
        for key, shown in value.items():
            place = shown.place
            if place is not None and place.axis == axis and len(operands) > 1:
                shown = replace(shown, place=replace(place, whole=False) if _alone(place, s[axis]) else None)
            found.setdefault(key, []).append(shown)
    result = {}
    for key, parts in found.items():
        counts = [p.place.count for p in parts if p.place is not None and p.place.axis == axis]
        if counts:  # of two pieces the smaller counts
            parts = [replace(p, place=replace(p.place, count=min(counts))) if p.place else p for p in parts]
        result[key] = joined(parts)
    if len(shape) == 1 and len(found) * len(operands) <= MOST_JOINED:
        ends = list(itertools.accumulate(size for (size,) in shapes))
        for key, shown in result.items():
            pieces = tuple((end, value.get(key)) for end, value in zip(ends, operands, strict=True))
            result[key] = in_pieces(shown, pieces)
    return result


def _slice(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    a, (before,) = step.attributes, shapes

    def move(place: Place) -> Place | None:
        axis = place.axis
        taken = range(*slice(a["start"][axis], a["stop"][axis], a["step"][axis]).indices(before[axis]))
        if len(taken) < before[axis]:
            return None
        return place if a["step"][axis] == 1 or _alone(place, before[axis]) else None

    result = _placed(operands[0], move)
    for key, shown in operands[0].items():
        if shown.pieces:
            taken = range(*slice(a["start"][0], a["stop"][0], a["step"][0]).indices(before[0]))
            low, high = min(taken), max(taken) + 1
            piece = piece_at(shown, low, high)
            if piece is None:
                del result[key]
            else:
                result[key] = piece if len(taken) == high - low and taken.step == 1 else Shown(piece.level)
    return result


def _gather(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    a, (before,) = step.attributes, shapes

    def move(place: Place) -> Place | None:
        axis = place.axis
        if axis != a["axis"]:
            return place
        everyone = _alone(place, before[axis]) and sorted(a["indices"]) == list(range(before[axis]))
        return place if everyone else None

    return _placed(operands[0], move)


def _pad(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    (before,) = shapes

    def move(place: Place) -> Place | None:
        if step.attributes["padding"][place.axis] == [0, 0]:
            return place
        return replace(place, whole=False) if _alone(place, before[place.axis]) else None

    return _placed(operands[0], move)


# --- reductions and products ------------------------------------------------------------------------------------------
def _reduce(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    a = step.attributes
    axes = a["axes"] if "axes" in a else [a["axis"]]
    result = {}
    for key, shown in operands[0].items():
        if step.op != "reduce_sum":
            shown = shown.bent
        place = shown.place
        if place is not None and place.axis in axes:
            shown = REDUCED if shown.reducible else replace(shown, place=None)
        elif place is not None and not a.get("keepdims", False):
            shown = _moved(shown, -sum(axis < place.axis for axis in axes))
        result[key] = replace(shown, pieces=())
    return result


def _pool(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    space = range(1, len(shape) - 1)
    pooled = _placed(operands[0], lambda place: None if place.axis in space else place)
    return pooled if step.op == "sum_pool" else _bent(pooled)


def _matmul(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    (x, y), rank = shapes, len(shape)

    def move(number: int, place: Place) -> Place | None:
        return replace(place, axis=place.axis + rank - len(shapes[number]))

    return _product(operands, public, shapes, (len(x) - 1, len(y) - 2), x[-1], x[-1], move)


def _conv(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    x, w = shapes

    def move(number: int, place: Place) -> Place | None:
        if number == 0:
            return place if place.axis == 0 else None
        return replace(place, axis=len(shape) - 1) if place.axis == len(w) - 1 else None

    return _product(operands, public, shapes, (len(x) - 1, len(w) - 2), w[-2], math.prod(w[:-1]), move)


def _product(
    operands: list[Value], public: list[bool], shapes: list[Shape], added: tuple[int, int], span: int, terms: int,
    move: Callable[[int, Place], Place | None],
) -> Value:  # fmt: skip
    """Sums of products.

    Args:
        added: of each operand, the axis that is summed over, in parts of `span` elements each.
        terms: how many products are summed up in all.
        move: where rows of an operand are in the result, on an axis that is not summed over.
    """
    mixes = not any(public) and terms > 1
    result = {}
    for key in {key for value in operands for key in value}:
        parts = []
        for number, value in enumerate(operands):
            if key not in value:
                continue
            shown = replace(value[key], pieces=())
            if mixes and shown.level is Level.RAW:
                shown = replace(shown, level=Level.ROWS, chosen=False, shifted=False)
            if shown.fixed and shown.level is Level.ROWS and place_of(value) is not None:
                shown = replace(shown, place=place_of(value), fixed=False)
            place = shown.place
            if place is not None and place.axis == added[number]:
                size = shapes[number][place.axis]
                together = span == size or place.whole and span % (place.inner * place.count) == 0
                # Public coefficients may leave one row of many.
                weighed = shown.level is Level.RAW and any(public)
                reduced = together and shown.reducible and not weighed
                shown = REDUCED if reduced else replace(shown, place=None)
            elif place is not None:
                shown = replace(shown, place=move(number, place))
            parts.append(shown)
        result[key] = joined(parts) if len(parts) == 1 else joined(parts).bent
    return settled(result)


def _nothing(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    return NOTHING


def _same(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    return operands[0]


def _curve(step: Step, operands: list[Value], public: list[bool], shapes: list[Shape], shape: Shape) -> Value:
    return _bent(operands[0])


def _bent(value: Value) -> Value:
    return {key: shown.bent for key, shown in value.items()}


RULES: dict[str, Rule] = {
    "constant": _nothing,
    "random": _nothing,
    **dict.fromkeys(
        (
            "add", "subtract", "rescale", "multiply", "maximum", "minimum", "greater_equal", "less", "equal",
            "logical_not", "logical_and", "logical_or", "select", "gate",
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        (
            "relu", "abs", "sign", "exp", "reciprocal", "rsqrt", "sqrt", "log", "spline", "one_hot",
        ),
        _curve,
    ),
    **dict.fromkeys(("negate", "shift", "truncate"), _same),
    "softmax": _softmax,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _broadcast,
    "concatenate": _concatenate,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin"), _reduce),
    "sum_pool": _pool,
    "max_pool": _pool,
    "matmul": _matmul,
    "conv": _conv,
}  # fmt: skip
