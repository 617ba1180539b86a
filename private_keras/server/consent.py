"""Whether a job may run on what it names: policies of owners, held to by each server for itself.

A job is judged before anything of it is computed, and once more before its results leave: a policy that was changed
meanwhile counts. What is judged is the plan, and for each input what it comes from (`terms.py`); a client that tells
one server another story than the next gets nothing, since results need all of them.

For each source of others, in this order: who runs the job is in `use`, it is not after `until`; the plan is allowed, by
digest or by kind; whatever it opens of the source goes to receivers in `reveal_to` alone, and shows no more than its
kind may:

| kind | opens at most |
|---|---|
| predict, compute | results for single rows, through a product of secrets |
| evaluate, fit | what is reduced over several rows |
| aggregate | the mean that `plan.aggregate` builds, and nothing else |
| reveal | everything |

What earlier jobs kept may be computed with, and opened to the same receivers, by plans of any kind, if it shows no
more than what its own kind could have opened. A digest allows its plan on the owner's own shares, and on what other
allowed plans made: of plans that a kind allows, what these could have opened.
"""

import datetime
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from private_keras.errors import PlanError, SecurityError
from private_keras.plan.provenance import Level, Shown, trace
from private_keras.plan.records import PlanOutput
from private_keras.server.asked import Asked, Granted
from private_keras.server.plans import CLIENT
from private_keras.server.policy import KINDS, Policy
from private_keras.server.terms import Shows, Source, Terms

OPENS = {
    "predict": Level.ROWS, "compute": Level.ROWS, "evaluate": Level.REDUCED, "train": Level.REDUCED,
    "aggregate": Level.RAW, "reveal": Level.RAW,
}  # fmt: skip
# How owners of inputs that belong to whoever runs a plan are called in plans; the second is a role of theirs.
OWN = (CLIENT, "model-owner")
_WORDS = {kind: word for word, kind in KINDS.items()}
_TOLD = {
    Level.RAW: "the data themselves, or what is as good as them",
    Level.ROWS: "results for single rows",
    Level.REDUCED: "what is reduced over rows",
}
_REMEMBERED = 64

Traced = Mapping[str, Mapping[Source, Shown]]
# An output with receivers, and what it shows of one source.
Opening = tuple[PlanOutput, Shown]


class Refused(SecurityError):
    """A job that an owner's policy does not allow.

    Attributes:
        source: what the policy is of.
    """

    def __init__(self, source: Source, message: str):
        super().__init__(f"{source}: {message}")
        self.source = source


class Consent:
    """Thread safe.

    Args:
        policy: of a source; None for one that this server does not know.
        parties: that the cluster's description names; None if it names none.
        now: the instant that counts.
    """

    def __init__(
        self, policy: Callable[[Source], Policy | None], parties: Collection[str] | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):  # fmt: skip
        self._policy = policy
        self._parties = parties
        self._now = now
        self._lock = threading.Lock()
        self._traced: OrderedDict[object, Traced] = OrderedDict()

    def may_load(self, source: Source, caller: str) -> bool:
        """Whether somebody may have handles of named shares."""
        if source.owner == caller:
            return True
        policy = self._policy(source)
        return policy is not None and caller in policy.use and not self._ended(policy)

    def check(self, asked: Asked) -> Granted:
        """Judges a job.

        Raises:
            SecurityError: which source, what its policy allows, what was asked, and what to do.
        """
        self._check_owners(asked)
        if not any(terms.shows for terms in asked.terms.values()):
            return Granted(asked)
        traced = self._trace(asked)
        openings: dict[Source, list[Opening]] = {}
        for item in asked.plan.outputs:
            for source, shown in traced[item.name].items() if item.receivers else ():
                openings.setdefault(source, []).append((item, shown))
        by = {source: self._allowed_by(source, asked, openings.get(source, [])) for source in asked.others}
        self._check_shapes(asked)
        # Who allows a plan by its digest counts on what its sums are of, too. Single rows may be predicted twice; that
        # a plan does no more is for its steps to say, and not for its kind.
        sums = {source for shown in traced.values() for source, s in shown.items() if s.level is Level.REDUCED}
        predicted = {source for source in by if asked.plan.kind == "predict" and source not in sums}
        reduced = {
            name for source, kind in by.items()
            if kind in ("evaluate", "train") or kind == asked.digest and source not in predicted
            for name, shows in asked.shows(source).items() if shows.level > Level.REDUCED
        }  # fmt: skip
        used = tuple(
            source for source in by if any(s.level > Level.REDUCED for s in asked.shows(source).values())
        )  # fmt: skip
        kept, opened = {}, {}
        for item in asked.plan.outputs:
            if item.receivers:
                opened[item.name] = {source: shown.level for source, shown in traced[item.name].items()}
            else:
                shows = frozenset(
                    (source, Shows(shown.level, shown.by_row, self._made(source, asked, by.get(source))))
                    for source, shown in traced[item.name].items()
                )  # fmt: skip
                kept[item.name] = Terms(shows, row=math.prod(asked.plan.types[item.value].shape[1:]))
        return Granted(asked, kept, used, frozenset(reduced), opened)

    def check_rows(self, granted: Granted, rows: Mapping[str, np.ndarray]) -> None:
        """That what counts as reduced over rows is over different ones, and not of some again and again.

        Args:
            rows: by input name, numbers of rows (steps, rows).
        """
        for name in granted.reduced & rows.keys():
            taken = np.sort(rows[name], axis=1)
            if (taken[:, 1:] == taken[:, :-1]).any():
                raise SecurityError(
                    f"input {name!r}: a step takes one row several times, and what it sums up would be of fewer rows "
                    "than it seems; take different rows in each step"
                )

    def _made(self, source: Source, asked: Asked, by: str | None) -> frozenset[str]:
        before = frozenset().union(*(shows.made for shows in asked.shows(source).values()))
        return before if by is None else before | {by}

    # --- inputs -------------------------------------------------------------------------------------------------------
    def _check_owners(self, asked: Asked) -> None:
        """Inputs are whose the plan says, and which of theirs, where it says that: a digest pins who provides what."""
        own = {*OWN, asked.caller}
        for item in asked.plan.inputs:
            if item.public:
                continue
            terms = asked.terms.get(item.name, Terms())
            direct = terms.direct
            if item.owner not in own if direct is None else item.owner != direct.owner:
                expected = f"shares of {item.owner}, as the plan says"
                received = f"shares of {'the client' if direct is None else direct.owner}"
                raise SecurityError(
                    f"input {item.name!r}: expected {expected}. Received: {received}; load the shares from "
                    f"{item.owner}, or write the plan with the owner that they have"
                )
            given = "" if direct is None else f"{direct.name}#{terms.label}"
            if item.shares and item.shares != given:
                raise SecurityError(
                    f"input {item.name!r}: expected {item.shares} of {item.owner}, as the plan says. Received: "
                    f"{given or 'shares that were not loaded from there'}; give it what it names, or ask {item.owner} "
                    "to allow the plan that takes the other"
                )

    def _check_shapes(self, asked: Asked) -> None:
        """A row is a row of what was shared: parts of one would count as many rows, and their sum as reduced."""
        for item in asked.plan.inputs:
            terms, row = asked.terms.get(item.name, Terms()), math.prod(item.type.shape[1:])
            counts = item.name in asked.rows or asked.plan.kind == "compute"
            if counts and row != terms.row and terms.by_rows:
                self._refuse(
                    min(terms.sources), f"is about rows of {terms.row} elements",
                    f"rows of {row} as input {item.name!r}", "share them in that shape",
                )  # fmt: skip

    def _trace(self, asked: Asked) -> Traced:
        held = {
            name: {source: shows.level for source, shows in terms.shows}
            for name, terms in asked.terms.items() if terms.shows
        }  # fmt: skip
        # Statistics are computed of whole tables, whose rows come first. Elsewhere what is used whole is weights.
        whole = asked.terms.keys() if asked.plan.kind == "compute" else frozenset()
        rows = [
            name for name in asked.rows | whole
            if all(s.by_row or s.level is Level.REDUCED for _, s in asked.terms.get(name, Terms()).shows)
        ]  # fmt: skip
        key = asked.plan.digest, frozenset((name, frozenset(h.items())) for name, h in held.items()), frozenset(rows)
        with self._lock:
            if key in self._traced:
                self._traced.move_to_end(key)
                return self._traced[key]
        found = trace(asked.plan, held, rows)
        with self._lock:
            self._traced[key] = found
            while len(self._traced) > _REMEMBERED:
                self._traced.popitem(last=False)
        return found

    # --- one source ---------------------------------------------------------------------------------------------------
    def _allowed_by(self, source: Source, asked: Asked, openings: Sequence[Opening]) -> str | None:
        """What in the source's policy allows the job: a kind, a digest, or nothing but what allowed earlier ones."""
        policy = self._policy(source)
        if policy is None:
            raise Refused(source, f"this server knows nothing of these shares any more; ask {source.owner}")
        if asked.caller not in policy.use:
            self._refuse(source, "does not let you use them", f"a job of {asked.caller}", "be named in its `use`")
        if self._ended(policy):
            self._refuse(source, f"let them be used until {policy.until:%Y-%m-%d %H:%M} UTC", "a job now", "extend it")
        by = self._plan_allowed(source, policy, asked)
        self._check_openings(source, policy, asked, openings, by)
        return by

    def _plan_allowed(self, source: Source, policy: Policy, asked: Asked) -> str | None:
        inputs = asked.shows(source)
        for name, shows in inputs.items():
            gone = sorted(made for made in shows.made if not self._is_allowed(policy, made))
            if gone:
                self._refuse(
                    source, f"allows {_listed(policy.plans)}",
                    f"input {name!r}, which a plan of kind or digest {_word(gone[0])} made", "allow it again",
                )  # fmt: skip
        if all(_released(shows) for shows in inputs.values()):
            return None
        plan = asked.plan
        if asked.digest in policy.plans:
            self._check_pinned(source, asked)
            return asked.digest
        if plan.kind == "aggregate" and policy.least_owners is not None:
            try:
                mean = asked.mean
            except PlanError as error:
                raise Refused(source, str(error)) from None
            if mean.minimum < policy.least_owners or asked.steps != 1:
                self._refuse(
                    source, f"allows the mean of {policy.least_owners} owners or more",
                    f"one of {mean.minimum} or more, {asked.steps} times", "allow fewer, or ask for more",
                )  # fmt: skip
            self._check_updates(source, asked)
            return plan.kind
        if plan.kind != "aggregate" and self._is_allowed(policy, plan.kind):
            return plan.kind
        self._refuse(
            source, f"allows {_listed(policy.plans)}",
            f"plan {plan.name!r} of kind {_word(plan.kind)}, digest {asked.digest}",
            f"allow that kind, or look at the plan and allow its digest (private-keras approve {source.name} ...)",
        )  # fmt: skip

    def _check_updates(self, source: Source, asked: Asked) -> None:
        """A mean is of what owners shared for it."""
        if asked.misplaced is not None:
            self._refuse(
                source, "allows the mean of what owners shared for it", f"something else as input {asked.misplaced!r}",
                f"look at the job: it is to take {asked.misplaced!r} whole, as its owner shared it",
            )  # fmt: skip

    def _check_pinned(self, source: Source, asked: Asked) -> None:
        """A digest says who provides what: nothing of the source comes in by another door."""
        if asked.plan.kind == "aggregate":
            self._check_updates(source, asked)
        owners = {item.name: item.owner for item in asked.plan.inputs}
        for name, shows in asked.shows(source).items():
            if asked.terms[name].direct != source and not shows.made:
                self._refuse(
                    source, "allows this plan by its digest", f"a copy of the shares as input {name!r} of the client",
                    f"load them from {source.owner}",
                )  # fmt: skip
            # Else any plan of a kind that opens little could hand on to this one what it keeps.
            beyond = sorted(made for made in shows.made if made in OPENS and shows.level > OPENS[made])
            if beyond:
                self._refuse(
                    source, f"lets plans of kind {_word(beyond[0])} open {_TOLD[OPENS[beyond[0]]]} at most",
                    f"input {name!r}, which one of them made and which shows {_TOLD[shows.level]}",
                    "allow the plan that made it by its digest",
                )  # fmt: skip
        role = OWN[1]
        if self._parties is not None and role in self._parties and asked.caller != role:
            for name, owner in owners.items():
                if owner == role and (name not in asked.terms or asked.terms[name].direct is None):
                    self._refuse(
                        source, "allows this plan by its digest", f"own shares for input {name!r} of {role}",
                        f"load them from {role}, who is a party of this cluster",
                    )  # fmt: skip

    def _check_openings(
        self, source: Source, policy: Policy, asked: Asked, openings: Sequence[Opening], by: str | None
    ) -> None:
        for item, shown in openings:
            receivers = {asked.caller if receiver == CLIENT else receiver for receiver in item.receivers}
            strangers = sorted(receivers - {source.owner, *policy.reveal_to})
            if strangers:
                self._refuse(
                    source, f"lets results be opened to {_listed(policy.reveal_to)}",
                    f"output {item.name!r} for {', '.join(strangers)}", "name them in its `reveal_to`",
                )  # fmt: skip
            if by in OPENS and shown.level > OPENS[by]:
                self._refuse(
                    source, f"lets plans of kind {_word(by)} open {_TOLD[OPENS[by]]} at most",
                    f"output {item.name!r}, which shows {_TOLD[shown.level]}",
                    "allow another kind, or look at the plan and allow its digest"
                    + ("; the last batch may have had one row alone" if shown.single else ""),
                )  # fmt: skip

    @staticmethod
    def _is_allowed(policy: Policy, made: str) -> bool:
        """Whether a kind, or a digest, is still in a policy."""
        if made == "aggregate":
            return policy.least_owners is not None
        return _WORDS.get(made, made) in policy.plans

    def _ended(self, policy: Policy) -> bool:
        return policy.until is not None and self._now() > policy.until

    @staticmethod
    def _refuse(source: Source, allowed: str, asked: str, advice: str) -> None:
        raise Refused(source, f"its policy {allowed}. Asked: {asked}. Ask {source.owner} to {advice}")


def _released(shows: Shows) -> bool:
    """Whether all of a tensor could have been opened by the plans that made it."""
    return bool(shows.made) and all(made in OPENS and shows.level <= OPENS[made] for made in shows.made)


def _word(kind: str) -> str:
    """A plan's kind as policies call it."""
    return repr(_WORDS.get(kind, kind))


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
