"""The model's owner in a federation: announces rounds, and moves the model by the mean of what owners share."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from private_keras.cluster.interface import Cluster
from private_keras.errors import InputError, UnsupportedError
from private_keras.federated import vector
from private_keras.federated.board import Board
from private_keras.federated.collecting import Collected, Collector, Spent
from private_keras.federated.patience import Patience
from private_keras.federated.progress import Progress, Saved
from private_keras.federated.round import (
    FEDERATION,
    GRADIENT,
    UPDATE,
    Round,
    checked,
    checked_owners,
    number,
    whole,
)
from private_keras.federated.shared import board_of
from private_keras.federated.training import Data
from private_keras.models.private import PrivateModel
from private_keras.plan.aggregate import LEAST_OWNERS, MOST_EXAMPLES, update_fraction
from private_keras.plan.plan import Plan

# Jobs that may fail before a fit does.
ATTEMPTS = 5


class Server:
    """The model owner's side.

        server = pk.federated.Server(model, owners=["clinic-a", ...], name="digits", minimum=8, deadline=60,
                                     validation_data=(x, y))
        history = server.fit(rounds=20)

    In each round the owners get the weights, train on their own data and share their updates; the servers open the mean
    of these, weighted by numbers of examples, to this party: no update and no number of examples. There is no other
    server: parties leave named shares for one another on the cluster's.

    Args:
        model: a compiled, built Keras model; owners without one of their own train what its configuration describes.
        owners: who may take part, by the names in their certificates; at least 3.
        name: of the federation: up to 40 letters, digits and _ . -. Owners join "owner/name".
        minimum: the fewest owners whose mean is opened, at least 3. It is in each owner's policy.
        deadline: seconds after which a round ends with those who are there, if they are `minimum`.
        enough: how many updates end a round at once; None: all owners'.
        validation_data: (x, y), or batches, of this party's own, that the model is evaluated on after each round.
        callbacks: Keras callbacks; a round is an epoch.
        optimizer: what takes minus the mean of updates for a gradient, as Adam ("FedAdam"); None: the mean is added to
            the weights ("FedAvg"). Where gradients are shared, None is the model's own.
        share: "update": owners train and share how weights changed; "gradient": they share the gradient of the loss on
            all their data at the round's weights.
        clip_norm: owners shorten updates to this Euclidean length, and servers take none that is much longer.
        limit: where there is no `clip_norm`: owners with longer updates than this fail, and say so.
        examples: the most examples of one owner.
        cluster: where to meet; None: the one in use.

    Raises:
        InputError, UnsupportedError: arguments that do not fit.
    """

    def __init__(
        self, model: keras.Model, owners: Sequence[str], name: str, *, minimum: int = LEAST_OWNERS,
        deadline: float = 600.0, enough: int | None = None, validation_data: Any = None, callbacks: list | None = None,
        optimizer: str | keras.optimizers.Optimizer | None = None, share: str = UPDATE, clip_norm: float | None = None,
        limit: float = 64.0, examples: int = MOST_EXAMPLES, cluster: Cluster | Board | None = None,
    ):
        self.model = _trainable(model)
        self._callbacks = list(callbacks or [])
        self._validation = validation_data
        owners = checked_owners(owners)
        if not isinstance(name, str) or not FEDERATION.fullmatch(name):
            raise InputError(f"name: expected up to 40 letters, digits and _ . -. Received: {ascii(name)[:100]}")
        self._enough = len(owners) if enough is None else whole(enough, minimum, len(owners), "enough")
        self._optimizer = _optimizer(optimizer, share, model)
        bound = limit if clip_norm is None else number(clip_norm, 0.0, 2.0**14, "clip_norm")
        elements = sum(a.size for a in vector.values(vector.averaged(model)))
        whole(minimum, LEAST_OWNERS, len(owners), "minimum")
        self._plain = checked(Round(
            "0" * 8, 0, 0, 1, owners, minimum, number(deadline, 0.0, 1e7, "deadline"), share,
            number(bound, 0.0, 2.0**14, "limit"), clip_norm is not None, whole(examples, 1, MOST_EXAMPLES, "examples"),
            update_fraction(len(owners), bound, examples), vector.sizes(elements),
        ))  # fmt: skip
        self._board = board_of(cluster)
        self._progress = Progress(self._board, name, self.model, self._optimizer, owners)
        self._collector = Collector(self._board, name)

    def fit(
        self, rounds: int = 1, resume: bool = False, verbose: int = 1, patience: float = 3600.0
    ) -> keras.callbacks.History:
        """Trains for some rounds; the owners' `fit` ends with it.

        After each round the weights, the optimizer and the history are kept on the servers, as shares that are for this
        party alone, so that nothing is lost but a round when this process dies.

        Args:
            rounds: how many, those before a resumption included.
            resume: go on where a fit of this federation was interrupted, or with more rounds than it had, by a model
                that is compiled as that one. False: begin anew, with the model's weights as they are.
            verbose: 1 prints a line for each round.
            patience: seconds after the deadline that a round waits for `minimum` owners, and for servers that are away.

        Returns:
            History with, for each round, metrics of `validation_data` ("val_..."), and "owners": how many updates are
            in the mean.

        Raises:
            InputError: arguments, or a state to resume that does not fit.
            HandleNotFound: nothing to resume.
            DeadlineExceeded: fewer than `minimum` owners within deadline and patience. `resume=True` goes on.
            ClusterError: servers.
        """
        whole(rounds, 1, 1_000_000, "rounds")
        wait = Patience(patience, "the servers could not be reached")
        saved = wait.call(self._progress.load if resume else self._progress.begin)
        current = self._first(saved, rounds, wait.call(lambda: self._progress.attempts(saved)))
        callbacks = keras.callbacks.CallbackList(self._callbacks, add_history=True, model=self.model, epochs=rounds,
                                                 verbose=verbose)  # fmt: skip
        self.model.stop_training = False
        callbacks.on_train_begin()
        history = self.model.history
        history.epoch, history.history = list(saved.epoch), {key: list(each) for key, each in saved.logs.items()}
        while not current.done:
            index, began = current.number, time.monotonic()
            callbacks.on_epoch_begin(index)
            current, found = self._round(current, patience)
            if found.nothing:
                warnings.warn(
                    f"round {index + 1}: the mean is 0: fewer updates than the minimum were in range. Owners with "
                    "software of their own may share what servers leave out", stacklevel=2,
                )  # fmt: skip
            self._apply(found.step)
            logs = {"owners": float(len(found.used)), **self._validate()}
            callbacks.on_epoch_end(index, logs)
            wait.reset()
            saved = Saved(current.token, index + 1, history.epoch, history.history)
            wait.call(lambda saved=saved: self._progress.save(saved))
            done = index + 1 == rounds or self.model.stop_training
            current = current.next(index + 1, 0, found.used, found.refused, done)
            if verbose:
                _print(current, logs, time.monotonic() - began)
        wait.reset()
        wait.call(lambda: self._progress.announce(current))
        callbacks.on_train_end()
        return history

    def plan(self, owners: Sequence[str] | None = None) -> Plan:
        """The plan of a round's mean, for owners to look at before they take part: `Client(..., plans=[digest])`.

        Args:
            owners: whose updates are in the mean; None: all owners'. Where an owner drops out, the plan is that of the
                others.

        Raises:
            InputError: others than this federation's, or fewer than `minimum`.
        """
        chosen = self._plain.owners if owners is None else checked_owners(owners)
        if not set(chosen) <= set(self._plain.owners) or len(chosen) < self._plain.minimum:
            raise InputError(
                f"plan: expected at least {self._plain.minimum} of {', '.join(self._plain.owners)}. Received: "
                f"{', '.join(chosen)}"
            )
        return self._plain.plan(chosen)

    def forget(self) -> None:
        """Removes all that this party has left on the servers: the model, the last round and the state of the fit.

        Owners who have not seen the end of a fit by then wait until their patience ends.
        """
        self._progress.forget()

    def _first(self, saved: Saved, rounds: int, attempt: int) -> Round:
        """The round that a fit begins with; where it was announced before, updates of then do not count."""
        first = replace(self._plain, token=saved.token, rounds=rounds, number=saved.number, attempt=max(attempt - 1, 0))
        if attempt:
            first = self._anew(first, "the model's owner was interrupted")
        return replace(first, done=saved.number >= rounds)

    def _round(self, current: Round, patience: float) -> tuple[Round, Collected]:
        """Announces a round until its mean is taken: the owners share anew where a job of the servers failed."""
        failed = 0
        while True:
            wait = Patience(patience, "the servers could not be reached")
            wait.call(lambda current=current: self._progress.announce(current))
            try:
                return current, self._collector.collect(current, self._enough, patience)
            except Spent as error:
                failed += 1
                if failed == ATTEMPTS:
                    raise error.__cause__ from None
                warnings.warn(f"{error}. The round begins anew", stacklevel=3)
                current = self._anew(current, "a job of the servers failed")

    @staticmethod
    def _anew(current: Round, why: str) -> Round:
        refused = dict.fromkeys(current.owners, f"{why}, and the round began anew")
        return current.next(current.number, current.attempt + 1, (), refused)

    def _apply(self, step: np.ndarray) -> None:
        """Moves the model by a mean."""
        variables = vector.averaged(self.model)
        now = vector.values(variables)
        changes = vector.cut(step, now)
        free = {id(v) for v in self.model.trainable_variables} if self._optimizer is not None else set()
        vector.assign(
            [v for v in variables if id(v) not in free],
            [a + change for v, a, change in zip(variables, now, changes, strict=True) if id(v) not in free],
        )
        moved = [(-change, v) for v, change in zip(variables, changes, strict=True) if id(v) in free]
        if moved:
            self._optimizer.apply([keras.ops.convert_to_tensor(g, v.dtype) for g, v in moved], [v for _, v in moved])

    def _validate(self) -> dict[str, float]:
        if self._validation is None:
            return {}
        given = Data(self._validation, None).fit_arguments(None) if isinstance(self._validation, tuple) else {
            "x": self._validation
        }  # fmt: skip
        results = self.model.evaluate(**given, verbose=0, return_dict=True)
        return {f"val_{name}": float(value) for name, value in results.items()}


def _print(current: Round, logs: dict[str, float], seconds: float) -> None:
    shown = ", ".join(f"{name}: {value:.4f}" for name, value in logs.items() if name != "owners")
    print(f"round {current.number}/{current.rounds}: {len(current.used)} of {len(current.owners)} owners"
          f"{', ' if shown else ''}{shown} ({seconds:.1f} s)")  # fmt: skip


def _trainable(model: Any) -> keras.Model:
    if isinstance(model, PrivateModel):
        raise UnsupportedError(
            "model: expected a plain Keras model (keras.Sequential, keras.Model): its owner has it in the clear, and "
            f"evaluates it in the clear. Received: {type(model).__name__} of private_keras"
        )
    if not isinstance(model, keras.Model) or not model.built or getattr(model, "optimizer", None) is None:
        raise InputError(
            "model: expected a compiled Keras model with an Input. Received: "
            f"{'one that is not' if isinstance(model, keras.Model) else type(model).__name__}"
        )
    return model


def _optimizer(given: Any, share: str, model: keras.Model) -> keras.optimizers.Optimizer | None:
    if given is None:
        given = model.optimizer if share == GRADIENT else None
    found = None if given is None else keras.optimizers.get(given)
    if found is not None and not found.built:
        found.build(model.trainable_variables)
    return found
