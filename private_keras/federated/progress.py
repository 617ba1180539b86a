"""What the model's owner leaves on the servers: the model, the round that is on, and where a fit stands."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from private_keras.errors import FileError
from private_keras.federated import blob, vector
from private_keras.federated.board import Board, Tensor
from private_keras.federated.round import MODEL, PLACE, ROUND, STATE, Round
from private_keras.server.policy import Policy

_HEAD = 8


@dataclass(frozen=True)
class Saved:
    """Where a fit stands.

    Attributes:
        token: of the fit.
        number: rounds that are done.
        epoch, logs: as Keras' History has them.
    """

    token: str
    number: int = 0
    epoch: Sequence[int] = ()
    logs: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Progress:
    """Names of one federation on the board of the model's owner.

    Args:
        board: of the model's owner.
        federation: its name.
        model: whose weights are published and saved.
        optimizer: saved with them; None: there is none.
        owners: who may see model and rounds.
    """

    def __init__(
        self, board: Board, federation: str, model: keras.Model, optimizer: keras.optimizers.Optimizer | None,
        owners: Sequence[str],
    ):
        self._board = board
        self._federation = federation
        self._model = model
        self._optimizer = optimizer
        self._open = Policy(use=owners, plans=["reveal"], reveal_to=owners)

    def begin(self) -> Saved:
        """Removes what an earlier fit left, and shows the model to the owners."""
        self.forget()
        saved = Saved(secrets.token_hex(4))
        try:
            text = self._model.to_json()
        except NotImplementedError:  # a subclass without a configuration: owners bring their own
            text = ""
        self._put(f"{MODEL}.{saved.token}", text.encode(), self._open)
        self.save(saved)
        return saved

    def save(self, saved: Saved) -> None:
        """Keeps state, weights and optimizer, for this party alone."""
        head = {"token": saved.token, "number": saved.number, "epoch": list(saved.epoch),
                "logs": {key: list(map(float, each)) for key, each in saved.logs.items()}}  # fmt: skip
        text = json.dumps(head).encode()
        data = len(text).to_bytes(_HEAD, "little") + text + blob.pack([np.asarray(v.numpy()) for v in self._kept()])
        self._put(STATE, data, Policy())

    def load(self) -> Saved:
        """Puts weights and optimizer back where they were.

        Raises:
            HandleNotFound: there was no fit.
            InputError, FileError: of another model or optimizer.
        """
        what = f"state of {self._federation!r}"
        opened, _ = self._board.open("", f"{self._federation}/{STATE}")
        data = blob.from_tensor(opened["blob"], what)
        length = int.from_bytes(data[:_HEAD], "little")
        try:
            saved = Saved(**json.loads(data[_HEAD : _HEAD + length]))
        except (ValueError, TypeError):
            raise FileError(f"{what}: expected what a fit of this version saved. Received: something else") from None
        kept = self._kept()
        arrays = blob.unpack(data[_HEAD + length :], [np.asarray(v.numpy()) for v in kept], what)
        vector.assign(kept, arrays)
        return saved

    def attempts(self, saved: Saved) -> int:
        """How often the round that comes next was announced before."""
        prefix = f"{self._federation}/{ROUND}."
        places = [each.name.removeprefix(prefix) for each in self._board.listed()
                  if not each.owner and each.name.startswith(f"{prefix}{saved.token}.{saved.number}.")]  # fmt: skip
        return max((int(place.rsplit(".", 1)[1]) + 1 for place in places if PLACE.fullmatch(place)), default=0)

    def announce(self, current: Round) -> None:
        """Shows a round to the owners, and ends those before."""
        data = blob.pack(vector.values(vector.averaged(self._model)))
        self._put(f"{ROUND}.{current.place}", data, self._open, current.to_json())
        self.forget(f"{ROUND}.", but=f"{ROUND}.{current.place}")

    def forget(self, prefix: str = "", but: str | None = None) -> None:
        """Removes this party's names that begin so."""
        start = f"{self._federation}/"
        for each in self._board.listed():
            if not each.owner and each.name.startswith(start + prefix) and each.name != f"{start}{but}":
                self._board.forget(each.name)

    def _kept(self) -> list[keras.Variable]:
        return [*self._model.weights, *(self._optimizer.variables if self._optimizer is not None else ())]

    def _put(self, label: str, data: bytes, policy: Policy, about: str = "") -> None:
        self._board.put(f"{self._federation}/{label}", {"blob": Tensor(blob.to_tensor(data), 0)}, about, policy)
