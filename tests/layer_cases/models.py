"""Whole models: nested, shared, with several inputs and outputs, subclassed."""

import keras
from keras import layers, ops

from tests.layer_cases.case import Case


def mlp():
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(8, "relu"),
            layers.Dropout(0.3),
            layers.Dense(8, "tanh"),
            layers.Dense(4, "softmax"),
        ]
    )


def lenet():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, "relu"),
            layers.Dense(5, "softmax"),
        ]
    )


def resnet():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x)))
    for filters, strides in ((4, 1), (6, 2)):
        y = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        if strides > 1:
            x = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=strides)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(4, "softmax")(layers.GlobalAveragePooling2D()(x)))


def nested():
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu"), layers.Dense(5)], name="inner")
    x = inputs = keras.Input((5,))
    y = keras.Input((5,))
    functional = keras.Model([x, y], layers.Add()([inner(x), y]), name="functional")
    a = keras.Input((5,))
    return keras.Model([inputs, a], functional([inner(inputs), a]))


def shared():
    dense = layers.Dense(3, "relu")
    x, y = keras.Input((4,)), keras.Input((4,))
    return keras.Model([x, y], layers.Concatenate()([dense(x), dense(y)]))


def dictionaries():
    x, y = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    z = layers.Concatenate()([x, y])
    return keras.Model(
        {"second": y, "first": x}, {"class": layers.Dense(3, "softmax")(z), "amount": layers.Dense(1)(z)}
    )


def operators():
    x = inputs = keras.Input((6,))
    y = layers.Dense(6)(x)
    return keras.Model(inputs, [(x + y) * 0.5 - y / 3.0, ops.maximum(x, y), y[:, 1:4]])


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """A user's layer: inner layers, a weight, and operations."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, "relu")
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], self.units))
        self.gate = self.add_weight(shape=(self.units,), name="gate")
        self.blocks = [self.add_weight(shape=(self.units, self.units), name=f"block{i}") for i in range(2)]

    def call(self, x):
        y = self.norm(self.dense(x))
        for block in self.blocks:
            y = ops.tanh(ops.matmul(y, block))
        return y * ops.sigmoid(self.gate) + ops.mean(x, axis=-1, keepdims=True)


class Subclassed(keras.Model):
    """A subclassed model, built by being called."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(6, "relu")
        self.block = Block(4)

    def call(self, inputs, training=False):
        return ops.softmax(self.block(self.first(inputs)), axis=-1)


class Parts(keras.Model):
    """A subclassed model that takes and gives dictionaries, and holds layers in containers."""

    def __init__(self):
        super().__init__()
        self.parts = {"first": layers.Dense(2), "others": [layers.Dense(2, "relu")]}

    def call(self, inputs):
        product = self.parts["first"](inputs["u"]) * self.parts["others"][0](inputs["v"])
        return {"product": product, "sum": inputs["u"] + inputs["v"]}


def custom():
    inputs = keras.Input((5,))
    return keras.Model(inputs, Block(4)(inputs))


def subclassed():
    inputs = keras.Input((5,))
    return keras.Model(inputs, Subclassed()(inputs))


def autoencoder():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(2, 3, strides=2, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.AveragePooling2D(2),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


def transformer():
    x = inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(12, 8)(x) + layers.Embedding(6, 8)(ops.arange(6))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, "gelu")(x)))
    return keras.Model(inputs, layers.Dense(12, "softmax")(x))


CASES = [
    Case("mlp", mlp),
    Case("lenet", lenet),
    Case("resnet", resnet),
    Case("nested", nested),
    Case("shared", shared),
    Case("dictionaries", dictionaries),
    Case("operators", operators),
    Case("custom", custom),
    Case("subclassed", subclassed),
    Case("autoencoder", autoencoder),
    Case("transformer", transformer, high=12),
]
