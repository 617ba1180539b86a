"""`fit` against Keras on the same batches: forms of data, epochs, weights of samples and classes, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import DivergenceError, InputError, UnsupportedError
from private_keras.models.training.columns import Columns
from private_keras.models.training.feeds import ArrayFeed
from private_keras.models.training.shuffle import batches
from tests.training import Events, assert_alike, distance, logistic, pair, two_classes


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def both(models, *args, **kwargs):
    private, plain = models
    plain_only = {k: v for k, v in kwargs.items() if k not in ("open_metrics", "seed")}
    history = private.fit(*args, verbose=0, **kwargs)
    expected = plain.fit(*args, verbose=0, **plain_only)
    return history, expected


# --- against Keras ----------------------------------------------------------------------------------------------------
def test_weights_history_and_predictions_are_keras():
    x, y = two_classes(100)
    private, plain = models = logistic()
    history, expected = both(
        models, x, y, batch_size=32, epochs=3, shuffle=False, validation_data=two_classes(30, seed=4)
    )
    assert_alike(history, expected)
    assert isinstance(history, keras.callbacks.History) and history.epoch == [0, 1, 2]
    np.testing.assert_allclose(private.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-3)
    assert distance(private, plain) < 1e-3
    assert int(private.optimizer.iterations) == 12


def test_an_epoch_is_one_job_for_full_batches_and_one_for_the_rest(events):
    x, y = two_classes(100)
    logistic()[0].fit(x, y, batch_size=32, epochs=2, verbose=0)
    assert events.trained() == [3, 1, 3, 1]
    assert sorted(set(events.opened())) == sorted({"diverged", *(n for n in events.opened() if n != "diverged")})
    assert len([p for p in events.plans if p.kind == "evaluate"]) == 2


def test_nothing_but_results_is_opened(events):
    x, y = two_classes(40)
    logistic()[0].fit(x, y, batch_size=8, epochs=1, verbose=0, validation_split=0.25)
    for plan in events.plans:
        opened = [item for item in plan.outputs if item.receivers]
        assert plan.kind in ("train", "evaluate")
        if plan.kind == "train":
            assert opened == []
        for item in opened:
            assert plan.types[item.value].size == 1


def test_data_are_shared_once(events):
    x, y = two_classes(64)
    logistic()[0].fit(x, y, batch_size=8, epochs=3, verbose=0)
    first = events.names.index("run")
    assert "share" not in events.names[first + 1 :] or events.names[first + 1 :].count("share") <= 3  # metrics' zeros


@pytest.mark.parametrize("loss, rows", [("mse", 64), ("mae", 50)])
def test_regression(loss, rows):
    x, y = two_classes(rows)
    private, plain = models = pair(("Dense", 3, "tanh"), ("Dense", 1), loss=loss, metrics=["mse"])
    assert_alike(*both(models, x, y, epochs=2, shuffle=False))
    assert distance(private, plain) < 1e-3


def test_sparse_and_one_hot_classes():
    x, _ = two_classes(60)
    y = np.arange(60) % 3
    for target, loss in ((y, "sparse_categorical_crossentropy"), (np.eye(3)[y], "categorical_crossentropy")):
        private, plain = models = pair(("Dense", 3, "softmax"), loss=loss)
        assert_alike(*both(models, x, target, epochs=2, shuffle=False))
        assert distance(private, plain) < 1e-3


def test_a_small_cnn_with_adam():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (48, 6, 6, 1)).astype("float32"), rng.integers(0, 3, 48)
    layers = ("Conv2D", 3, 3), ("BatchNormalization",), ("ReLU",), ("MaxPooling2D",), ("Flatten",)
    private, plain = models = pair(
        *layers, ("Dense", 3, "softmax"), shape=(6, 6, 1), loss="sparse_categorical_crossentropy",
        # With Keras' own epsilon, Adam makes whole steps of a gradient that is zero but for rounding, as that of a bias
        # before a normalisation is.
        optimizer=lambda: keras.optimizers.Adam(0.01, epsilon=1e-3),
    )
    assert_alike(*both(models, x, y, epochs=2, batch_size=16, shuffle=False))
    np.testing.assert_allclose(private.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-3)


# --- forms of data ----------------------------------------------------------------------------------------------------
def test_streams_do_what_arrays_do():
    x, y = two_classes(50)

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16]

    def generator():
        while True:
            yield from (Data()[i] for i in range(4))

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    forms = [
        ((x, y), {"batch_size": 16, "shuffle": False}),
        ((dataset,), {}),
        ((Data(),), {"shuffle": False}),
        ((generator(),), {"steps_per_epoch": 4}),
    ]
    results = []
    for args, options in forms:
        private, _ = logistic()
        history = private.fit(*args, epochs=2, verbose=0, **options)
        results.append((history.history, private.get_weights()))
    for history, weights in results[1:]:
        # Truncation of shares rounds at random, in the last bit.
        np.testing.assert_allclose(history["loss"], results[0][0]["loss"], atol=1e-3)
        for a, b in zip(weights, results[0][1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_several_inputs_and_outputs_by_name_and_in_lists():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 3)).astype("float32"), rng.normal(size=(40, 2)).astype("float32")
    u, v = a.sum(1, keepdims=True), (b.sum(1, keepdims=True) > 0).astype("float32")
    models = []
    for source, kind in ((pk.layers, pk.Model), (keras.layers, keras.Model)):
        keras.utils.set_random_seed(1)
        first, second = keras.Input((3,), name="a"), keras.Input((2,), name="b")
        joined = source.Concatenate()([first, second])
        outputs = [source.Dense(1, name="u")(joined), source.Dense(1, "sigmoid", name="v")(joined)]
        models.append(kind([first, second], outputs))
        losses = {"u": "mse", "v": "binary_crossentropy"}
        models[-1].compile(keras.optimizers.SGD(0.05), losses, loss_weights=[1.0, 0.5])
    models[1].set_weights(models[0].get_weights())
    assert_alike(*both(models, [a, b], [u, v], epochs=1, batch_size=20, shuffle=False))
    assert_alike(*both(models, {"a": a, "b": b}, {"u": u, "v": v}, epochs=1, batch_size=20, shuffle=False))
    assert distance(*models) < 1e-3


def test_lists_of_numbers_tensors_and_frames():
    import pandas

    x, y = two_classes(20)
    expected = None
    for form in (lambda a: a.tolist(), tf.constant, pandas.DataFrame):
        private, _ = logistic()
        history = private.fit(form(x), form(y), verbose=0, shuffle=False, epochs=1)
        expected = expected or history.history["loss"]
        np.testing.assert_allclose(history.history["loss"], expected, atol=1e-3)


def test_weights_of_samples_and_classes():
    x, y = two_classes(40)
    weight = np.linspace(0, 2, 40).astype("float32")
    for options in ({"sample_weight": weight}, {"sample_weight": weight[:, None]}, {"class_weight": {0: 0.25, 1: 3.0}}):
        private, plain = logistic()
        history = private.fit(x, y, shuffle=False, verbose=0, **options)
        if options.get("sample_weight") is not None:
            options = {"sample_weight": weight}
        expected = plain.fit(x, y, shuffle=False, verbose=0, **options)
        assert_alike(history, expected)
        assert distance(private, plain) < 1e-3


def test_validation_split_frequency_and_steps():
    x, y = two_classes(60)
    models = logistic()
    history, expected = both(models, x, y, epochs=4, shuffle=False, validation_split=0.3, validation_freq=2)
    assert_alike(history, expected)
    assert len(history.history["val_loss"]) == 2
    models = logistic()
    assert_alike(*both(
        models, x, y, epochs=1, shuffle=False, validation_data=(x, y), validation_steps=2, validation_batch_size=8
    ))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps", [2, 3, 4, 9])
def test_steps_per_epoch(steps):
    x, y = two_classes(40)
    private, _ = logistic()
    private.fit(x, y, batch_size=10, epochs=3, steps_per_epoch=steps, verbose=0)
    # An epoch ends with the data, and the next one goes on where it was.
    expected = {2: 6, 3: 3 + 1 + 3, 4: 12, 9: 12}[steps]
    assert int(private.optimizer.iterations) == expected


# --- the order of rows ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_orders(shuffle):
    parts = batches(23, 5, shuffle, 11, 0)
    assert [len(p) for p in parts] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(23))
    again, next_one, other = (np.concatenate(batches(23, 5, shuffle, *key)) for key in ((11, 0), (11, 1), (12, 0)))
    np.testing.assert_array_equal(again, np.concatenate(parts))
    if shuffle is False:
        np.testing.assert_array_equal(again, np.arange(23))
        return
    assert (again != next_one).any() and (again != other).any()
    if shuffle == "batch":
        assert all(set(p // 5) == {i} for i, p in enumerate(parts))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), size=st.integers(1, 12), steps=st.none() | st.integers(1, 9), every=st.integers(1, 6),
    skip=st.integers(0, 3), shuffle=st.sampled_from([True, False, "batch"]),
)  # fmt: skip
def test_jobs_hold_all_batches_in_order(rows, size, steps, every, skip, shuffle):
    x = np.zeros((rows, 2))
    columns = Columns([x], [], None, None)
    whole, parts = (ArrayFeed(columns, size, steps, shuffle, 3, lambda *_: {}) for _ in range(2))
    for _ in range(4):
        expected = list(whole.begin_epoch())[skip:]
        segments = list(parts.segments(lambda step: step % every == 0, skip))
        flat = [batch for segment in segments for batch in segment.batches]
        assert len(flat) == len(expected)
        for a, b in zip(flat, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        step = skip
        for segment in segments:
            assert segment.first == step and {len(b) for b in segment.batches} == {segment.rows}
            assert all(s % every for s in range(step + 1, step + segment.steps))
            step += segment.steps
    assert parts.position == whole.position and (steps is not None or parts.position == (4, 0))


def test_every_position_is_as_likely():
    counts = np.zeros((4, 4))
    for seed in range(2000):
        order = np.concatenate(batches(4, 4, True, seed, 0))
        counts[order, np.arange(4)] += 1
    assert abs(counts / 2000 - 0.25).max() < 0.05


def test_the_seed_decides_the_result():
    x, y = two_classes(40)
    losses = []
    for seed in (1, 1, 2):
        private, _ = logistic()
        losses.append(private.fit(x, y, batch_size=4, epochs=2, verbose=0, seed=seed).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], atol=5e-4)
    assert max(abs(a - b) for a, b in zip(losses[0], losses[2], strict=True)) > 1e-3


def test_later_epochs_are_the_same_when_begun_later():
    x, y = two_classes(40)
    whole, parts = logistic()[0], logistic()[0]
    whole.fit(x, y, batch_size=8, epochs=4, verbose=0, seed=5)
    parts.fit(x, y, batch_size=8, epochs=2, verbose=0, seed=5)
    history = parts.fit(x, y, batch_size=8, epochs=4, initial_epoch=2, verbose=0, seed=5)
    assert history.epoch == [2, 3]
    assert distance(whole, parts) < 1e-3


# --- what is opened ---------------------------------------------------------------------------------------------------
def test_metrics_are_opened_as_often_as_asked(events):
    x, y = two_classes(40)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, set(logs))))
    logistic()[0].fit(x, y, batch_size=8, epochs=1, verbose=0, open_metrics=2, callbacks=[watch])
    names = {"loss", "accuracy"}
    assert seen == [(0, set()), (1, names), (2, set()), (3, names), (4, set())]
    assert events.trained() == [1, 1, 1, 1, 1]


def test_jobs_end_where_metrics_are_opened(events):
    x, y = two_classes(48)
    logistic()[0].fit(x, y, batch_size=8, epochs=1, verbose=0, open_metrics=4)
    assert events.trained() == [4, 2]


# --- runs that go wrong -----------------------------------------------------------------------------------------------
def test_a_diverging_run_is_reported_and_undone():
    x, y = two_classes(64)
    private, plain = pair(
        ("Dense", 8), ("Dense", 8), ("Dense", 1), loss="mse", metrics=(), optimizer=lambda: keras.optimizers.SGD(50.0)
    )
    before = private.get_weights()
    with pytest.raises(DivergenceError, match="smaller learning rate.*clipnorm"):
        private.fit(x, 10 * y, batch_size=8, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(before, private.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert int(private.optimizer.iterations) == 0
    private.optimizer.learning_rate = 0.01
    history = private.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("make, size", [
    (lambda: keras.optimizers.Adam(0.01), 4000.0), (lambda: keras.optimizers.Adagrad(0.01), 600.0),
    (lambda: keras.optimizers.RMSprop(0.01), 4000.0),
])  # fmt: skip
def test_squares_of_gradients_that_wrap_are_reported(make, size):
    """The loss and the weights stay small: it is only the averages of squares that have wrapped."""
    x, y = two_classes(64)
    # A wrapped value may by chance lie where a right one could: with hundreds of them, not all do.
    private, _ = pair(("Dense", 64, "relu"), ("Dense", 1), loss="mae", metrics=(), optimizer=make)
    before = private.get_weights()
    x[16:] *= size  # not in the first step, which is looked at in the clear
    with pytest.raises(DivergenceError, match="optimizer squares"):
        private.fit(x, y, batch_size=16, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(before, private.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("targets", [1e3, 3e4])
@pytest.mark.parametrize("make", [lambda: keras.optimizers.Adam(0.01), lambda: keras.optimizers.SGD(1e-7)])
def test_data_whose_first_step_would_wrap_are_refused_before_they_are_shared(events, make, targets):
    x, y = two_classes(32)
    private, _ = pair(("Dense", 8, "relu"), ("Dense", 1), loss="mse", metrics=(), optimizer=make)
    if targets < 2e3 and isinstance(private.optimizer, keras.optimizers.SGD):
        x = 3e3 * x  # it takes gradients that Adam could not square
    for train in (private.fit, private.train_on_batch):
        with pytest.raises(InputError, match="first step.*nothing was shared.*Scale inputs and targets"):
            train(x, targets * y)
    assert not events.names
    private.fit(x / np.abs(x).max(), y, verbose=0)


def test_divergence_keeps_finished_epochs():
    x, y = two_classes(64)
    private, _ = pair(("Dense", 8), ("Dense", 1), loss="mse", metrics=())
    after = []

    class Faster(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            after.append(self.model.reveal().get_weights())
            self.model.optimizer.learning_rate = 3.0 if epoch == 0 else 1e4

    with pytest.raises((DivergenceError, InputError)):
        private.fit(x, y, batch_size=4, epochs=6, verbose=0, callbacks=[Faster()])
    for a, b in zip(after[-1], private.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_interrupted_fit_keeps_finished_jobs(cluster, monkeypatch):
    x, y = two_classes(40)
    private, plain = logistic()
    runs, original = [], cluster.run

    def run(plan, *args, **kwargs):
        if plan.kind == "train":
            runs.append(plan)
            if len(runs) == 3:
                raise KeyboardInterrupt
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(cluster, "run", run)
    with pytest.raises(KeyboardInterrupt):
        private.fit(x, y, batch_size=40, epochs=5, verbose=0, shuffle=False)
    plain.fit(x, y, batch_size=40, epochs=2, verbose=0, shuffle=False)
    assert distance(private, plain) < 1e-3
    assert int(private.optimizer.iterations) == 2
    private.fit(x, y, batch_size=40, epochs=1, verbose=0)


# --- bad input, before anything is shared -----------------------------------------------------------------------------
X, Y = two_classes(20)
BAD = {
    "rows": (dict(x=X, y=Y[:-1]), InputError, "as many targets"),
    "features": (dict(x=X[:, :3], y=Y), InputError, "expected shape"),
    "nan": (dict(x=np.where(X > 1, np.nan, X), y=Y), InputError, "finite"),
    "infinite target": (dict(x=X, y=np.where(Y > 0, np.inf, Y)), InputError, "numbers from 0 to 1"),
    "label": (dict(x=X, y=Y + 1), InputError, "numbers from 0 to 1"),
    "range": (dict(x=X * 1e7, y=Y), InputError, "Scale"),
    "text": (dict(x=X, y=np.array(["a"] * 20)), InputError, "numbers"),
    "target shape": (dict(x=X, y=np.zeros((20, 3))), InputError, "shape"),
    "sample weights": (dict(x=X, y=Y, sample_weight=np.ones(3)), InputError, "sample weights"),
    "weights within samples": (dict(x=X, y=Y, sample_weight=np.ones((20, 2))), UnsupportedError, "sample_weight"),
    "both weights": (dict(x=X, y=Y, sample_weight=np.ones(20), class_weight={0: 1}), InputError, "class_weight"),
    "split": (dict(x=X, y=Y, validation_split=1.5), InputError, "validation_split"),
    "epochs": (dict(x=X, y=Y, epochs=-1), InputError, "epochs"),
    "batch": (dict(x=X, y=Y, batch_size=0), InputError, "batch_size"),
    "shuffle": (dict(x=X, y=Y, shuffle="rows"), InputError, "shuffle"),
    "open": (dict(x=X, y=Y, open_metrics="batch"), InputError, "open_metrics"),
    "seed": (dict(x=X, y=Y, seed=-3), InputError, "seed"),
    "resume": (dict(x=X, y=Y, resume=True), InputError, "checkpoint"),
    "name": (dict(x=X, y=Y, checkpoint="../x y"), InputError, "checkpoint"),
    "validation": (dict(x=X, y=Y, validation_data=(X, Y[:3])), InputError, "as many targets"),
    "validation parts": (dict(x=X, y=Y, validation_data=(X, Y, Y, Y)), InputError, "validation_data"),
    "no targets": (dict(x=X), InputError, "expected targets y"),
    "stream and y": (
        dict(x=tf.data.Dataset.from_tensor_slices((X, Y)).batch(5), y=Y), InputError, "part of what"
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_anything_is_shared(case, events):
    given, error, message = BAD[case]
    with pytest.raises(error, match=message):
        logistic()[0].fit(**given, verbose=0)
    assert events.names == []


def test_data_are_looked_at_every_time():
    private, _ = logistic()
    private.fit(X, Y, verbose=0)
    for x, y in ((X, Y + 1), (np.where(X > 1, np.nan, X), Y)):
        with pytest.raises(InputError):
            private.fit(x, y, verbose=0)
        with pytest.raises(InputError):
            private.fit(X, Y, verbose=0, validation_data=(x, y))
        with pytest.raises(InputError):
            private.train_on_batch(x, y)


def test_classes_out_of_range(events):
    private, _ = pair(("Dense", 3, "softmax"), loss="sparse_categorical_crossentropy")
    for y in (np.full(20, 3), np.full(20, -1), np.full(20, 0.5)):
        with pytest.raises(InputError, match="classes from 0 to 2"):
            private.fit(X, y, verbose=0)
    with pytest.raises(InputError, match="categorical_crossentropy"):
        private.fit(X, np.eye(3)[[0] * 20], verbose=0)
    assert events.names == []


def test_models_that_cannot_be_trained(events):
    model = pk.Sequential([pk.Input((5,)), pk.layers.Dense(1)])
    with pytest.raises(InputError, match="compile"):
        model.fit(X, Y, verbose=0)
    for options, message in (({"run_eagerly": True}, "run_eagerly"),):
        model.compile("sgd", "mse", **options)
        with pytest.raises(UnsupportedError, match=message):
            model.fit(X, Y, verbose=0)
    with pytest.raises(UnsupportedError, match="LossScaleOptimizer"):
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    with pytest.raises(UnsupportedError, match="ctc"):
        model.compile("sgd", "ctc")

    class Own(pk.Model):
        def __init__(self):
            super().__init__()
            self.dense = pk.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            return {}

    own = Own()
    own(X)
    own.compile("sgd", "mse")
    with pytest.raises(UnsupportedError, match="train_step"):
        own.fit(X, Y, verbose=0)
    assert events.names == []
