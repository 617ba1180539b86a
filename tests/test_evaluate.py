"""`evaluate`, `test_on_batch`, `train_on_batch` against Keras, and what they open."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import InputError
from tests.training import Events, distance, logistic, pair, two_classes

X, Y = two_classes(50)


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def alike(result, expected):
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("batch_size", [None, 7, 100])
def test_results_are_keras(train, batch_size):
    private, plain = models = logistic(metrics=("accuracy", keras.metrics.MeanSquaredError(name="squares")))
    if train:
        for model in models:
            model.fit(X, Y, verbose=0, shuffle=False)
    alike(
        private.evaluate(X, Y, batch_size=batch_size, verbose=0), plain.evaluate(X, Y, batch_size=batch_size, verbose=0)
    )
    weight = np.linspace(0, 1, 50)
    named = private.evaluate(X, Y, sample_weight=weight, verbose=0, return_dict=True)
    expected = plain.evaluate(X, Y, sample_weight=weight, verbose=0, return_dict=True)
    assert list(named) == list(expected) and all(isinstance(v, float) for v in named.values())
    alike(list(named.values()), list(expected.values()))


def test_streams_steps_and_losses_alone():
    private, plain = logistic(metrics=())
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    alike(private.evaluate(dataset, verbose=0), plain.evaluate(X, Y, verbose=0))
    assert isinstance(private.evaluate(X, Y, verbose=0), float)
    alike(private.evaluate(dataset, steps=2, verbose=0), plain.evaluate(X[:32], Y[:32], verbose=0))


def test_nothing_but_results_is_opened(events):
    private, _ = logistic()
    private.evaluate(X, Y, batch_size=20, verbose=0)
    assert [plan.kind for plan in events.plans] == ["evaluate"] * 3
    assert events.loops == [2, 1, 1]
    for plan in events.plans[:2]:
        assert not any(item.receivers for item in plan.outputs)
    assert all(events.plans[2].types[item.value].size == 1 for item in events.plans[2].outputs)


def test_callbacks_see_batches():
    private, _ = logistic()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append(batch)
            if batch == 1:
                self.model.stop_evaluating = True

        def on_test_end(self, logs=None):
            seen.append(sorted(logs))

    private.evaluate(X, Y, batch_size=10, verbose=0, callbacks=[Watch()])
    assert seen == [0, 1, ["accuracy", "loss"]]


def test_train_on_batch_and_test_on_batch():
    private, plain = models = pair(
        ("Dense", 3, "relu"), ("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.Adam(0.01)
    )
    for i in range(3):
        rows = slice(10 * i, 10 * i + 10)
        alike(private.train_on_batch(X[rows], Y[rows]), plain.train_on_batch(X[rows], Y[rows]))
    weight = np.linspace(0, 2, 10)
    results = [m.train_on_batch(X[:10], Y[:10], sample_weight=weight, return_dict=True) for m in models]
    assert list(results[0]) == list(results[1])
    alike(list(results[0].values()), list(results[1].values()))
    classes = {0: 2.0, 1: 0.5}
    alike(*(m.train_on_batch(X[:10], Y[:10], class_weight=classes) for m in models))
    alike(*(m.test_on_batch(X[:15], Y[:15]) for m in models))
    assert distance(private, plain) < 2e-3 and int(private.optimizer.iterations) == 5


def test_metrics_begin_anew():
    private, plain = logistic()
    for model in (private, plain):
        model.evaluate(X[:5], 1 - Y[:5], verbose=0)
    alike(private.evaluate(X, Y, verbose=0), plain.evaluate(X, Y, verbose=0))
    private.reset_metrics()
    alike(private.test_on_batch(X, Y), plain.test_on_batch(X, Y))


@pytest.mark.parametrize("call", ["evaluate", "test_on_batch", "train_on_batch"])
def test_bad_input_is_refused_before_anything_is_shared(call, events):
    private, _ = logistic()
    for x, y, message in ((X, Y[:-1], "as many targets"), (X, Y + 3, "numbers from 0 to 1"), (X[:, :2], Y, "shape")):
        with pytest.raises(InputError, match=message):
            getattr(private, call)(x, y)
    with pytest.raises(InputError, match="compile"):
        getattr(pk.Sequential([pk.Input((5,)), pk.layers.Dense(1)]), call)(X, Y)
    if call == "evaluate":
        for given, message in (({"batch_size": -1}, "batch_size"), ({"steps": 0}, "steps"), ({"what": 1}, "what")):
            with pytest.raises(InputError, match=message):
                private.evaluate(X, Y, **given)
    assert events.names == []
