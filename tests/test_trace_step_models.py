"""Training steps of models of every form against Keras' own: several inputs and outputs, shared and nested layers,
labels, constraints, losses of their own; and what is refused.
"""

import re

import keras
import numpy as np
import pytest
from keras import constraints, layers, ops

from private_keras.errors import UnsupportedError
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import Target
from tests.layer_cases.case import randomise
from tests.stepping import train_error

RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(8).bit_generator.state


def real(*shape):
    return RNG.normal(size=shape).astype("float32")


def built(*inner, shape=(5,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner])


def step_error(model, x, y=None, loss="mse", optimizer=None, weight=None, **more):
    randomise(model)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, run_eagerly=True, **more)
    error, change = train_error(model, x, y, weight)
    assert change > 5e-3, "the step changes nothing: it tests nothing"
    return error


def two_outputs(kind):
    x = keras.Input((5,))
    h = layers.Dense(6, "relu")(x)
    outputs = {"a": layers.Dense(3, name="a")(h), "b": layers.Dense(2, name="b")(h)}
    return keras.Model(x, outputs if kind is dict else list(outputs.values()))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # as Keras says of an output without a loss
@pytest.mark.parametrize(
    ("kind", "loss", "weights"),
    [
        (list, ["mse", "mae"], None),
        (list, ["mse", "mae"], [0.3, 2.0]),
        (list, "mse", None),
        (dict, {"a": "mse", "b": "mae"}, {"a": 0.3, "b": 2.0}),
        (dict, {"a": "mse", "b": None}, None),
    ],
    ids=["list", "weights", "one-for-all", "dict", "one-without"],
)
def test_several_outputs(kind, loss, weights):
    y = {"a": real(4, 3), "b": real(4, 2)}
    y = y if kind is dict else list(y.values())
    assert step_error(two_outputs(kind), real(4, 5), y, loss, loss_weights=weights) < 5e-5


def test_shared_layers_and_several_inputs():
    a, b = keras.Input((5,)), keras.Input((5,))
    dense, normal = layers.Dense(4, "tanh"), layers.BatchNormalization(momentum=0.5)
    model = keras.Model([a, b], layers.Dense(2)(layers.concatenate([normal(dense(a)), normal(dense(b))])))
    assert step_error(model, [real(6, 5), real(6, 5)], real(6, 2)) < 1e-3


def test_relu_passes_no_gradient_at_exactly_zero():
    x = real(6, 6, 6, 1)
    x[:, :3] = 0  # windows of zeros, and biases that begin at 0
    model = built(layers.Conv2D(3, 2, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
                  layers.Dense(4), layers.ReLU(), layers.Dense(2), shape=(6, 6, 1))  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    error, change = train_error(model, x, real(6, 2))
    assert error < 5e-5 < 1e-3 < change


def test_dictionaries_of_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(2)(layers.concatenate([layers.Dense(3, "relu")(a), b])))
    assert step_error(model, {"b": real(4, 2), "a": real(4, 3)}, real(4, 2)) < 5e-5


@pytest.mark.parametrize("normal", [layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization])
@pytest.mark.parametrize(("size", "middle"), [(0.02, 0), (1, 5), (50, 100), (200, 0), (0, 1)])
def test_normalisation_of_inputs_of_any_size(normal, size, middle):
    model = built(normal() if normal is not layers.GroupNormalization else normal(2), layers.Flatten(), layers.Dense(3),
                  shape=(6, 6, 4))  # fmt: skip
    x = (RNG.normal(size=(16, 6, 6, 4)) * size + middle).astype("float32")
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    error, change = train_error(model, x, real(16, 3))
    assert error < 2e-4 * max(1, change) and change > 5e-3


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [layers.Dense(4, "gelu"), layers.LayerNormalization()]
        self.last = layers.Dense(2)

    def call(self, x, training=False):
        for layer in self.hidden:
            x = layer(x)
        return self.last(x)


def test_subclassed_models():
    model = Subclassed()
    model(real(4, 5))
    assert step_error(model, real(4, 5), real(4, 2)) < 1e-3


@pytest.mark.parametrize("public", [False, True])
def test_a_frozen_backbone(public):
    backbone = built(layers.Dense(4, "relu"), layers.BatchNormalization())
    backbone.trainable, backbone.public = False, public
    model = built(backbone, layers.Dense(2))
    assert step_error(model, real(4, 5), real(4, 2)) < 5e-5


@pytest.mark.parametrize(
    ("last", "loss", "y"),
    [
        (layers.Dense(3, "softmax"), "sparse_categorical_crossentropy", np.array([0, 2, 1, 1])),
        (layers.Dense(3, "softmax"), "sparse_categorical_crossentropy", np.array([0, 2, 1, 1], "float32")[:, None]),
        (layers.Dense(3, "softmax"), "categorical_crossentropy", np.eye(3, dtype="float32")[[0, 2, 1, 1]]),
        (layers.Dense(1, "sigmoid"), "binary_crossentropy", np.array([0, 1, 1, 0])),
    ],
    ids=["classes", "real-classes", "one-hot", "binary"],
)
def test_labels(last, loss, y):
    model = built(layers.Dense(6, "relu"), last)
    assert step_error(model, real(4, 5), y, loss) < 5e-5


def test_numbers_of_classes_are_whole_and_have_a_range():
    model = built(layers.Dense(3, "softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    for dtype in ("int64", "float32", "uint8"):
        (spec,) = trace_step(model, "train", 4, y=Target((), dtype)).targets
        assert (spec.fraction, spec.low, spec.high) == (0, 0, 3)


def test_sample_weights():
    weight = np.array([0.1, 2, 0, 1], "float32")
    assert step_error(built(layers.Dense(6, "relu"), layers.Dense(3)), real(4, 5), real(4, 3), weight=weight) < 5e-5


@pytest.mark.parametrize(
    "constraint",
    [constraints.NonNeg(), constraints.UnitNorm(), constraints.MaxNorm(0.5), constraints.MinMaxNorm(0.6, 0.8)],
    ids=["non-neg", "unit", "max", "min-max"],
)
def test_constraints(constraint):
    model = built(layers.Dense(8, "relu", kernel_constraint=constraint), layers.Dense(3))
    assert step_error(model, real(4, 5), real(4, 3)) < 1e-4


class OwnLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y - y_pred) ** 2) + 0.1 * ops.mean(ops.abs(y_pred))


def test_a_model_with_its_own_loss():
    model = OwnLoss([keras.Input((5,)), layers.Dense(4, "relu"), layers.Dense(2)])
    assert step_error(model, real(4, 5), real(4, 2)) < 5e-5


def test_losses_of_layers_alone():
    class Adds(keras.Layer):
        def call(self, x):
            self.add_loss(ops.mean(x**2))
            return x

    assert step_error(built(layers.Dense(4, "relu"), Adds()), real(4, 5), None, None) < 5e-5


def test_a_layer_that_moves_a_variable_of_its_own():
    class Counts(keras.Layer):
        def build(self, shape):
            self.average = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

        def call(self, x, training=False):
            if training:
                self.average.assign(self.average * 0.5 + ops.mean(x, axis=0) * 0.5)
            return x - ops.stop_gradient(self.average)

    assert step_error(built(layers.Dense(4), Counts(), layers.Dense(2)), real(4, 5), real(4, 2)) < 5e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_optimisers_update_every_kind_of_weight(optimizer):
    model = built(layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(), layers.Dense(2),
                  shape=(6, 6, 1))  # fmt: skip
    model.layers[0].bias.trainable = False  # has no gradient before a normalisation, and Adam would amplify its noise
    assert step_error(model, real(8, 6, 6, 1), real(8, 2), optimizer=keras.optimizers.get(optimizer)) < 1e-3


def refused(model, y=None, kind="train"):
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedError) as raised:
        trace_step(model, kind, 4, y=y)
    return str(raised.value)


class Noisy(keras.Layer):
    def __init__(self, seed=None):
        super().__init__()
        self.seed = seed

    def call(self, x, training=False):
        return x + keras.random.normal(x.shape, seed=self.seed) if training else x


@pytest.mark.parametrize("seed", [lambda: None, lambda: keras.random.SeedGenerator(3)], ids=["global", "own"])
def test_random_numbers_of_a_layer_of_ones_own_are_never_constants(seed):
    text = refused(built(Noisy(seed()), layers.Dense(2)), Target((2,)))
    assert "noisy" in text and "draws random numbers" in text and "Dropout" in text


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: built(layers.LSTM(3, recurrent_dropout=0.2), layers.Dense(2), shape=(4, 3)), "recurrent_dropout"),
        (lambda: built(layers.RandomFlip(), layers.Flatten(), layers.Dense(2), shape=(4, 4, 1)), "before `fit`"),
        (lambda: built(layers.BatchNormalization(renorm=True), layers.Dense(2)), "renorm=False"),
        (lambda: built(layers.SpectralNormalization(layers.Dense(2))), "assigned in `call`"),
        (lambda: built(layers.Dense(2, trainable=False)), "no trainable weights"),
    ],
    ids=["recurrent-dropout", "augmentation", "renorm", "assigned", "frozen"],
)
def test_what_cannot_be_trained_is_refused_with_advice(model, message):
    text = refused(model(), Target((2,)))
    assert re.search(message, text), text


def test_a_model_without_a_loss_is_refused():
    model = built(layers.Dense(2))
    model.compile("sgd")
    with pytest.raises(UnsupportedError, match="there is no loss"):
        trace_step(model, "train", 4)


def test_weights_that_change_in_prediction_are_refused():
    class Counts(keras.Layer):
        def build(self, shape):
            self.seen = self.add_weight(name="seen", shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.seen.assign_add(1.0)
            return x

    text = refused(built(Counts(), layers.Dense(2)), Target((2,)), "evaluate")
    assert "seen" in text and "`training` is false" in text
