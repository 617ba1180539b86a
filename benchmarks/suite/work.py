"""What is measured: a workload, and its work on one cluster next to the same in the clear."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

import private_keras as pk
from private_keras.cluster import Cluster, Loop, Traffic
from private_keras.cluster.loop import Given
from private_keras.forecast import Machine, Network
from private_keras.plan.plan import Plan


class Work(ABC):
    """One workload on one cluster. `first`, then any number of `run`, `plain` and `error`, then `close`.

    Attributes:
        steps: how many of what is reported a run holds; figures are divided by it.
    """

    steps = 1

    @abstractmethod
    def first(self) -> None:
        """Everything that the first call of a program takes, once the cluster runs."""

    @abstractmethod
    def run(self) -> None:
        """The whole call, whatever it needs being on the servers already if a second call finds it there."""

    @abstractmethod
    def plain(self) -> None:
        """The same work in the clear."""

    def prepare(self) -> bool:
        """Lets the servers do ahead what the next run needs no batch for; whether there is such a thing."""
        return False

    @abstractmethod
    def error(self) -> tuple[float, float]:
        """The largest difference from what is computed in the clear, and the largest value there."""

    def error_up_to(self, largest: float) -> float:
        """The largest difference among values of this size and smaller ones."""
        raise NotImplementedError(f"{type(self).__name__} has one error, of all values")

    def traffic(self, jobs: Sequence[Traffic]) -> Traffic:
        """What counts of the jobs of one run."""
        return sum(jobs, Traffic())

    def in_a_row(self, cluster: Cluster, times: int) -> float | None:
        """Seconds of one of so many in one job, each from stored shares to shares of the result; None for what is
        measured in a row anyway.
        """
        return None

    def forecast(self, network: Network, machine: Machine) -> float | None:
        """Seconds that `cost` tells; None where there is none."""
        return None

    def close(self) -> None:  # noqa: B027 - models free what is theirs when they go
        """Frees what the servers keep for it."""


@dataclass(frozen=True)
class Workload:
    """An entry of the suite.

    Attributes:
        name: as in `targets.json`.
        title: for people.
        make: the work on a cluster; with True, in a size for tests.
        heavy: seconds a run, so that few runs must do.
        networked: also measured between emulated hosts.
    """

    name: str
    title: str
    make: Callable[[Cluster, bool], Work]
    heavy: bool = False
    networked: bool = False


def row_seconds(cluster: Cluster, plan: Plan, given: Mapping[str, Given], times: int) -> float:
    """Seconds of one run of a plan, of many in one job after another such job."""
    for _ in range(2):
        cluster.run(plan, given, loop=Loop(times))
    return cluster.stats.last.computing / times


class PlanWork(Work):
    """A plan on stored shares.

    Args:
        inputs: real numbers, which are shared once, or what `Cluster.run` takes as it is.
        expected: what the outputs should be, by name.
        plain: the same in the clear.
        loop: how many steps.
        around: makes of a stored handle what `Cluster.run` takes, by input name.
    """

    def __init__(
        self, cluster: Cluster, plan: Plan, inputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray],
        plain: Callable[[], object], loop: Loop | None = None, around: Mapping[str, Callable[..., Given]] | None = None,
    ):  # fmt: skip
        self._cluster = cluster
        self._plan = plan
        self._inputs = inputs
        self._expected = expected
        self._plain = plain
        self._loop = loop
        self._around = around or {}
        self._handles = []
        self._given: dict[str, Given] = {}
        self._opened: Mapping[str, np.ndarray] = {}
        self._item = None
        self.steps = 1 if loop is None else loop.steps

    def first(self) -> None:
        for item in self._plan.inputs:
            handle = self._cluster.share(self._inputs[item.name], item.type.fraction, item.name)
            self._handles.append(handle)
            self._given[item.name] = self._around.get(item.name, lambda h: h)(handle)
        self.run()

    def prepare(self) -> bool:
        if self._loop is not None:
            return False
        self._item = self._cluster.prepare(self._plan, self._given)
        return True

    def run(self) -> None:
        item, self._item = self._item, None
        self._opened = self._cluster.run(self._plan, self._given, loop=self._loop, item=item)
        kept = [value for value in self._opened.values() if not isinstance(value, np.ndarray)]
        if kept:
            self._cluster.delete(*kept)

    def in_a_row(self, cluster: Cluster, times: int) -> float | None:
        return row_seconds(cluster, self._plan, self._given, times) if self._loop is None else None

    def plain(self) -> None:
        self._plain()

    def error(self) -> tuple[float, float]:
        return (
            max(float(np.abs(self._opened[name] - value).max()) for name, value in self._expected.items()),
            max(float(np.abs(value).max()) for value in self._expected.values()),
        )

    def error_up_to(self, largest: float) -> float:
        return max(
            float(np.abs(self._opened[name] - value)[np.abs(value) <= largest].max(initial=0.0))
            for name, value in self._expected.items()
        )

    def close(self) -> None:
        self._cluster.delete(*self._handles)


class PredictWork(Work):
    """`predict` of a model for one batch."""

    def __init__(self, plain: keras.Model, x: np.ndarray):
        self._plain = plain
        self._x = x.astype("float32")
        self._model = pk.convert(plain)

    def first(self) -> None:
        self._result = self._model.predict(self._x, batch_size=len(self._x), verbose=0)

    run = first

    def in_a_row(self, cluster: Cluster, times: int) -> float | None:
        # What `predict` runs, on stored shares of weights and rows.
        traced = self._model._on_shares().traced(len(self._x))
        values = {**traced.weights, traced.inputs[0].name: self._x}
        handles = {
            item.name: cluster.share(np.asarray(values[item.name], np.float64), item.type.fraction, item.name)
            for item in traced.plan.inputs
        }
        try:
            return row_seconds(cluster, traced.plan, handles, times)
        finally:
            cluster.delete(*handles.values())

    def plain(self) -> None:
        self._plain.predict_on_batch(self._x)

    def prepare(self) -> bool:
        self._model.prepare(1, batch_size=len(self._x), verbose=0)
        return True

    def error(self) -> tuple[float, float]:
        expected = self._plain.predict_on_batch(self._x)
        return float(np.abs(self._result - expected).max()), float(np.abs(expected).max())

    def forecast(self, network: Network, machine: Machine) -> float:
        return self._model.cost(len(self._x), network, machine).seconds


class FitWork(Work):
    """A training step: `fit` of one epoch, divided by its steps. The error is that of the weights after one step."""

    def __init__(self, plain: keras.Model, optimizer: Callable[[], keras.Optimizer], loss: object, x, y, batch: int):
        self.steps = len(x) // batch
        self._x, self._y = x[: self.steps * batch].astype("float32"), y[: self.steps * batch]
        self._options = {"batch_size": batch, "verbose": 0, "shuffle": False}
        plain.compile(optimizer(), loss)
        self._plain = plain
        self._model = pk.convert(plain)
        self._part = self._x[:batch], self._y[:batch]
        self._error = math.nan, math.nan

    def first(self) -> None:
        self._model.fit(*self._part, **self._options)
        revealed = self._model.reveal().get_weights()
        self._plain.fit(*self._part, **self._options)
        expected = self._plain.get_weights()
        self._error = (
            max(float(np.abs(a - b).max()) for a, b in zip(revealed, expected, strict=True)),
            max(float(np.abs(b).max()) for b in expected),
        )

    def run(self) -> None:
        self._model.fit(self._x, self._y, **self._options)

    def plain(self) -> None:
        self._plain.fit(self._x, self._y, **self._options)

    def error(self) -> tuple[float, float]:
        return self._error

    def traffic(self, jobs: Sequence[Traffic]) -> Traffic:
        return max(jobs, key=lambda job: job.computing)
