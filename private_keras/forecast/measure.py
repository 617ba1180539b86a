"""Measures how fast the servers of a cluster are, by a few small plans.

Predictions come one by one: between two of them client and system do other work, and caches are cold. So do the probes,
and rounds and bytes are measured by networks, since what a step takes that comes once in a plan differs from what the
same step takes sixty times in a row.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from private_keras.cluster import Cluster, current
from private_keras.forecast.machine import Machine
from private_keras.forecast.network import Network
from private_keras.forecast.seconds import forecast
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan

_FRACTION = 18
# Runs of a probe: more where they are over soon, since small ones vary most.
_LEAST, _MOST, _SECONDS = 5, 25, 0.25
_PAUSE = 0.005  # between them: the client's own part of a prediction
_CHAIN = 60


def measure_machine(network: str | Network = "local", cluster: Cluster | None = None) -> Machine:
    """How fast the servers are that are connected now, for `cost(machine=...)`; takes about two seconds.

    Args:
        network: the links between them; what they take is not the machine's.
        cluster: another one than that in use. It should have nothing else to do.

    Raises:
        InputError: an unknown network.
        ClusterError: servers that cannot be reached or were lost.
    """
    cluster = cluster or current()
    found = Machine(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    # One number after the other, each from a plan that is mostly about it, less what those before explain.
    for name, plan in _probes().items():
        known, more = (forecast(plan, network, m).seconds for m in (found, replace(found, **{name: 1e-3})))
        seconds = max(_seconds(cluster, plan) - known, 0.0)
        found = replace(found, **{name: seconds * 1e-3 / (more - known)})
    return found


def _probes() -> dict[str, Plan]:
    return {
        "start": _plan((4,), lambda b, x: x),
        "step": _plan((4,), lambda b, x: _chain(b, x, lambda y: b.add("add", y, "x"), 4 * _CHAIN)),
        "opening": _network(1, 12, 4, 16),
        "element": _plan((1 << 19,), lambda b, x: _chain(b, x, lambda y: b.add("add", y, "x"), 8)),
        "product": _plan((512, 512), lambda b, x: b.add("matmul", x, x, twice=True)),
        "byte": _network(128, 20, 8, 64),
    }


def _network(batch: int, side: int, filters: int, units: int) -> Plan:
    """A convolution, a pool and two dense layers, as lowering writes them: rounds are what a small one takes, and bytes
    what a large one does.
    """
    b = PlanBuilder()
    x = b.input("x", (batch, side, side, 1), _FRACTION, "client")
    half = (side - 2) // 2
    shapes = {"kernel": (3, 3, 1, filters), "hidden": (half * half * filters, units), "last": (units, 10)}
    for name, shape in shapes.items():
        b.input(name, shape, _FRACTION, "client")
    once = {"strides": [1, 1], "padding": [[0, 0]] * 2, "dilation": [1, 1], "input_dilation": [1, 1]}
    y = b.add("conv", x, "kernel", **once, twice=True)
    y = b.add("max_pool", y, window=[2, 2], strides=[2, 2], padding=[[0, 0]] * 2)
    y = b.add("reshape", b.add("relu", y, truncate=_FRACTION + 1), shape=[batch, half * half * filters])
    y = b.add("relu", b.add("matmul", y, "hidden", twice=True), truncate=_FRACTION + 1)
    b.output(b.add("truncate", b.add("matmul", y, "last", twice=True), bits=_FRACTION + 1), "y", ["client"])
    return b.build("probe", "predict")


def _chain(b: PlanBuilder, x: str, add: Callable[[str], str], length: int = _CHAIN) -> str:
    for _ in range(length):
        x = add(x)
    return x


def _plan(shape: tuple[int, ...], lower: Callable[[PlanBuilder, str], str]) -> Plan:
    """The steps, then a sum of what they give, which costs nothing to open."""
    b = PlanBuilder()
    x = b.input("x", shape, _FRACTION, "client")
    result = lower(b, x)
    b.output(b.add("reduce_sum", result, axes=list(range(len(shape)))), "sum", ["client"])
    return b.build("probe", "compute")


def _seconds(cluster: Cluster, plan: Plan) -> float:
    """Median of some runs after the first, on a fresh batch each, as predictions are: servers begin after they took it
    in, and after the client made it; weights are there.
    """
    values = {item.name: np.full(item.type.shape, 2.0**-9) for item in plan.inputs}
    weights = {name: cluster.share(value, _FRACTION, name) for name, value in values.items() if name != "x"}
    try:
        cluster.run(plan, {**values, **weights})
        seconds: list[float] = []
        end = time.monotonic() + _SECONDS
        while len(seconds) < _LEAST or (len(seconds) < _MOST and time.monotonic() < end):
            time.sleep(_PAUSE)
            cluster.run(plan, {**values, **weights})
            seconds.append(cluster.stats.last.computing)
        return statistics.median(seconds)
    finally:
        cluster.delete(*weights.values())
