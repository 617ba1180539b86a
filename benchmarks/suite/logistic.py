"""Logistic regression on 100 features: predictions, a bare step of gradient descent, and `fit`."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from benchmarks.suite import data
from benchmarks.suite.work import FitWork, PlanWork, PredictWork, Workload
from private_keras.cluster import Cluster, Loop, Rows
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.ring import fixedpoint
from private_keras.tracing.approximation import fit
from private_keras.tracing.curves import LARGEST_BITS

FRACTION = 18
# Of sigmoids and labels: linear pieces of so many bits are not truncated, and their products with features stay below
# 2^62 in ring units.
ERROR_FRACTION = 28
RATE_FRACTION = 32
STEPS = 20


def linear(error: float) -> dict[str, Any]:
    """Attributes of a sigmoid in linear pieces, within `error`."""
    pieces = fit(data.sigmoid, -20.0, 20.0, error, degree=1, left=[error], right=[1 - error])
    knots, coefficients, scale = pieces.quantise(FRACTION, max_scale=ERROR_FRACTION)
    return {
        "knots": knots, "coefficients": coefficients, "scale": scale, "fraction": scale, "width": LARGEST_BITS + 1,
        "label": f"sigmoid, {len(coefficients)} pieces",
    }  # fmt: skip


# Five pieces, and as many as 1e-3 takes with what rounding adds.
SIGMOIDS = {"": linear(0.9e-3), "-5piece": linear(0.02)}


def model() -> keras.Model:
    """One unit with a sigmoid, and the weights for predictions."""
    made = keras.Sequential([keras.Input((data.FEATURES,)), keras.layers.Dense(1, activation="sigmoid")])
    made.set_weights(data.logistic()[2:])
    return made


def step_plan(batch: int, sigmoid: Mapping[str, Any], features: int = data.FEATURES) -> Plan:
    """w, b -= rate / batch * gradient of the cross-entropy. Opens the last w and b; neither loss nor metrics.

    The bias is the last weight, that of a feature which is 1 in every row.
    """
    b = PlanBuilder()
    x = b.input("x", (batch, features + 1), FRACTION, "client", "features, and 1")
    y = b.input("y", (batch, 1), ERROR_FRACTION, "client", "labels")
    w = b.input("w", (features + 1, 1), FRACTION, "client", "weights and bias")
    z = b.add("truncate", b.add("matmul", x, w, twice=True), bits=FRACTION + 1)
    error = b.add("subtract", b.add("spline", z, **sigmoid), y)
    gradient = b.add("matmul", b.add("transpose", x, axes=[1, 0]), error, twice=True)
    rate = b.constant(fixedpoint.encode(np.float64(data.RATE / batch), RATE_FRACTION, "rate"), RATE_FRACTION)
    change = b.add("rescale", gradient, rate, bits=ERROR_FRACTION + 1 + RATE_FRACTION)
    new = b.add("subtract", w, change)
    b.output(new, "w/new", [], carry="w")
    b.output(new, "opened", ["client"])
    return optimise(b.build(f"logistic regression, {batch} rows a step", "train"))


def step(batch: int, kind: str) -> Callable[[Cluster, bool], PlanWork]:
    """Work of an iteration: STEPS of them in one job, from 0."""

    def make(cluster: Cluster, tiny: bool) -> PlanWork:
        rows_a_step, steps = (8, 2) if tiny else (batch, STEPS)
        x, y, _, _ = data.logistic()
        rows = data.logistic_rows(rows_a_step, steps)
        start = np.zeros((data.FEATURES + 1, 1))
        with_one = np.hstack([x, np.ones((len(x), 1))])
        return PlanWork(
            cluster, step_plan(rows_a_step, SIGMOIDS[kind]), {"x": with_one, "y": y, "w": start},
            {"opened": data.logistic_fit(x, y, rows)}, lambda: data.logistic_fit(x, y, rows), Loop(steps),
            {name: lambda handle: Rows(handle, rows) for name in "xy"},
        )  # fmt: skip

    return make


def predict(rows: int) -> Callable[[Cluster, bool], PredictWork]:
    """Work of a prediction."""
    return lambda _, tiny: PredictWork(model(), data.logistic()[0][: min(rows, 4) if tiny else rows])


def fit_step(batch: int) -> Callable[[Cluster, bool], FitWork]:
    """Work of a step of `fit`, with its loss."""

    def make(_: Cluster, tiny: bool) -> FitWork:
        x, y, _, _ = data.logistic()
        rows = (8, 16) if tiny else (batch, data.ROWS)
        return FitWork(
            model(), lambda: keras.optimizers.SGD(data.RATE), "binary_crossentropy", x[: rows[1]], y[: rows[1]], rows[0]
        )

    return make


WORKLOADS = [
    *(
        Workload(
            f"logistic-predict-{rows}", f"logistic regression, predict {rows:,}", predict(rows), networked=rows == 1
        )
        for rows in (1, 100, 10_000)
    ),
    *(
        Workload(
            f"logistic-step-{batch}{kind}",
            f"logistic regression, iteration, {batch}, {'5-piece sigmoid' if kind else 'sigmoid to 1e-3'}",
            step(batch, kind), networked=batch == 128,
        )
        for kind in SIGMOIDS for batch in (128, 1024)
    ),
    *(
        Workload(f"logistic-fit-{batch}", f"logistic regression, step of `fit`, {batch}", fit_step(batch))
        for batch in (128, 1024)
    ),
]  # fmt: skip
