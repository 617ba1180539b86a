"""What losses promise beyond right numbers: saturated logits, users' own losses, cost, and mistakes that are found."""

from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as drawn
from keras import activations, losses, ops

from private_keras.errors import InputError, UnsupportedError
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account
from private_keras.tracing.states import StateTensor, recording
from private_keras.tracing.training.losses import Labels, check_shapes, labels
from tests.loss_cases import distance, errors, lower, record
from tests.test_losses import CASES, LABELS, LOGITS, NUMBERS, SATURATED, SCORES, SOFT, arrays_of, loss

softmax, sigmoid = activations.softmax, activations.sigmoid

# --- saturated logits ------------------------------------------------------------------------------------------------


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def numbers(shape, low, high):
    """That the servers hold exactly."""
    return drawn(np.float64, shape, elements=st.floats(low, high).map(lambda x: round(x * 2**18) / 2**18))


CROSS_ENTROPY = lower(loss(losses.SparseCategoricalCrossentropy, softmax, reduction="none"),
                      {"z": LOGITS[:4], "y": NUMBERS[:4]})
BINARY = lower(loss(losses.BinaryCrossentropy, sigmoid, reduction="none"), {"z": LOGITS[:4], "y": SOFT[:4]})


@settings(max_examples=60, deadline=None)
@given(numbers((4, 10), -100, 100), drawn(np.int64, 4, elements=st.integers(0, 9)))
def test_cross_entropy_of_any_logits(z, y):
    value, gradient = CROSS_ENTROPY.run({"z": z, "y": y})
    away = log_softmax(z)
    assert np.max(np.abs(value + away[np.arange(4), y])) <= 5e-4
    assert np.max(np.abs(gradient - (np.exp(away) - np.eye(10)[y]))) <= 1e-4


@settings(max_examples=60, deadline=None)
@given(numbers((4, 10), -100, 100), numbers((4, 10), 0, 1))
def test_binary_cross_entropy_of_any_logits(z, y):
    value, gradient = BINARY.run({"z": z, "y": y})
    assert np.max(np.abs(value - np.mean(np.logaddexp(0, z) - y * z, axis=-1))) <= 3e-4
    assert np.max(np.abs(gradient - ((1 + np.tanh(z / 2)) / 2 - y) / 10)) <= 3e-5


def test_a_loss_is_not_clipped_where_keras_clips_it():
    """Keras has only probabilities there: it stops at -log(1e-7) = 16.1, with a gradient of 0."""
    function = loss(losses.KLDivergence, softmax, reduction="none")
    away = log_softmax(SATURATED)
    value, gradient = lower(function, {"z": SATURATED, "y": LABELS}).run({"z": SATURATED, "y": LABELS})
    assert distance(value, -np.sum(LABELS * away, axis=-1)) <= 1e-4
    assert distance(gradient, np.exp(away) - LABELS) <= 1e-4
    assert np.max(value) > 99


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_a_batch_of_large_errors_does_not_wrap(reduction):
    """Squares of 4000 at 36 bits leave no room to add two of them."""
    z = np.linspace(-4000, 4000, 128)[:, None]
    arrays = {"z": z, "y": np.zeros((128, 1))}
    assert max(errors(loss(losses.MeanSquaredError, reduction=reduction), arrays)) <= 1e-5


def test_a_weighted_mean_over_a_large_batch_is_accurate():
    """1 / 4000 at 18 bits would be off by a thousandth."""
    rng = np.random.default_rng(2)
    arrays = {"z": rng.normal(0, 1, (4000, 1)), "y": rng.normal(0, 1, (4000, 1)), "w": rng.uniform(0.5, 1.5, 4000)}
    assert max(errors(loss(losses.MeanSquaredError, reduction="mean_with_sample_weight"), arrays)) <= 1e-4


# --- losses that users write -----------------------------------------------------------------------------------------


def entropy(z, y, dtype):
    return -ops.mean(ops.sum(y * ops.log(softmax(z) + 1e-7), axis=-1))


def entropy_of_log_softmax(z, y, dtype):
    return -ops.mean(ops.sum(y * ops.log_softmax(z), axis=-1))


def entropy_of_logsumexp(z, y, dtype):
    return ops.mean(ops.logsumexp(z, axis=-1) - ops.sum(y * z, axis=-1))


def binary_by_hand(z, y, dtype):
    p = ops.clip(sigmoid(z), 1e-7, 1 - 1e-7)
    return -ops.sum(y * ops.log(p)) / ops.cast(ops.size(y), dtype)


def limited(z, y, dtype):
    return -ops.mean(ops.sum(y * ops.log(ops.minimum(ops.maximum(softmax(z), 1e-7), 1.0)), axis=-1))


def narrowed(z, y, dtype):
    """A limit that is one: logits do not know it."""
    return -ops.mean(ops.sum(y * ops.log(ops.clip(softmax(z), 0.01, 0.9)), axis=-1))


def exponential(z, y, dtype):
    return ops.mean(ops.log(ops.maximum(ops.exp(z), 1e-7)) * y)


def reshaped(z, y, dtype):
    p = ops.reshape(softmax(ops.reshape(z, (3, 4, 10))), (12, 10))
    return losses.CategoricalCrossentropy(dtype=dtype)(y, p)


def branching(z, y, dtype):
    away = z - y
    return ops.cond(ops.mean(y) > 0, lambda: ops.mean(ops.square(away)), lambda: ops.mean(ops.abs(away)))


def weighted(z, y, dtype):
    """Dividing by a sum over the batch."""
    w = ops.abs(y) + 20.0
    return ops.sum(w * ops.square(z - y)) / ops.sum(w)


def contrastive(z, y, dtype):
    """Two axes at once, kept."""
    both = ops.logsumexp(ops.reshape(z, (4, 3, 10)), axis=(0, 2), keepdims=True)
    return ops.sum(both) + 0 * ops.sum(y)


def weights_of_classes(z, y, dtype):
    """An array in a loss is model data: it is shared, not written in the plan."""
    w = ops.convert_to_tensor(np.linspace(0.2, 2, 10), dtype=dtype)
    return -ops.mean(ops.sum(w * y * ops.log_softmax(z), axis=-1))


def similarity(z, y, dtype):
    """Rows that should be alike, among all."""
    e = ops.normalize(z, axis=-1)
    alike = ops.roll(ops.eye(12, dtype=dtype), 1, axis=0)
    scores = ops.matmul(e, ops.transpose(e)) * 10
    return losses.CategoricalCrossentropy(from_logits=True, dtype=dtype)(alike, scores) + 0 * ops.sum(y)


def quantile(z, y, dtype):
    return ops.mean(ops.maximum(0.9 * (y - z), -0.1 * (y - z)))


def power(z, y, dtype):
    return ops.mean(ops.power(ops.abs(z - y) + 0.1, 2.3))


@pytest.mark.parametrize("function", [entropy, entropy_of_log_softmax, entropy_of_logsumexp, binary_by_hand,
                                      limited, narrowed, exponential, reshaped,
                                      branching, weighted, contrastive, power,
                                      weights_of_classes, similarity, quantile])
def test_losses_in_keras_ops(function):
    assert max(errors(function, {"z": LOGITS / 2, "y": SOFT})) <= 1e-4


@pytest.mark.parametrize("function", [entropy_of_log_softmax, entropy_of_logsumexp])
def test_logarithms_of_saturated_probabilities(function):
    assert max(errors(function, {"z": SATURATED, "y": SOFT})) <= 1e-4


def test_targets_that_depend_on_the_model_get_gradients():
    """As in distillation: here the first argument is the target."""

    def function(z, other, dtype):
        return losses.CategoricalCrossentropy(dtype=dtype)(softmax(z), softmax(other)) + losses.BinaryCrossentropy(
            dtype=dtype)(sigmoid(z), sigmoid(other))

    assert max(errors(function, {"z": LOGITS, "other": LOGITS[::-1].copy()})) <= 1e-4


def test_variables_cannot_be_assigned_in_a_branch():
    state = StateTensor(keras.Variable(0.0))
    with recording(), pytest.raises(UnsupportedError, match="one branch"):
        ops.cond(keras.KerasTensor((), "bool"), lambda: state.assign(1.0), lambda: state.current)
    assert not state.assigned


# --- cost ------------------------------------------------------------------------------------------------------------


def parts(rows=128, classes=10):
    """Of a softmax cross-entropy and its gradient: the cost of the softmax, of the argmax, and all other cost."""
    arrays = {"z": np.zeros((rows, classes)), "y": np.zeros(rows, int)}
    plan = lower(loss(losses.SparseCategoricalCrossentropy, softmax), arrays).plan
    costs = account(plan, "trio")
    softmaxes, places = (
        sum((c for s, c in zip(plan.steps, costs, strict=True) if s.op == op), Cost()) for op in ("softmax", "argmax")
    )
    return plan, softmaxes, places, sum(costs, Cost()) - softmaxes - places


def test_a_cross_entropy_costs_less_than_its_softmax():
    """What an accuracy finds computed, the argmax, is most of it."""
    plan, softmaxes, places, rest = parts()
    assert Counter(s.op for s in plan.steps)["softmax"] == 1
    # Both are of the logits, and take place at once.
    assert len({s.inputs for s in plan.steps if s.op in ("softmax", "argmax")}) == 1 and places.rounds == 0
    assert places.bytes + rest.bytes < 0.9 * softmaxes.bytes
    assert places.rounds + rest.rounds < softmaxes.rounds
    assert rest.bytes < 0.3 * softmaxes.bytes


def test_the_gradient_of_a_cross_entropy_is_free():
    """p - y, from a softmax that is there: no step after it but local ones."""
    arrays = arrays_of("SparseCategoricalCrossentropy")
    function = CASES["SparseCategoricalCrossentropy"][0]
    with_gradient, without = lower(function, arrays), lower(function, arrays, training=False)
    both, value = (sum(account(x.plan, "trio"), Cost()) for x in (with_gradient, without))
    assert both == value


def test_a_metric_finds_the_largest_probability_computed():
    def function(z, y, dtype):
        p = softmax(z)
        hit = ops.cast(ops.equal(ops.argmax(p, axis=-1), y), dtype)
        return losses.SparseCategoricalCrossentropy(dtype=dtype)(y, p) + ops.sum(hit)

    arrays = {"z": LOGITS, "y": NUMBERS}
    plan = lower(function, arrays).plan
    assert Counter(s.op for s in plan.steps)["argmax"] == 1


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "arrays", "message"), [
    (lambda z, y, dtype: losses.CTC(dtype=dtype)(y, z), {"z": np.zeros((2, 6, 5)), "y": np.ones((2, 3), int)},
     "alignments"),
    (lambda z, y, dtype: ops.categorical_crossentropy(y, softmax(z), axis=1),
     {"z": np.zeros((3, 3, 3)), "y": np.zeros((3, 3, 3))}, "last axis"),
    (lambda z, y, dtype: ops.sparse_categorical_crossentropy(y * 0.5, softmax(z)),
     {"z": np.zeros((3, 3)), "y": np.zeros(3)}, "as integers"),
])
def test_what_cannot_be_lowered_says_why(function, arrays, message):
    walk, _ = record(function, arrays)
    assert any(message in finding.message for finding in walk.findings)


def test_logits_asked_for_twice_are_warned_of():
    with pytest.warns(UserWarning, match="from_logits=True"):
        worst = max(errors(loss(losses.CategoricalCrossentropy, softmax, from_logits=True), {"z": LOGITS, "y": LABELS}))
    assert worst <= 1e-4


@pytest.mark.parametrize(("given", "expected"), [
    ("sparse_categorical_crossentropy", Labels(0, 9, True)),
    (losses.SparseCategoricalCrossentropy(ignore_class=255), Labels(0, 9, True, (255,))),
    (losses.CategoricalGeneralizedCrossEntropy(), Labels(0, 9, True)),
    ("binary_crossentropy", Labels(0, 1)),
    (losses.categorical_crossentropy, Labels(0, 1)),
    (losses.KLDivergence(), Labels(0, 1)),
    (losses.Hinge(), Labels(-1, 1)),
    ("mse", Labels()),
    (lambda y, p: ops.sum(p), Labels()),
])
def test_labels_of_losses(given, expected):
    assert labels(given, (None, 10)) == expected


def test_labels_of_ctc_are_refused_with_advice():
    with pytest.raises(UnsupportedError, match="align"):
        labels("ctc", (None, 20, 10))


def test_labels_are_checked_without_showing_them():
    kinds = Labels(0, 9, True, (-1,))
    kinds.check(np.array([0, 9, -1]), "y")
    kinds.check(np.array([[3.0], [4.0]]), "y")
    Labels().check(np.array([1e5, -7.3]), "y")
    for bad in ([0, 10], [0, -2], [0, 4.5], [0, np.nan], [0, np.inf]):
        with pytest.raises(InputError, match="^y: expected classes from 0 to 9 or -1. Received: 1 of 2 that are not"):
            kinds.check(np.array(bad), "y")
    with pytest.raises(InputError, match="expected numbers from 0 to 1") as caught:
        Labels(0, 1).check(np.array([0.5, 731.25]), "y")
    assert "731" not in str(caught.value)
    with pytest.raises(InputError, match="^y: expected finite numbers. Received: NaN or infinity in 1 of 2 elements"):
        Labels().check(np.array([np.nan, 1]), "y")


@pytest.mark.parametrize(("given", "target", "output"), [
    ("sparse_categorical_crossentropy", (8,), (8, 10)),
    ("sparse_categorical_crossentropy", (8, 1), (8, 10)),
    ("sparse_categorical_crossentropy", (8, 5), (8, 5, 10)),
    ("categorical_crossentropy", (8, 10), (8, 10)),
    ("binary_crossentropy", (8,), (8, 1)),
    ("binary_crossentropy", (8, 3, 1), (8, 3)),
    ("mse", (8,), (8, 1)),
    ("mse", (8, 1), (8, 3)),
    ("circle", (8,), (8, 3)),
])
def test_shapes_that_fit(given, target, output):
    check_shapes(given, target, output, "scores")


@pytest.mark.parametrize(("given", "target", "output", "advice"), [
    ("sparse_categorical_crossentropy", (8, 10), (8, 10), "'categorical_crossentropy'"),
    ("sparse_categorical_crossentropy", (8, 2), (8, 10), "one class for each"),
    ("categorical_crossentropy", (8,), (8, 10), "sparse_categorical_crossentropy"),
    ("categorical_crossentropy", (8, 1), (8, 10), "sparse_categorical_crossentropy"),
    ("categorical_crossentropy", (8, 9), (8, 10), r"targets of shape \(8, 10\)"),
    ("binary_crossentropy", (8, 2), (8, 1), r"targets of shape \(8, 1\)"),
    ("binary_crossentropy", (8,), (8, 2), "one output with a sigmoid"),
    ("mse", (8,), (8, 3), r"Dense\(1\)"),
    (losses.Dice(), (8, 4, 4), (8, 4, 4, 2), r"targets of shape \(8, 4, 4, 2\)"),
])
def test_shapes_that_do_not_fit(given, target, output, advice):
    with pytest.raises(InputError, match=f"output 'scores'.*{advice}"):
        check_shapes(given, target, output, "scores")


def test_the_cases_saturate():
    assert np.max(np.abs(SATURATED)) == np.max(np.abs(SCORES)) == 100
