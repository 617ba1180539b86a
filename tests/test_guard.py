"""Batches that fixed point cannot hold are refused before anything is shared; all others pass."""

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import InputError
from private_keras.plan import shadow
from tests.layer_cases.models import resnet, transformer

RNG = np.random.default_rng(4)
layers = pk.layers


@pytest.fixture(autouse=True)
def shared(monkeypatch) -> list:
    """What is shared or run on a cluster in this process, by name."""
    place, events = pk.connect(protocol="simulate"), []
    for name in ("share", "run"):
        original = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, _o=original, _n=name, **k: events.append(_n) or _o(*a, **k))
    yield events
    clusters.disconnect()


def ones(units: int = 1, width: int = 1000) -> keras.Model:
    return pk.Sequential([pk.Input((width,)), layers.Dense(units, kernel_initializer="ones", name="wide")])


def of(function, *shape: int) -> keras.Model:
    x = pk.Input(shape or (3,))
    return pk.Model(x, function(x))


def multiply() -> keras.Model:
    a, b = pk.Input((3,)), pk.Input((3,))
    return pk.Model([a, b], layers.Multiply(name="product")([a, b]))


def normalised() -> keras.Model:
    return pk.Sequential([pk.Input((4,)), layers.LayerNormalization(name="norm")])


LARGE = 2.0**20 - 1
REFUSED = {
    "a sum that wraps": (ones, np.full((1, 1000), LARGE), "wide.*below 3.355e.07"),
    "a sum that wraps below": (ones, np.full((1, 1000), -LARGE), "wide"),
    "one row of many": (ones, np.concatenate([np.ones((9, 1000)), np.full((1, 1000), LARGE)]), "wide"),
    "a product": (multiply, [np.full((1, 3), 2.0**13.1)] * 2, "product.*below 6.711e.07"),
    "squares of a normalisation": (normalised, [[9000.0, 1, -9000, 3]], "norm"),
    "a variance beyond rsqrt": (normalised, [[100.0, -5000, 100, 100]], r"norm.*rsqrt.*up to 4.194e\+06"),
    "exp": (lambda: of(keras.ops.exp), [[17.0, 0, 0]], "exp.*up to 15.94"),
    "a divisor near 0": (lambda: of(lambda x: 1 / x), [[2.0, -3, 1e-5]], "reciprocal.*from 0.000244"),
    "a divisor of 0": (lambda: of(lambda x: 1 / x), [[2.0, -3, 0]], "reciprocal"),
    "log of 0": (lambda: of(keras.ops.log), [[2.0, 3, 0]], "log"),
    "log of a negative": (lambda: of(keras.ops.log), [[2.0, 3, -1]], "log"),
    "root of a negative": (lambda: of(keras.ops.sqrt), [[2.0, 3, -1]], "sqrt"),
    "root beyond": (lambda: of(lambda x: keras.ops.sqrt(x * 100)), [[2.0, 3, 2.0**18]], "sqrt"),
    "a power": (lambda: of(lambda x: x**4), [[2.0, 3, 100]], "below"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_shared(case, shared):
    make, x, match = REFUSED[case]
    x = [np.asarray(part) for part in x] if case == "a product" else np.asarray(x)
    model = make()
    with pytest.raises(InputError, match=match) as raised:
        model.predict(x, verbose=0)
    assert shared == []
    assert "nothing of it was shared" in str(raised.value) and "normalisation" in str(raised.value)
    report = model.check(x)
    assert not report.ok and report.findings[0].layer in str(raised.value) and report.ranges
    assert shared == []


SATURATING = {
    "exp far below": (keras.ops.exp, [[-1e5, 0, 2]]),
    "sigmoid": (keras.ops.sigmoid, [[-1e5, 1e5, 2]]),
    "tanh": (keras.ops.tanh, [[-1e5, 1e5, 2]]),
    "gelu": (keras.ops.gelu, [[-1e5, 1e5, 2]]),
    "softmax": (keras.ops.softmax, [[-1e5, 1e5, 2]]),
    "masked softmax": (lambda x: keras.ops.softmax(100 * x + np.array([0, -1e8, 0], "float32")), [[1.0, 2, 1.01]]),
    "log_softmax": (keras.ops.log_softmax, [[-300, 0, 10]]),
    "logsumexp": (lambda x: keras.ops.logsumexp(x, axis=-1), [[-300.0, 1000, 999]]),
    "sigmoid by hand": (lambda x: 1 / (1 + keras.ops.exp(-x)), [[-40.0, 1, 40]]),
    "a branch not taken": (lambda x: keras.ops.where(x > 0, keras.ops.log(x), x), [[-40.0, 1, 40]]),
    "a row of zeros": (lambda x: keras.ops.normalize(x), [[0.0, 0, 0], [1, 2, 3]]),
    "a row of zeros by sums": (lambda x: keras.ops.normalize(x, order=1), [[0.0, 0, 0], [1, 2, 3]]),
    "a constant row": (layers.LayerNormalization(), [[0.1, 0.1, 0.1], [1, 2, 3]]),
}


@pytest.mark.parametrize("case", SATURATING)
def test_what_keras_shows_alike_is_not_refused(case):
    function, x = SATURATING[case]
    model, x = of(function), np.asarray(x, "float32")
    assert np.abs(model.predict(x, verbose=0) - keras.ops.convert_to_numpy(model(x))).max() < 0.02
    assert model.check(x).ok


def digits() -> keras.Model:
    return keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(), keras.layers.Flatten(), keras.layers.Dense(64, "relu"),
        keras.layers.Dense(10, "softmax"),
    ])


@pytest.mark.parametrize("make", [digits, resnet, transformer])
def test_models_pass(make, shared):
    plain = make()
    model = pk.convert(plain)
    shape = (4, *plain.inputs[0].shape[1:])
    x = RNG.integers(0, 6, shape) if make is transformer else RNG.uniform(0, 1, shape).astype("float32")
    expected = keras.ops.convert_to_numpy(plain(x, training=False))
    assert np.abs(model.predict(x, verbose=0) - expected).max() < 0.01
    report = model.check(x)
    assert report.ok and all(r.headroom > 1 for r in report.ranges)
    assert shared[-1] == "run"


def test_proven_batches_are_not_run_in_the_clear(monkeypatch):
    calls = []
    original = shadow.shadow
    monkeypatch.setattr("private_keras.models.guard.shadow", lambda *a: calls.append(1) or original(*a))
    model = ones()
    for size in (0.1, 0.9, 3.0, 1000.0):
        model.predict(np.full((2, 1000), size), verbose=0)
    assert not calls
    model.predict(np.full((2, 1000), [[60000.0] * 500 + [-60000.0] * 500]), verbose=0)
    assert len(calls) == 1


@pytest.mark.parametrize("largest", [0.1, 0.3, 100.0])
def test_batches_within_narrow_windows_are_not_run_in_the_clear(largest, monkeypatch):
    calls = []
    monkeypatch.setattr("private_keras.models.guard.shadow", lambda *a: calls.append(1))
    keras.utils.set_random_seed(0)
    model = pk.convert(keras.Sequential([
        keras.Input((20,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(8, activation="relu"),
    ]))  # fmt: skip
    model.narrow(largest)
    for size in (largest, largest / 3):
        model.predict(np.full((2, 20), size), verbose=0)
    assert not calls


def test_weights_that_change_are_bounded_again(shared):
    model = ones()
    x = np.full((1, 1000), 30.0)
    model.predict(x, verbose=0)
    del shared[:]
    model.set_weights([np.full((1000, 1), 1e5), np.zeros(1)])
    with pytest.raises(InputError, match="wide"):
        model.predict(x, verbose=0)
    assert shared == []


def test_check_measures_true_values():
    report = ones().check(np.full((1, 1000), LARGE))
    row = report.ranges[-1]
    assert row.high == pytest.approx(1000 * LARGE, rel=1e-6) and row.headroom == pytest.approx(-4.96, abs=0.1)
    assert "wide" in str(report) and "cannot run on the sample" in str(report) and "1.04" in str(report)
    calm = ones().check(np.ones((1, 1000)))
    assert calm.ok and calm.ranges[-1].high == pytest.approx(1000) and 15 < calm.ranges[-1].headroom < 17
