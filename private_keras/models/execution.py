"""One model on the cluster in use: its plans, one for each batch size, and its weights, shared once."""
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle, Item, Rows, current
from private_keras.cluster.shares import Shares, delete_abandoned
from private_keras.errors import HandleNotFound, InputError
from private_keras.models import inputs, windows
from private_keras.models.guard import Guard
from private_keras.models.rows import rows_apart
from private_keras.models.stock import Job, Told
from private_keras.models.together import MAX_TOGETHER, Call, Together
from private_keras.models.training.jobs import Jobs
from private_keras.models.weights import Weights
from private_keras.tensor import Column, Part, spliced
from private_keras.tracing import Traced, trace
from private_keras.tracing.training.traced import TracedStep

# Of all values of a plan together. Beyond it a job of two batches takes about as long as two.
ELEMENTS_TOGETHER = 1 << 19


class Execution:
    """What a model keeps between predictions. Owned by the model; `look`, `arrays` and `run` may be called by many
    threads, everything else by one at a time.

    Plans depend on weights too (known values are folded into each other), so that both are forgotten together when the
    weights change, by whatever means. Where training has changed weights, which nobody knows, predictions use them as
    they are on the servers.

    Attributes:
        jobs: training and evaluation, and values on the servers.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self.jobs = Jobs(model)
        self._weights_seen = Weights(model)
        self._traced: dict[tuple[int, bool], Traced] = {}
        self._guards: dict[tuple[int, bool], Guard] = {}
        self._shares: Shares | None = None
        self._largest: float | None = None
        self._apart: dict[bool, bool] = {}
        self._together = Together(self._predict, self._rows_together)

    def copy(self) -> "Execution":
        """One that begins as this one is and changes nothing of it: for a call that is only planned."""
        self.look()
        made = copy.copy(self)
        made.jobs = self.jobs.copy()
        made._weights_seen = copy.copy(self._weights_seen)
        made._shares = None
        made._together = Together(made._predict, made._rows_together)
        return made

    def narrow(self, largest: float | None) -> None:
        """Plans are for inputs of this size at most from now on; see `PrivateModel.narrow`."""
        largest = windows.checked(largest)
        if largest == self._largest:
            return
        self._largest = largest
        self.jobs.stock.clear()
        self._traced.clear()
        self._guards.clear()

    def traced(self, batch_size: int) -> Traced | TracedStep:
        """The model's plan for a batch size, traced again only after a change of weights.

        Raises:
            InputError: the model is not built.
            UnsupportedError: the model uses something that cannot run on shares.
        """
        self.look()
        with self._together.turn():
            return self._traced_for(batch_size)

    def _traced_for(self, batch_size: int) -> Traced | TracedStep:
        if self.jobs.holdings.secret:
            return self.jobs.steps.predict(batch_size)
        return self._plan_for(batch_size)

    def look(self) -> None:
        """Forgets plans and shares of weights that are no longer the model's. Once per call is enough."""
        with self._together.turn():
            self._look()

    def _look(self) -> None:
        if self._weights_seen.changed():
            self._shares = None
            self.jobs.stock.clear()
            self._traced.clear()
            self._guards.clear()
            self._apart.clear()

    def _plan_for(self, batch_size: int, wide: bool = False) -> Traced:
        """The plan for a batch size; `wide` for inputs of any size, where `narrow` says how large they are."""
        if not self._model.built:
            raise InputError(
                f"model {self._model.name!r} is not built, so that its shapes are unknown. Begin it with "
                "keras.Input(shape), or call model.build(shape)."
            )
        narrow = not wide and self._largest is not None
        if (batch_size, narrow) not in self._traced:
            self._require_known()
            traced = trace(self._model, batch_size)
            if narrow:
                traced = windows.narrowed(traced, self._largest)
            self._traced[batch_size, narrow] = traced
            self._guards[batch_size, narrow] = Guard(self._model.name, traced, self._largest if narrow else None)
        return self._traced[batch_size, narrow]

    def _require_known(self) -> None:
        """Raises an InputError if a weight is one that another model has trained on the servers."""
        for variable in self._model.weights:
            if np.isnan(keras.ops.convert_to_numpy(variable).astype(np.float64)).any():
                raise InputError(
                    f"model {self._model.name!r}: weight {variable.path!r} is not a finite number. If its layer was "
                    "trained in another private model, its weights are on the servers and belong to that model: "
                    "build on the layers of pk.convert(that_model.reveal())."
                )

    def arrays(self, x: Any, batch_size: int) -> list[inputs.Data]:
        """What x holds, in the order of the model's inputs, every row checked. Call `look` before."""
        arrays = inputs.flatten(self._model, x)
        with self._together.turn():
            traced = self._traced_for(min(batch_size, len(arrays[0])))
        inputs.check(self._model, traced.inputs, arrays)
        return arrays

    def run(self, x: Any, to: str | None = None, delivery: str = "") -> Any:
        """Predictions for one batch: shares weights that are not on the servers yet, and the batch; then runs.

        Call `look` before the first of several batches. Small batches of several threads share a job.

        Args:
            to: who gets the predictions, as `delivery`; None for the client.

        Returns:
            The outputs in Keras' structure; with `to`, names and shapes of outputs.
        """
        arrays = inputs.flatten(self._model, x)
        if to is not None or inputs.is_secret(arrays):
            with self._together.turn():
                return self._predict(arrays, to, delivery)
        return self._together.run(Call(arrays))

    def _rows_together(self, call: Call) -> int:
        """How many rows may share a job: as long as rounds and calls, not work, are most of what it takes."""
        if self.jobs.stock.wanted(call.rows):
            return 1  # what is ready is for batches of this size
        secret = self.jobs.holdings.secret
        if secret not in self._apart:
            self._apart[secret] = rows_apart(self._traced_for(2))
        if not self._apart[secret]:
            return 1
        plan = self._traced_for(call.rows).plan
        known = {item.name for item in plan.inputs}
        work = sum(kind.size for name, kind in plan.types.items() if name not in known)
        return min(MAX_TOGETHER, call.rows * ELEMENTS_TOGETHER // max(1, work))

    def _predict(self, arrays: list[inputs.Data], to: str | None = None, delivery: str = "") -> Any:
        """One batch, one job; called by one thread at a time."""
        if self.jobs.holdings.secret:
            step = self.jobs.steps.predict(len(arrays[0]))
            values = inputs.check(self._model, step.inputs, arrays)
            cluster = current()
            given = inputs.given(cluster, values)
            job = Job(cluster, *spliced(step.plan, self.jobs.known(cluster, step)))
            if to is not None:
                self.jobs.run(cluster, step, given, known=job.known, to=to, delivery=delivery)
                return _shapes(step)
            with self._ready(len(arrays[0]), job, given) as item:
                opened = self.jobs.run(cluster, step, given, known=job.known, item=item)
            return _outputs(step, opened)
        traced = self._plan_for(len(arrays[0]))
        values = inputs.check(self._model, traced.inputs, arrays)
        wide = self._largest is None or not windows.within(values, self._largest)
        if wide:
            traced = self._plan_for(len(arrays[0]), wide)
        if not inputs.is_secret(arrays):
            self._guards[len(arrays[0]), not wide].check(values)
        cluster = current()
        # What is ready is for batches that `narrow` speaks of; one beyond neither takes it nor replaces it.
        stocked = self._largest is None or not wide
        try:
            results = self._run(cluster, traced, values, len(arrays[0]), stocked, to, delivery)
        except HandleNotFound:
            # A server was started anew and knows nothing of before; nothing of this batch was computed.
            self._shares = None
            results = self._run(cluster, traced, values, len(arrays[0]), stocked, to, delivery)
        return _outputs(traced, results) if to is None else _shapes(traced)

    def _run(
        self, cluster: Cluster, traced: Traced, values: Mapping[str, np.ndarray | Column], rows: int, stocked: bool,
        to: str | None, delivery: str,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        given = inputs.given(cluster, values)
        job = Job(cluster, traced.plan, self._weights(cluster, traced))
        plan, whole = spliced(traced.plan, {**job.known, **given}, to)
        if to is not None:
            return cluster.run(plan, whole, delivery=delivery)
        if not stocked:
            return cluster.run(plan, whole)
        with self._ready(rows, job, given) as item:
            return cluster.run(plan, whole, item=item)

    @contextmanager
    def _ready(
        self, rows: int, job: Job, given: Mapping[str, np.ndarray | Rows | Part]
    ) -> Iterator[Item | None]:
        """What servers have made ready for this job, if anything; after the job, what is to be replaced is."""
        fresh = all(isinstance(value, np.ndarray) for value in given.values())
        yield self.jobs.stock.take(rows, job) if fresh else None
        self.jobs.stock.replace(rows, job)

    def prepare(self, batch_size: int, count: int, refill: bool, begun: Callable[[int], Told]) -> None:
        """Makes predictions ready until there are `count`; see `PrivateModel.prepare`.

        Args:
            begun: told how many are missing, gives what is told how many are made.
        """
        self.look()
        cluster = current()
        try:
            self._fill(cluster, batch_size, count, refill, begun)
        except HandleNotFound:
            self._shares = None  # as in `run`
            self._fill(cluster, batch_size, count, refill, begun)

    def _fill(
        self, cluster: Cluster, batch_size: int, count: int, refill: bool, begun: Callable[[int], Told]
    ) -> None:
        if self.jobs.holdings.secret:
            step = self.jobs.steps.predict(batch_size)
            job = Job(cluster, *spliced(step.plan, self.jobs.known(cluster, step)))
        else:
            traced = self._plan_for(batch_size)
            job = Job(cluster, traced.plan, self._weights(cluster, traced))
        told = begun(self.jobs.stock.missing(batch_size, job, count))
        self.jobs.stock.fill(batch_size, job, count, refill, told)

    def _weights(self, cluster: Cluster, traced: Traced) -> dict[str, Handle]:
        """Handles of the plan's weights on this cluster."""
        delete_abandoned()
        if self._shares is None or not self._shares.live(cluster):
            self._shares = Shares(cluster)
        used = {item.name: item for item in traced.plan.inputs if item.name in traced.weights}
        return {
            name: self._shares.handle(name, traced.weights[name], item.type.fraction, item.label)
            for name, item in used.items()
        }


def _outputs(traced: Traced | TracedStep, results: Mapping[str, np.ndarray]) -> Any:
    """Opened values in the structure and dtypes of Keras' outputs."""
    return keras.tree.map_structure(
        lambda name: np.asarray(results[name]).astype(traced.output_dtypes[name]), traced.outputs
    )


def _shapes(traced: Traced | TracedStep) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs by name."""
    return {item.name: traced.plan.types[item.value].shape for item in traced.plan.outputs if item.receivers}
