"""Keras' callbacks and custom ones during `fit` on shares: what they do is what they do in Keras."""

import json

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import InputError, UnsupportedError
from private_keras.models import SecretWeights
from tests.training import Events, distance, logistic, pair, two_classes

X, Y = two_classes(64)
C = keras.callbacks


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def fitted(callback, models=None, **options):
    """Histories of both models, each with a callback of its own."""
    models = models or logistic()
    options = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0, **options}
    return models, [model.fit(X, Y, callbacks=[callback()], **options) for model in models]


def sawtooth():
    """A rate that makes the loss grow after two epochs, so that the best weights are not the last."""
    return C.LearningRateScheduler(lambda epoch: 0.1 if epoch < 2 else -0.5)


def test_early_stopping_restores_the_best_weights_unseen(events):
    histories = []
    models = logistic()
    for model in models:
        stop = C.EarlyStopping(monitor="loss", patience=2, restore_best_weights=True)
        histories.append(
            model.fit(X, Y, batch_size=16, epochs=9, shuffle=False, verbose=0, callbacks=[sawtooth(), stop])
        )
    assert histories[0].epoch == histories[1].epoch == [0, 1, 2, 3]
    assert "reveal" not in [plan.kind for plan in events.plans]
    assert distance(*models) < 1e-3


def test_snapshots_print_nothing_and_are_taken_back():
    snapshots = []

    class Keep(C.Callback):
        def on_epoch_end(self, epoch, logs=None):
            snapshots.append(self.model.get_weights())

    (private, plain), _ = fitted(Keep)
    first = snapshots[0]
    assert isinstance(first, SecretWeights) and len(first) == 4
    assert "secret" in repr(first) and "dense" in repr(first[0]) and first[0].shape == (5, 4)
    assert not any(c in repr(first) + repr(first[0]) + str(first) for c in ("0.", "nan", "array"))
    with pytest.raises(UnsupportedError, match="reveal"):
        np.asarray(first[0])
    private.set_weights(first)
    plain.set_weights(snapshots[3])
    assert distance(private, plain) < 1e-3
    with pytest.raises(InputError, match="4 weights"):
        private.set_weights(first[:3])
    with pytest.raises(InputError, match="shape"):
        private.set_weights([first[2], *first[1:]])
    mixed = [np.zeros((5, 4), "float32"), *first[1:]]
    private.set_weights(mixed)
    assert (private.get_weights()[0] == 0).all()


def test_rates_change_between_epochs():
    for callback in (
        sawtooth,
        lambda: C.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=1, min_delta=1.0),
        lambda: C.LearningRateScheduler(lambda epoch, rate: rate * 0.01),
    ):
        (private, plain), (history, expected) = fitted(callback, epochs=4)
        assert distance(private, plain) < 1e-3
        np.testing.assert_allclose(history.history["learning_rate"], expected.history["learning_rate"], rtol=1e-6)


def test_files_of_callbacks(tmp_path):
    def callback():
        return C.CSVLogger(str(tmp_path / "log.csv"), append=True)

    fitted(callback)
    rows = (tmp_path / "log.csv").read_text().split()
    assert len(rows) >= 6
    private, _ = logistic()
    saver = C.ModelCheckpoint(str(tmp_path / "{epoch}-{loss:.2f}.keras"), monitor="loss")
    private.fit(X, Y, epochs=3, verbose=0, callbacks=[saver])
    files = sorted(tmp_path.glob("3-*.keras"))
    opened = keras.saving.load_model(files[0])
    for a, b in zip(opened.get_weights(), private.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_weights_of_the_best_epoch_in_a_file(tmp_path):
    paths = iter([tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"])
    (private, plain), _ = fitted(
        lambda: C.ModelCheckpoint(str(next(paths)), monitor="loss", save_best_only=True, save_weights_only=True)
    )
    private.load_weights(tmp_path / "a.weights.h5")
    plain.load_weights(tmp_path / "b.weights.h5")
    assert distance(private, plain) < 1e-3


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_backup_and_restore(tmp_path, save_freq):
    class Crash(C.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise OSError("crash")

    options = dict(batch_size=16, shuffle=False, verbose=0)
    whole, _ = pair(("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.Adam(0.02))
    whole.fit(X, Y, epochs=4, **options)
    backup = str(tmp_path / "backup")
    private, _ = pair(("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.Adam(0.02))
    with pytest.raises(OSError, match="crash"):
        private.fit(X, Y, epochs=4, callbacks=[C.BackupAndRestore(backup, save_freq=save_freq), Crash()], **options)
    fresh, _ = pair(("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.Adam(0.02), seed=5)
    history = fresh.fit(X, Y, epochs=4, callbacks=[C.BackupAndRestore(backup, save_freq=save_freq)], **options)
    if save_freq == "epoch":
        assert history.epoch == [2, 3] and distance(fresh, whole) < 2e-3


def test_tensorboard(tmp_path):
    for options in ({}, {"update_freq": 2}):
        (private, _), _ = fitted(lambda o=options: C.TensorBoard(str(tmp_path / "logs"), **o), validation_split=0.25)
    for part in ("train", "validation"):
        assert list((tmp_path / "logs" / part).glob("events*"))


def test_a_loss_that_is_no_number_ends_training():
    private, _ = pair(("Dense", 4), ("Dense", 1), loss="mse", optimizer=lambda: keras.optimizers.SGD(50.0))
    history = private.fit(X, 10 * Y, batch_size=4, epochs=5, verbose=0, callbacks=[C.TerminateOnNaN()])
    assert np.isnan(history.history["loss"][-1]) and len(history.epoch) < 5
    assert np.isfinite(np.concatenate([w.ravel() for w in private.get_weights()])).all()
    with pytest.raises(RuntimeError, match="NaN"):
        private.optimizer.learning_rate = 50.0
        private.fit(X, 10 * Y, batch_size=4, epochs=5, verbose=0, callbacks=[C.TerminateOnNaN(raise_error=True)])


class Recorder(C.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("begin", batch, int(self.model.optimizer.iterations)))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("end", batch, int(self.model.optimizer.iterations)))


def test_custom_callbacks_act_at_every_batch(events):
    recorders = []

    def callback():
        recorders.append(Recorder())
        return recorders[-1]

    fitted(callback, epochs=2)
    assert recorders[0].calls == recorders[1].calls and len(recorders[0].calls) == 16
    assert events.trained() == [1] * 8


def test_several_steps_in_an_execution():
    recorders = []

    def callback():
        recorders.append(Recorder())
        return recorders[-1]

    fitted(callback, models=logistic(steps_per_execution=2), epochs=1)
    assert [call[:2] for call in recorders[0].calls] == [call[:2] for call in recorders[1].calls]


def test_quiet_callbacks_leave_jobs_long(events, tmp_path):
    quiet = [C.TerminateOnNaN(), C.History(), C.ModelCheckpoint(str(tmp_path / "m.keras")),
             C.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]
    logistic()[0].fit(X, Y, batch_size=16, epochs=1, verbose=0, callbacks=quiet)
    assert events.trained() == [4]


@pytest.mark.parametrize("hook, batches", [("on_batch_end", 2), ("on_train_batch_begin", 2)])
def test_training_stops_when_told_to(hook, batches):
    def stop(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True

    made = [type("Stop", (C.Callback,), {hook: stop})() for _ in range(2)]
    histories = []
    models = logistic()
    for model, callback in zip(models, made, strict=True):
        histories.append(model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[callback]))
    assert histories[0].epoch == histories[1].epoch == [0]
    assert int(models[0].optimizer.iterations) == int(models[1].optimizer.iterations) == batches
    assert distance(*models) < 1e-3


def test_the_order_of_calls_is_keras(capsys):
    logs = []

    def watch(model):
        names = ["on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_test_begin", "on_test_end"]
        calls = []
        logs.append(calls)

        def make(name):
            def call(self, *args, **kwargs):
                last = args[-1] if args and isinstance(args[-1], dict) else kwargs.get("logs")
                calls.append((name, args[0] if args and isinstance(args[0], int) else None, sorted(last or {})))

            return call

        return type("Watch", (C.Callback,), {name: make(name) for name in names})()

    for model in logistic():
        model.fit(X, Y, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y), callbacks=[watch(model)])
    assert logs[0] == logs[1]


def test_the_progress_bar_is_keras(capsys):
    private, plain = logistic()
    private.fit(X, Y, batch_size=16, epochs=2, verbose=2, shuffle=False)
    ours = capsys.readouterr().out
    plain.fit(X, Y, batch_size=16, epochs=2, verbose=2, shuffle=False)
    theirs = capsys.readouterr().out

    def words(text):
        return [word for word in text.split() if word.isalpha() or "/" in word and "step" not in word]

    assert words(ours) == words(theirs) and "4/4" in ours


@pytest.mark.parametrize(
    "callback, message",
    [(C.SwapEMAWeights(), "use_ema"), (C.TensorBoard("/nonexistent", histogram_freq=1, write_graph=False), "reveal")],
)
def test_callbacks_that_need_weights_in_the_clear_are_refused(callback, message, events):
    with pytest.raises(UnsupportedError, match=message):
        logistic()[0].fit(X, Y, verbose=0, callbacks=[callback])
    assert events.names == []


def test_remote_and_lambda_callbacks_get_plain_numbers():
    seen = []
    fitted(lambda: C.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(json.dumps(logs))))
    assert len(seen) == 6
