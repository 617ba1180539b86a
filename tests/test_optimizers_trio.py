"""Updates on three parties, and what they cost there."""

import numpy as np
import pytest
from keras import optimizers

from private_keras.server.execute import Program
from private_keras.server.execute.account import account
from tests.optimizer_cases import decode, encode, initial, lower, variables
from tests.trio import Session

MAKE = {
    "SGD": lambda: optimizers.SGD(0.01),
    "SGD momentum": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True, clipnorm=0.5),
    "Adam": lambda: optimizers.Adam(0.001),
    "RMSprop": lambda: optimizers.RMSprop(0.001, centered=True),
}


@pytest.mark.parametrize("name", MAKE)
def test_three_parties_do_what_keras_does(name):
    begin = initial()
    theirs, ours = variables(begin), variables(begin)
    keras_optimizer, optimizer = MAKE[name](), MAKE[name]()
    keras_optimizer.build(theirs)
    update = lower(optimizer, ours, 42, 1 / 64)
    program = Program(update.plan)
    state = {n: encode(v, 18) for n, v in zip(update.weights, begin, strict=True)}
    state |= {n: encode(s.variable, s.fraction) for n, (s, _) in update.updates.slots.items()}
    schedule = update.updates.schedule(0, 3)
    rng = np.random.default_rng(1)
    for step in range(3):
        gradients = [rng.normal(size=v.shape) * 0.1 for v in begin]
        keras_optimizer.apply([g.astype("float32") for g in gradients], theirs)
        given = {**state, **{f"g{i}": encode(g * 64, 42) for i, g in enumerate(gradients)}}
        public = {n: encode(v[step], update.updates.public[n].fraction) for n, v in schedule.items()}
        names = [item.name for item in update.plan.inputs if not item.public]
        order = list(update.carried.items())

        def run(p, *shares, names=names, public=public, order=order):
            out = program.compute(p, {**dict(zip(names, shares, strict=True)), **public})
            return tuple(out[new] for _, new in order)

        opened = Session().run(run, *(given[n] for n in names))
        state = {old: value for (old, _), value in zip(order, opened, strict=True)}
    for n, v in zip(update.weights, theirs, strict=True):
        np.testing.assert_allclose(decode(state[n], 18), np.asarray(v), atol=5e-5)


def bytes_per_weight(make, size: int = 4096) -> tuple[int, int]:
    """Rounds of an update, and bytes of all servers for each weight."""
    update = lower(make(), variables([np.zeros(size)]), 42, 1 / 64)
    costs = account(update.plan, "trio")
    return sum(c.rounds for c in costs), round(sum(c.bytes for c in costs) / size)


def test_costs_for_each_weight():
    """What docs/training.md says an update costs; it also says what it is made of."""
    limits = {
        "SGD": (lambda: optimizers.SGD(0.01), 4, 60),
        "SGD momentum": (lambda: optimizers.SGD(0.01, momentum=0.9), 8, 90),
        "Adam": (lambda: optimizers.Adam(0.001), 40, 1800),
        "Adam epsilon=1e-3": (lambda: optimizers.Adam(0.001, epsilon=1e-3), 60, 3500),
        "RMSprop": (lambda: optimizers.RMSprop(0.001), 40, 1800),
        "Adagrad": (lambda: optimizers.Adagrad(0.01), 40, 1800),
        "Adadelta": (lambda: optimizers.Adadelta(0.01), 60, 3500),
        "Adamax": (lambda: optimizers.Adamax(0.001), 40, 1800),
        "Nadam": (lambda: optimizers.Nadam(0.001), 40, 1800),
        "Lion": (lambda: optimizers.Lion(0.001), 40, 1800),
        "Ftrl": (lambda: optimizers.Ftrl(0.001), 60, 4000),
    }
    for name, (make, rounds, limit) in limits.items():
        measured = bytes_per_weight(make)
        print(f"| {name} | {measured[0]} | {measured[1]} |")
        assert measured[0] <= rounds
        assert measured[1] <= limit
