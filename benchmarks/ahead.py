"""What is left of predictions when servers have made them ready (`model.prepare`): `python benchmarks/ahead.py`.

Seconds of the slowest server, least (and median), in turns: of a whole prediction, of what is made ahead, and of what
is left when the batch comes; and the processor time that each server needs, which other work disturbs less.
"""
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import private_keras as pk  # noqa: E402
from benchmarks.suite import data, small  # noqa: E402
from private_keras.cluster import LocalCluster  # noqa: E402

TICK = 1 / os.sysconf("SC_CLK_TCK")


def dense(rows: int) -> tuple[keras.Model, np.ndarray]:
    """Mostly matrix products: 2048 to 2048 three times, then 10."""
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(2048, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((2048,)), *hidden, keras.layers.Dense(10)])
    return model, np.random.default_rng(0).uniform(0, 1, (rows, 2048)).astype("float32")


def network(name: str) -> Callable[[int], tuple[keras.Model, np.ndarray]]:
    """One of networks A to D."""
    return lambda rows: (small.network(name), data.samples(name, rows)[0].astype("float32"))


CASES = [
    ("A, 1 row", network("A"), 1, 40), ("A, 128 rows", network("A"), 128, 30), ("C, 1 row", network("C"), 1, 30),
    ("C, 128 rows", network("C"), 128, 6), ("dense 3 x 2048, 1 row", dense, 1, 20),
    ("dense 3 x 2048, 128 rows", dense, 128, 6),
]  # fmt: skip


def busy(cluster: LocalCluster) -> np.ndarray:
    """Processor seconds of each server so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in cluster.pids]
    return np.array([(int(f[11]) + int(f[12])) * TICK for f in fields])


def measured(
    cluster: LocalCluster, model: pk.Model, x: np.ndarray, runs: int
) -> tuple[list[list[float]], np.ndarray]:
    """Seconds (whole, ahead, online) of all runs, and processor seconds of each server for one of each."""
    rows, seconds, spent = len(x), [[], [], []], np.zeros((3, 3))
    model.predict(x, batch_size=rows, verbose=0)
    for _ in range(runs):
        marks = [busy(cluster)]
        model.predict(x, batch_size=rows, verbose=0)
        marks.append(busy(cluster))
        seconds[0].append(cluster.stats.last.computing)
        model.prepare(1, batch_size=rows, verbose=0)
        marks.append(busy(cluster))
        model.predict(x, batch_size=rows, verbose=0)
        marks.append(busy(cluster))
        seconds[1].append(cluster.stats.last_ahead.computing)
        seconds[2].append(cluster.stats.last.computing)
        spent += np.diff(marks, axis=0)
    return seconds, spent / runs


def main() -> None:
    """Prints a table."""
    print("| prediction | whole, s | ahead, s | online, s | processor s of servers 0, 1, 2: whole | online |")
    print("|---|---|---|---|---|---|")
    for title, make, rows, runs in CASES:
        with LocalCluster() as cluster:
            plain, x = make(rows)
            seconds, spent = measured(cluster, pk.convert(plain), x, runs)
            cells = [f"{min(s):.3g} ({statistics.median(s):.3g})" for s in seconds]
            cells += [", ".join(f"{s:.3g}" for s in spent[phase]) for phase in (0, 2)]
            print("| " + " | ".join([title, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
