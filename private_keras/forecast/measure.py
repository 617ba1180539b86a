"""Measures how fast the servers of a cluster are, by a few small plans."""

import statistics
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
_RUNS = 5
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
        "opening": _plan((4,), lambda b, x: _chain(b, x, lambda y: _opened(b, y))),
        "element": _plan((1 << 19,), lambda b, x: _chain(b, x, lambda y: b.add("add", y, "x"), 8)),
        "byte": _plan((1 << 17,), lambda b, x: b.add("relu", b.add("relu", x), truncate=1)),
        "product": _plan((512, 512), lambda b, x: b.add("matmul", x, x, twice=True)),
    }


def _opened(b: PlanBuilder, x: str) -> str:
    return b.add("truncate", b.add("shift", x, bits=1), bits=1)


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
    in, and after the client made it.
    """
    seconds = []
    for _ in range(_RUNS + 1):
        cluster.run(plan, {"x": np.full(plan.inputs[0].type.shape, 2.0**-9)})
        seconds.append(cluster.stats.last.computing)
    return statistics.median(seconds[1:])
