"""What the owner of shares lets others do with them: data, checked the same way by the owner's client and each server.

    Policy(use=["analyst"], plans=["fit", "evaluate"], reveal_to=["analyst"], uses=100, until="2027-01-01")

The default is nobody but the owner.
"""

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from private_keras.errors import InputError
from private_keras.plan.aggregate import LEAST_OWNERS, MOST_OWNERS
from private_keras.server.config import NAME

# By what users call them: the kind that a plan says it is of.
KINDS = {
    "predict": "predict", "evaluate": "evaluate", "fit": "train", "aggregate": "aggregate", "compute": "compute",
    "reveal": "reveal",
}  # fmt: skip
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MEAN = re.compile(r"aggregate:([1-9][0-9]{0,3})")
MAX_NAMES = 1000
MAX_USES = 1 << 62
MAX_POLICY_BYTES = 1 << 17
_KEYS = ("use", "plans", "reveal_to", "uses", "until")


@dataclass(frozen=True, init=False)
class Policy:
    """Who may use named shares, in which plans, who may receive what comes of them, how often and until when.

    Args:
        use: parties that may run plans on them, besides the owner. Empty: nobody.
        plans: what these may run: kinds ("predict", "evaluate", "fit", "aggregate", "compute", "reveal") or digests of
            single plans ("sha256:..."). A kind protects against mistakes: whoever may choose the plan can choose one
            whose result says much about the data. A digest allows that plan, as the owner has inspected it, and no
            other. "reveal" lets receivers see the shares themselves. "aggregate" is the plan of `plan/aggregate.py`
            alone, the weighted mean of at least 3 owners' updates; "aggregate:8" asks for at least 8. Empty: those in
            `use` see name, shape and dtype, and may run nothing until a plan is allowed.
        reveal_to: parties that may receive results. What depends on the shares of several owners needs all of them to
            allow it.
        uses: how many jobs may use them in all; None: no limit. The owner's own do not count.
        until: last instant of any use, an aware `datetime`, or ISO 8601 text; a date alone means its end in UTC.
            None: no end.

    Raises:
        InputError: an argument that is not of this form.
    """

    use: tuple[str, ...]
    plans: tuple[str, ...]
    reveal_to: tuple[str, ...]
    uses: int | None
    until: datetime.datetime | None

    def __init__(
        self, use: Sequence[str] = (), plans: Sequence[str] = (), reveal_to: Sequence[str] = (),
        uses: int | None = None, until: "str | datetime.date | None" = None,
    ):
        put = object.__setattr__
        put(self, "use", _names(use, "use"))
        put(self, "plans", _plans(plans))
        put(self, "reveal_to", _names(reveal_to, "reveal_to"))
        if uses is not None and (isinstance(uses, bool) or not isinstance(uses, int) or not 0 <= uses <= MAX_USES):
            raise InputError(f"Policy: uses: expected a number of jobs, or None. Received: {uses!r}")
        put(self, "uses", uses)
        put(self, "until", _instant(until))

    @property
    def least_owners(self) -> int | None:
        """The fewest owners that a plan of kind "aggregate" may open the mean of; None: no such plan is allowed.

        How many a plan asks for is for `plan.aggregate.mean_of` to say, which refuses every other plan.
        """
        asked = [int(match[1]) for plan in self.plans if (match := MEAN.fullmatch(plan))]
        return min([*asked, *[LEAST_OWNERS] * ("aggregate" in self.plans)], default=None)

    def to_json(self) -> str:
        """Canonical text: equal policies have equal ones."""
        until = None if self.until is None else self.until.isoformat()
        document = {"use": self.use, "plans": self.plans, "reveal_to": self.reveal_to, "uses": self.uses}
        return json.dumps({**document, "until": until}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """The policy in a text, empty for the default; raises `InputError` for anything else."""
        if not text:
            return cls()
        if len(text) > MAX_POLICY_BYTES:
            raise InputError(f"expected a policy of at most {MAX_POLICY_BYTES} characters. Received: {len(text)}")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("expected a policy as JSON. Received: other text") from None
        if not isinstance(document, dict) or not set(document) <= set(_KEYS):
            raise InputError(f"expected a policy with {', '.join(_KEYS)}. Received: other entries")
        for key in ("use", "plans", "reveal_to"):
            if not isinstance(document.get(key, []), list):
                raise InputError(f"Policy: {key}: expected a list. Received: {type(document[key]).__name__}")
        return cls(**document)


def _names(values: Any, what: str) -> tuple[str, ...]:
    values = _texts(values, what, "parties")
    for name in values:
        if not NAME.fullmatch(name):
            raise InputError(f"Policy: {what}: expected parties' names as in their certificates. Received: {name!r}")
    return values


def _plans(values: Any) -> tuple[str, ...]:
    values = _texts(values, "plans", "kinds of plans or digests")
    for plan in values:
        if mean := MEAN.fullmatch(plan):
            if not LEAST_OWNERS <= int(mean[1]) <= MOST_OWNERS:
                raise InputError(
                    f"Policy: plans: expected a mean of {LEAST_OWNERS} to {MOST_OWNERS} owners. Received: {plan!r}"
                )
        elif plan not in KINDS and not DIGEST.fullmatch(plan):
            raise InputError(
                f"Policy: plans: expected kinds of {', '.join(KINDS)}, aggregate:N, or digests as sha256: and 64 hex "
                f"digits. Received: {plan!r}"
            )
    return values


def _texts(values: Any, what: str, of: str) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
        raise InputError(f'Policy: {what}: expected a list of {of}, as ["..."]. Received: {type(values).__name__}')
    if len(values) > MAX_NAMES:
        raise InputError(f"Policy: {what}: expected at most {MAX_NAMES} {of}. Received: {len(values)}")
    return tuple(sorted(set(values)))


def _instant(until: Any) -> datetime.datetime | None:
    if until is None:
        return None
    advice = "Policy: until: expected an ISO 8601 date, or a date and time with its zone (2027-01-01T12:00+00:00)."
    if isinstance(until, str):
        try:
            # Text of a date alone is a date's, not its first second's.
            parse = datetime.date if re.fullmatch(r"\d{4}-\d\d-\d\d|\d{8}", until) else datetime.datetime
            until = parse.fromisoformat(until)
        except ValueError:
            raise InputError(f"{advice} Received: {until!r}"[:400]) from None
    if isinstance(until, datetime.date) and not isinstance(until, datetime.datetime):
        until = datetime.datetime.combine(until, datetime.time(23, 59, 59, 999_999), datetime.UTC)
    if not isinstance(until, datetime.datetime) or until.tzinfo is None:
        raise InputError(f"{advice} Received: {type(until).__name__} without one")
    return until.astimezone(datetime.UTC)
