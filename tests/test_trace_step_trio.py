"""A traced step on three parties: the plan needs nothing that simulated shares have and servers have not."""

import keras
import numpy as np
import pytest
from keras import layers

from private_keras.server.execute import Program
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import Target
from tests.layer_cases.case import randomise
from tests.stepping import feed, targets, units
from tests.trio import Session, signed

RNG = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(6).bit_generator.state


def on_three_parties(traced, values):
    """Weights that a step gives, by name of their states."""
    values = values | {name: keras.ops.convert_to_numpy(s.variable) for name, s in traced.states.items()}
    values |= {name: given[0] for name, given in traced.schedule(0, 1).items()}
    secret = [item for item in traced.plan.inputs if not item.public]
    public = {i.name: units(values[i.name], i.type.fraction) for i in traced.plan.inputs if i.public}
    program = Program(traced.plan)
    names = [output.name for output in traced.plan.outputs]

    def run(p, *shares):
        results = program.compute(p, dict(zip((i.name for i in secret), shares, strict=True)) | public)
        return tuple(results[name] for name in names)

    opened = Session().run(run, *(units(values[i.name], i.type.fraction) for i in secret))
    types = {o.name: traced.plan.types[o.value].fraction for o in traced.plan.outputs}
    return {name: signed(y) / 2.0 ** types[name] for name, y in zip(names, opened, strict=True)}


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_three_parties_take_keras_own_step(optimizer):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.0),
            layers.Dense(3, "softmax"),
        ]
    )
    randomise(model)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    x, y = RNG.normal(size=(6, 6, 6, 1)).astype("float32"), np.array([0, 2, 1, 1, 0, 2])
    traced = trace_step(model, "train", 6, y=targets(y))
    found = on_three_parties(traced, feed(traced, x, y))
    before = model.get_weights()
    hits = np.sum(np.argmax(model(x, training=True), 1) == y)
    model.set_weights(before)  # the call moved averages
    model.train_on_batch(x, y)
    for name, state in traced.states.items():
        if state.kind == "weight":
            error = np.max(np.abs(found[traced.carried[name]] - keras.ops.convert_to_numpy(state.variable)))
            assert error < 1e-3, f"{name}: {error:.1e}"
    (accuracy,) = (n for n in traced.carried if "accuracy" in n)
    assert found[traced.carried[accuracy]] == hits


def test_random_layers_draw_the_same_at_all_parties():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dropout(0.5), layers.GaussianNoise(0.1),
                              layers.Dense(2)])  # fmt: skip
    randomise(model)
    model.compile("sgd", "mse")
    x, y = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 2))
    traced = trace_step(model, "train", 5, y=Target((2,)), seed=3)
    found = on_three_parties(traced, feed(traced, x, y))
    again = on_three_parties(traced, feed(traced, x, y))
    for name in (traced.carried[name] for name, state in traced.states.items() if state.kind == "weight"):
        assert np.max(np.abs(found[name] - again[name])) < 1e-4  # but for the rounding, which is fresh each time
