"""Networks A to D of tf-encrypted's benchmark: predictions of 1 and of 128 rows, training steps at 128."""

from collections.abc import Callable

import keras
import numpy as np

from benchmarks.suite import data
from benchmarks.suite.work import FitWork, PredictWork, Workload
from private_keras.cluster import Cluster

BATCH = 128
STEPS = 10
TITLES = {
    "A": "A (dense 784-128-128-10)",
    "B": "B (conv 16@5, pool, 16@5, pool, 100, 10)",
    "C": "C (conv 20@5, pool, 50@5, pool, 500, 10)",
    "D": "D (conv 5@5 stride 2, 100, 10)",
}
OPTIMIZERS = {"SGD": lambda: keras.optimizers.SGD(0.1), "Adam": lambda: keras.optimizers.Adam(0.001)}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(name: str, tiny: bool = False) -> keras.Model:
    """One of `data.STACKS` with its weights."""
    shape, stack = data.stack(name, tiny)
    layers = [keras.Input(shape)]
    for i, (kind, *rest) in enumerate(stack, start=1):
        relu = "relu" if i < len(stack) else None
        if kind == "conv":
            filters, kernel, strides, padding = rest
            layers.append(keras.layers.Conv2D(filters, kernel, strides=strides, padding=padding, activation=relu))
        elif kind == "dense":
            layers.append(keras.layers.Dense(rest[0], activation=relu))
        else:
            layers.append(keras.layers.MaxPooling2D() if kind == "pool" else keras.layers.Flatten())
    model = keras.Sequential(layers, name=f"network-{name}")
    model.set_weights([w.astype(np.float32) for w in data.weights(name, tiny)])
    return model


def predict(name: str, rows: int) -> Callable[[Cluster, bool], PredictWork]:
    """Work of a prediction."""

    def make(_: Cluster, tiny: bool) -> PredictWork:
        return PredictWork(network(name, tiny), data.samples(name, min(rows, 2) if tiny else rows)[0])

    return make


def step(name: str, optimizer: str) -> Callable[[Cluster, bool], FitWork]:
    """Work of a training step."""

    def make(_: Cluster, tiny: bool) -> FitWork:
        batch, steps = (4, 2) if tiny else (BATCH, STEPS)
        x, y = data.samples(name, batch * steps)
        return FitWork(network(name, tiny), OPTIMIZERS[optimizer], LOSS, x, y, batch)

    return make


def _workloads(name: str) -> list[Workload]:
    made = [
        Workload(f"{name}-predict-{rows}", f"{TITLES[name]}, predict {rows}", predict(name, rows), networked=True)
        for rows in (1, BATCH)
    ]
    for optimizer in OPTIMIZERS:
        slug = f"{name}-step" if optimizer == "SGD" else f"{name}-step-{optimizer.lower()}"
        title = f"{TITLES[name]}, training step, {BATCH}, {optimizer}"
        networked = optimizer == "SGD" and name == "A"
        made.append(Workload(slug, title, step(name, optimizer), name in "BC", networked))
    return made


WORKLOADS = [workload for name in TITLES for workload in _workloads(name)]
