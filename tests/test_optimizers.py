"""Every Keras optimiser on the arithmetic of the servers, beside Keras' own, over several steps."""

import warnings

import keras
import numpy as np
import pytest
from keras import optimizers
from keras.optimizers import schedules

from private_keras.errors import UnsupportedError
from tests.optimizer_cases import Run, compare, initial, lower, variables

# Rounding to 18 bits of a weight, a few times.
UNITS = 5e-5
# By optimiser: what to make, and the largest error for gradients of 1e-5, 1e-2 and 10, over 8 steps. The step of an
# adaptive optimiser does not shrink with the gradient, so tiny gradients, whose squares have few bits, cost accuracy.
CASES = {
    "SGD": (lambda: optimizers.SGD(0.01), (UNITS, UNITS, 1e-4)),
    "SGD momentum": (lambda: optimizers.SGD(0.01, momentum=0.9), (UNITS, UNITS, 4e-4)),
    "SGD Nesterov": (lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True), (UNITS, UNITS, 4e-4)),
    "Adam": (lambda: optimizers.Adam(0.001), (6e-3, 4e-4, UNITS)),
    "Adam epsilon=1e-3": (lambda: optimizers.Adam(0.001, epsilon=1e-3), (UNITS, UNITS, UNITS)),
    "Adam amsgrad": (lambda: optimizers.Adam(0.001, amsgrad=True), (6e-3, 4e-4, UNITS)),
    "AdamW": (lambda: optimizers.AdamW(0.001, weight_decay=0.01), (6e-3, 4e-4, UNITS)),
    "RMSprop": (lambda: optimizers.RMSprop(0.001), (UNITS, UNITS, UNITS)),
    "RMSprop momentum": (lambda: optimizers.RMSprop(0.001, momentum=0.9), (UNITS, 1e-4, 1e-4)),
    "RMSprop centered": (lambda: optimizers.RMSprop(0.001, centered=True), (UNITS, 1e-4, 1e-4)),
    "Adagrad": (lambda: optimizers.Adagrad(0.01), (UNITS, UNITS, UNITS)),
    "Adadelta": (lambda: optimizers.Adadelta(1.0), (UNITS, UNITS, UNITS)),
    "Adamax": (lambda: optimizers.Adamax(0.001), (3e-3, UNITS, UNITS)),
    "Nadam": (lambda: optimizers.Nadam(0.001), (6e-3, 4e-4, UNITS)),
    "Lion": (lambda: optimizers.Lion(0.001), (1e-2, UNITS, UNITS)),
    "Ftrl": (
        lambda: optimizers.Ftrl(0.01, l1_regularization_strength=0.01, l2_regularization_strength=0.01),
        (UNITS, UNITS, 3e-4),
    ),
    "Lamb": (lambda: optimizers.Lamb(0.001), (6e-3, 4e-4, UNITS)),
    "Muon": (lambda: optimizers.Muon(0.001), (5e-3, 1e-4, 1e-4)),
}
GRADIENTS = (1e-5, 1e-2, 10.0)


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_keras(name):
    make, limits = CASES[name]
    update = lower(make(), variables(initial()))
    errors = [compare(make, gradient, 8, update=update) for gradient in GRADIENTS]
    print(f"| {name} | " + " | ".join(f"{error:.1e} of {moved:.1e}" for error, moved in errors) + " |")
    for (error, moved), limit in zip(errors, limits, strict=True):
        assert moved > 0
        assert error <= limit


OPTIONS = {
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.05),
    "weight_decay": lambda: optimizers.SGD(0.1, weight_decay=0.1),
    "use_ema": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9),
    "ema_overwrite_frequency": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
    "loss_scale_factor": lambda: optimizers.SGD(0.1, loss_scale_factor=1024.0),
    "gradient_accumulation_steps": lambda: optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
    "accumulation and clipnorm": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2, clipnorm=0.02),
    "callable": lambda: optimizers.SGD(lambda: 0.05),
    "ExponentialDecay": lambda: optimizers.SGD(schedules.ExponentialDecay(0.1, 3, 0.5)),
    "staircase": lambda: optimizers.SGD(schedules.ExponentialDecay(0.1, 3, 0.5, staircase=True)),
    "PiecewiseConstantDecay": lambda: optimizers.SGD(schedules.PiecewiseConstantDecay([2, 5], [0.1, 0.01, 0.001])),
    "PolynomialDecay": lambda: optimizers.SGD(schedules.PolynomialDecay(0.1, 5, cycle=True)),
    "InverseTimeDecay": lambda: optimizers.SGD(schedules.InverseTimeDecay(0.1, 2, 0.5)),
    "CosineDecay": lambda: optimizers.SGD(schedules.CosineDecay(0.0, 8, warmup_target=0.1, warmup_steps=3)),
    "CosineDecayRestarts": lambda: optimizers.SGD(schedules.CosineDecayRestarts(0.1, 3, t_mul=1.5, m_mul=0.8)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_what_they_do_in_keras(name):
    error, moved = compare(OPTIONS[name], (1e-2, 10.0, 1e-2), 9)
    print(f"| {name} | {error:.1e} of {moved:.1e} |")
    assert moved > 1e-4
    assert error <= max(UNITS, 2e-4 * moved)


class Squashed(keras.constraints.Constraint):
    """A user's own constraint."""

    def __call__(self, w):
        return keras.ops.tanh(w)


CONSTRAINTS = {
    "MaxNorm": keras.constraints.MaxNorm(1.0),
    "NonNeg": keras.constraints.NonNeg(),
    "UnitNorm": keras.constraints.UnitNorm(),
    "MinMaxNorm": keras.constraints.MinMaxNorm(0.8, 1.0),
    "MinMaxNorm rate": keras.constraints.MinMaxNorm(0.8, 1.0, rate=0.5),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_hold_after_every_step(name):
    error, moved = compare(lambda: optimizers.SGD(0.01), 1e-2, 12, constraint=CONSTRAINTS[name])
    print(f"| {name} | {error:.1e} of {moved:.1e} |")
    assert moved > 0.1
    assert error <= 1e-4


def test_own_constraint():
    error, _ = compare(lambda: optimizers.SGD(0.01), 1e-2, 3, constraint=Squashed())
    assert error <= 2e-3  # tanh is a spline


def test_weights_within_a_norm_do_not_drift():
    """The ratio of the clipped norm to the norm is 1 to the bit, however often it is applied."""
    begin = [np.rint(v * 2.0**18) / 2.0**18 for v in initial()]
    update = lower(optimizers.SGD(0.01), variables(begin, keras.constraints.MaxNorm(50.0)))
    run = Run(update, begin)
    public = {name: v[0] for name, v in update.updates.schedule(0, 1).items()}
    for _ in range(20):
        weights = run.step([np.zeros_like(v) for v in begin], public)
    for weight, v in zip(weights, begin, strict=True):
        np.testing.assert_array_equal(weight, v)


def test_excluded_variables_do_not_decay():
    def exclude(optimizer):
        optimizer.exclude_from_weight_decay(var_names=["bias"])

    # With a learning rate of 1, decay is most of what happens.
    error, moved = compare(lambda: optimizers.SGD(1.0, weight_decay=0.1), 1e-4, 5, prepare=exclude)
    assert moved > 0.1
    assert error <= UNITS
    everywhere, _ = compare(lambda: optimizers.SGD(1.0, weight_decay=0.1), 1e-4, 5)
    assert everywhere <= UNITS


class Own(optimizers.Optimizer):
    """A user's own optimiser, with a public counter."""

    def __init__(self, learning_rate=0.01, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)

    def build(self, trained):
        if self.built:
            return
        super().build(trained)
        self.means = self.add_optimizer_variables(trained, "mean")
        self.count = self.add_variable((), name="count")

    def update_step(self, gradient, variable, learning_rate):
        mean = self.means[self._get_variable_index(variable)]
        self.assign(mean, keras.ops.tanh(0.5 * mean + gradient))
        self.assign_add(self.count, 1.0)
        size = keras.ops.mean(keras.ops.abs(mean))
        self.assign_sub(variable, learning_rate * mean * keras.ops.exp(-0.01 * self.count) / (1.0 + size))


def test_own_optimizer():
    error, moved = compare(Own, 1.0, 10)
    assert moved > 0.01
    assert error <= UNITS


class Branching(Own):
    def update_step(self, gradient, variable, learning_rate):
        if keras.ops.mean(gradient) > 0:
            self.assign_sub(variable, gradient)


class Sorting(Own):
    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, keras.ops.sort(gradient))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optimizers.Adafactor(0.01), "Adafactor.*range"),
        (lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)), "LossScaleOptimizer.*inner optimizer"),
        (Branching, "cannot be followed.*branches"),
        (Sorting, "Sort"),
    ],
)
def test_refused(make, words):
    trained = variables(initial())
    with pytest.raises(UnsupportedError, match=f"(?s){words}"):
        lower(make(), trained)


def test_keras_is_left_as_it_was():
    trained = variables(initial())
    optimizer = optimizers.Nadam(0.01, use_ema=True, weight_decay=0.1, clipnorm=1.0)
    optimizer.build(trained)
    attributes = dict(vars(optimizer))
    before = [np.asarray(v) for v in (*optimizer.variables, *trained)]
    patched = {c: dict(vars(c)) for c in (*type(optimizer).__mro__, keras.KerasTensor, keras.Operation)}
    lower(optimizer, trained)
    after = vars(optimizer)
    assert set(attributes) | {"_exclude_from_weight_decay_cache"} == set(after) | {"_exclude_from_weight_decay_cache"}
    assert all(after[k] is v for k, v in attributes.items())
    for value, v in zip(before, (*optimizer.variables, *trained), strict=True):
        np.testing.assert_array_equal(value, np.asarray(v))
    assert all(vars(c) == was for c, was in patched.items())
    with pytest.raises(UnsupportedError):
        lower(Branching(), trained)
    assert all(vars(c) == was for c, was in patched.items())


def test_a_variable_without_gradient_stays():
    trained = variables(initial())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        update = lower(optimizers.Adam(0.01), trained, without=[1])
    assert any("Gradients do not exist" in str(w.message) for w in seen)
    assert "new/weight/1" in update.carried.values()
    assert all("kernel" in name for name in update.updates.slots)
    assert len(update.updates.slots) == 2
    assert next(item for item in update.plan.outputs if item.carry == "weight/1").value == "weight/1"


def test_states_are_named_by_their_place():
    trained = variables(initial())
    optimizer = optimizers.Adam(0.01)
    update = lower(optimizer, trained)
    for name, (state, _) in update.updates.slots.items():
        assert optimizer.variables[int(name.split("/")[1])] is state.variable
        assert state.kind == "optimizer"
        assert state.fraction == (44 if "velocity" in name else 24)
    assert len(update.updates.slots) == 4


@pytest.mark.parametrize(("fraction", "scale"), [(24, 1 / 64), (42, 1 / 64), (42, 1 / 100), (36, 1.0), (18, 0.3)])
def test_gradients_come_at_any_fraction_and_scale(fraction, scale):
    for make in (lambda: optimizers.SGD(0.01), lambda: optimizers.SGD(0.01, momentum=0.9)):
        error, _ = compare(make, 0.1, 5, gradient_fraction=fraction, scale=scale)
        assert error <= UNITS
    error, _ = compare(lambda: optimizers.Adam(0.01), 0.1, 5, gradient_fraction=fraction, scale=scale)
    assert error <= 1e-3


def test_plain_descent_opens_each_weight_at_most_once():
    for fraction, scale in ((24, 1.0), (24, 1 / 64), (42, 1 / 64)):
        trained = variables(initial()[:1] + [np.zeros(5)])
        update = lower(optimizers.SGD(0.01), trained, fraction, scale)
        sizes = [update.plan.types[s.output].size for s in update.plan.steps if s.op in ("truncate", "rescale")]
        assert sum(sizes) <= 40
        assert {s.op for s in update.plan.steps} <= {
            "truncate", "rescale", "multiply", "subtract", "reshape", "concatenate", "slice", "constant"
        }  # fmt: skip
