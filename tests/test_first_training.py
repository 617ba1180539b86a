"""Mistakes of a first training script, and what it takes for granted from Keras."""
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import InputError, UnsupportedError
from tests.training import Events

RNG = np.random.default_rng(11)
X = RNG.normal(size=(40, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int64")


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def network(units=1, activation="sigmoid", loss="binary_crossentropy", optimizer="sgd", **options):
    model = pk.Sequential([pk.Input((4,)), pk.layers.Dense(units, activation=activation)])
    model.compile(optimizer, loss, **options)
    return model


def two_outputs():
    x = pk.Input((4,))
    sick = pk.layers.Dense(1, activation="sigmoid", name="sick")(x)
    model = pk.Model(x, {"sick": sick, "days": pk.layers.Dense(1, name="days")(x)})
    model.compile("sgd", {"sick": "binary_crossentropy", "days": "mse"})
    return model


def nothing_shared(events):
    return events.names == [] and events.plans == []


@pytest.mark.parametrize(("x", "y", "message"), [
    (X, None, "expected targets y"),
    (None, None, "expected an array of numbers. Received: None"),
    (X, {"sick": Y, "day": Y}, r"expected targets of outputs \['days', 'sick'\]. Received: \['day', 'sick'\]"),
    (X.astype(object), {"sick": Y, "days": Y}, r"Mixed columns: astype\('float32'\)"),
    (tf.data.Dataset.from_tensor_slices((X, {"sick": Y, "days": Y})), None, r"dataset.batch\(32\)"),
    (X * 1e6, {"sick": Y, "days": Y}, "from -1048576 to below 1048576. Received: [0-9]+ of 160 outside. Scale"),
])
def test_data_that_are_none(events, x, y, message):
    with pytest.raises(InputError, match=message):
        two_outputs().fit(x, y, verbose=0)
    assert nothing_shared(events)


@pytest.mark.filterwarnings("default:Gradients do not exist")  # Keras says so of the other output
def test_targets_of_outputs_without_a_loss_may_be_left_out():
    model = two_outputs()
    model.compile("sgd", {"sick": "binary_crossentropy"})
    assert set(model.fit(X, {"sick": Y}, verbose=0).history) >= {"loss"}


def test_words_beyond_the_vocabulary(events):
    model = pk.Sequential([pk.Input((3,)), pk.layers.Embedding(10, 2), pk.layers.Flatten(), pk.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="from 0 to below 10. Received: 1 of 9 outside. These are indices"):
        model.fit(np.array([[0, 1, 2], [3, 4, 10], [9, 9, 9]]), np.zeros(3), verbose=0)
    assert nothing_shared(events)


def test_a_metric_that_is_none_is_found_when_compiled():
    with pytest.raises(ValueError, match="acuracy"):
        network(metrics=["acuracy"])
    with pytest.raises(ValueError, match="f1"):
        network(weighted_metrics=["f1"])
    network(metrics=[["accuracy", "AUC"]])


@pytest.mark.parametrize("where", ["loss", "metrics"])
def test_tensorflow_functions_are_refused_with_advice(events, where):
    def own(y, p):
        return tf.reduce_mean(tf.square(y - p))

    options = {"loss": own} if where == "loss" else {"metrics": [own]}
    with pytest.raises(UnsupportedError, match="TensorFlow's functions.*keras.ops"):
        network(**options).fit(X, Y.astype("float32")[:, None], verbose=0)
    assert nothing_shared(events)


@pytest.mark.parametrize(("activation", "loss", "warned"), [
    (None, "sparse_categorical_crossentropy", True),
    (None, keras.losses.SparseCategoricalCrossentropy(), True),
    (None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), False),
    ("softmax", "sparse_categorical_crossentropy", False),
    (None, "mse", False),
])
def test_a_forgotten_softmax_is_warned_of(activation, loss, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network(3, activation, loss)
    assert ["has no activation" in str(w.message) and w.filename == __file__ for w in caught] == [True] * warned


@pytest.mark.parametrize("kind", ["sequential", "subclass"])
def test_a_model_without_input_is_built_for_the_data(kind):
    class Own(pk.Model):
        def __init__(self):
            super().__init__()
            self.dense = pk.layers.Dense(1, activation="sigmoid")

        def call(self, x):
            return self.dense(x)

    model = Own() if kind == "subclass" else pk.Sequential([pk.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, Y, verbose=0)
    weights = model.get_weights()
    assert [w.shape for w in weights] == [(4, 1), (1,)]
    plain = 1 / (1 + np.exp(-(X @ weights[0] + weights[1])))
    np.testing.assert_allclose(model.predict(X, verbose=0), plain, atol=1e-3)


def test_the_same_seed_gives_the_same_run():
    def trained(seed):
        keras.utils.set_random_seed(seed)
        model = pk.Sequential([pk.Input((4,)), pk.layers.Dropout(0.5), pk.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
        return model.get_weights()[0]

    first = trained(1)
    np.testing.assert_allclose(trained(1), first, atol=1e-3)
    assert np.abs(trained(2) - first).max() > 0.01


def test_fine_tuning_goes_on_with_the_optimizer_of_the_file(tmp_path):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.9), "binary_crossentropy")
    plain.fit(X, Y, shuffle=False, verbose=0)
    plain.save(tmp_path / "m.keras")
    model = pk.models.load_model(tmp_path / "m.keras")
    model.fit(X, Y, shuffle=False, verbose=0)
    plain.fit(X, Y, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


class Dense(keras.layers.Embedding):
    """An embedding whose gradient Keras computes as one array, instead of a list of places that Adam squares each."""

    def call(self, inputs):
        return keras.ops.one_hot(keras.ops.cast(inputs, "int32"), self.input_dim) @ self.embeddings


def test_adam_takes_the_whole_gradient_of_a_word():
    x = RNG.integers(0, 6, (40, 5))
    models = []
    for library, kind in ((pk, pk.layers.Embedding), (keras, Dense)):
        layers = library.layers
        model = library.Sequential([
            keras.Input((5,)), kind(6, 3), layers.GlobalAveragePooling1D(), layers.Dense(1, activation="sigmoid"),
        ])
        models.append(model)
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        model.fit(x, Y, epochs=5, batch_size=8, shuffle=False, verbose=0)
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
