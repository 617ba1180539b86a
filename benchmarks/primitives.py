"""Seconds of single steps on the embedded cluster, from shares in place to shares of the result in place.

    python benchmarks/primitives.py

Prints for each step the median and the least seconds that the slowest server took, rounds between the evaluators, bytes
of all servers, and the same work on plain float64 with NumPy. What is opened in the end is one number, a sum of the
result, so that opening costs nothing and the result cannot be left out.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from private_keras.cluster import LocalCluster
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan

FRACTION = 18
CALLS = 9

Lower = Callable[..., str]
STEPS: dict[str, tuple[Lower, Callable, tuple[tuple[int, ...], ...]]] = {
    "matmul 1024x1024x1024": (
        lambda b, x, y: b.add("truncate", b.add("matmul", x, y), bits=FRACTION),
        np.matmul,
        ((1024, 1024), (1024, 1024)),
    ),
    "matmul 128x784x128": (
        lambda b, x, y: b.add("truncate", b.add("matmul", x, y), bits=FRACTION), np.matmul, ((128, 784), (784, 128)),
    ),
    "multiply, truncate 10^6": (
        lambda b, x, y: b.add("truncate", b.add("multiply", x, y), bits=FRACTION), np.multiply, ((10**6,), (10**6,)),
    ),
    "relu 10^6": (lambda b, x: b.add("relu", x), lambda x: np.maximum(x, 0), ((10**6,),)),
    "max_pool 2x2 128x24x24x20": (
        lambda b, x: b.add("max_pool", x, window=[2, 2], strides=[2, 2], padding=[[0, 0], [0, 0]]),
        lambda x: x.reshape(128, 12, 2, 12, 2, 20).max(axis=(2, 4)),
        ((128, 24, 24, 20),),
    ),
    "exp 10^5": (lambda b, x: b.add("exp", x), np.exp, ((10**5,),)),
    "reciprocal 10^5": (lambda b, x: b.add("reciprocal", x), lambda x: 1 / x, ((10**5,),)),
    "sqrt 10^5": (lambda b, x: b.add("sqrt", x), np.sqrt, ((10**5,),)),
    "softmax 1000x10": (
        lambda b, x: b.add("softmax", x, axis=1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True), ((1000, 10),),
    ),
}  # fmt: skip


def plan_of(lower: Lower, shapes: tuple[tuple[int, ...], ...]) -> Plan:
    """The step, then the sum of its result."""
    b = PlanBuilder()
    result = lower(b, *(b.input(f"x{i}", shape, FRACTION, "client") for i, shape in enumerate(shapes)))
    total = b.add("reduce_sum", result, axes=list(range(len(b.type(result).shape))), keepdims=True)
    b.output(total, "sum", ["client"])
    return b.build("step", "compute")


def measure(cluster: LocalCluster, name: str) -> None:
    """One line of the table."""
    lower, plain, shapes = STEPS[name]
    arrays = [np.random.default_rng(i).uniform(0.1, 1, shape) for i, shape in enumerate(shapes)]
    plan = plan_of(lower, shapes)
    handles = {f"x{i}": cluster.share(array, FRACTION, name) for i, array in enumerate(arrays)}
    seconds, clear = [], []
    for _ in range(CALLS + 1):
        cluster.run(plan, handles)
        seconds.append(cluster.stats.last.computing)
        began = time.perf_counter()
        plain(*arrays)
        clear.append(time.perf_counter() - began)
    for handle in handles.values():
        cluster.delete(handle)
    last = cluster.stats.last
    median = statistics.median(seconds[1:])
    print(
        f"{name:28s} {median:9.4f} {min(seconds[1:]):9.4f} {last.rounds:7d} {last.bytes:13,d} "
        f"{statistics.median(clear[1:]):10.5f}"
    )


def main() -> None:
    """Prints the table."""
    print(f"{'step':28s} {'median s':>9s} {'least s':>9s} {'rounds':>7s} {'bytes':>13s} {'NumPy s':>10s}")
    with LocalCluster() as cluster:
        for name in STEPS:
            measure(cluster, name)


if __name__ == "__main__":
    main()
