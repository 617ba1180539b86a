"""How much a value shows of a source, and where the source's rows are in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

# In what is known of one value, those of pieces included.
MOST_PIECES = 1 << 12
# Sources times vectors that are joined, to be told apart.
MOST_JOINED = 1 << 16


class Level(IntEnum):
    """How much a value shows of a source; the largest counts."""

    REDUCED = 1  # every number comes of several rows
    ROWS = 2  # numbers come of single rows, mixed with secrets of others
    RAW = 3  # the data, rearranged, scaled, or put through functions of single elements


@dataclass(frozen=True)
class Place:
    """Where in a value the rows of a source are: of `axis`, seen as (outer, count, inner), the middle one.

    Attributes:
        whole: whether the axis has nothing but these rows and what belongs to them.
    """

    axis: int
    inner: int
    count: int
    whole: bool = True


@dataclass(frozen=True)
class Shown:
    """What a value shows of one source.

    Attributes:
        place: where its rows are, if that is known: only then can they be reduced.
        single: all of it is of one row; once other rows are added to it, it is reduced.
        shifted: numbers that whoever writes the plan knows were added, others for other rows: what is not linear may
            choose by them.
        chosen: such numbers may have chosen which rows are left of it.
        fixed: of what is the same for all rows of the job, as weights are. Mixed with rows of something, it becomes a
            result for single rows.
        pieces: of a vector that others were joined to: where each one ends, and what it shows. Passes join values
            so, for steps that they have in common, and take them apart after.
    """

    level: Level
    place: Place | None = None
    single: bool = False
    chosen: bool = False
    fixed: bool = False
    pieces: "tuple[tuple[int, Shown | None], ...]" = ()
    shifted: bool = False

    @cached_property
    def weight(self) -> int:
        """How much it takes to look at it: itself, and its pieces."""
        return 1 + sum(1 if piece is None else piece.weight for _, piece in self.pieces)

    @property
    def by_row(self) -> bool:
        """Whether the value's first axis is the rows, perhaps with others'."""
        return self.place is not None and (self.place.axis, self.place.inner) == (0, 1)

    @property
    def reducible(self) -> bool:
        """Whether a sum over its rows is one over many of them."""
        return self.place is not None and not (self.chosen and self.level is Level.RAW)


    @cached_property
    def bent(self) -> "Shown":
        """The same, after a step that is not linear: a threshold for each row chooses as a factor does."""
        pieces = tuple((end, piece and piece.bent) for end, piece in self.pieces)
        return replace(self, chosen=self.chosen or self.shifted, pieces=pieces)


Value = Mapping[Any, Shown]
NOTHING: Value = {}
REDUCED = Shown(Level.REDUCED)
# Stands among sources for rows that nobody's policy is about: where these are matters all the same.
ROWS_OF_OWN = object()


def in_pieces(shown: Shown, pieces: "tuple[tuple[int, Shown | None], ...]") -> Shown:
    """The same, of pieces; of very many, joined again and again, they are not told apart any more."""
    found = replace(shown, pieces=pieces)
    return found if found.weight <= MOST_PIECES else replace(shown, pieces=())


def in_shape(value: Value, shape: Sequence[int]) -> Value:
    """The same, of a value of this shape: pieces that are not all of it, and of a vector, are not told apart."""
    size = shape[0] if len(shape) == 1 else 0
    return {key: s if not s.pieces or s.pieces[-1][0] == size else replace(s, pieces=()) for key, s in value.items()}


def piece_at(shown: Shown, start: int, stop: int) -> Shown | None:
    """Of elements `start` to `stop` of a vector; None if they show nothing."""
    begin, found = 0, []
    for end, piece in shown.pieces:
        if (begin, end) == (start, stop):
            return piece
        if piece is not None and begin < stop and start < end:
            found.append(Shown(piece.level))
        begin = end
    return joined(found) if found else None


def joined(parts: Sequence[Shown], hidden: bool = False) -> Shown:
    """Of what is computed from all of these; where rows are is known if all have them there.

    Args:
        hidden: weights in sums and products with what other weights of the same source made of rows, as biases are,
            show no more of it than these.
    """
    most = [part for part in parts if part.level > Level.REDUCED]
    if not most:
        return REDUCED
    moving = [part for part in most if not part.fixed]
    level = max(part.level for part in most)
    if hidden and any(part.level is Level.ROWS for part in most):
        level = max((part.level for part in moving), default=Level.ROWS)
    first = (moving or most)[0]
    chosen, shifted = any(part.chosen for part in most), any(part.shifted for part in most)
    about = {(part.place, part.single, part.pieces) for part in moving or most}
    if len(about) > 1:
        return Shown(level, fixed=not moving)
    # Weights, and what is reduced, have a part in pieces that rows have none in.
    pieces = first.pieces if all(part.pieces == first.pieces for part in parts) else ()
    return Shown(level, first.place, first.single, chosen, not moving, pieces, shifted)


def settled(value: dict[Any, Shown]) -> dict[Any, Shown]:
    """The same, where weights that were mixed with rows are of these rows from now on."""
    fixed = [key for key, shown in value.items() if shown.fixed and shown.level is Level.ROWS]
    if fixed:
        moving = {(s.place, s.single) for s in value.values() if not s.fixed and s.level > Level.REDUCED}
        if len(moving) == 1:
            place, single = moving.pop()
            if place is not None or single:
                value |= {key: Shown(Level.ROWS, place, single) for key in fixed}
    return value


def place_of(value: Value) -> Place | None:
    """Where a value's rows are, of whatever source."""
    places = {shown.place for shown in value.values() if not shown.fixed and shown.level > Level.REDUCED}
    return places.pop() if len(places) == 1 else None
