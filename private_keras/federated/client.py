"""A data owner in a federation: trains on its own machine, and shares what the model's owner may have the mean of."""

import datetime
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from private_keras.cluster.interface import Cluster
from private_keras.converter import model_from_json
from private_keras.errors import InputError
from private_keras.federated import blob, vector
from private_keras.federated.announced import Announced, Announcements
from private_keras.federated.board import Board, Tensor
from private_keras.federated.patience import Patience
from private_keras.federated.round import FEDERATION, GRADIENT, SHARED, Round, whole
from private_keras.federated.shared import board_of
from private_keras.federated.training import Data, local_step, slots
from private_keras.plan.aggregate import LEAST_OWNERS, MOST_OWNERS
from private_keras.server.config import NAME
from private_keras.server.policy import Policy

# What nobody deleted, because this owner's process died, cannot be used when so many hours have passed after the round.
KEPT_HOURS = 24.0


class Client:
    """One data owner's side.

        client = pk.federated.Client("model-owner/digits", (x, y))
        history = client.fit(epochs=1, batch_size=32)

    Data stay on this machine. The servers get shares of the update and of the number of examples, and open nothing of
    them but the mean over all owners of a round, once, to the model's owner. The policy that goes with the shares says
    so, and each server enforces it: the plan "aggregate" of at least as many owners as the round names, one use.

    Args:
        federation: "owner/name": the model's owner, and what it calls the federation.
        data: (x, y) or (x, y, sample_weight) of arrays; or batches, as a `tf.data.Dataset` or a `PyDataset`.
        model: what to train, a compiled Keras model or a function that gives one, with weights as in the federation.
            None: as the model's owner describes it; the description is data, and nothing in it is run.
        examples: how many examples there are, for data in batches.
        minimum: the fewest owners of a mean that this owner takes part in.
        plans: digests of the means that its policy allows, and no others: those of `Server.plan` for all owners, or for
            some of them. None: each mean of as many owners as the round asks for.
        custom_objects: what a description may name besides Keras' own, by name.
        cluster: where to meet; None: the one in use.

    Attributes:
        model: with the weights of the last round that was seen; after `fit`, the final ones.
        refusals: why updates were not used, a line each.

    Raises:
        InputError: arguments that do not fit.
    """

    def __init__(
        self, federation: str, data: Any, model: Callable[[], keras.Model] | keras.Model | None = None, *,
        examples: int | None = None, minimum: int = LEAST_OWNERS, plans: Sequence[str] | None = None,
        custom_objects: Mapping[str, Any] | None = None, cluster: Cluster | Board | None = None,
    ):
        owner, slash, name = federation.partition("/") if isinstance(federation, str) else ("", "", "")
        if not slash or not NAME.fullmatch(owner) or not FEDERATION.fullmatch(name):
            raise InputError(
                'federation: expected "owner/name": the model\'s owner, and what it calls the federation. '
                f"Received: {federation!r}"[:400]
            )
        self._owner, self._name = owner, name
        self._data = Data(data, examples)
        self._least = whole(minimum, LEAST_OWNERS, MOST_OWNERS, "minimum")
        self._plans = None if plans is None else Policy(plans=plans).plans
        self._custom_objects = custom_objects
        self._board = board_of(cluster)
        self._announcements = Announcements(self._board, owner, name)
        self._given = model
        self._shared = ""
        self.model: keras.Model | None = None
        self.refusals: list[str] = []

    def fit(
        self, epochs: int = 1, batch_size: int | None = None, verbose: int = 0, patience: float = 3600.0, **fit: Any
    ) -> keras.callbacks.History:
        """Takes part in each round, from the one that is on, until the model's owner ends.

        Args:
            epochs: over this owner's data in each round; 1 where gradients are shared.
            batch_size: of each step of the training, as in Keras.
            verbose: 1 prints a line for each round.
            patience: seconds without a new round, or without servers, after which it gives up.
            **fit: more arguments of Keras' `fit` for each round's training (shuffle, class_weight, callbacks, ...).

        Returns:
            For each round that it took part in, loss and metrics on this owner's data while training, and "used": 1.0
            where its update is in the mean, 0.0 where not (`refusals` and a warning say why), NaN where nobody said.

        Raises:
            InputError: a federation in which this owner cannot take part, or will not; an update that is not finite or
                too long. Nothing of it was shared.
            DeadlineExceeded: no new round within `patience`.
            ClusterError: servers.
        """
        whole(epochs, 1, 1_000_000, "epochs")
        history = keras.callbacks.History()
        history.on_train_begin()
        wait = Patience(patience, f"no new round of {self._announcements}")
        pending: Round | None = None
        seen = ""
        try:
            while True:
                found = wait.call(self._announcements.newest)
                if found is None or found.round.place == seen or not self._receive(found, wait):
                    wait.pause()
                    continue
                wait.reset()
                seen = found.round.place
                if pending is not None:
                    self._settle(history, pending, found.round)
                    wait.call(self.withdraw)
                if found.round.done:
                    return history
                began = time.monotonic()
                step, logs = self._train(found.round, epochs, batch_size, fit)
                reason = wait.call(lambda found=found, step=step: self._share(found.round, step))
                pending = None if reason else found.round
                history.set_model(self.model)
                history.on_epoch_end(found.round.number, {**logs, "used": 0.0 if reason else float("nan")})
                if verbose:
                    self._print(found.round, logs, time.monotonic() - began)
                if reason:
                    self._say(found.round, reason)
                wait.reset()
        finally:
            if self.model is not None:
                self.model.history = history

    def withdraw(self) -> None:
        """Deletes what this owner shared last; what is in a mean already stays there."""
        if self._shared:
            self._board.forget(self._shared)
            self._shared = ""

    def _receive(self, found: Announced, wait: Patience) -> bool:
        """Puts a round's weights into the model, which is made for the first; False: another fit began meanwhile."""
        current = found.round
        self._check(current)
        if self.model is None:
            made = self._given() if callable(self._given) and not isinstance(self._given, keras.Model) else self._given
            if made is None:
                text = wait.call(lambda: self._announcements.model(current))
                if text is None:
                    return False
                made = model_from_json(text, self._custom_objects)
            if not isinstance(made, keras.Model) or getattr(made, "optimizer", None) is None:
                raise InputError(
                    "model: expected a compiled Keras model. Received: "
                    f"{type(made).__name__}{' that is not compiled' if isinstance(made, keras.Model) else ''}; pass "
                    "model=..., or let the model's owner compile its own"
                )
            self.model = made
        variables = vector.averaged(self.model)
        like = vector.values(variables)
        elements = sum(a.size for a in like)
        if elements != sum(current.sizes):
            raise InputError(
                f"{self._announcements}: expected a model of {elements} weights, as {self.model.name!r} here. "
                f"Received: a round for {sum(current.sizes)}"
            )
        vector.assign(variables, blob.unpack(found.weights, like, str(self._announcements)))
        return True

    def _check(self, current: Round) -> None:
        me, what = self._board.identity, str(self._announcements)
        if me not in current.owners:
            raise InputError(f"{what}: expected a federation with {me!r} among its owners. Received: one without")
        if current.minimum < self._least:
            raise InputError(
                f"{what}: expected means of at least {self._least} owners. Received: rounds of {current.minimum}; "
                "nothing was shared"
            )
        if self._data.examples > current.examples:
            raise InputError(
                f"{what}: expected at most {current.examples} examples of one owner. Received: {self._data.examples}; "
                "nothing was shared"
            )

    def _train(
        self, current: Round, epochs: int, batch_size: int | None, fit: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, float]]:
        """What this owner has to share of a round. Each begins with an optimizer that remembers no gradients."""
        if current.share == GRADIENT and epochs != 1:
            raise InputError(f"epochs: expected 1 where gradients are shared. Received: {epochs}")
        self.model.optimizer.build(self.model.trainable_variables)
        memory = slots(self.model)
        fresh = [np.array(v.numpy()) for v in memory]
        step, logs = local_step(self.model, current.share, self._data, epochs, batch_size, {"verbose": 0, **fit})
        vector.assign(memory, fresh)
        return bounded(step, current), logs

    def _share(self, current: Round, step: np.ndarray) -> str:
        """Shares an update; returns why it did not."""
        name = f"{self._name}/{SHARED}.{current.place}"
        if not self._announcements.is_on(current):
            return "the round ended before this owner's update was ready; the model's owner can set a longer deadline"
        if name != self._shared and any(not each.owner and each.name == name for each in self._board.listed()):
            return "another process of this owner has shared its update already"
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=KEPT_HOURS, seconds=current.deadline)
        plans = [f"aggregate:{current.minimum}"] if self._plans is None else self._plans
        policy = Policy(use=[self._owner], plans=plans, reveal_to=[self._owner], uses=1, until=until)
        self._shared = name
        self._board.put(name, {
            "examples": Tensor(np.array([[self._data.examples]]), 0),
            **{
                f"update/{part}": Tensor(values, current.fraction)
                for part, values in enumerate(vector.parts(step, current.sizes))
            },
        }, "", policy)  # fmt: skip
        return ""

    def _settle(self, history: keras.callbacks.History, pending: Round, current: Round) -> None:
        """What became of the update that was shared last, as the next round says."""
        if current.before != pending.place:
            return
        used = self._board.identity in current.used
        history.history["used"][-1] = float(used)
        if not used:
            self._say(pending, dict(current.refused).get(self._board.identity, "the update came after the round's end"))

    def _say(self, current: Round, reason: str) -> None:
        reason = f"round {current.number + 1}: {reason}"
        self.refusals.append(reason)
        warnings.warn(f"{self._announcements}, {reason}", stacklevel=3)

    def _print(self, current: Round, logs: Mapping[str, float], seconds: float) -> None:
        shown = ", ".join(f"{name}: {value:.4f}" for name, value in logs.items())
        print(f"{self._announcements}, round {current.number + 1}/{current.rounds}: {shown} ({seconds:.1f} s)")


def bounded(step: np.ndarray, current: Round) -> np.ndarray:
    """An update of a length that the round takes.

    Raises:
        InputError: not finite, or too long where the model's owner does not have it shortened.
    """
    if not np.isfinite(step).all():
        raise InputError(
            "expected a finite update. Received: NaN or infinity; the training diverged. Nothing was shared: use a "
            "smaller learning rate"
        )
    length = float(np.linalg.norm(step))
    if length <= current.limit:
        return step
    if not current.clip:
        raise InputError(
            f"expected an update of a Euclidean length up to {current.limit:g}. Received: a longer one. Nothing was "
            "shared; the model's owner can allow longer ones (limit=...) or have them shortened (clip_norm=...)"
        )
    return step * (current.limit / length)
