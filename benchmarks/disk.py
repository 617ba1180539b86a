"""Data larger than the servers' memory: `python benchmarks/disk.py [--gigabytes 2.2] [--limit 600]`.

Shares a `.npy` file under a name, so many gigabytes on each evaluator's disk, trains a logistic regression on it and
evaluates it, both by rows, and reads some at random places. Prints seconds, and the most memory that each server has
ever had; fails where that is more than the limit in MB. Then starts the servers anew on the same disks.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import private_keras as pk  # noqa: E402
from private_keras.cluster import LocalCluster  # noqa: E402

FEATURES, BATCH, BLOCK = 1000, 280, 2000
WORD_BYTES = 8
MB = 10**6


def block(start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the data set and their labels, the same whenever they are made."""
    generator = np.random.default_rng(start)
    x = generator.normal(0, 1, (count, FEATURES)).astype("float32")
    return x, (x[:, :50].sum(axis=1) > 0).astype("float32")


def written(rows: int, path: Path) -> np.ndarray:
    """Writes the data set's features to a file and returns the labels."""
    file = np.lib.format.open_memmap(path, "w+", np.dtype("float32"), (rows, FEATURES))
    labels = np.empty(rows, "float32")
    for start in range(0, rows, BLOCK):
        file[start : start + BLOCK], labels[start : start + BLOCK] = block(start, min(BLOCK, rows - start))
    return labels


def peak(cluster: LocalCluster) -> list[int]:
    """Most bytes of memory that each server has had at a time."""
    found = []
    for pid in cluster.pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        found.append(int(line.split()[1]) * 1024)
    return found


@dataclass(frozen=True)
class Result:
    """What `measured` found: seconds by what took them, peak bytes of each server, bytes on each one's disk."""

    seconds: dict[str, float]
    peak: list[int]
    again: list[int]
    disk: list[int]
    accuracy: float


def measured(rows: int, directory: Path) -> Result:
    """Puts, trains, evaluates and reads at random, then starts anew and reads again."""
    seconds = {}
    began = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal began
        seconds[what] = time.perf_counter() - began
        began = time.perf_counter()

    keras.utils.set_random_seed(1)
    labels = written(rows, directory / "x.npy")
    with LocalCluster(storage=directory / "disk") as cluster:
        began = time.perf_counter()
        x = pk.share(directory / "x.npy", "data/x", pk.Policy(), verbose=0)
        y = pk.share(labels, "data/y", pk.Policy())
        lap("share")
        model = pk.Sequential([keras.Input((FEATURES,)), pk.layers.Dense(1, activation="sigmoid")])
        model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
        model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
        lap("prepare plans")
        model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=True, verbose=0)
        lap("fit, one epoch, shuffled")
        half = np.arange(0, rows, 2)
        accuracy = model.evaluate(x[half], y[half], batch_size=BATCH, verbose=0)[1]
        lap("evaluate, every second row")
        some = np.random.default_rng(1).integers(0, rows, 50)
        expected = np.concatenate([block(i // BLOCK * BLOCK, min(BLOCK, rows - i // BLOCK * BLOCK))[0][[i % BLOCK]]
                                   for i in some.tolist()])
        np.testing.assert_allclose(x[some].reveal(), expected, atol=2**-18)
        found, disk = peak(cluster), sizes(directory / "disk")
    began = time.perf_counter()
    with LocalCluster(storage=directory / "disk") as cluster:
        lap("start anew")
        x = pk.secret("data/x")
        lap("find again")
        x[some].reveal()
        lap("reveal 50 rows")
        return Result(seconds, found, peak(cluster), disk, accuracy)


def rows_of(gigabytes: float) -> int:
    """Rows that take at least so much on an evaluator's disk, in whole batches."""
    return math.ceil(gigabytes * 10**9 / (WORD_BYTES * (FEATURES + 1)) / BATCH) * BATCH


def sizes(directory: Path) -> list[int]:
    """Bytes on the disk of each server."""
    return [
        sum(path.stat().st_size for path in (directory / f"trio-server{party}").rglob("*") if path.is_file())
        for party in range(3)
    ]


def main() -> None:
    """Prints a table; ends with an error where a server had too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.2, help="on each evaluator's disk")
    parser.add_argument("--limit", type=float, default=600.0, help="MB of memory that a server may take")
    given = parser.parse_args()
    rows = rows_of(given.gigabytes)
    directory = Path(tempfile.mkdtemp(prefix="private_keras_disk_"))
    try:
        result = measured(rows, directory)
    finally:
        shutil.rmtree(directory)
    print(f"{rows} rows of {FEATURES} features; accuracy {result.accuracy:.3f}")
    for what, taken in result.seconds.items():
        print(f"{what:30s} {taken:8.2f} s")
    for what, found in (
        ("on disk", result.disk), ("most memory", result.peak), ("most memory, started anew", result.again)
    ):  # fmt: skip
        print(f"{what:30s} " + "  ".join(f"{n / MB:9.1f} MB" for n in found))
    if max(result.peak + result.again) > given.limit * MB:
        sys.exit(f"a server took more than {given.limit:g} MB")


if __name__ == "__main__":
    main()
