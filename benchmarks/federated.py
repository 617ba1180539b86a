"""The mean of owners' updates: what it takes and how exact it is, on three server processes of this machine.

    python -m benchmarks.federated                 # 10 owners, 100 owners; 10,000 and 100,000 weights
    python -m benchmarks.federated 10 1000000      # owners, weights

Prints for each case: rounds and payload bytes between the servers, seconds of the job (best of three), bytes that each
owner sends to the servers, and the largest error of the mean against float64.
"""
import secrets
import sys
from dataclasses import replace

import numpy as np

from private_keras.cluster import LocalCluster
from private_keras.cluster.loop import PublicValue
from private_keras.federated import vector
from private_keras.plan.aggregate import CLIENT, SEED, aggregate_plan

LENGTH = 64.0
CASES = ((10, 10_000), (10, 100_000), (100, 10_000))


def case(cluster: LocalCluster, owners: int, weights: int) -> str:
    """A line of the table."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 1 << 20, owners)
    rows = rng.normal(size=(owners, weights))
    rows *= LENGTH / np.linalg.norm(rows, axis=1, keepdims=True)
    sizes = vector.sizes(weights)
    names = [f"owner-{index}" for index in range(owners)]
    plan = aggregate_plan(sizes, names, LENGTH)
    # One party plays all owners here.
    plan = replace(plan, inputs=tuple(replace(item, owner=CLIENT) for item in plan.inputs))
    fractions = {item.name: item.type.fraction for item in plan.inputs}
    held = {}
    for name, count, row in zip(names, counts, rows, strict=True):
        parts = {f"{name}/examples": np.array([[count]])}
        parts |= {f"{name}/update/{index}": part for index, part in enumerate(vector.parts(row, sizes))}
        held |= {label: cluster.share(values, fractions[label], label) for label, values in parts.items()}
    seconds = []
    for _ in range(3):
        opened = cluster.run(plan, {**held, SEED: PublicValue(np.array(secrets.randbelow(1 << 45)))})
        seconds.append(cluster.stats.last.computing)
    cluster.delete(*held.values())
    found = np.concatenate([opened[item.name][0] for item in plan.outputs])
    error = np.abs(found - counts @ rows / counts.sum()).max()
    last = cluster.stats.last
    return (f"{owners:7,} {weights:9,} {last.rounds:7} {last.bytes / 1e6:9.2f} {min(seconds):8.2f} "
            f"{16 * (weights + 1) / 1e6:9.2f} {error:9.1e}")  # fmt: skip


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:3]]
    with LocalCluster() as cluster:
        print(" owners   weights  rounds        MB  seconds  MB/owner     error")
        for owners, weights in [tuple(given)] if given else CASES:
            print(case(cluster, owners, weights), flush=True)


if __name__ == "__main__":
    main()
