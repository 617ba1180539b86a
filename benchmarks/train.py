"""Seconds of a training step on the embedded cluster, after the first call.

    python benchmarks/train.py [name of a network, "A" for instance]

Prints for each network and optimiser: seconds of the first `fit` of one step (for the first line with the start of the
cluster), seconds of a step in the servers' loop (the job that runs STEPS steps at batch 128, divided by their number),
rounds and bytes of all servers a step, the peak memory of the largest server in MB, and seconds of a step of plain
Keras on the same machine. Data are random; figures are wall clock.
"""
import sys
import time

import keras
import numpy as np
from predict import networks

import private_keras as pk

BATCH = 128
STEPS = 20
OPTIMIZERS = {"SGD": lambda: keras.optimizers.SGD(0.01), "Adam": lambda: keras.optimizers.Adam(0.001)}


def peak_megabytes(cluster: pk.LocalCluster) -> float:
    """The most memory that a server has had so far."""
    peaks = []
    for pid in cluster.pids:
        with open(f"/proc/{pid}/status") as status:
            peaks.append(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)
    return max(peaks)


def measure(cluster: pk.LocalCluster, name: str, shape: tuple[int, ...], stack: list, optimizer: str) -> None:
    """One line of the table."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    x = rng.uniform(0, 1, (BATCH * STEPS, *shape)).astype("float32")
    y = rng.integers(0, 10, BATCH * STEPS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain = keras.Sequential([keras.Input(shape), *(layer.from_config(layer.get_config()) for layer in stack)])
    plain.compile(OPTIMIZERS[optimizer](), loss)
    model = pk.convert(plain)

    began = time.perf_counter()
    model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
    first = time.perf_counter() - began
    jobs = []
    add = cluster.stats.add
    cluster.stats.add = lambda run: (jobs.append(run), add(run))
    model.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False)
    cluster.stats.add = add
    job = max(jobs, key=lambda run: run.computing)

    plain.fit(x, y, batch_size=BATCH, verbose=0)
    began = time.perf_counter()
    plain.fit(x, y, batch_size=BATCH, verbose=0)
    keras_step = (time.perf_counter() - began) / STEPS
    print(
        f"{name:36s} {optimizer:5s} {first:7.2f} {job.computing / STEPS:8.4f} {job.rounds / STEPS:7.0f} "
        f"{job.bytes / STEPS:14,.0f} {peak_megabytes(cluster):8.0f} {keras_step:8.4f}",
        flush=True,
    )


def main(only: str = "") -> None:
    """Prints the table."""
    heads = f"{'first':>7s} {'step':>8s} {'rounds':>7s} {'bytes':>14s} {'peak MB':>8s} {'Keras':>8s}"
    print(f"{'network, batch 128':36s} {'':5s} {heads}")
    with pk.LocalCluster() as cluster:
        for name, (shape, stack) in networks().items():
            for optimizer in OPTIMIZERS:
                # The demo's network ends in a softmax; these have a loss from logits.
                if name.startswith(only) and not name.startswith("digits"):
                    measure(cluster, name, shape, stack, optimizer)


if __name__ == "__main__":
    main(*sys.argv[1:2])
