"""What shares that a client holds on a server come from, where that is not the client alone.

Whatever a job makes of shares stays under the policy of their owner, however often it is computed with, kept, saved and
loaded: results inherit the terms of all that they depend on.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.provenance import Level


@dataclass(frozen=True, order=True)
class Source:
    """One generation of one party's named shares; its policy is looked up when it matters, so that it can be changed.

    Attributes:
        nonce: in hex.
    """

    owner: str
    name: str
    number: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Shows:
    """What a tensor shows of one source.

    Attributes:
        level: how much.
        by_row: whether the tensor's first axis is the source's rows, perhaps with others'.
        made: what allowed the plans that it was made by: kinds, or digests as "sha256:...". Empty for the data
            themselves.
    """

    level: Level
    by_row: bool = False
    made: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terms:
    """What a tensor depends on.

    Attributes:
        shows: everything it was computed from that is under somebody's policy, and how much it shows of it.
        direct: the named shares that it is, as they were loaded from somebody else.
        label: which tensor of these.
        row: elements of one row, where this depends on others: whatever a plan says of its shape, rows stay these.
    """

    shows: frozenset[tuple[Source, Shows]] = field(default_factory=frozenset)
    direct: Source | None = None
    label: str = ""
    row: int = 0

    @classmethod
    def of(cls, source: Source, label: str = "", row: int = 0) -> "Terms":
        """Of named shares themselves."""
        return cls(frozenset({(source, Shows(Level.RAW, by_row=True))}), source, label, row)

    def loaded(self, source: Source, label: str, row: int) -> "Terms":
        """Of named shares of somebody else, of which these are the terms that they were saved with."""
        return Terms(self.shows | Terms.of(source).shows, source, label, row)

    @property
    def sources(self) -> frozenset[Source]:
        """All that it depends on."""
        return frozenset(source for source, _ in self.shows)

    @property
    def by_rows(self) -> bool:
        """Whether this shows rows of somebody else's, and not only what is reduced over them."""
        return any(shows.level > Level.REDUCED for _, shows in self.shows)

    @property
    def identity(self) -> bytes:
        """Which tensor of others this is, as far as servers have to agree on it; empty where it is of nobody else.

        What allowed the plans that made it is each server's own to say: policies change at each at its own moment.
        """
        shown = [[s.owner, s.name, s.number, s.nonce, int(shows.level), shows.by_row]
                 for s, shows in sorted(self.shows, key=lambda item: item[0])]
        return json.dumps([shown, self.direct is not None, self.label]).encode() if shown else b""

    def to_list(self) -> list[Any]:
        """For JSON; the other fields are not of what is stored, but of how it was loaded."""
        return [
            [s.owner, s.name, s.number, s.nonce, int(shows.level), shows.by_row, sorted(shows.made)]
            for s, shows in sorted(self.shows, key=lambda item: item[0])
        ]

    @classmethod
    def from_list(cls, items: Any) -> "Terms":
        """Terms from JSON; raises `PlanError` for anything else."""
        if not isinstance(items, list) or not all(isinstance(item, list) and len(item) == 7 for item in items):
            raise PlanError("expected terms as a list of sources. Received: something else")
        found = {}
        for owner, name, number, nonce, level, by_row, made in items:
            texts = (owner, name, nonce, *(made if isinstance(made, list) else (None,)))
            if not all(isinstance(text, str) for text in texts):
                raise PlanError("expected sources by owner, name and nonce, and plans. Received: others")
            source = Source(owner, name, limits.integer(number, 0, (1 << 64) - 1, "number of a source"), nonce)
            limits.integer(level, Level.REDUCED, Level.RAW, "what is shown of a source")
            limits.flag(by_row, "rows of a source")
            found[source] = Shows(Level(level), by_row, frozenset(made))
        if len(found) != len(items):
            raise PlanError("expected each source once. Received: one twice")
        return cls(frozenset(found.items()))
