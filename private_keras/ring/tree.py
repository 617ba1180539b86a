"""The shape of the comparison tree: which wires are opened at each level and which mask products the helper deals.

A comparison of `width` bits has ceil(width/4) base-16 digits. Level 1 merges digits in groups of up to four, level 2
the groups' results, until one is left. Group members are listed from the least significant up. In a group of size s
with members 0..s-1: the top member's `less` wire g_(s-1) stays local (it enters the sum unmultiplied); wires
e_(s-1) .. e_1 and g_(s-2) .. g_0 are opened; e_0 only where the group's own `equal` is needed, that is in every group
but the lowest.
"""
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

DIGIT_BITS = 4
FAN_IN = 4


@dataclass(frozen=True)
class Group:
    """One node of a level: `size` members, whether its `equal` output is needed, its wires and mask products."""

    size: int
    need_equal: bool

    @cached_property
    def wires(self) -> tuple[str, ...]:
        """Opened wires, in the order of the message: e_(s-1) .. e_1, g_(s-2) .. g_0, then e_0 if needed."""
        s = self.size
        wires = [f"e{i}" for i in range(s - 1, 0, -1)] + [f"g{i}" for i in range(s - 2, -1, -1)]
        return tuple(wires + (["e0"] if self.need_equal else []))

    @property
    def terms(self) -> tuple[tuple[str, ...], ...]:
        """Conjunctions whose XOR with g_(s-1) is the group's `less`: (e3, g2), (e3, e2, g1), (e3, e2, e1, g0)."""
        s = self.size
        return tuple(tuple(f"e{i}" for i in range(s - 1, j, -1)) + (f"g{j}",) for j in range(s - 2, -1, -1))

    @property
    def equal(self) -> tuple[str, ...]:
        """The conjunction that is the group's `equal`: (e3, e2, e1, e0); empty where not needed."""
        return tuple(f"e{i}" for i in range(self.size - 1, -1, -1)) if self.need_equal else ()

    @cached_property
    def products(self) -> tuple[tuple[str, ...], ...]:
        """Sets of two or more wires whose mask product is dealt, in the order of the message."""
        seen: dict[tuple[str, ...], None] = {}
        for term in (*self.terms, self.equal):
            for k in range(2, len(term) + 1):
                for subset in combinations(term, k):
                    seen[subset] = None
        return tuple(seen)


@cache
def digit_bits(width: int) -> tuple[int, ...]:
    """Bits of each digit, least significant first: (4, 4, ..., rest)."""
    return tuple(min(DIGIT_BITS, width - i) for i in range(0, width, DIGIT_BITS))


@cache
def digit_planes(width: int) -> int:
    """Planes of the one-hot digits, entry 0 left out: 228 for 62 bits."""
    return sum((1 << b) - 1 for b in digit_bits(width))


@cache
def levels(width: int) -> tuple[tuple[Group, ...], ...]:
    """Groups of each level, least significant first; empty for a single digit."""
    out = []
    members = len(digit_bits(width))
    while members > 1:
        sizes = [min(FAN_IN, members - i) for i in range(0, members, FAN_IN)]
        # A group of one passes its wires on unopened and costs nothing.
        out.append(tuple(Group(s, need_equal=i > 0) for i, s in enumerate(sizes)))
        members = len(sizes)
    return tuple(out)


@cache
def opened_planes(width: int, level: int) -> int:
    """Planes that each evaluator sends at a level (0-based)."""
    return sum(len(g.wires) for g in levels(width)[level] if g.size > 1)


@cache
def product_planes(width: int, level: int) -> int:
    """Planes of mask products dealt for a level."""
    return sum(len(g.products) for g in levels(width)[level] if g.size > 1)
