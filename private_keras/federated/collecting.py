"""Waits for the owners of a round, and takes the mean of those who are there."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import ClusterError, DeadlineExceeded, PrivateKerasError, SecurityError
from private_keras.federated.board import Apart, Board, Listed, Unusable
from private_keras.federated.patience import Patience
from private_keras.federated.round import SHARED, Round

SEED_BITS = 45
# Of the limit: servers take no update that is longer, but for one in thousands (`plan/aggregate.py`).
LONGEST = 4.0


class Spent(PrivateKerasError):
    """The job of a mean failed, and the updates in it may be used up."""


@dataclass(frozen=True)
class Collected:
    """What a round gave.

    Attributes:
        step: mean of the updates.
        used: whose.
        refused: whose not, and why; of owners who had shared something.
        nothing: whether it is the 0 that stands for a mean of too few.
    """

    step: np.ndarray = field(repr=False)
    nothing: bool
    used: tuple[str, ...]
    refused: dict[str, str]


class Collector:
    """The model owner's view of what owners share.

    An owner whose policy did not allow a mean is left out from then on, and one that gave servers parts that do not
    belong together: it could have the other updates of each round used up.
    """

    def __init__(self, board: Board, federation: str):
        self._board = board
        self._prefix = f"{federation}/{SHARED}."
        self._barred: dict[str, str] = {}

    def collect(self, current: Round, enough: int, patience: float) -> Collected:
        """Takes the mean as soon as there are `enough` updates, or at the deadline of as many as there are.

        Raises:
            DeadlineExceeded: fewer than the minimum, `patience` seconds after the deadline.
            Spent: the job failed.
        """
        gone: dict[str, str] = {}
        wait = Patience(current.deadline + patience, f"round {current.number + 1}: too few owners")
        ends = time.monotonic() + current.deadline
        while True:
            there, refused = self._look(current, wait.call(self._board.listed))
            refused |= gone | self._barred
            usable = [owner for owner in there if owner not in refused]
            if len(usable) >= (current.minimum if time.monotonic() >= ends else enough):
                try:
                    return Collected(*self._mean(current, usable), tuple(usable), refused)
                except Unusable as error:
                    (self._barred if error.unwilling else gone)[error.owner] = error.reason
                    continue
                except Apart as error:
                    reason = "it gave servers parts of an update that do not belong together"
                    self._barred |= dict.fromkeys(error.owners, reason)
                    raise Spent(f"round {current.number + 1}: {error}") from error
                except (SecurityError, ClusterError) as error:
                    raise Spent(f"round {current.number + 1}: {error}") from error
            if wait.left <= 0:
                why = "".join(f"; {owner}: {reason}" for owner, reason in refused.items())
                raise DeadlineExceeded(
                    f"round {current.number + 1}: expected the updates of at least {current.minimum} owners within "
                    f"{current.deadline + patience:g} s. Received: those of {', '.join(usable) or 'none'}{why}. "
                    "fit(..., resume=True) goes on from here"
                )
            wait.pause()

    def _look(self, current: Round, listed: Sequence[Listed]) -> tuple[list[str], dict[str, str]]:
        """Owners whose updates are there, as far as names and shapes tell; and who shared something else."""
        expected, there, refused = current.entries(), [], {}
        for each in listed:
            if each.owner not in current.owners or not each.name.startswith(self._prefix):
                continue
            place = each.name.removeprefix(self._prefix)
            if place != current.place:
                refused.setdefault(each.owner, f"it shared an update of round {place[:40]}, which is not on")
            elif each.entries != expected:
                refused[each.owner] = "its update has other shapes or number formats than this model's"
            else:
                there.append(each.owner)
        return sorted(there), {owner: reason for owner, reason in refused.items() if owner not in there}

    def _mean(self, current: Round, owners: Sequence[str]) -> tuple[np.ndarray, bool]:
        plan = current.plan(owners)
        # Drawn when all updates are there, so that nobody could shape one after it.
        seed = secrets.randbelow(1 << SEED_BITS)
        opened = self._board.mean(plan, dict.fromkeys(owners, self._prefix + current.place), seed)
        step = np.concatenate([opened[item.name].reshape(-1) for item in plan.outputs])
        unit = 2.0 ** -plan.types[plan.outputs[0].value].fraction
        if np.linalg.norm(step) > LONGEST * current.limit + unit * len(step):
            raise SecurityError(
                "the mean is longer than any update that servers take, and is not used: a server does not keep to the "
                "plan"
            )
        return step, bool(np.abs(step).max() <= unit)  # which truncations may leave of 0
