"""What everybody may know of a round: who takes part, how long, and under which limits. No weight and no count."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from private_keras.errors import InputError, PlanError
from private_keras.plan.aggregate import LEAST_OWNERS, MOST_EXAMPLES, MOST_OWNERS, aggregate_plan, update_fraction
from private_keras.plan.limits import MAX_ELEMENTS, MAX_INPUTS, shown
from private_keras.server.config import NAME

UPDATE, GRADIENT = "update", "gradient"
FORMAT = 1
# Of a federation: names of shares have 80 characters.
FEDERATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}", re.ASCII)
PLACE = re.compile(r"([0-9a-f]{8})\.(0|[1-9][0-9]{0,6})\.(0|[1-9][0-9]{0,4})")
ROUND, MODEL, SHARED, STATE = "round", "model", "update", "state"
MAX_DEADLINE = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Round:
    """One round, as the model's owner announces it.

    Attributes:
        token: of this fit, in hex.
        number: from 0; `rounds` is how many there will be.
        attempt: how often it was begun anew.
        owners: who may take part.
        minimum: the fewest updates that a mean is taken of.
        deadline: seconds that owners have.
        share: "update" or "gradient".
        limit: largest Euclidean length of what an owner shares; with `clip` longer ones are shortened to it.
        examples: the most that an owner may have.
        fraction: fractional bits of updates.
        sizes: elements of each part of an update.
        before: the place of the round before, if there was one; whose updates it used; whom it refused, and why.
        done: no round: the fit is over, and the weights are the final ones.
    """

    token: str
    number: int
    attempt: int
    rounds: int
    owners: tuple[str, ...]
    minimum: int
    deadline: float
    share: str
    limit: float
    clip: bool
    examples: int
    fraction: int
    sizes: tuple[int, ...]
    before: str = ""
    used: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    done: bool = False

    @property
    def place(self) -> str:
        """Its name among all rounds."""
        return f"{self.token}.{self.number}.{self.attempt}"

    def next(self, number: int, attempt: int, used: Sequence[str] = (), refused: Mapping[str, str] | None = None,
             done: bool = False) -> "Round":  # fmt: skip
        """The one that follows this one."""
        return replace(
            self, number=number, attempt=attempt, before=self.place, used=tuple(used),
            refused=tuple(sorted((refused or {}).items())), done=done,
        )  # fmt: skip

    def entries(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shape and fractional bits of each tensor that an owner shares."""
        return {"examples": ((1, 1), 0)} | {
            f"update/{part}": ((1, size), self.fraction) for part, size in enumerate(self.sizes)
        }

    def plan(self, owners: Sequence[str]):
        """The plan of the mean of some owners' updates."""
        return aggregate_plan(self.sizes, owners, self.limit, self.examples, self.fraction, self.minimum)

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)


def from_json(text: str) -> Round:
    """A round that somebody else announces; raises `InputError` for what is none, or none that can be."""
    try:
        document = json.loads(text)
        if document.pop("format") != FORMAT or set(document) != {field.name for field in fields(Round)}:
            raise InputError("expected a round in a format of this version. Received: another one")
        for key in ("owners", "sizes", "used"):
            document[key] = tuple(document[key])
        document["refused"] = tuple((str(owner), str(reason)[:400]) for owner, reason in document["refused"])
        found = Round(**document)
        checked(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("expected the description of a round. Received: something else") from None
    return found


def checked(found: Round) -> Round:
    """The round; raises `InputError` for one that no plan can be made of."""
    owners = checked_owners(found.owners)
    if not all(isinstance(owner, str) for owner in found.used) or not isinstance(found.clip, bool):
        raise InputError("expected the description of a round. Received: other types")
    if not isinstance(found.done, bool) or not PLACE.fullmatch(found.place):
        raise InputError(f"expected the place of a round. Received: {shown(found.place)}")
    if found.before and not PLACE.fullmatch(found.before):
        raise InputError(f"expected the place of the round before. Received: {shown(found.before)}")
    whole(found.rounds, 1, 10_000_000, "rounds")
    whole(found.number, 0, found.rounds, "number of a round")
    whole(found.minimum, LEAST_OWNERS, len(owners), "minimum")
    whole(found.examples, 1, MOST_EXAMPLES, "examples")
    number(found.deadline, 0.0, MAX_DEADLINE, "deadline")
    if found.share not in (UPDATE, GRADIENT):
        raise InputError(f"share: expected {UPDATE!r} or {GRADIENT!r}. Received: {shown(found.share)}")
    whole(len(found.sizes), 1, MAX_INPUTS // (len(owners) + 1), "number of parts")
    for size in found.sizes:
        whole(size, 1, MAX_ELEMENTS, "size of a part")
    try:
        most = update_fraction(len(owners), number(found.limit, 0.0, math.inf, "limit"), found.examples)
    except PlanError as error:
        raise InputError(str(error)) from None
    whole(found.fraction, 12, most, "fraction")
    return found


def checked_owners(owners: Any) -> tuple[str, ...]:
    """The owners of a federation, sorted."""
    if isinstance(owners, str) or not isinstance(owners, Sequence) or not all(
        isinstance(owner, str) and NAME.fullmatch(owner) for owner in owners
    ):
        raise InputError("owners: expected a list of parties' names as in their certificates. Received: something else")
    if len(set(owners)) != len(owners) or not LEAST_OWNERS <= len(owners) <= MOST_OWNERS:
        raise InputError(
            f"owners: expected {LEAST_OWNERS} to {MOST_OWNERS}, each once: from a mean of two, each could tell the "
            f"other's update. Received: {len(owners)}, of which {len(set(owners))} are different"
        )
    return tuple(sorted(owners))


def whole(value: Any, low: int, high: int, what: str) -> int:
    """An integer in low .. high, or `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{what}: expected an integer from {low} to {high}. Received: {shown(value)}")
    return value


def number(value: Any, low: float, high: float, what: str) -> float:
    """A finite number above `low`, `high` at most, or `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high or value == math.inf:
        raise InputError(f"{what}: expected a finite number above {low:g}, up to {high:g}. Received: {shown(value)}")
    return float(value)
