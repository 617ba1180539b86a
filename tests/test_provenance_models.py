"""What steps of real models show: training and evaluation on others' data, and with others' weights, reduce over rows.

Whoever changes passes, gradients or layers so that rows are lost on the way makes `fit` on shares of others impossible.
"""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from private_keras.plan.provenance import Level, trace
from private_keras.tracing.training.step import trace_step
from tests.stepping import targets

BATCH = 8


def logistic():
    return (5,), [layers.Dense(1, activation="sigmoid")], (1,), "binary_crossentropy", ["accuracy", "AUC"], "adam"


def dense():
    made = [
        layers.BatchNormalization(), layers.Dense(6, activation="relu"), layers.Dropout(0.2),
        layers.Dense(3, activation="softmax"),
    ]  # fmt: skip
    return (5,), made, (3,), "categorical_crossentropy", ["accuracy"], keras.optimizers.Adam(global_clipnorm=1.0)


def convolutional():
    made = [
        layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D(), layers.BatchNormalization(),
        layers.DepthwiseConv2D(2), layers.Flatten(), layers.Dense(1),
    ]  # fmt: skip
    return (8, 8, 2), made, (1,), "mse", ["mae"], "sgd"


def recurrent():
    made = [
        layers.LSTM(3, return_sequences=True), layers.TimeDistributed(layers.Dense(2)),
        layers.GlobalAveragePooling1D(), layers.Dense(1),
    ]  # fmt: skip
    return (4, 3), made, (1,), "mse", ["mae"], "rmsprop"


@functools.cache
def step(make, kind, batch=BATCH):
    shape, made, target, loss, metrics, optimizer = make()
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *made])
    model.compile(optimizer, loss, metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    y = np.zeros((batch, *target), np.float32)
    model.evaluate(np.zeros((batch, *shape)), y, verbose=0)  # builds metrics
    return trace_step(model, kind, batch, y=targets(y))


def shown(traced, held, batch_names, others=()):
    given = {name: {"source": Level.RAW} for name in held} | {name: {"another": Level.RAW} for name in others}
    found = trace(traced.plan, given, batch_names)
    return {name: value["source"].level for name, value in found.items() if "source" in value}


def data_of(traced):
    return [spec.name for spec in (*traced.inputs, *traced.targets)]


MODELS = (logistic, dense, convolutional, recurrent)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_steps_on_others_data_keep_what_is_reduced(make, kind):
    traced = step(make, kind)
    names = data_of(traced)
    for held, others in ((names, ()), (names[:1], ()), (names[:1], names[1:]), (names[1:], names[:1])):
        levels = shown(traced, held, names, others)
        wanted = {output for output in traced.carried.values() if "metric" in output}
        if kind == "train":
            wanted |= {output for output in traced.carried.values() if "weight" in output and "kernel" in output}
        assert wanted <= levels.keys() and set(levels.values()) == {Level.REDUCED}


def test_labels_of_others_are_shown_to_who_knows_all_predictions():
    """Whoever has the features and the weights can make a loss that one label alone enters."""
    traced = step(logistic, "evaluate")
    names = data_of(traced)
    levels = shown(traced, names[1:], names)
    assert max(levels.values()) is Level.RAW


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_metrics_with_others_weights_are_reduced(make):
    traced = step(make, "evaluate")
    weights = [name for name in traced.states if name.startswith("weight")]
    levels = shown(traced, weights, data_of(traced))
    metrics = {name: level for name, level in levels.items() if "metric" in name}
    assert metrics and set(metrics.values()) == {Level.REDUCED}


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_batch_of_one_row_is_reduced_only_beside_others(kind):
    traced = step(logistic, kind, batch=1)
    names = data_of(traced)
    assert max(shown(traced, names, names).values()) > Level.REDUCED
    before = {name: {"source": Level.REDUCED} for name in traced.states}
    held = {name: {"source": Level.RAW} for name in names}
    found = trace(traced.plan, {**before, **held}, names)
    assert {value["source"].level for value in found.values()} == {Level.REDUCED}
