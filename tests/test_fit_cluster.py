"""`fit` on three server processes: real data against Keras, interruption, a killed server and how it goes on."""

import contextlib
import functools
import os
import signal
import threading

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

import private_keras as pk
from private_keras.errors import ClusterError, HandleNotFound
from tests.test_faults import busy
from tests.training import distance, pair, two_classes


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    with pk.LocalCluster(storage=tmp_path_factory.mktemp("storage")) as made:
        yield made


def breast_cancer():
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order].astype("float32")


def test_logistic_regression_on_breast_cancer():
    x, y = breast_cancer()
    private, plain = pair(("Dense", 1, "sigmoid"), shape=(30,))
    histories = [
        model.fit(
            x[:400], y[:400], batch_size=64, epochs=5, shuffle=False, verbose=0, validation_data=(x[400:], y[400:])
        )
        for model in (private, plain)
    ]
    assert distance(private, plain) < 5e-3
    accuracies = [model.evaluate(x[400:], y[400:], verbose=0)[1] for model in (private, plain)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.005 and accuracies[0] > 0.9
    for name, values in histories[1].history.items():
        np.testing.assert_allclose(histories[0].history[name], values, atol=6e-3)


@pytest.mark.parametrize("layers, shape, optimizer", [
    ([("Dense", 32, "relu"), ("Dense", 10, "softmax")], (64,), lambda: keras.optimizers.SGD(0.2)),
    ([("Reshape", (8, 8, 1)), ("Conv2D", 6, 3), ("ReLU",), ("MaxPooling2D",), ("Flatten",), ("Dense", 10, "softmax")],
     (64,), lambda: keras.optimizers.Adam(0.01)),
], ids=["mlp", "cnn"])  # fmt: skip
def test_digits(layers, shape, optimizer):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    models = pair(*layers, shape=shape, loss="sparse_categorical_crossentropy", optimizer=optimizer)
    for model in models:
        model.fit(x[:640], y[:640], batch_size=64, epochs=2, shuffle=False, verbose=0)
    results = [model.evaluate(x[640:960], y[640:960], batch_size=160, verbose=0) for model in models]
    np.testing.assert_allclose(results[0], results[1], atol=1e-2)


def test_an_interrupt_ends_the_job_and_leaves_the_cluster_usable(cluster):
    x, y = two_classes(1024)
    private, _ = pair(("Dense", 64, "relu"), ("Dense", 64, "relu"), ("Dense", 1, "sigmoid"))

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                after.append(self.model.get_weights())
                threading.Thread(target=interrupt).start()

    def interrupt():
        busy(cluster)
        os.kill(os.getpid(), signal.SIGINT)

    after = []
    with pytest.raises(KeyboardInterrupt):
        private.fit(x, y, batch_size=8, epochs=50, verbose=0, callbacks=[Interrupt()])
    assert int(private.optimizer.iterations) == 128
    weights = private.get_weights()
    private.set_weights(after[0])
    for a, b in zip(weights, private.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    private.fit(x[:64], y[:64], epochs=1, verbose=0)


def test_a_killed_server_and_how_to_go_on(cluster):
    x, y = two_classes(256)
    layers = ("Dense", 8, "relu"), ("Dense", 1, "sigmoid")
    # With Keras' own epsilon, Adam turns the last bits of a small gradient into whole steps.
    adam = functools.partial(keras.optimizers.Adam, 0.02, epsilon=0.01)
    whole, _ = pair(*layers, optimizer=adam)
    whole.fit(x, y, epochs=4, verbose=0, seed=3)
    expected = whole.get_weights()

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                os.kill(cluster.pids[1], signal.SIGKILL)

    private, _ = pair(*layers, optimizer=adam)
    before = private.get_weights()
    with pytest.raises(ClusterError, match="resume=True"):
        private.fit(x, y, epochs=4, verbose=0, seed=3, checkpoint="killed", callbacks=[Kill()])
    with contextlib.suppress(HandleNotFound):  # unless the fit has noticed that already
        private.predict(x[:4], verbose=0)
    for a, b in zip(private.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    history = private.fit(x, y, epochs=4, verbose=0, checkpoint="killed", resume=True)
    assert history.epoch == [2, 3]
    for a, b in zip(private.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    again = pk.models.load_shares("killed")
    np.testing.assert_allclose(again.predict(x[:8], verbose=0), private.predict(x[:8], verbose=0), atol=1e-3)
