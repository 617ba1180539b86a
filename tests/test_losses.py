"""Losses on simulated shares against Keras in float64: value and gradient. `pytest -s` prints the errors."""

import inspect

import keras
import numpy as np
import pytest
from keras import activations, losses, ops

from tests.loss_cases import distance, errors, lower, plain

ROWS, CLASSES = 12, 10
VALUE, GRADIENT = 1e-4, 1e-4  # relative where numbers are above 1

_rng = np.random.default_rng(5)
LOGITS = _rng.normal(0, 2, (ROWS, CLASSES))
SATURATED = np.concatenate([_rng.normal(0, 3, (ROWS - 3, CLASSES)), np.zeros((3, CLASSES))])
SATURATED[-3:, 2] = -100, 100, 100
SATURATED[-2, 5] = -100
NUMBERS = _rng.integers(0, CLASSES, ROWS)
LABELS = np.eye(CLASSES)[NUMBERS]
SOFT = _rng.dirichlet(np.ones(CLASSES), ROWS)
SCORES = np.array([[0.3], [-2.0], [100.0], [-100.0], [100.0], [-100.0], [0.0], [5.0], [-9.0], [1.0], [12.0], [-1.0]])
TRUTHS = np.array([0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0])[:, None]
REAL, TARGET = _rng.normal(0, 1.5, (ROWS, 4)), _rng.normal(0, 1.5, (ROWS, 4))
WEIGHTS = _rng.uniform(0, 2, ROWS)
IMAGES, MASKS = _rng.normal(0, 2, (3, 16, 16, 1)), _rng.integers(0, 2, (3, 16, 16, 1))

softmax, sigmoid = activations.softmax, activations.sigmoid


def loss(cls, activation=None, **options):
    """The loss after an activation, as a function of logits, targets and perhaps sample weights."""

    def function(z, y, *rest):
        return cls(dtype=rest[-1], **options)(y, activation(z) if activation else z, *rest[:-1])

    return function


def unit(z):
    return ops.normalize(z, axis=-1)


def ignoring(labels, number):
    return np.where(np.arange(ROWS) % 3 == 0, number, labels)


# name -> (function, logits or outputs, targets, perhaps sample weights)
CASES = {
    "CategoricalCrossentropy": (loss(losses.CategoricalCrossentropy, softmax), SATURATED, LABELS),
    "CategoricalCrossentropy soft": (loss(losses.CategoricalCrossentropy, softmax), SATURATED, SOFT),
    "CategoricalCrossentropy no sum": (loss(losses.CategoricalCrossentropy, softmax), LOGITS, SOFT * 1.5),
    "CategoricalCrossentropy logits": (loss(losses.CategoricalCrossentropy, from_logits=True), SATURATED, LABELS),
    "CategoricalCrossentropy smooth": (
        loss(losses.CategoricalCrossentropy, softmax, label_smoothing=0.1), SATURATED, LABELS.astype(int)),
    "CategoricalCrossentropy probabilities": (loss(losses.CategoricalCrossentropy), SOFT + 0.01, LABELS),
    "CategoricalCrossentropy sigmoid": (loss(losses.CategoricalCrossentropy, sigmoid), LOGITS, LABELS),
    "CategoricalCrossentropy rank 3": (
        loss(losses.CategoricalCrossentropy, softmax), LOGITS.reshape(2, 6, 10), LABELS.reshape(2, 6, 10)),
    "CategoricalCrossentropy one class": (loss(losses.CategoricalCrossentropy, softmax), LOGITS[:, :1], LABELS[:, :1]),
    "SparseCategoricalCrossentropy": (loss(losses.SparseCategoricalCrossentropy, softmax), SATURATED, NUMBERS),
    "SparseCategoricalCrossentropy column": (
        loss(losses.SparseCategoricalCrossentropy, softmax), SATURATED, NUMBERS[:, None]),
    "SparseCategoricalCrossentropy logits": (
        loss(losses.SparseCategoricalCrossentropy, from_logits=True), SATURATED, NUMBERS),
    "SparseCategoricalCrossentropy probabilities": (
        loss(losses.SparseCategoricalCrossentropy), SOFT + 0.01, NUMBERS),
    "SparseCategoricalCrossentropy ignore": (
        loss(losses.SparseCategoricalCrossentropy, softmax, ignore_class=-1), LOGITS, ignoring(NUMBERS, -1)),
    "SparseCategoricalCrossentropy ignore logits": (
        loss(losses.SparseCategoricalCrossentropy, from_logits=True, ignore_class=255), SATURATED,
        ignoring(NUMBERS, 255)),
    "SparseCategoricalCrossentropy 100 classes": (
        loss(losses.SparseCategoricalCrossentropy, softmax), _rng.normal(0, 3, (4, 100)), np.array([0, 99, 50, 7])),
    "BinaryCrossentropy": (loss(losses.BinaryCrossentropy, sigmoid), SCORES, TRUTHS),
    "BinaryCrossentropy vector": (loss(losses.BinaryCrossentropy, sigmoid), SCORES, TRUTHS[:, 0]),
    "BinaryCrossentropy logits": (loss(losses.BinaryCrossentropy, from_logits=True), SCORES, TRUTHS),
    "BinaryCrossentropy smooth": (loss(losses.BinaryCrossentropy, sigmoid, label_smoothing=0.2), SCORES, TRUTHS),
    "BinaryCrossentropy soft": (loss(losses.BinaryCrossentropy, sigmoid), LOGITS, SOFT),
    "BinaryCrossentropy softmax": (loss(losses.BinaryCrossentropy, softmax), LOGITS, LABELS),
    "BinaryCrossentropy probabilities": (loss(losses.BinaryCrossentropy), SOFT * 0.9 + 0.05, LABELS),
    "BinaryFocalCrossentropy": (loss(losses.BinaryFocalCrossentropy, sigmoid), SCORES / 10, TRUTHS),
    "BinaryFocalCrossentropy balanced": (
        loss(losses.BinaryFocalCrossentropy, sigmoid, apply_class_balancing=True, gamma=1.5), SCORES / 10, TRUTHS),
    "BinaryFocalCrossentropy logits": (
        loss(losses.BinaryFocalCrossentropy, from_logits=True, gamma=1.3), SCORES / 10, TRUTHS),
    "CategoricalFocalCrossentropy": (loss(losses.CategoricalFocalCrossentropy, softmax), LOGITS, LABELS),
    "CategoricalFocalCrossentropy logits": (
        loss(losses.CategoricalFocalCrossentropy, from_logits=True, label_smoothing=0.1), LOGITS, LABELS),
    "CategoricalFocalCrossentropy probabilities": (loss(losses.CategoricalFocalCrossentropy), SOFT + 0.01, LABELS),
    "CategoricalFocalCrossentropy alphas": (
        loss(losses.CategoricalFocalCrossentropy, softmax, alpha=[0.1 * k for k in range(CLASSES)]), LOGITS, LABELS),
    "CategoricalGeneralizedCrossEntropy": (loss(losses.CategoricalGeneralizedCrossEntropy, softmax), LOGITS, NUMBERS),
    "CategoricalGeneralizedCrossEntropy 0.7": (
        loss(losses.CategoricalGeneralizedCrossEntropy, softmax, q=0.7), LOGITS, NUMBERS),
    "MeanSquaredError": (loss(losses.MeanSquaredError), REAL, TARGET),
    "MeanAbsoluteError": (loss(losses.MeanAbsoluteError), REAL, TARGET),
    "MeanAbsolutePercentageError": (loss(losses.MeanAbsolutePercentageError), REAL, TARGET + np.sign(TARGET) * 0.1),
    "MeanSquaredLogarithmicError": (loss(losses.MeanSquaredLogarithmicError), 3 * np.abs(REAL), 3 * np.abs(TARGET)),
    "Huber": (loss(losses.Huber), 2 * REAL, TARGET),
    "Huber 0.3": (loss(losses.Huber, delta=0.3), REAL, TARGET),
    "LogCosh": (loss(losses.LogCosh), 20 * REAL, TARGET),
    "KLDivergence": (loss(losses.KLDivergence, softmax), LOGITS, SOFT),
    "KLDivergence probabilities": (loss(losses.KLDivergence), SOFT * 0.9 + 0.01, SOFT[::-1]),
    "Poisson": (loss(losses.Poisson), np.abs(REAL) + 0.2, _rng.poisson(3, (ROWS, 4))),
    "Poisson exponential": (loss(losses.Poisson, activations.exponential), REAL, _rng.poisson(3, (ROWS, 4))),
    "CosineSimilarity": (loss(losses.CosineSimilarity), REAL, TARGET),
    "Hinge": (loss(losses.Hinge), REAL, np.sign(TARGET)),
    "Hinge truths": (loss(losses.Hinge), REAL, (TARGET > 0).astype(int)),
    "SquaredHinge": (loss(losses.SquaredHinge, activations.tanh), REAL, np.sign(TARGET)),
    "CategoricalHinge": (loss(losses.CategoricalHinge), LOGITS, LABELS),
    "Dice": (loss(losses.Dice, sigmoid), IMAGES, MASKS),
    "Dice axis": (loss(losses.Dice, sigmoid, axis=(1, 2)), IMAGES, MASKS),
    "Tversky": (loss(losses.Tversky, sigmoid, alpha=0.3, beta=0.7), IMAGES, MASKS),
    "Circle": (loss(losses.Circle, unit), REAL, NUMBERS % 3),
}
for _reduction in ("sum", "mean", "sum_over_batch_size", "mean_with_sample_weight", "none", None):
    CASES[f"reduction {_reduction}"] = (
        loss(losses.SparseCategoricalCrossentropy, softmax, reduction=_reduction), LOGITS, NUMBERS)
    CASES[f"reduction {_reduction} weighted"] = (
        loss(losses.MeanSquaredError, reduction=_reduction), REAL, TARGET, WEIGHTS)
CASES["weights of a column"] = (loss(losses.BinaryCrossentropy, sigmoid), SCORES, TRUTHS, WEIGHTS[:, None])
CASES["weights of steps"] = (
    loss(losses.SparseCategoricalCrossentropy, softmax), LOGITS.reshape(3, 4, 10), NUMBERS.reshape(3, 4),
    WEIGHTS.reshape(3, 4))

# Largest gradients of 1 / p and of gamma 80 are hundreds of units of their rounding.
LOOSE = {"Circle": 5e-4, "MeanAbsolutePercentageError": 5e-4, "reduction mean_with_sample_weight weighted": 2e-4}


def arrays_of(name):
    return dict(zip("zyw", CASES[name][1:], strict=False))


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1", "ignore:In loss categorical_crossentropy")
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_keras(name):
    value, gradient = errors(CASES[name][0], arrays_of(name))
    print(f"\n{name}: value {value:.1e}, gradient {gradient:.1e}", end="")
    assert value <= LOOSE.get(name, VALUE)
    assert gradient <= LOOSE.get(name, GRADIENT)


def test_every_loss_of_keras_is_here():
    named = {n for n, v in vars(losses).items() if inspect.isclass(v) and issubclass(v, losses.Loss)}
    tested = {name.split()[0] for name in CASES}
    assert named - tested == {"Loss", "CTC"}


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "SparseCategoricalCrossentropy", "BinaryCrossentropy",
                                  "Hinge", "Huber", "Dice axis", "reduction mean_with_sample_weight weighted"])
def test_on_three_parties(name):
    arrays = arrays_of(name)
    value, gradient = lower(CASES[name][0], arrays).run_on_three(arrays)
    expected, slope = plain(CASES[name][0], arrays)
    assert distance(value, expected) <= 2e-4
    assert distance(gradient, slope) <= 2e-4


@pytest.mark.parametrize("name", ["SparseCategoricalCrossentropy logits", "BinaryFocalCrossentropy", "CategoricalHinge",
                                  "KLDivergence", "Circle"])
def test_evaluation_computes_the_same_values(name):
    arrays = arrays_of(name)
    value, _ = lower(CASES[name][0], arrays, training=False).run(arrays)
    assert distance(value, plain(CASES[name][0], arrays)[0]) <= LOOSE.get(name, VALUE)


@pytest.mark.parametrize(("name", "same", "z", "y"), [
    ("mse", "MeanSquaredError", REAL, TARGET),
    ("mean_absolute_error", "MeanAbsoluteError", REAL, TARGET),
    ("binary_crossentropy", "BinaryCrossentropy", SOFT * 0.9 + 0.05, LABELS),
    ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy", SOFT + 0.01, NUMBERS),
    ("kld", "KLDivergence", SOFT * 0.9 + 0.01, LABELS),
    ("log_cosh", "LogCosh", REAL, TARGET),
])
def test_names_and_functions_are_the_classes(name, same, z, y):
    """As a model compiles them: a name is a function, and a function is reduced to its mean."""
    arrays = {"z": z, "y": y}

    def function(z, y, dtype):
        return ops.mean(losses.get(name)(y if "sparse" in name else ops.cast(y, dtype), z))

    value, gradient = lower(function, arrays).run(arrays)
    expected, slope = plain(loss(getattr(losses, same)), arrays)
    assert distance(value, expected) <= VALUE
    assert distance(gradient, slope) <= GRADIENT


def test_a_mask_leaves_out_what_it_hides():
    hidden = np.arange(ROWS).reshape(3, 4) % 3 > 0

    def function(z, y, mask, dtype):
        p = softmax(z)
        p._keras_mask = ops.cast(mask, "bool")
        return losses.SparseCategoricalCrossentropy(dtype=dtype)(y, p)

    arrays = {"z": LOGITS.reshape(3, 4, 10), "y": NUMBERS.reshape(3, 4), "m": hidden.astype(int)}
    assert max(errors(function, arrays)) <= VALUE


def test_losses_of_a_model_with_weights_of_outputs():
    """As `CompileLoss` adds them up."""

    def function(z, y, t, dtype):
        both = losses.CategoricalCrossentropy(dtype=dtype)(y, softmax(z)), losses.MeanSquaredError(dtype=dtype)(t, z)
        return both[0] * 0.3 + both[1] * 2.0

    assert max(errors(function, {"z": LOGITS, "y": LABELS, "t": SOFT})) <= VALUE


def test_keras_is_left_as_it_was():
    call, size = keras.Operation.symbolic_call, ops.size(keras.KerasTensor((3, 4)))
    lower(CASES["Hinge"][0], arrays_of("Hinge"))
    assert keras.Operation.symbolic_call is call
    assert isinstance(size, keras.KerasTensor)
