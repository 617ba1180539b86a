"""A job as its policies are asked about it, and what they answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from private_keras.plan.aggregate import Mean, mean_of
from private_keras.plan.plan import Plan
from private_keras.plan.provenance import Level
from private_keras.server.terms import Shows, Source, Terms


@dataclass(frozen=True)
class Asked:
    """A job that somebody wants to run.

    Attributes:
        caller: who.
        terms: by input name, of stored tensors; inputs that are left out come with the job.
        rows: inputs that each step takes rows for, of stored tensors or of what comes with the job.
        steps: how often the plan runs.
    """

    caller: str
    plan: Plan
    terms: Mapping[str, Terms]
    rows: frozenset[str] = frozenset()
    steps: int = 1

    @property
    def digest(self) -> str:
        """As policies write it."""
        return f"sha256:{self.plan.digest}"

    @cached_property
    def others(self) -> tuple[Source, ...]:
        """Sources of others."""
        return tuple(sorted(source for source in self._shown if source.owner != self.caller))

    def shows(self, source: Source) -> Mapping[str, Shows]:
        """By input name, what inputs show of a source; those alone that do."""
        return self._shown[source]

    @cached_property
    def mean(self) -> Mean:
        """Whose mean a plan of kind "aggregate" opens; raises what `mean_of` does."""
        return mean_of(self.plan)

    @cached_property
    def misplaced(self) -> str | None:
        """The first input of a mean that is not what an owner shared for it.

        An element of an update in place of another owner's count would weigh that owner alone, and two owners whose
        shares the caller makes itself would leave the third one's.
        """
        given: dict[str, Source] = {}
        for item in self.plan.inputs:
            if item.public:
                continue
            terms = self.terms.get(item.name, Terms())
            if item.owner == self.caller:
                right = all(other.owner == self.caller for other in terms.sources)
            else:
                label = item.name.removeprefix(f"{item.owner}/")
                right = (
                    terms.direct is not None and terms.direct == given.setdefault(item.owner, terms.direct)
                    and terms.sources == {terms.direct} and terms.label == label and item.name not in self.rows
                )  # fmt: skip
            if not right:
                return item.name
        return None

    @cached_property
    def _shown(self) -> dict[Source, dict[str, Shows]]:
        # Once for all sources: a client can bring thousands of them, in each of many inputs.
        found: dict[Source, dict[str, Shows]] = {}
        for name, terms in self.terms.items():
            for source, shows in terms.shows:
                found.setdefault(source, {})[name] = shows
        return found


@dataclass(frozen=True)
class Granted:
    """A job that may run.

    Attributes:
        kept: by output name, the terms of what is kept.
        used: sources of others that the job takes rows of: each counts one use.
        reduced: names of inputs of which it counts that each step takes several rows.
        opened: by output name, what each opened one shows of sources, for the audit log.
    """

    asked: Asked
    kept: Mapping[str, Terms] = field(default_factory=dict)
    used: tuple[Source, ...] = ()
    reduced: frozenset[str] = frozenset()
    opened: Mapping[str, Mapping[Source, Level]] = field(default_factory=dict)
