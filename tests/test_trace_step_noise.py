"""Layers that are random in training, against Keras' own given the same numbers; and which numbers they are."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from keras.src import backend

from private_keras.plan.records import PlanOutput
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import Target
from tests.layer_cases.case import randomise
from tests.stepping import feed, new_weights, run_step

RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(4).bit_generator.state


def real(*shape):
    return RNG.normal(size=shape).astype("float32")


def compiled(*inner, shape):
    model = keras.Sequential([keras.Input(shape), *inner])
    randomise(model)
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    return model


def drawn(traced, values, iteration):
    """What the servers draw in a step, in the order of the layers."""
    steps = sorted((s for s in traced.plan.steps if s.op == "random"), key=lambda s: s.attributes["stream"])
    outputs = tuple(PlanOutput(step.output, f"drawn{i}", ()) for i, step in enumerate(steps))
    results = run_step(replace(traced, plan=replace(traced.plan, outputs=outputs)), values, iteration)
    return [results[output.name] for output in outputs]


def given_these(monkeypatch, numbers):
    """Makes Keras draw these, one tensor after the other."""
    numbers = [n.astype("float32") for n in numbers]

    def dropout(inputs, rate, noise_shape=None, seed=None):
        mask = numbers.pop(0)
        wanted = [s if n is None else n for n, s in zip(noise_shape or inputs.shape, inputs.shape, strict=True)]
        expected = [n for n in wanted if n != 1]
        assert [n for n in mask.shape if n != 1] == expected
        mask = mask if mask.ndim == len(inputs.shape) else mask.reshape(inputs.shape)
        return inputs * mask / (1 - rate)

    monkeypatch.setattr(backend.random, "dropout", dropout)
    monkeypatch.setattr(
        backend.random, "normal", lambda shape, mean, stddev, dtype=None, seed=None: numbers.pop(0) * stddev + mean
    )
    monkeypatch.setattr(keras.src.ops.random, "uniform", lambda shape, seed=None: numbers.pop(0) * 2 - 1)
    return numbers


@pytest.mark.parametrize(
    ("shape", "random"),
    [
        ((6,), lambda: layers.Dropout(0.3)),
        ((6,), lambda: layers.Dropout(0.5, seed=3)),
        ((3, 6), lambda: layers.Dropout(0.4, noise_shape=(None, 1, None))),
        ((3, 6), lambda: layers.SpatialDropout1D(0.3)),
        ((4, 4, 6), lambda: layers.SpatialDropout2D(0.3)),
        ((6, 2, 3), lambda: layers.SpatialDropout2D(0.3, data_format="channels_first")),
        ((2, 2, 2, 6), lambda: layers.SpatialDropout3D(0.3)),
        ((6,), lambda: layers.GaussianDropout(0.2)),
        ((6,), lambda: layers.GaussianNoise(0.5)),
        ((6,), lambda: layers.AlphaDropout(0.3)),
        ((3, 6), lambda: layers.LSTM(4, dropout=0.4)),
        ((3, 6), lambda: layers.GRU(4, dropout=0.4)),
        ((3, 6), lambda: layers.SimpleRNN(4, dropout=0.4)),
    ],
    ids=["dropout", "seed", "noise-shape", "spatial-1d", "spatial-2d", "channels-first", "spatial-3d",
         "gaussian-dropout", "gaussian-noise", "alpha", "lstm", "gru", "simple-rnn"],
)  # fmt: skip
def test_keras_takes_the_same_step_with_the_same_numbers(monkeypatch, shape, random):
    model = compiled(layers.Dense(shape[-1]), random(), layers.Flatten(), layers.Dense(2), shape=shape)
    x, y = real(8, *shape), real(8, 2)
    traced = trace_step(model, "train", 8, y=Target((2,)), seed=1)
    values = feed(traced, x, y)
    found = new_weights(traced, run_step(traced, values, 5), model)
    before = model.get_weights()
    left = given_these(monkeypatch, drawn(traced, values, 5))
    assert left
    model.train_on_batch(x, y)
    assert not left, "Keras draws other numbers"
    error = max(float(np.max(np.abs(a - b))) for a, b in zip(found, model.get_weights(), strict=True))
    change = max(float(np.max(np.abs(a - b))) for a, b in zip(before, found, strict=True))
    assert error < 1e-4 < 1e-2 < change


def masks(seed, iteration, layer_seed=None, rate=0.3):
    model = compiled(layers.Dense(20), *(layers.Dropout(rate, seed=layer_seed) for _ in range(2)), shape=(50,))
    traced = trace_step(model, "train", 40, y=Target((20,)), seed=seed)
    return drawn(traced, feed(traced, real(40, 50), real(40, 20)), iteration)


def test_numbers_depend_on_seed_and_iteration_and_place_alone():
    first, second = masks(1, 0)
    again = masks(1, 0)
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])
    for other in (second, masks(1, 1)[0], masks(2, 0)[0]):
        assert not np.array_equal(first, other)


def test_a_layer_keeps_to_its_own_seed():
    assert np.array_equal(masks(1, 0, 9)[0], masks(2, 0, 9)[0])
    assert not np.array_equal(masks(1, 0, 9)[0], masks(1, 0, 8)[0])
    assert not np.array_equal(masks(1, 0, 9)[0], masks(1, 1, 9)[0])


def test_as_many_are_kept_as_the_rate_says():
    kept = np.mean([m.mean() for m in masks(3, 2, rate=0.3)])
    assert abs(kept - 0.7) < 0.06  # five standard deviations


def test_without_a_seed_runs_differ_unless_keras_is_seeded():
    assert not np.array_equal(masks(None, 0)[0], masks(None, 0)[0])
    keras.utils.set_random_seed(7)
    first = masks(None, 0)[0]
    keras.utils.set_random_seed(7)
    assert np.array_equal(first, masks(None, 0)[0])


@pytest.mark.parametrize("kind", ["evaluate", "predict"])
def test_nothing_is_random_but_training(kind):
    model = compiled(layers.Dropout(0.5), layers.GaussianNoise(0.5), layers.Dense(2), shape=(4,))
    traced = trace_step(model, kind, 3, y=None if kind == "predict" else Target((2,)))
    assert not any(step.op == "random" for step in traced.plan.steps)
    assert "public/seed" not in traced.public


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_of_nothing_and_of_all(rate):
    model = compiled(layers.Dropout(rate), layers.Dense(2), shape=(4,))
    before = model.get_weights()
    x, y = real(3, 4), real(3, 2)
    traced = trace_step(model, "train", 3, y=Target((2,)))
    kernel, bias = new_weights(traced, run_step(traced, feed(traced, x, y)), model)
    model.train_on_batch(x, y)
    assert np.max(np.abs(kernel - model.get_weights()[0])) < 1e-4
    assert np.max(np.abs(bias - model.get_weights()[1])) < 1e-4
    assert np.allclose(kernel, before[0], atol=1e-5) == (rate == 1)
