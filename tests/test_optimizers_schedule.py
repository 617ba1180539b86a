"""Public numbers of an update: what changes by step is evaluated by the client, when the step is about to run."""

import keras
import numpy as np
import pytest
from keras import optimizers
from keras.optimizers import schedules

from private_keras.errors import InputError
from private_keras.tracing.training.updating import schedule as schedule_module
from tests.optimizer_cases import initial, lower, variables


def made(optimizer):
    return lower(optimizer, variables(initial()))


def rates(update, first, steps):
    """The one factor of plain descent: the learning rate itself."""
    (name,) = update.updates.public
    return update.updates.schedule(first, steps)[name]


def test_learning_rate_is_read_when_steps_are_scheduled():
    optimizer = optimizers.SGD(0.01)
    update = made(optimizer)
    np.testing.assert_allclose(rates(update, 0, 3), 0.01, rtol=1e-6)
    optimizer.learning_rate = 0.002
    np.testing.assert_allclose(rates(update, 3, 2), 0.002, rtol=1e-6)
    optimizer.learning_rate.assign(0.3)
    np.testing.assert_allclose(rates(update, 5, 1), 0.3, rtol=1e-6)


def test_learning_rate_that_the_plan_cannot_hold_is_refused():
    optimizer, trained = optimizers.SGD(1e-4), variables(initial())
    update = lower(optimizer, trained)
    optimizer.learning_rate = 1.0
    with pytest.raises(InputError, match=r"iterations 7 to 8.*compile the model again"):
        update.updates.schedule(7, 2)
    optimizer.learning_rate = float("nan")
    with pytest.raises(InputError, match="expected public factors below"):
        update.updates.schedule(7, 2)
    optimizer.learning_rate = 1.0
    np.testing.assert_allclose(rates(lower(optimizer, trained), 7, 2), 1.0)


def test_learning_rate_zero_can_be_raised():
    optimizer = optimizers.SGD(0.0)
    update = made(optimizer)
    optimizer.learning_rate = 0.5
    np.testing.assert_allclose(rates(update, 0, 1), 0.5)


SCHEDULES = {
    "ExponentialDecay": schedules.ExponentialDecay(0.1, 7, 0.5),
    "staircase": schedules.ExponentialDecay(0.1, 7, 0.5, staircase=True),
    "PiecewiseConstantDecay": schedules.PiecewiseConstantDecay([5, 11], [0.1, 0.05, 0.01]),
    "PolynomialDecay": schedules.PolynomialDecay(0.1, 15, power=2.0),
    "PolynomialDecay cycle": schedules.PolynomialDecay(0.1, 6, cycle=True),
    "InverseTimeDecay": schedules.InverseTimeDecay(0.1, 4, 0.5, staircase=True),
    "CosineDecay": schedules.CosineDecay(0.1, 20),
    "CosineDecay warmup": schedules.CosineDecay(0.0, 15, warmup_target=0.1, warmup_steps=6, alpha=0.1),
    "CosineDecayRestarts": schedules.CosineDecayRestarts(0.1, 5),
    "CosineDecayRestarts growing": schedules.CosineDecayRestarts(0.1, 3, t_mul=1.5, m_mul=0.9),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_keras_are_evaluated_together(name, monkeypatch):
    update = made(optimizers.SGD(SCHEDULES[name]))
    calls = []
    own = type(SCHEDULES[name]).__call__
    expected = [float(SCHEDULES[name](keras.ops.convert_to_tensor(i, "int64"))) for i in range(3, 27)]
    monkeypatch.setattr(type(SCHEDULES[name]), "__call__", lambda self, step: calls.append(step) or own(self, step))
    np.testing.assert_allclose(rates(update, 3, 24), expected, rtol=1e-5, atol=1e-8)
    assert len(calls) == 2  # the ends, to be sure


class Branching(schedules.LearningRateSchedule):
    """Cannot be followed on a symbolic iteration."""

    def __call__(self, step):
        return 0.1 if int(step) % 3 else 0.05

    def get_config(self):
        return {}


class Remembering(schedules.LearningRateSchedule):
    """Follows nothing: what it gives on a symbolic iteration is not what it gives on the next."""

    def __init__(self):
        self.seen = 0.0

    def __call__(self, step):
        if not isinstance(step, keras.KerasTensor):
            self.seen = float(step)
        return keras.ops.cast(step, "float32") * 0.0 + 0.01 * (1 + self.seen)

    def get_config(self):
        return {}


def test_schedules_that_cannot_be_followed_are_called():
    np.testing.assert_allclose(rates(made(optimizers.SGD(Branching())), 0, 6), [0.05, 0.1, 0.1] * 2, rtol=1e-6)
    remembering = rates(made(optimizers.SGD(Remembering())), 0, 5)
    np.testing.assert_allclose(remembering, 0.01 * np.arange(1, 6), rtol=1e-5)


def test_a_schedule_can_be_replaced():
    optimizer = optimizers.SGD(SCHEDULES["CosineDecay"])
    update = made(optimizer)
    optimizer.learning_rate = SCHEDULES["staircase"]
    np.testing.assert_allclose(rates(update, 7, 1), 0.05, rtol=1e-5)


def test_callable_is_called_for_each_step():
    given = iter(np.linspace(0.01, 0.02, 200).tolist())
    values = rates(made(optimizers.SGD(lambda: next(given))), 0, 5)
    assert np.all(np.diff(values) > 0)


def momenta(first, steps, beta=0.9):
    """Nadam's running product, before each step."""
    products = np.cumprod([beta * (1 - 0.5 * 0.96 ** (i + 1)) for i in range(first + steps)])
    return np.concatenate([[1.0], products])[first : first + steps]


def test_public_variables_follow_the_iteration():
    optimizer = optimizers.Nadam(0.001)
    trained = variables(initial())
    update = lower(optimizer, trained)
    counters = update.updates.schedule.counters
    for first in (0, 5, 3, 20):
        np.testing.assert_allclose(counters.at(first)[0], momenta(first, 1)[0], rtol=1e-5)
    one = update.updates.schedule(4, 3)
    rows = [update.updates.schedule(i, 1) for i in (4, 5, 6)]
    for name, values in one.items():
        np.testing.assert_allclose(values, np.concatenate([r[name] for r in rows]), rtol=1e-6)
    update.updates.schedule.settle(6)
    assert int(optimizer.iterations) == 6
    np.testing.assert_allclose(np.asarray(optimizer._u_product), momenta(6, 1)[0], rtol=1e-5)
    # Traced again in the middle, it goes on from there.
    again = lower(optimizer, trained)
    for name, values in again.updates.schedule(6, 2).items():
        np.testing.assert_allclose(values, update.updates.schedule(6, 2)[name], rtol=1e-4)
    with pytest.raises(InputError, match="from iteration 6 on"):
        again.updates.schedule(2, 1)


def test_adam_has_one_public_number_for_all_weights():
    update = lower(optimizers.Adam(0.001), variables(initial()))
    (values,) = update.updates.schedule(0, 4).values()
    t = np.arange(1, 5)
    np.testing.assert_allclose(values, 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t), rtol=2e-4)


def test_upcoming_steps_reach_far():
    steps = schedule_module.upcoming(100)
    assert steps.iterations[0] == 100
    assert steps.iterations[-1] >= 10**6
    assert len(steps.iterations) < 100
