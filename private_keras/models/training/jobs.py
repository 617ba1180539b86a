"""One model's jobs on the cluster in use: steps on its data, from its values there to new ones."""
import copy
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle, Item, Loop, PublicValue, Rows
from private_keras.cluster.results import Address
from private_keras.cluster.shares import Share
from private_keras.errors import DivergenceError, InputError
from private_keras.models.stock import Stock
from private_keras.models.training.delivered import delivered
from private_keras.models.training.holdings import Counters, Holdings, Snapshot, place_of
from private_keras.models.training.results import DIVERGED, LIMIT_BITS, guard_plan, guarded, guarded_states
from private_keras.models.training.steps import Steps
from private_keras.server import limits
from private_keras.tensor import Part, spliced
from private_keras.tracing.training.traced import State, TracedResults, TracedStep

Logs = dict[str, float]


class Jobs:
    """Runs steps.

    Attributes:
        steps: the model's traced steps.
        holdings: its values on the servers.
        fitting: whether `fit` runs.
        stock: predictions that servers have made ready.
        tallies: what steps added to metric variables that are public, since the last reset, by name.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self.steps = Steps(model)
        self.holdings = Holdings(model)
        self.fitting = False
        self._arrays: dict[str, tuple[bytes, Share]] = {}
        self.stock = Stock()
        self.tallies: dict[str, np.ndarray] = {}
        self._begun: dict[str, np.ndarray] = {}
        self._last: TracedStep | None = None
        self._trained: dict[str, State] = {}
        self._planned = False
        self._counters: Counters | None = None

    def copy(self) -> "Jobs":
        """Jobs that begin as these are and change nothing of them: for a call that is only planned. What they change of
        the optimiser's counters, by which steps are traced, is for `put_back`.
        """
        made = copy.copy(self)
        made.steps, made.holdings = self.steps.copy(), self.holdings.copy()
        made.stock = Stock()
        made.tallies, made._begun, made._arrays = dict(self.tallies), dict(self._begun), {}
        made._counters = None
        made._planned = True
        return made

    def put_back(self) -> None:
        """The optimiser's counters are again what they were before the first of these jobs."""
        for variable, value in self._counters or ():
            variable.assign(value)

    def run(
        self, cluster: Cluster, traced: TracedStep, data: Mapping[str, Rows | np.ndarray | Part], steps: int = 1,
        on_step: Callable[[int], None] | None = None, known: Mapping[str, Handle | PublicValue] | None = None,
        item: Item | None = None, to: str | None = None, delivery: str = "",
    ) -> dict[str, np.ndarray]:
        """Runs a step on data several times, in one job.

        Args:
            data: the plan's inputs of data by name.
            on_step: called with the number of steps done.
            known: what `known` gave, where it was asked before.
            item: what servers have made ready for a prediction.
            to: who gets what the plan opens, as `delivery`; None for the client.

        Returns:
            What the plan opens. The values that it carries are the model's from then on; after an error, nothing has
            changed.
        """
        training = traced.plan.kind == "train"
        first = int(self._model.optimizer._iterations) if training else 0
        given = {**data, **(self.known(cluster, traced, first, steps) if known is None else known)}
        loop = Loop(steps, on_step)
        plan, given = spliced(traced.plan, given, to)
        more = {} if to is None else {"delivery": delivery}
        results = cluster.run(plan, given, deadline=limits.MAX_SECONDS, loop=loop, item=item, **more)
        self.holdings.put(cluster, {name: results.pop(output) for name, output in traced.carried.items()})
        for name, value in traced.tallies.items():
            self.tallies[name] = self.tallies.get(name, self._begun.pop(place_of(name), 0.0)) + steps * value
        self._last = traced
        if training:
            if self._planned and self._counters is None:
                self._counters = self.holdings.counters()
            self.stock.clear()
            settle = getattr(traced.schedule, "settle", None)
            if settle is not None:
                settle(first + steps)
            self._model.optimizer._iterations.assign(first + steps)
            self._trained = {name: traced.states[name] for name in traced.carried}
        return results

    def known(
        self, cluster: Cluster, traced: TracedStep, first: int = 0, steps: int = 1
    ) -> dict[str, Handle | PublicValue]:
        """All inputs of a step's plan but its data: values on the servers, and public ones of steps from `first` on."""
        given = {**self._public(traced, first, steps), **self._constants(cluster, traced)}
        used = {item.name for item in traced.plan.inputs}
        return given | self.holdings.handles(cluster, (s for s in traced.states.values() if s.name in used))

    def open(self, cluster: Cluster, guard: bool) -> Logs:
        """Opens metrics; with `guard` also whether values left the range.

        Raises:
            DivergenceError: they did, or the loss is that large.
        """
        results = self.steps.results(self._last)
        states = guarded_states(self._trained) if guard else []
        plan = guarded(results.plan, states) if states else results.plan
        given = self._metrics(cluster, results, [*results.states.values(), *states])
        plan, given = spliced(plan, {item.name: given[item.name] for item in plan.inputs})
        opened = cluster.run(plan, given)
        read = results.read(opened, self.tallies)
        logs = {name: _number(read[name]) for name in sorted(read)}  # as Keras on TensorFlow has them
        loss = logs.get("loss", 0.0)
        if guard and (opened.get(DIVERGED, 0) > 0 or not abs(loss) < 2.0**LIMIT_BITS):
            raise self._diverged()
        return logs

    def deliver(self, cluster: Cluster, address: Address) -> tuple[str, ...]:
        """Opens metrics to somebody else; returns their names."""
        results = self.steps.results(self._last)
        sent = delivered(results, self.tallies)
        given = self._metrics(cluster, results, results.states.values())
        given |= {name: PublicValue(value) for name, value in sent.public.items()}
        plan, given = spliced(sent.plan, {item.name: given[item.name] for item in sent.plan.inputs}, address.to)
        cluster.run(plan, given, delivery=address.part(0))
        return tuple(item.name for item in plan.outputs)

    def _metrics(
        self, cluster: Cluster, results: TracedResults, states: Iterable[State]
    ) -> dict[str, Handle | PublicValue]:
        given: dict[str, Handle | PublicValue] = dict(self.holdings.handles(cluster, states))
        for name, item in results.public.items():
            start = keras.ops.convert_to_numpy(item.variable).astype(np.float64)
            given[name] = PublicValue(start + self.tallies.get(name, 0.0))
        return given

    def check(self, cluster: Cluster) -> None:
        """Opens whether values left the range, and nothing else.

        Raises:
            DivergenceError: they did.
        """
        states = guarded_states(self._trained)
        if states:
            plan = guard_plan(self._model.name, states)
            plan, given = spliced(plan, self.holdings.handles(cluster, states))
            if cluster.run(plan, given)[DIVERGED] > 0:
                raise self._diverged()

    def _diverged(self) -> DivergenceError:
        return DivergenceError(
            f"model {self._model.name!r}: values left the range of fixed point (2^{LIMIT_BITS}; 2^8 for gradients "
            "that an optimizer squares); what the last steps computed is worthless and was dropped. Use a smaller "
            "learning rate, scale inputs and targets to about -1 to 1, or limit gradients: clipnorm, "
            "global_clipnorm or clipvalue of the optimizer."
        )

    def reset_metrics(self) -> None:
        """Metrics begin anew, here and on the servers."""
        if not self._planned:
            keras.Model.reset_metrics(self._model)
        self.holdings.reset_metrics()
        self.tallies = {}
        self._begun = {}

    def begin(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Goes on counting from these sums, by place of the state."""
        self.tallies = {}
        self._begun = dict(tallies)

    def snapshot(self) -> tuple[Snapshot, Counters]:
        """Values and the optimiser's counters as they are."""
        return self.holdings.snapshot(), self.holdings.counters()

    def restore(self, snapshot: tuple[Snapshot, Counters]) -> None:
        """Takes a snapshot back."""
        self.holdings.restore(snapshot[0])
        for variable, value in snapshot[1]:
            variable.assign(value)

    def _public(self, traced: TracedStep, first: int, steps: int) -> dict[str, PublicValue]:
        values = traced.schedule(first, steps)
        for name, item in traced.public.items():
            if item.variable is not None:
                values[name] = keras.ops.convert_to_numpy(item.variable).astype(np.float64)
                if np.isnan(values[name]).any():
                    raise InputError(
                        f"model {self._model.name!r}: weight {item.variable.path!r} is declared public, but was "
                        "trained and is secret. model.set_weights(model.get_weights()) opens all weights to you."
                    )
        used = {item.name for item in traced.plan.inputs}
        return {name: PublicValue(value) for name, value in values.items() if name in used}

    def _constants(self, cluster: Cluster, traced: TracedStep) -> dict[str, object]:
        """Handles of arrays that layers hold."""
        result = {}
        for item in traced.plan.inputs:
            if item.name not in traced.arrays:
                continue
            array = np.ascontiguousarray(traced.arrays[item.name])
            content = array.tobytes()
            known = self._arrays.get(item.name)
            if known is None or known[0] != content or not known[1].live(cluster):
                share = Share(cluster, cluster.share(array, item.type.fraction, item.label or item.name))
                known = self._arrays[item.name] = content, share
            result[item.name] = known[1].handle
        return result


def _number(value: np.ndarray) -> float | np.ndarray:
    """As Keras gives results: Python numbers, or arrays."""
    array = np.asarray(value)
    return array if array.ndim else float(array)
