"""Keras' metrics on shares against Keras: over several batches, at the edges, and as plans that open results alone.

`python -m tests.test_metrics` prints the largest error of each over several data sets.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import metrics as m
from keras import ops

from private_keras.errors import UnsupportedError
from private_keras.tracing.training.results import trace_results
from tests.metric_cases import by_keras, compiled, on_shares, simulated, trace
from tests.metric_zoo import CASES, batch, batches, rounded


def difference(found: dict, expected: dict) -> float:
    """Largest difference of results below 1, or relative one of others; names and order must be Keras'."""
    assert list(found) == list(expected)
    worst = 0.0
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        worst = max(worst, float(np.max(np.abs(found[name] - value) / np.maximum(np.abs(value), 1))))
    return worst


def compare(made: list, given: list, weighted: bool = False) -> float:
    model = compiled(None, made) if weighted else compiled(made)
    return difference(on_shares(model, given), by_keras(model, given))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_metric_is_keras_own(case):
    assert compare([case.make()], batches(case.data, False, seed=1)) <= case.error


@pytest.mark.parametrize("case", [c for c in CASES[::3] if c.weights], ids=str)
def test_with_weights_of_samples(case):
    assert compare([case.make()], batches(case.data, True, seed=2), weighted=True) <= 4 * case.error


def test_the_last_batch_of_an_epoch_may_be_smaller():
    made = [m.R2Score(), m.RootMeanSquaredError(), "mae", m.CosineSimilarity()]
    given = batches("real", True, seed=12, sizes=(9, 9, 1))
    assert compare(made, given, weighted=True) < 5e-5
    assert compare([m.AUC(), "accuracy"], batches("binary", False, seed=13, sizes=(5, 5, 1))) < 1e-5


BINARY = [m.AUC, m.Precision, m.Recall, m.BinaryAccuracy, m.TruePositives, lambda: m.AUC(curve="PR")]


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only_and_divisions_by_zero(label):
    rng = np.random.default_rng(3)
    given = [(np.full((9, 1), label, "float32"), rounded(rng.uniform(size=(9, 1))))]
    assert compare([make() for make in BINARY], given) < 1e-5


def test_predictions_at_the_ends_and_on_thresholds():
    p = rounded(np.array([[0], [1], [0.5], [0.25], [1], [0], [0.5]]))
    y = np.array([[0], [1], [1], [0], [0], [1], [0]], "float32")
    assert compare([*(make() for make in BINARY), m.AUC(num_thresholds=5)], [(y, p)]) < 1e-5


def test_samples_without_weight_count_for_nothing():
    y, p = batch(np.random.default_rng(4), "binary", 8)
    weights = np.array([0, 1, 0, 2, 0, 1, 0, 0], "float32")
    assert compare([make() for make in BINARY], [(y, p, weights)], weighted=True) < 1e-5
    assert compare([make() for make in BINARY], [(y, p, 0 * weights)], weighted=True) < 1e-5


def test_ties_go_to_the_lowest_class():
    p = np.array([[0.5, 0.5, 0], [0.25, 0.25, 0.25], [0, 0.5, 0.5]], "float32")
    for y in ([0, 0, 1], [1, 1, 2]):
        assert compare([m.SparseCategoricalAccuracy(), m.SparseTopKCategoricalAccuracy(1)], [(np.int32(y), p)]) == 0


def test_constant_targets_and_scores_of_zero():
    y, p = np.full((6, 2), 3, "float32"), rounded(np.random.default_rng(5).normal(size=(6, 2)))
    assert compare([m.R2Score()], [(y, p)]) == 0
    assert compare([m.F1Score(threshold=0.5)], [(0 * y, 0 * np.abs(p))]) == 0


def test_a_long_epoch_loses_nothing():
    """Sums as after 10^8 samples: counts exact, their quotients too."""
    model = compiled([m.Precision(name="mine"), m.AUC(num_thresholds=3)])
    y, p = batch(np.random.default_rng(6), "binary", 8)
    _, done = trace(model, y, p)
    counts = {n: s for n, s in done.states.items() if n.endswith("tives")}
    assert len(counts) == 6 and all(state.fraction == 0 for state in counts.values())
    step = SimpleNamespace(states=done.states, tallies=done.tallies)
    traced = trace_results(model, step)
    rng = np.random.default_rng(7)
    held = {n: rng.integers(1 << 24, 1 << 28, s.shape).astype("float64") for n, s in done.states.items()}
    found = traced.read(simulated(traced.plan, {n: held[n] for n in traced.states}), {"metric/1/loss/count": 1e8})
    tp, fp = (held[f"metric/{i}/mine/{kind}_positives"] for i, kind in ((2, "true"), (3, "false")))
    assert abs(found["mine"] - (tp / (tp + fp))[0]) < 1e-6
    assert abs(found["loss"] - held["metric/0/loss/total"] / 1e8) < 1e-6


class Largest(m.Metric):
    """Replaces its variable by something that depends on it."""

    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.best = self.add_variable(shape=(), initializer="zeros", name="best")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.best.assign(ops.maximum(self.best, ops.max(ops.abs(y_true - y_pred))))

    def result(self):
        return self.best


class Running(m.Metric):
    """Reads, while it is updated, a variable that is public."""

    def __init__(self, name="running"):
        super().__init__(name=name)
        self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")
        self.mean = self.add_variable(shape=(), initializer="zeros", name="mean")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign_add(1.0)
        self.mean.assign(self.mean + (ops.mean(y_pred) - self.mean) / self.seen)

    def result(self):
        return {"running_mean": self.mean, "running_steps": self.seen}


def nearby(y_true, y_pred):
    return ops.mean(ops.cast(ops.abs(y_true - y_pred) < 1.0, "float32"), axis=-1)


def test_metrics_that_users_write():
    assert compare([Largest(), Running(), nearby, "mae"], batches("real", False, seed=8)) < 1e-5


def test_what_is_public_is_counted_by_the_client():
    y, p = batch(np.random.default_rng(9), "real", 8)
    _, done = trace(compiled(["mae", m.R2Score(name="r2_score")]), y, p)
    kept = {name.split("/", 2)[2] for name in done.states}
    counted = {name.split("/", 2)[2] for name in done.tallies}
    assert counted == {"loss/count", "mean_absolute_error/count", "r2_score/num_samples", "r2_score/count"}
    score = {f"r2_score/{name}" for name in ("squared_sum", "sum", "residual")}
    assert kept == {"loss/total", "mean_absolute_error/total", *score}


@pytest.mark.parametrize("weighted", [False, True])
def test_only_results_are_opened(weighted):
    rng = np.random.default_rng(10)
    y, p = batch(rng, "binary", 8)
    made = [m.AUC(), "mae", m.F1Score(threshold=0.5), m.RootMeanSquaredError()]
    model = compiled(None, made) if weighted else compiled(made)
    plan, done = trace(model, y, p, rounded(rng.uniform(size=8)) if weighted else None)
    assert all(not output.receivers for output in plan.outputs)
    results = trace_results(model, SimpleNamespace(states=done.states, tallies=done.tallies)).plan
    assert results.kind == "evaluate"
    sizes = [results.types[output.value].size for output in results.outputs]
    assert all(output.receivers == ("client",) for output in results.outputs)
    assert sizes == [1, 1, 1, 1, 1]  # loss and four metrics, of one number each


def test_what_cannot_run_says_why():
    y, p = batch(np.random.default_rng(11), "binary", 4)
    with pytest.raises(AssertionError, match="as integers"):
        trace(compiled([m.BinaryIoU()]), y, p)

    class Own(keras.Model):
        def call(self, x):
            return x

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            return {"mine": ops.mean(y_pred)}

    model = Own()
    model.compile(loss=None, metrics=["mae"])
    with pytest.raises(UnsupportedError, match="compute_metrics"):
        trace(model, y, p)

    adjusted = compiled([m.R2Score(num_regressors=1)])
    _, done = trace(adjusted, y, p)
    with pytest.raises(UnsupportedError, match="result"):
        trace_results(adjusted, SimpleNamespace(states=done.states, tallies=done.tallies))


def largest_errors(seeds: range) -> dict[str, float]:
    """By class of the metric, with weights of samples and without."""
    worst: dict[str, float] = {}
    for case in CASES:
        for seed in seeds:
            for weights in (False, True)[: 1 + case.weights]:
                made = case.make()
                name = f"{type(made).__name__} {case.data}"
                error = compare([made], batches(case.data, weights, seed), weights)
                worst[name] = max(worst.get(name, 0.0), error)
    return worst


if __name__ == "__main__":
    for label, error in largest_errors(range(20, 23)).items():
        print(f"{label:40} {error:.1e}")
