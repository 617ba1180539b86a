"""What cannot run on shares is refused by layer and operation, with advice, all at once, before anything is shared."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from private_keras.errors import UnsupportedError
from private_keras.tracing import trace, unsupported
from tests.layer_cases import models as zoo


def functional(shape, *inner):
    x = inputs = keras.Input(shape)
    for layer in inner:
        x = layer(x)
    return keras.Model(inputs, x)


def named(function, shape=(4,)):
    return functional(shape, layers.Lambda(function, name="mine", output_shape=shape))


@pytest.mark.parametrize(
    ("function", "operation", "advice"),
    [
        (ops.floor, "Floor", "round before or after"),
        (ops.round, "Round", "round before or after"),
        (lambda x: x // 2.0, "FloorDivide", "round before or after"),
        (ops.sort, "Sort", "max, argmax or where"),
        (ops.sin, "Sin", "before `predict`"),
        (lambda x: ops.cast(x + 1.0, "int32"), "Cast", "as integers"),
        (lambda x: ops.power(x, -0.3), "Power", "exp"),
        (lambda x: ops.power(x, x), "Power", "exp"),
        (lambda x: x / ops.zeros((4,)), "TrueDivide", "not finite"),
        (lambda x: ops.vectorized_map(lambda r: r * 2, x), "VectorizedMap", "unroll"),
        (lambda x: ops.while_loop(lambda y: ops.sum(y) < 3, lambda y: y + 1, x), "WhileLoop", "unroll"),
        (lambda x: ops.take_along_axis(x, ops.argmax(x, axis=-1, keepdims=True), axis=-1), "TakeAlongAxis", "one_hot"),
        (lambda x: ops.real(ops.fft((x, x))[0]), "FFT", "before `predict`"),
        (lambda x: x * 1e30, "Multiply", "factor"),
        (ops.sparsemax, "Sparsemax", "softmax"),
        (ops.i0, "I0", "docs/coverage.md"),
    ],
)
def test_operations(function, operation, advice):
    findings = unsupported(named(function))
    assert any(f.layer == "mine" and f.operation == operation and advice in f.message for f in findings), findings


@pytest.mark.parametrize(
    ("make", "shape", "advice"),
    [
        (lambda: layers.RandomCrop(2, 2), (4, 4, 3), "random"),
        (lambda: layers.Lambda(lambda x: x + keras.random.normal((4,))), (4,), "random"),
        (lambda: layers.Resizing(4, 4, crop_to_aspect_ratio=True), (5, 6, 1), "crop or pad"),
        (lambda: layers.Lambda(lambda x: np.asarray(x), output_shape=(4,)), (4,), "keras.ops"),
        (lambda: layers.Lambda(lambda x: x if ops.sum(x) > 0 else -x, output_shape=(4,)), (4,), "branches on values"),
        (lambda: layers.Solarization(), (4, 4, 3), "before `predict`"),
    ],
)
def test_layers(make, shape, advice):
    (finding,) = unsupported(functional(shape, make()))
    assert advice in finding.message


def test_quantized_layers():
    model = functional((8,), layers.Dense(4))
    model.layers[1].quantize("int8")
    (finding,) = unsupported(model)
    assert "before `quantize`" in finding.message


def test_stateful_recurrence():
    x = keras.Input(batch_shape=(2, 3, 4))
    (finding,) = unsupported(keras.Model(x, layers.LSTM(3, stateful=True)(x)), 2)
    assert "stateful=True" in finding.message


def test_all_findings_are_told_at_once():
    model = functional((4,), layers.Lambda(ops.floor, name="a"), layers.Dense(3), layers.Lambda(ops.sort, name="b"))
    assert [f.layer for f in unsupported(model)] == ["a", "b"]
    with pytest.raises(UnsupportedError, match=r"(?s)nothing was shared.*layer 'a', Floor: .*layer 'b', Sort: "):
        trace(model, 1)


class Hidden(layers.Layer):
    def build(self, shape):
        self.box = type("Box", (), {})()
        self.box.weight = self.add_weight(shape=(4,))

    def call(self, x):
        return x * ops.exp(self.box.weight)


class Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x * self.count

    def compute_output_shape(self, shape):
        return shape


class Leaking(layers.Layer):
    def build(self, shape):
        self.weight = self.add_weight(shape=(2, 4))

    def call(self, x):
        return [x, self.weight * 2.0]


class Choosing(layers.Layer):
    def build(self, shape):
        self.places = self.add_weight(shape=(2,), dtype="int32", initializer="zeros")

    def call(self, x):
        return ops.take(x, self.places, axis=1)


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        (Hidden, "held where it cannot be kept secret"),
        (Counting, "keeps no state"),
        (Leaking, "opening it would open weights"),
        (Choosing, "depend on weights"),
    ],
)
def test_what_a_layer_may_not_do_with_its_weights(layer, advice):
    assert any(advice in f.message for f in unsupported(functional((4,), layer())))


def test_weights_that_fixed_point_cannot_hold():
    for bad in (np.nan, np.inf, 1e20):
        model = functional((4,), layers.Dense(2, name="dense"))
        model.get_layer("dense").kernel.assign(np.full((4, 2), bad, "float32"))
        (finding,) = unsupported(model)
        assert "dense/kernel" in finding.message and finding.layer == "dense"


def test_models_without_a_shape():
    with pytest.raises(UnsupportedError, match="no input shape yet"):
        trace(keras.Sequential([layers.Dense(3)]), 1)
    with pytest.raises(UnsupportedError, match="fixed sizes"):
        trace(functional((None, 3), layers.GlobalAveragePooling1D()), 1)
    x = keras.Input(batch_shape=(4, 3))
    with pytest.raises(UnsupportedError, match="batches of 4"):
        trace(keras.Model(x, layers.Dense(2)(x)), 3)


def test_text():
    findings = unsupported(
        keras.Sequential([keras.Input((1,), dtype="string"), layers.TextVectorization(9, vocabulary=["a"])])
    )
    assert "text" in findings[0].message


def test_a_model_that_can_run_has_no_findings():
    assert unsupported(zoo.resnet()) == []
