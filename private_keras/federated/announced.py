"""The rounds that a model's owner announces, as a data owner sees them."""

from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.federated import blob
from private_keras.federated.board import Board
from private_keras.federated.round import MODEL, PLACE, ROUND, Round, from_json


@dataclass(frozen=True)
class Announced:
    """A round, and the weights it begins with, packed."""

    round: Round
    weights: bytes = field(repr=False)


class Announcements:
    """What there is of one federation.

    Args:
        board: this data owner's.
        owner: of the model.
        federation: its name.
    """

    def __init__(self, board: Board, owner: str, federation: str):
        self._board = board
        self._owner = owner
        self._federation = federation
        self._name = ""
        self._last: Announced | None = None

    def __str__(self) -> str:
        return f"{self._owner}/{self._federation}"

    def newest(self) -> Announced | None:
        """The round that is on, opened once; None: there is none."""
        name = self._newest_name()
        if not name:
            return None
        if name != self._name:
            try:
                opened, about = self._board.open(self._owner, name)
            except (HandleNotFound, SecurityError):
                return None  # it ended a moment ago, and another one comes
            current = from_json(about)
            if name != f"{self._federation}/{ROUND}.{current.place}":
                raise InputError(f"{self}: expected the round that {name!r} names. Received: {current.place}")
            self._last = Announced(current, _bytes(opened, name))
            self._name = name
        return self._last

    def _newest_name(self) -> str:
        """Of the fit whose announcement is the newest, the furthest round: clocks need not be exact within a fit."""
        prefix = f"{self._federation}/{ROUND}."
        found = [
            (each.created, *place.groups(), each.name) for each in self._board.listed()
            if self._is_round(each.owner, each.name) and (place := PLACE.fullmatch(each.name.removeprefix(prefix)))
        ]  # fmt: skip
        if not found:
            return ""
        token = max(found)[1]
        return max((int(number), int(attempt), name) for _, t, number, attempt, name in found if t == token)[2]

    def is_on(self, current: Round) -> bool:
        """Whether a round has not ended."""
        name = f"{self._federation}/{ROUND}.{current.place}"
        return any(self._is_round(each.owner, each.name) and each.name == name for each in self._board.listed())

    def model(self, current: Round) -> str | None:
        """The model's configuration; None: gone, as another fit began."""
        name = f"{self._federation}/{MODEL}.{current.token}"
        try:
            opened, _ = self._board.open(self._owner, name)
        except HandleNotFound:
            return None
        return _bytes(opened, name).decode("utf-8", "replace")

    def _is_round(self, owner: str, name: str) -> bool:
        return owner == self._owner and name.startswith(f"{self._federation}/{ROUND}.")


def _bytes(opened: dict[str, np.ndarray], name: str) -> bytes:
    if set(opened) != {"blob"}:
        raise InputError(f"{name}: expected one tensor of bytes. Received: {sorted(opened)}"[:400])
    return blob.from_tensor(opened["blob"], name)
