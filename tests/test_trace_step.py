"""One step of training on shares against Keras' own: weights after it, and what the trace says of the plan."""

import keras
import numpy as np
import pytest
from keras import layers

from private_keras.errors import InputError, UnsupportedError
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import Target
from tests.layer_cases.case import randomise
from tests.stepping import feed, new_weights, run_step, targets, train_error

RNG = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(5).bit_generator.state


def real(*shape):
    return RNG.normal(size=shape).astype("float32")


def compiled(*inner, shape=(5,), loss="mse", optimizer=None):
    model = keras.Sequential([keras.Input(shape), *inner])
    randomise(model)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    return model


def test_a_dense_network_takes_keras_own_step():
    error, change = train_error(compiled(layers.Dense(8, "relu"), layers.Dense(3)), real(6, 5), real(6, 3))
    assert error < 5e-5 < 1e-2 < change


def test_regularisers_of_weights_and_activities_and_added_losses_are_part_of_the_loss():
    class Adds(keras.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x**2) * 0.3)
            return x

    model = compiled(
        layers.Dense(4, "relu", kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2"),
        Adds(),
        layers.ActivityRegularization(l2=0.1),
        layers.Dense(3),
    )
    error, change = train_error(model, real(6, 5), real(6, 3))
    assert error < 5e-5 < 1e-2 < change


def test_batch_normalization_learns_and_moves_its_averages():
    model = compiled(layers.Dense(6), layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.Dense(3))
    error, change = train_error(model, real(8, 5), real(8, 3))
    assert error < 5e-4 < 1e-2 < change


def test_frozen_layers_stay_and_frozen_batch_normalization_predicts():
    model = compiled(layers.Dense(6, trainable=False), layers.BatchNormalization(trainable=False), layers.Dense(3))
    traced = trace_step(model, "train", 4, y=Target((3,)))
    trained = [name for name in traced.carried if name.startswith("weight/")]
    assert sorted(name.rsplit("/", 1)[-1] for name in trained) == ["bias", "kernel"]
    error, change = train_error(model, real(4, 5), real(4, 3))
    assert error < 5e-5 < 1e-2 < change


def test_prediction_with_weights_on_the_servers_is_keras_own():
    model = compiled(layers.Dense(6, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3))
    x = real(4, 5)
    traced = trace_step(model, "predict", 4)
    result = run_step(traced, feed(traced, x))[traced.outputs]
    assert np.max(np.abs(result - model.predict(x, verbose=0))) < 1e-3
    assert not traced.carried and not traced.targets


def test_nothing_is_opened_in_training():
    traced = trace_step(compiled(layers.Dense(3)), "train", 4, y=Target((3,)))
    assert traced.plan.outputs and all(output.receivers == () for output in traced.plan.outputs)
    assert {output.name: output.carry for output in traced.plan.outputs} == {
        output: state for state, output in traced.carried.items()
    }


def test_names_of_states_do_not_depend_on_kind_or_batch():
    model = compiled(layers.Dense(6, "relu"), layers.BatchNormalization(), layers.Dense(3))
    train = trace_step(model, "train", 4, y=Target((3,)))
    predict = trace_step(model, "predict", 32)
    for name, state in predict.states.items():
        assert (train.states[name].shape, train.states[name].fraction) == (state.shape, state.fraction)


def test_public_layers_are_public_inputs():
    model = compiled(layers.Dense(6, "relu", trainable=False), layers.Dense(3))
    model.layers[0].public = True
    traced = trace_step(model, "train", 4, y=Target((3,)))
    public = {item.name for item in traced.plan.inputs if item.public}
    assert {item.variable.path for item in traced.public.values() if item.variable is not None} == {
        w.path for w in model.layers[0].weights
    }
    assert set(traced.public) == public
    error, change = train_error(model, real(4, 5), real(4, 3))
    assert error < 5e-5 < 1e-2 < change


def test_public_layers_that_would_be_trained_are_refused():
    model = compiled(layers.Dense(6, "relu"), layers.Dense(3))
    model.layers[0].public = True
    with pytest.raises(UnsupportedError, match="public and trainable.*trainable=False"):
        trace_step(model, "train", 4, y=Target((3,)))


def test_a_loss_that_does_not_fit_is_told_before_anything_is_shared():
    with pytest.raises(UnsupportedError, match="loss: it does not fit outputs and targets"):
        trace_step(compiled(layers.Dense(3)), "train", 4, y=Target((7,)))


def test_a_model_that_is_not_compiled_is_told():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(InputError, match="not compiled"):
        trace_step(model, "train", 4, y=Target((2,)))


@pytest.mark.parametrize("kind", ["fit", None])
def test_kinds_are_known(kind):
    with pytest.raises(InputError, match="expected one of predict, evaluate, train"):
        trace_step(compiled(layers.Dense(2)), kind, 4)


def test_several_steps_follow_keras():
    model = compiled(layers.Dense(8, "relu"), layers.Dense(2))
    start = model.get_weights()
    data = [(real(6, 5), real(6, 2)) for _ in range(5)]
    for x, y in data:
        traced = trace_step(model, "train", 6, y=targets(y))
        model.set_weights(new_weights(traced, run_step(traced, feed(traced, x, y)), model))
    ours = model.get_weights()
    model.set_weights(start)
    for x, y in data:
        model.train_on_batch(x, y)
    assert max(np.max(np.abs(a - b)) for a, b in zip(ours, model.get_weights(), strict=True)) < 1e-4


def test_evaluation_adds_to_the_metrics_what_keras_would():
    model = compiled(layers.Dense(6, "relu"), layers.BatchNormalization(), layers.Dense(3))
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = real(4, 5), real(4, 3)
    traced = trace_step(model, "evaluate", 4, y=targets(y))
    assert all(output.receivers == () for output in traced.plan.outputs)
    assert all(traced.states[name].kind == "metric" for name in traced.carried)
    results = run_step(traced, feed(traced, x, y))
    sums = {name.rsplit("/", 2)[-2]: float(results[output]) for name, output in traced.carried.items()}
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    assert abs(sums["loss"] / 4 - expected["loss"]) < 1e-4
    assert abs(sums["mean_absolute_error"] / 12 - expected["mae"]) < 1e-4 or abs(
        sums["mean_absolute_error"] / 4 - expected["mae"]
    ) < 1e-4


def test_prediction_asks_for_no_losses_of_layers():
    def fails(x):
        raise RuntimeError("asked for")

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activity_regularizer=fails)])
    assert trace_step(model, "predict", 2).plan.steps
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedError, match="asked for"):
        trace_step(model, "evaluate", 2, y=Target((3,)))
