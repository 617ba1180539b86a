"""How much a value shows of a source, and where the source's rows are in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


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
        chosen: numbers that whoever writes the plan knows may have chosen which rows are left of it.
        pieces: of a vector that others were joined to: where each one ends, and what it shows. Passes join values
            so, for steps that they have in common, and take them apart after.
    """

    level: Level
    place: Place | None = None
    single: bool = False
    chosen: bool = False
    pieces: "tuple[tuple[int, Shown | None], ...]" = ()

    @property
    def reducible(self) -> bool:
        """Whether a sum over its rows is one over many of them."""
        return self.place is not None and not (self.chosen and self.level is Level.RAW)


Value = Mapping[Any, Shown]
NOTHING: Value = {}
REDUCED = Shown(Level.REDUCED)


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


def joined(parts: Sequence[Shown]) -> Shown:
    """Of what is computed from all of these; where rows are is known if all have them there."""
    most = [part for part in parts if part.level > Level.REDUCED]
    if not most:
        return REDUCED
    level, chosen, first = max(part.level for part in most), any(part.chosen for part in most), most[0]
    alike = all((part.place, part.single, part.pieces) == (first.place, first.single, first.pieces) for part in most)
    return Shown(level, first.place, first.single, chosen, first.pieces) if alike else Shown(level)
