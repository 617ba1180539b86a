"""Losses and metrics of whole models: Keras' names and order, targets of all shapes, and three parties."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import metrics as m

from private_keras.server.execute import Program
from private_keras.tracing.training.results import trace_results
from private_keras.tracing.training.step import trace_step
from tests.layer_cases.case import randomise
from tests.metric_cases import simulated, units
from tests.stepping import feed, run_step, targets
from tests.trio import Session

RNG = np.random.default_rng(21)


def real(*shape):
    return RNG.normal(size=shape).astype("float32")


def network(*ends, loss, metrics=None, weighted=None, **more):
    """A model of as many outputs as there are ends (units, activation, name)."""
    x = keras.Input((6,))
    h = layers.Dense(8, "relu")(x)
    outputs = [layers.Dense(n, a, name=name)(h) for n, a, name in ends]
    model = keras.Model(x, outputs if len(outputs) > 1 else outputs[0])
    randomise(model)
    model.compile("sgd", loss, metrics=metrics, weighted_metrics=weighted, **more)
    return model


def evaluated(model, x, y, weights=None, batches=2):
    """Results on shares after some steps of evaluation, and Keras' own."""
    rows = len(x) // batches
    held, tallies = {}, {}
    traced = trace_step(
        model, "evaluate", rows, y=targets(keras.tree.map_structure(lambda a: a[:rows], y)),
        sample_weight=weights is not None,
    )
    assert not any(output.receivers for output in traced.plan.outputs)
    for i in range(batches):
        given = (x, y) if weights is None else (x, y, weights)
        part = keras.tree.map_structure(lambda a: a[i * rows : (i + 1) * rows], given)  # noqa: B023
        opened = run_step(traced, {**feed(traced, *part), **held})
        held = {name: opened[output] for name, output in traced.carried.items()}
        tallies = {name: tallies.get(name, 0.0) + added for name, added in traced.tallies.items()}
    results = trace_results(model, traced)
    assert results.states.items() <= traced.states.items()
    given = {name: held[name] for name in results.states} | {name: tallies[name] for name in results.public}
    found = results.read(simulated(results.plan, given), tallies)
    expected = model.evaluate(x, y, batch_size=rows, sample_weight=weights, verbose=0, return_dict=True)
    assert list(found) == list(model.get_metrics_result())
    return found, expected


def check(found, expected, names):
    assert list(found) == names
    assert set(expected) == set(names)
    for name in names:
        assert abs(float(found[name]) - expected[name]) < 2e-4 * max(1, abs(expected[name])), name


@pytest.mark.parametrize("end", ["sigmoid", "softmax", "sparse"])
def test_accuracy_is_chosen_as_keras_chooses_it(end):
    labels = RNG.integers(0, 4, 12)
    last, loss, y = {
        "sigmoid": ((1, "sigmoid", "y"), "binary_crossentropy", (labels[:, None] % 2).astype("float32")),
        "softmax": ((4, "softmax", "y"), "categorical_crossentropy", np.eye(4, dtype="float32")[labels]),
        "sparse": ((4, "softmax", "y"), "sparse_categorical_crossentropy", labels.astype("int32")),
    }[end]
    model = network(last, loss=loss, metrics=["acc"])
    check(*evaluated(model, real(12, 6), y), ["loss", "acc"])


def test_labels_that_the_loss_made_one_hot_are_not_compared():
    model = network((4, "softmax", "y"), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    traced = trace_step(model, "train", 8, y=targets(np.zeros(8, "int32")))
    assert not any(step.op == "equal" for step in traced.plan.steps)
    assert sum(step.op == "argmax" for step in traced.plan.steps) == 1


def test_several_outputs_report_each_loss_and_metric_under_its_name():
    model = network(
        (1, "sigmoid", "yes"), (3, None, "size"),
        loss={"yes": "binary_crossentropy", "size": "mse"}, loss_weights={"yes": 0.5, "size": 2.0},
        metrics={"yes": ["accuracy", m.AUC(name="auc")], "size": "mae"}, weighted={"size": ["mse"]},
    )  # fmt: skip
    y = [RNG.integers(0, 2, (12, 1)).astype("float32"), real(12, 3)]
    found, expected = evaluated(model, real(12, 6), y)
    names = ["loss", "yes_accuracy", "yes_auc", "size_mae", "size_mse", "yes_loss", "size_loss"]
    check(found, expected, names)


def test_sample_weights_reach_losses_and_weighted_metrics_only():
    model = network((1, "sigmoid", "y"), loss="mse", metrics=["mae"], weighted=["mae", m.Precision(name="right")])
    y = RNG.integers(0, 2, (12, 1)).astype("float32")
    weights = RNG.uniform(0.2, 2, 12).astype("float32")
    check(*evaluated(model, real(12, 6), y, weights), ["loss", "mae", "weighted_mae", "right"])


def test_a_training_step_measures_before_it_updates():
    model = network((3, None, "y"), loss="mse", metrics=["mae"])
    x, y = real(8, 6), real(8, 3)
    traced = trace_step(model, "train", 8, y=targets(y))
    opened = run_step(traced, feed(traced, x, y))
    totals = {name.rsplit("/", 2)[1]: opened[output] for name, output in traced.carried.items() if "total" in name}
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    assert abs(totals["loss"] / 8 - before["loss"]) < 1e-4
    assert abs(totals["mean_absolute_error"] / 8 - before["mae"]) < 1e-4


def test_three_parties_find_the_same_results():
    metrics = [m.AUC(30, name="auc"), m.F1Score("macro", 0.5, name="f1")]
    model = network((1, "sigmoid", "y"), loss="mse", metrics=metrics)
    y = RNG.integers(0, 2, (8, 1)).astype("float32")
    traced = trace_step(model, "evaluate", 8, y=targets(y))
    held = run_step(traced, feed(traced, real(8, 6), y))
    results = trace_results(model, traced)
    given = {name: held[traced.carried[name]] for name in results.states}
    expected = simulated(results.plan, given)
    program, names = Program(results.plan), [item.name for item in results.plan.inputs]

    def run(p, *shares):
        made = program.compute(p, dict(zip(names, shares, strict=True)))
        return tuple(made[output.name] for output in results.plan.outputs)

    session = Session()
    opened = session.run(run, *(units(given[name], results.states[name].fraction).reshape(
        results.states[name].shape) for name in names))  # fmt: skip
    for output, value in zip(results.plan.outputs, opened, strict=True):
        fraction = results.plan.types[output.value].fraction
        assert np.max(np.abs(value.astype(np.int64) / 2.0**fraction - expected[output.name])) < 2e-5
