"""Gradients of activations on simulated shares against TensorFlow in float64. `pytest -s` prints the errors."""

import math

import keras
import numpy as np
import pytest
from keras import activations, ops

from private_keras.tracing.curves import ACTIVATIONS, activation
from private_keras.tracing.rules.layers import ACTIVATIONS as RECORDED
from private_keras.tracing.slopes import DERIVATIVES, derivative, slope
from tests.loss_cases import lower, plain

# Away from kinks, where a gradient has two sides; both tails, and far beyond where curves end.
POINTS = np.concatenate([np.linspace(-8, 8, 201) + 0.003, [-300.0, -60.0, -25.0, -12.0, 12.0, 25.0, 60.0, 300.0]])
FAR = np.array([-4000.0, 4000.0])

# Every activation of Keras that is not piecewise linear, and some that are, in the parameters that change its curve.
CASES = {
    "sigmoid": activations.sigmoid,
    "tanh": activations.tanh,
    "softplus": activations.softplus,
    "log_sigmoid": activations.log_sigmoid,
    "silu": activations.silu,
    "mish": lambda x: (RECORDED if keras.backend.is_keras_tensor(x) else {}).get(activations.mish, activations.mish)(x),
    "gelu": activations.gelu,
    "gelu tanh": lambda x: activations.gelu(x, approximate=True),
    "elu": activations.elu,
    "elu 0.5": lambda x: activations.elu(x, alpha=0.5),
    "celu 2": lambda x: activations.celu(x, alpha=2.0),
    "selu": activations.selu,
    "softsign": activations.softsign,
    "squareplus": activations.squareplus,
    "tanh_shrink": activations.tanh_shrink,
    "erf": ops.erf,
    "relu": activations.relu,
    "relu6": activations.relu6,
    "leaky_relu": activations.leaky_relu,
    "hard_sigmoid": activations.hard_sigmoid,
    "hard_silu": activations.hard_silu,
    "hard_tanh": activations.hard_tanh,
    "hard_shrink": activations.hard_shrink,
    "soft_shrink": activations.soft_shrink,
    "sparse_plus": activations.sparse_plus,
    "sparse_sigmoid": activations.sparse_sigmoid,
    "threshold": lambda x: activations.threshold(x, 0.7, -1.0),
    "clip": lambda x: ops.clip(x, -1.3, 2.2),
}
# Curves are fitted to 1e-4; tanh's slope 1 - y^2 has twice the error of y.
TOLERANCE = {"tanh": 2.5e-4}


@pytest.mark.parametrize("name", CASES)
def test_slopes_are_those_of_tensorflow(name):
    arrays = {"x": np.concatenate([POINTS, FAR])}

    def function(x, dtype):
        return CASES[name](x)

    _, found = lower(function, arrays).run(arrays)
    _, expected = plain(function, arrays)
    worst = float(np.max(np.abs(found - expected)))
    print(f"\n{name}: {worst:.1e}", end="")
    assert worst <= TOLERANCE.get(name, 1.25e-4)


@pytest.mark.parametrize("name", ["selu", "gelu", "softplus", "tanh"])
def test_on_three_parties(name):
    arrays = {"x": POINTS[::8]}

    def function(x, dtype):
        return CASES[name](x) * ops.abs(x)

    _, found = lower(function, arrays).run_on_three(arrays)
    _, expected = plain(function, arrays)
    # Of 600: a sum of gradients of different scales brings them to one, by a factor of 17 bits.
    assert np.max(np.abs(found - expected)) <= 1e-3 + 1e-5 * np.max(np.abs(expected))


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(("accuracy", "error"), [("accurate", 1e-4), ("fast", 1e-3)])
def test_derivatives_are_within_their_error(name, accuracy, error):
    """Against central differences of the activation itself, whose own error is far below."""
    x = np.concatenate([np.linspace(-30, 30, 4001) + 0.0001, [-2e4, -500.0, 500.0, 2e4]])
    exact = EXACT[name]
    h = 1e-5 * np.maximum(1, np.abs(x))
    slopes = (exact(x + h) - exact(x - h)) / (2 * h)
    assert np.max(np.abs(derivative(name, accuracy)(x) - slopes)) <= error * 1.05


_erf = np.vectorize(math.erf)
EXACT = {
    "softplus": lambda x: np.logaddexp(0, x),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "silu": lambda x: x * (1 + np.tanh(x / 2)) / 2,
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "gelu": lambda x: x / 2 * (1 + _erf(x / math.sqrt(2))),
    "erf": _erf,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
}


def test_curves_are_cheaper_to_follow_than_they_were_to_draw():
    """A derivative takes about as many pieces as its activation: not a table."""
    for name in DERIVATIVES:
        own = len(activation(name).spline.knots)
        assert len(derivative(name, "accurate").spline.knots) <= 1.7 * own


def test_what_needs_no_slope_of_its_own_has_none():
    without = {name for name in ACTIVATIONS if name != "threshold" and slope(name, "x", "y", "accurate") is None}
    assert {"sigmoid", "tanh", "relu", "hard_silu", "sparse_plus"} <= without
    assert not without & {*DERIVATIVES, "elu", "celu", "selu"}
