"""Fits against the functions they stand for, in float64 and as integers in the ring.

`python -m tests.test_approximation` prints pieces and largest errors of every activation.
"""
import math

import numpy as np
import pytest

from private_keras.errors import InputError, UnsupportedError
from private_keras.protocols import functions, tables
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.tracing.approximation import Spline, fit
from private_keras.tracing.curves import ACTIVATIONS, ERRORS, activation

erf = np.vectorize(math.erf, otypes=[np.float64])
LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softplus(x):
    return np.logaddexp(0, x)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def relu(x, slope=0.0, most=np.inf, threshold=0.0):
    return np.where(x >= most, most, np.where(x >= threshold, x, slope * (x - threshold)))


# (name, parameters, the function as Keras defines it)
CASES = [
    ("sigmoid", {}, sigmoid),
    ("tanh", {}, np.tanh),
    ("erf", {}, erf),
    ("softsign", {}, lambda x: x / (1 + np.abs(x))),
    ("softplus", {}, softplus),
    ("squareplus", {}, lambda x: (x + np.sqrt(x * x + 4)) / 2),
    ("squareplus", {"b": 1}, lambda x: (x + np.sqrt(x * x + 1)) / 2),
    ("squareplus", {"b": 16}, lambda x: (x + np.sqrt(x * x + 16)) / 2),
    ("gelu", {}, lambda x: x / 2 * (1 + erf(x / math.sqrt(2)))),
    ("gelu", {"approximate": True}, lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ("silu", {}, lambda x: x * sigmoid(x)),
    ("mish", {}, lambda x: x * np.tanh(softplus(x))),
    ("elu", {}, elu),
    ("elu", {"alpha": 0.3}, lambda x: elu(x, 0.3)),
    ("celu", {"alpha": 2.0}, lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2))),
    ("celu", {}, elu),
    ("selu", {}, lambda x: LAMBDA * elu(x, ALPHA)),
    ("log_sigmoid", {}, lambda x: -softplus(-x)),
    ("tanh_shrink", {}, lambda x: x - np.tanh(x)),
    ("relu", {}, relu),
    ("relu", {"max_value": 2.5}, lambda x: relu(x, most=2.5)),
    ("relu", {"threshold": 0.7}, lambda x: relu(x, threshold=0.7)),
    ("relu", {"negative_slope": 0.1, "max_value": 3.0, "threshold": 0.5}, lambda x: relu(x, 0.1, 3.0, 0.5)),
    ("relu", {"negative_slope": 0.1, "threshold": 0.5}, lambda x: relu(x, 0.1, threshold=0.5)),
    ("relu", {"negative_slope": 0.1, "threshold": -0.5}, lambda x: relu(x, 0.1, threshold=-0.5)),
    ("relu", {"max_value": 1.0, "threshold": 2.0}, lambda x: relu(x, 0.0, 1.0, 2.0)),
    ("relu6", {}, lambda x: np.clip(x, 0, 6)),
    ("leaky_relu", {}, lambda x: relu(x, 0.2)),
    ("leaky_relu", {"negative_slope": 0.01}, lambda x: relu(x, 0.01)),
    ("leaky_relu", {"negative_slope": 1.5}, lambda x: relu(x, 1.5)),
    ("hard_tanh", {}, lambda x: np.clip(x, -1, 1)),
    ("hard_sigmoid", {}, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    ("hard_silu", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("sparse_sigmoid", {}, lambda x: np.clip((x + 1) / 2, 0, 1)),
    ("sparse_plus", {}, lambda x: np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x))),
    ("soft_shrink", {}, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)),
    ("soft_shrink", {"threshold": 0.3}, lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.3, 0)),
    ("hard_shrink", {}, lambda x: np.where(np.abs(x) > 0.5, x, 0)),
    ("hard_shrink", {"threshold": 0.3}, lambda x: np.where(np.abs(x) > 0.3, x, 0)),
    ("threshold", {"threshold": 0.25, "default_value": -2.5}, lambda x: np.where(x > 0.25, x, -2.5)),
]
EXACT = {"relu", "relu6", "hard_tanh", "soft_shrink", "hard_shrink", "threshold"}


def points(fraction):
    """Fixed-point reals: dense near 0, the ends of the range, and powers of two with their neighbours."""
    unit = 2.0**-fraction
    powers = 2.0 ** np.arange(-fraction, 46 - fraction)
    near = np.concatenate([np.linspace(-25, 25, 40001), np.arange(-8, 8, 0.25)])
    x = np.concatenate([near, near + unit, powers, powers - unit, -powers, -powers + unit, [0.0]])
    return np.unique(np.rint(x / unit) * unit)


def shares(step, x):
    """What three parties would compute for a plan's `spline` step."""
    f = step["fraction"]
    p = Simulate(NumpyKernel())
    share = p.constant(np.rint(x * 2.0**f).astype(np.int64).astype(np.uint64))
    y = functions.spline(
        p, share, step["knots"], step["coefficients"], step["scale"] - f, tuple(step["slopes"]), step["slope_bits"]
    )
    return p.output(y).astype(np.int64) / 2.0**f


def largest_error(name, parameters, real, accuracy="accurate", fraction=18):
    """Largest error over all points, less what slopes that are not whole cost: 2^-16 of x."""
    x = points(fraction)
    made = activation(name, accuracy, **parameters)
    error = np.abs(shares(made.attributes(fraction), x) - real(x))
    allowance = 2.0**-16 * np.abs(x) if any(s != int(s) for s in made.slopes) else 0
    return float(np.maximum(error - allowance, 0).max())


@pytest.mark.parametrize("fraction", [12, 18, 20])
@pytest.mark.parametrize("accuracy", list(ERRORS))
@pytest.mark.parametrize("name,parameters,real", CASES, ids=[f"{n}{tuple(p.values()) or ''}" for n, p, _ in CASES])
def test_activation(name, parameters, real, accuracy, fraction):
    error = largest_error(name, parameters, real, accuracy, fraction)
    assert error <= ERRORS[accuracy] * 1.02 + 2 * 2.0**-fraction
    if name in EXACT and "negative_slope" not in parameters:
        assert error <= 2.0 ** -(fraction + 1)  # constants such as a threshold of 0.3 are rounded once


def test_every_activation_has_a_case():
    assert {name for name, _, _ in CASES} == set(ACTIVATIONS)


def test_small_inputs_of_slopes_that_are_not_whole():
    x = np.linspace(-25, 25, 10001)
    x = np.rint(x * 2**18) / 2**18
    for slope in (0.01, 0.2, 0.3):
        y = shares(activation("leaky_relu", negative_slope=slope).attributes(18), x)
        assert np.abs(y - relu(x, slope)).max() < 2.5e-4


def test_parameters_are_cached_and_not_ignored():
    assert activation("gelu") is activation("gelu")
    assert activation("gelu", approximate=True) is not activation("gelu")
    assert "alpha=0.5" in activation("elu", alpha=0.5).label
    with pytest.raises(TypeError):
        activation("sigmoid", alpha=2.0)
    with pytest.raises(UnsupportedError, match="sigmoid"):
        activation("sine")
    with pytest.raises(UnsupportedError, match="accuracy"):
        activation("sigmoid", "exact")


@pytest.mark.parametrize("accuracy", ["accurate", "fast"])
@pytest.mark.parametrize(
    ("name", "middle"), [("sigmoid", 0.5), ("tanh", 0), ("erf", 0), ("softsign", 0), ("tanh_shrink", 0)]
)
def test_odd_curves_are_exact_at_zero_and_mirrored(name, middle, accuracy):
    curve = activation(name, accuracy)
    assert (shares(curve.attributes(18), np.zeros(1000)) == middle).all()
    x = np.linspace(-12, 12, 10_001)
    np.testing.assert_allclose(curve(x) + curve(-x), 2 * middle, atol=1e-12)


def test_more_accuracy_costs_more_pieces():
    for name in ("sigmoid", "tanh", "gelu", "softplus"):
        fast, accurate = (len(activation(name, a).spline.knots) for a in ("fast", "accurate"))
        # The sigmoid's error is a tenth of the others'.
        assert fast <= 11 and fast < accurate <= (37 if name == "sigmoid" else 22)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("error", [1e-2, 1e-4])
def test_fit_keeps_its_error(degree, error):
    x = np.linspace(-3, 5, 100_001)
    spline = fit(np.sin, -3, 5, error, degree)
    assert np.abs(spline(x) - np.sin(x)).max() <= 1.02 * error
    assert all(len(row) == degree + 1 for row in spline.polynomials)
    assert list(spline.knots) == sorted(set(spline.knots))


def test_fit_of_what_it_can_hold_exactly_is_one_piece():
    spline = fit(lambda x: 1 + 2 * x - x * x / 4, -4, 9, 1e-9)
    assert spline.knots == () and np.allclose(spline.polynomials, [(1, 2, -0.25)])


def test_fit_keeps_tails_and_breaks():
    spline = fit(np.abs, -2, 2, 1e-6, left=[0.0, -1.0], right=[0.0, 1.0], breaks=(0.5,))
    assert np.allclose(spline(np.array([-1e6, -1.0, 1.0, 1e6])), [1e6, 1, 1, 1e6], atol=1e-6)
    assert 0.5 in spline.knots

    def jump(x):
        return np.sign(x - 0.1)

    with pytest.raises(InputError, match="breaks"):
        fit(jump, -1, 1, 1e-3)
    x = np.array([-1.0, 0.1 - 1e-9, 0.1 + 1e-9, 1.0])
    assert np.allclose(fit(jump, -1, 1, 1e-3, breaks=(0.1,))(x), [-1, -1, 1, 1])
    with pytest.raises(InputError, match="low < high"):
        fit(np.sin, 1, 1, 0.1)
    with pytest.raises(InputError, match="degree"):
        fit(np.sin, 0, 1, 0.1, degree=3)


def test_unit_of_the_square_costs_pieces_and_not_accuracy():
    x = np.linspace(1, 100, 20001)
    free, coarse = (fit(np.sqrt, 1, 100, 1e-3, unit=u) for u in (0.0, 2.0**-9))
    assert len(free.knots) < len(coarse.knots)
    assert all(row[2] * 2**9 == round(row[2] * 2**9) for row in coarse.polynomials)
    assert np.abs(coarse(x) - np.sqrt(x)).max() <= 1.02e-3


def test_quantise_chooses_a_scale_that_holds_the_active_piece():
    line = Spline((0.0,), ((0.0, 0.5, 0.0), (0.0, 1.5, 0.0)))
    for top in (1.0, 2.0**10, 2.0**27):
        knots, rows, scale = line.quantise(18, top)
        assert knots == [0] and 2**59 < rows[1][1] * int(top * 2**18) < 2**61 or scale == 60
    with pytest.raises(InputError, match="max_value"):
        line.quantise(18, 2.0**44)
    assert Spline((0.1,), ((0.0, 0.0), (0.0, 1.0))).quantise(18)[0] == [math.ceil(0.1 * 2**18)]
    assert Spline((0.1,), ((0.3, 0.0), (0.0, 1.0))).quantise(18)[2] == 18


FITS = {
    "RECIPROCAL": (lambda y: 1 / y, 4, lambda y: 1.5e-5 / y, 20, 60),
    "RSQRT": (lambda y: y**-0.5, 4, lambda y: 3e-5 * y**-0.5, 20, 60),
    "SQRT": (np.sqrt, 4, lambda y: 3e-5 * np.sqrt(y), 20, 59),
    "RSQRT_WIDE": (lambda y: y**-0.5, 16, lambda y: 3e-5 * y**-0.5, 20, 60),
    "SQRT_WIDE": (np.sqrt, 16, lambda y: 3e-5 * np.sqrt(y), 20, 59),
    "LOG": (np.log, 4, 3e-5, 20, 57),
    "RECIPROCAL_OF_SUM": (lambda y: 1 / y, 1024, lambda y: 2e-5 / np.sqrt(y), 21, 60),
}


@pytest.mark.parametrize("name", list(FITS))
def test_tables_are_what_fit_gives(name):
    function, high, error, fraction, scale = FITS[name]
    table = getattr(tables, name)
    spline = fit(function, 1, high, error, unit=2.0 ** (2 * fraction - scale))
    knots, rows, got = spline.quantise(fraction, high, scale)
    assert (tuple(knots), got) == (table.knots, table.scale)
    # Floats differ in their last bits between machines; nothing else may.
    np.testing.assert_allclose(np.array(rows, float), np.array(table.coefficients, float), rtol=1e-9, atol=1 << 12)
    # And the integers themselves, with the same arithmetic as in the ring, are within the error.
    x = np.unique(np.r_[np.linspace(1, high, 5001) * 2**fraction, table.knots].astype(np.int64))
    row = np.array(table.coefficients, dtype=object)[np.searchsorted(table.knots, x, side="right")]
    big = x.astype(object)
    value = row[:, 0] + row[:, 1] * big + row[:, 2] * big * big
    assert max(abs(v) for v in value) < 1 << 62
    real = x / 2.0**fraction
    bound = error(real) if callable(error) else error
    assert (np.abs(value.astype(float) / 2.0**scale - function(real)) <= 1.02 * bound).all()


if __name__ == "__main__":
    for name, parameters, real in CASES:
        for accuracy in ERRORS:
            made = activation(name, accuracy, **parameters)
            print(f"{made.label:36s} {accuracy:9s} {len(made.spline.knots):3d} knots  "
                  f"{largest_error(name, parameters, real, accuracy):.1e}")
