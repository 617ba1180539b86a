"""What shares that a client holds on a server come from, where that is not the client alone.

Whatever a job makes of shares stays under the policy of their owner, however often it is computed with, kept, saved and
loaded: results inherit the terms of all that they depend on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits


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
class Terms:
    """What a tensor depends on.

    Attributes:
        sources: everything it was computed from that is under somebody's policy.
        raw: those of them that it still shows: rearranged or scaled by public numbers, but not mixed with secrets.
        direct: the named shares that it is, as they were loaded; jobs on these count as uses.
    """

    sources: frozenset[Source] = field(default_factory=frozenset)
    raw: frozenset[Source] = field(default_factory=frozenset)
    direct: Source | None = None

    @classmethod
    def of(cls, source: Source) -> "Terms":
        """Of named shares themselves."""
        return cls(frozenset((source,)), frozenset((source,)), source)

    def __or__(self, other: "Terms") -> "Terms":
        """Of what is computed from both."""
        return Terms(self.sources | other.sources, self.raw | other.raw)

    def mixed(self) -> "Terms":
        """Of what shows none of them any more."""
        return Terms(self.sources)

    def to_list(self) -> list[Any]:
        """For JSON; `direct` is not of what is stored, but of how it was loaded."""
        return [[s.owner, s.name, s.number, s.nonce, s in self.raw] for s in sorted(self.sources)]

    @classmethod
    def from_list(cls, items: Any) -> "Terms":
        """Terms from JSON; raises `PlanError` for anything else."""
        if not isinstance(items, list) or not all(isinstance(item, list) and len(item) == 5 for item in items):
            raise PlanError("expected terms as a list of sources. Received: something else")
        sources, raw = set(), set()
        for owner, name, number, nonce, shown in items:
            if not all(isinstance(text, str) for text in (owner, name, nonce)) or not isinstance(shown, bool):
                raise PlanError("expected sources of owner, name, number, nonce and whether it shows. Received: others")
            source = Source(owner, name, limits.integer(number, 0, (1 << 64) - 1, "number of a source"), nonce)
            sources.add(source)
            if shown:
                raw.add(source)
        return cls(frozenset(sources), frozenset(raw))


def all_of(terms: Iterable[Terms]) -> Terms:
    """Of what is computed from all of these."""
    total = Terms()
    for each in terms:
        total |= each
    return total
