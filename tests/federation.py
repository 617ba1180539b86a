"""Small federations for tests: models that train in milliseconds, and owners without a mind of their own."""

import threading
import traceback

import keras
import numpy as np

from private_keras.federated import Client, Server, vector
from private_keras.federated.board import Tensor
from private_keras.federated.round import from_json
from private_keras.server.policy import Policy

OWNERS = ["a", "b", "c", "d"]
SHORT = 0.15


def model(*, norm=False, optimizer=None, seed=3, eager=True):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="tanh")]
    layers += [keras.layers.BatchNormalization(momentum=0.5)] if norm else []
    made = keras.Sequential([*layers, keras.layers.Dense(1)])
    made.compile(optimizer or keras.optimizers.SGD(0.1), "mse", metrics=["mae"], run_eagerly=eager)
    return made


def data(rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5], [0.0]]) + 0.3).astype("float32")


def server(space, made=None, owners=OWNERS, **options):
    options = {"minimum": 3, "deadline": 300.0, **options}
    return Server(made or model(), owners, "fed", cluster=space.of("mo"), **options)


def client(space, owner, given, made=None, **options):
    return Client("mo/fed", given, made, cluster=space.of(owner), **options)


def announced(space):
    """The round that is on."""
    found = [kept for (owner, name), kept in space.kept.items() if owner == "mo" and name.startswith("fed/round.")]
    return from_json(max(found, key=lambda kept: kept.created).about) if found else None


def policy(minimum=3):
    return Policy(["mo"], [f"aggregate:{minimum}"], ["mo"], 1)


def share(space, owner, current, update, count=1, place=None):
    """What an owner's client would put there."""
    tensors = {"examples": Tensor(np.array([[count]]), 0)}
    for part, values in enumerate(vector.parts(update, current.sizes)):
        tensors[f"update/{part}"] = Tensor(values, current.fraction)
    space.of(owner).put(f"fed/update.{place or current.place}", tensors, "", policy(current.minimum))


def update(owner, number, size):
    """What an owner's update is in a round, the same whenever it is asked."""
    return np.random.default_rng([ord(owner), number]).normal(size=size) * 0.1


class Automatic:
    """Owners that share as soon as the model's owner looks.

    Args:
        owners: by round, who shares; all in rounds that it does not have.
        when: whether they do so yet, given the round.
    """

    def __init__(self, space, owners=None, counts=None, when=lambda current: True):
        self.space = space
        self.owners = owners or {}
        self.counts = counts or {"a": 1, "b": 20, "c": 300, "d": 4000}
        self.when = when
        self.done = set()
        space.before = self

    def __call__(self, party, call, name):
        current = announced(self.space)
        if (party, call) != ("mo", "listed") or current is None or current.done or current.place in self.done:
            return
        if not self.when(current):
            return
        self.done.add(current.place)
        for owner in self.owners.get(current.number, OWNERS):
            share(self.space, owner, current, update(owner, current.number, sum(current.sizes)), self.counts[owner])

    def mean(self, owners, number, size):
        """In float64."""
        weights = np.array([self.counts[owner] for owner in owners], float)
        return weights @ np.array([update(owner, number, size) for owner in owners]) / weights.sum()


def together(*actions, seconds=300):
    """Runs actions at the same time, each in a thread; results, or the first error."""
    results, errors = [None] * len(actions), []

    def one(index):
        try:
            results[index] = actions[index]()
        except BaseException as error:
            traceback.print_exc()  # others may wait for this one
            errors.append(error)

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
    return results


def flat(made):
    return vector.flat(vector.values(vector.averaged(made)))
