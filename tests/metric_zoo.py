"""One case or more for each of Keras' metrics: how to make it, what data, and how far off it may be."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import metrics as m

SIZES = (24, 24)  # of batches


@dataclass(frozen=True)
class Case:
    """A metric and its data. `error`: largest difference to Keras, of the result if that is below 1, else relative."""

    make: Callable[[], m.Metric]
    data: str
    error: float = 2e-6
    weights: bool = True

    def __str__(self) -> str:
        return f"{self.make().name}-{self.data}"


def rounded(values: np.ndarray) -> np.ndarray:
    return (np.rint(np.asarray(values, np.float64) * 2**18) / 2**18).astype("float32")


def probabilities(rng: np.random.Generator, n: int, classes: int = 5) -> np.ndarray:
    z = np.exp(rng.normal(size=(n, classes)))
    return rounded(z / z.sum(1, keepdims=True))


def batch(rng: np.random.Generator, kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and outputs."""
    ints = rng.integers(0, 5, n).astype("int32")
    return {
        "binary": lambda: (rng.integers(0, 2, (n, 1)).astype("float32"), rounded(rng.uniform(size=(n, 1)))),
        "booleans": lambda: (rng.integers(0, 2, (n, 1)).astype("int32"), rounded(rng.uniform(size=(n, 1)))),
        "labels": lambda: (rng.integers(0, 2, (n, 5)).astype("float32"), rounded(rng.uniform(size=(n, 5)))),
        "one-hot": lambda: (np.eye(5, dtype="float32")[ints], probabilities(rng, n)),
        "sparse": lambda: (ints, probabilities(rng, n)),
        "classes": lambda: (ints, rng.integers(0, 5, n).astype("int32")),
        "real": lambda: (rounded(rng.normal(size=(n, 3)) * 3), rounded(rng.normal(size=(n, 3)) * 3)),
        "positive": lambda: (rounded(rng.uniform(0.1, 4, (n, 3))), rounded(rng.uniform(0.1, 4, (n, 3)))),
        "distributions": lambda: (probabilities(rng, n), probabilities(rng, n)),
    }[kind]()


def batches(kind: str, weights: bool, seed: int, sizes: tuple[int, ...] = SIZES) -> list[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(seed)
    made = [batch(rng, kind, n) for n in sizes]
    return [(*b, rounded(rng.uniform(0, 2, len(b[0])))) for b in made] if weights else made


CASES = [
    Case(lambda: m.Accuracy(), "classes"),
    Case(lambda: m.BinaryAccuracy(), "binary"),
    Case(lambda: m.BinaryAccuracy(threshold=0.3), "labels"),
    Case(lambda: m.CategoricalAccuracy(), "one-hot"),
    Case(lambda: m.SparseCategoricalAccuracy(), "sparse"),
    Case(lambda: m.TopKCategoricalAccuracy(2), "one-hot"),
    Case(lambda: m.SparseTopKCategoricalAccuracy(3), "sparse"),
    Case(lambda: m.AUC(), "binary", 5e-6),
    Case(lambda: m.AUC(curve="PR"), "binary", 5e-5),
    Case(lambda: m.AUC(curve="PR", summation_method="minoring"), "binary", 5e-6),
    Case(lambda: m.AUC(curve="PRGAIN"), "binary", 2e-5),
    Case(lambda: m.AUC(summation_method="majoring", thresholds=[0.1, 0.3, 0.77]), "binary", 5e-6),
    Case(lambda: m.AUC(num_thresholds=30, multi_label=True, num_labels=5), "labels", 5e-6),
    Case(lambda: m.AUC(9, multi_label=True, num_labels=5, label_weights=[1, 2, 3, 4, 0.5]), "labels", 5e-6),
    # A sample within the sigmoid's error of a threshold may fall on its other side.
    Case(lambda: m.AUC(num_thresholds=50, from_logits=True), "binary", 3e-2),
    Case(lambda: m.Precision(), "binary"),
    Case(lambda: m.Precision(thresholds=[0.2, 0.5, 0.9]), "binary"),
    Case(lambda: m.Precision(top_k=2), "labels"),
    Case(lambda: m.Recall(class_id=1), "labels"),
    Case(lambda: m.Recall(), "binary"),
    Case(lambda: m.F1Score(), "one-hot"),
    Case(lambda: m.F1Score(average="micro", threshold=0.5), "labels"),
    Case(lambda: m.FBetaScore(average="weighted", beta=2.0, threshold=0.4), "labels"),
    Case(lambda: m.FBetaScore(average="macro"), "one-hot"),
    Case(lambda: m.PrecisionAtRecall(0.6), "binary"),
    Case(lambda: m.RecallAtPrecision(0.5), "binary"),
    Case(lambda: m.SensitivityAtSpecificity(0.5), "binary"),
    Case(lambda: m.SpecificityAtSensitivity(0.5), "binary"),
    Case(lambda: m.TruePositives(), "binary"),
    Case(lambda: m.FalsePositives(thresholds=0.2), "binary"),
    Case(lambda: m.TrueNegatives(thresholds=[0.2, 0.6]), "binary"),
    Case(lambda: m.FalseNegatives(), "labels"),
    Case(lambda: m.MeanSquaredError(), "real"),
    Case(lambda: m.RootMeanSquaredError(), "real"),
    Case(lambda: m.MeanAbsoluteError(), "real"),
    Case(lambda: m.MeanAbsolutePercentageError(), "positive", 5e-5),
    Case(lambda: m.MeanSquaredLogarithmicError(), "positive", 5e-5),
    Case(lambda: m.LogCoshError(), "real", 5e-5),
    Case(lambda: m.Poisson(), "positive", 5e-5),
    Case(lambda: m.KLDivergence(), "distributions", 5e-5),
    Case(lambda: m.CosineSimilarity(), "real", 5e-5),
    Case(lambda: m.Hinge(), "real"),
    Case(lambda: m.SquaredHinge(), "real"),
    Case(lambda: m.CategoricalHinge(), "one-hot"),
    Case(lambda: m.BinaryCrossentropy(), "binary", 1e-4),
    Case(lambda: m.BinaryCrossentropy(from_logits=True), "binary", 1e-4),
    Case(lambda: m.CategoricalCrossentropy(), "one-hot", 1e-4),
    Case(lambda: m.CategoricalCrossentropy(from_logits=True), "one-hot", 1e-4),
    Case(lambda: m.SparseCategoricalCrossentropy(), "sparse", 1e-4),
    Case(lambda: m.R2Score(), "real", 1e-5),
    Case(lambda: m.R2Score(class_aggregation=None), "real", 1e-5),
    Case(lambda: m.R2Score(class_aggregation="variance_weighted_average"), "real", 1e-5),
    Case(lambda: m.PearsonCorrelation(), "real", 5e-5),
    Case(lambda: m.ConcordanceCorrelation(), "real", 5e-5),
    Case(lambda: m.MeanIoU(5), "classes", weights=False),
    Case(lambda: m.IoU(5, [1, 4], sparse_y_pred=False), "sparse", weights=False),
    Case(lambda: m.BinaryIoU(), "booleans", weights=False),
    Case(lambda: m.OneHotIoU(5, [0, 2]), "one-hot", weights=False),
    Case(lambda: m.OneHotMeanIoU(5), "one-hot", weights=False),
]
