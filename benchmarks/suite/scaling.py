"""How cost grows: with the rows of a prediction, with features, with depth, with the samples of a training run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib
import numpy as np

from benchmarks.suite import data, small
from benchmarks.suite.measure import Effort, Record, measure
from benchmarks.suite.report import number, table
from benchmarks.suite.results import EMBEDDED, place, speed
from benchmarks.suite.work import FitWork, PredictWork, Work, Workload

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - the backend is chosen first

FEW = Effort(3, 10, 1.0)
ROWS, WIDTH, BATCH = 128, 128, 1000
# How much more than in proportion a step may cost that is only noise.
SLACK = 1.2


@dataclass(frozen=True)
class Series:
    """One quantity that grows while the rest stays.

    Attributes:
        what: that grows.
        sizes: increasing.
        make: the work at a size.
    """

    what: str
    sizes: Sequence[int]
    make: Callable[[int], Work]


def _rows(rows: int) -> Work:
    return PredictWork(small.network("A"), data.samples("A", rows)[0])


def _features(features: int) -> Work:
    model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(1, activation="sigmoid")])
    return PredictWork(model, data.rng("features").normal(size=(ROWS, features)))


def _depth(depth: int) -> Work:
    hidden = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, keras.layers.Dense(10)])
    return PredictWork(model, data.rng("depth").normal(size=(ROWS, WIDTH)))


class _Epoch(FitWork):
    """An epoch of logistic regression; figures are of the epoch, not of its steps."""

    def __init__(self, samples: int):
        x = data.rng("samples").normal(size=(samples, data.FEATURES))
        model = keras.Sequential([keras.Input((data.FEATURES,)), keras.layers.Dense(1, activation="sigmoid")])
        y = (x[:, :1] > 0).astype(np.float64)
        super().__init__(model, lambda: keras.optimizers.SGD(data.RATE), "binary_crossentropy", x, y, BATCH)
        self.steps = 1


SERIES = (
    Series("rows of a prediction, network A", (1, 10, 100, 1_000, 10_000), _rows),
    Series("features, logistic regression, 128 rows", (10, 100, 1_000, 10_000), _features),
    Series("hidden layers of 128, 128 rows", (1, 4, 16, 64), _depth),
    Series("samples, an epoch of logistic regression, 100 features", (1_000, 10_000, 100_000), _Epoch),
)
Measured = Mapping[Series, Sequence[Record]]


def measured(quick: bool = False) -> dict[Series, list[Record]]:
    """All series, each size with servers of its own; `quick` leaves out all sizes but the first two."""
    here = speed()
    found = {}
    for series in SERIES:
        found[series] = []
        for size in series.sizes[: 2 if quick else None]:
            workload = Workload(f"{size}", f"{size}", lambda _, __, size=size, series=series: series.make(size))
            with place(EMBEDDED) as (cluster, servers):
                found[series].append({"size": size, **measure(workload, cluster, servers.pids, FEW, here)})
    return found


def growth(records: Sequence[Record], key: str) -> list[float]:
    """From each size to the next: how many times as much, for each time that the size has grown."""
    return [(b[key] / a[key]) / (b["size"] / a["size"]) for a, b in zip(records, records[1:], strict=False)]


def linear(records: Sequence[Record]) -> bool:
    """Whether neither seconds, nor bytes, nor memory grow faster than the size. Of seconds the least of all runs count:
    other work on the machine only ever adds time.
    """
    rows = [{**record, "bytes": sum(record["sent"])} for record in records]
    keys = ("seconds_least", "call_least", "bytes", "peak_mb")
    return all(most <= SLACK for key in keys for most in growth(rows, key))


def markdown(found: Measured) -> str:
    """A table for each series."""
    parts = []
    for series, records in found.items():
        rows = [
            [
                f"{r['size']:,}", number(r["seconds"]), number(r["call"]), f"{r['rounds']:.0f}",
                number(sum(r["sent"]) / 1e6), f"{r['memory_before_mb']:.0f}", f"{r['peak_mb']:.0f}", number(r["plain"]),
            ]
            for r in records
        ]  # fmt: skip
        heads = ["size", "servers, s", "whole call, s", "rounds", "MB sent", "MB before", "peak MB", "in the clear, s"]
        verdict = "at most in proportion" if linear(records) else "faster than in proportion"
        parts += [f"### {series.what}", f"Seconds, bytes and memory grow {verdict}.", table(heads, rows)]
    return "\n\n".join(parts) + "\n"


def picture(found: Measured, path: Path) -> None:
    """Seconds and megabytes against size, a panel for each series."""
    figure, axes = pyplot.subplots(1, len(found), figsize=(4.2 * len(found), 3.6), layout="constrained")
    for axis, (series, records) in zip(axes, found.items(), strict=True):
        sizes = [record["size"] for record in records]
        for key, label, style in (("seconds", "servers, s", "o-"), ("call", "whole call, s", "s--")):
            axis.plot(sizes, [record[key] for record in records], style, label=label)
        axis.plot(sizes, [sum(record["sent"]) / 1e6 for record in records], "^:", label="MB sent")
        axis.plot(sizes, [record["peak_mb"] for record in records], "x-.", label="peak MB of a server")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(series.what, fontsize=8)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
