"""Metrics of a step: Keras' own objects, recorded while they take a batch in.

Almost every metric's update adds something to its variables, which depends on the batch and not on what they hold. What
is added is lowered; then the variable is a state of the plan, an integer where only integers are added, and its new
value is one sum. Where what is added is public, as the number of samples is, there is no state at all: the client
counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src import backend
from keras.src.ops import numpy as knp

from private_keras.errors import UnsupportedError
from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import value_of
from private_keras.tracing.lowering import Lowering, integral
from private_keras.tracing.names import path_of
from private_keras.tracing.states import StateTensor, substituted
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.training.objective import Part
from private_keras.tracing.training.traced import State
from private_keras.tracing.training.weights import sanitised
from private_keras.tracing.values import Known, Refused, Secret, Value
from private_keras.tracing.walk import Walk

LAYER = "metrics"


def variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of all metrics of a compiled model, in Keras' order: a state's number is its place here."""
    found = {id(v): v for metric in model.metrics for v in metric.variables}
    return list(found.values())


def state_name(number: int, variable: keras.Variable) -> str:
    return f"metric/{number}/{sanitised(variable.path)}"


@contextmanager
def standing_in(model: keras.Model) -> Iterator[list[StateTensor]]:
    """For the length of a `with`, all metrics of a model hold stand-ins for their variables, which are given."""
    tensors = {id(v): StateTensor(v) for v in variables(model)}
    metrics = list(_all_metrics(model.metrics))
    # Keras has a second way for evenly spread thresholds and several labels, past `keras.ops`: see `AUC`.
    spread = [m for m in metrics if isinstance(m, keras.metrics.AUC) and m.multi_label]
    kept = [m._thresholds_distributed_evenly for m in spread]
    try:
        for metric in spread:
            metric._thresholds_distributed_evenly = False
        with substituted(metrics, lambda v: tensors.setdefault(id(v), StateTensor(v))):
            yield list(tensors.values())
    finally:
        for metric, even in zip(spread, kept, strict=True):
            metric._thresholds_distributed_evenly = even


def _all_metrics(metrics: list[Any]) -> Iterator[keras.metrics.Metric]:
    for metric in metrics:
        yield metric
        inner = metric.metrics if hasattr(metric, "metrics") else metric._metrics
        yield from _all_metrics(inner)


@dataclass
class Update:
    """What a step does to one variable: adds `terms` (tensors and numbers), or, where there are none, replaces it."""

    name: str
    state: StateTensor
    terms: list[Any] | None
    whole: bool = False


@dataclass
class Carried:
    """A step's effect on metrics, in a plan.

    Attributes:
        states: by name of the plan's input.
        carried: name of the output that is a state's new value, by the state's name.
        tallies: what a step adds to variables that are public, by name; they are not in the plan.
    """

    states: dict[str, State] = field(default_factory=dict)
    carried: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, np.ndarray] = field(default_factory=dict)


class Recorded:
    """A step's updates of metrics, recorded.

    Attributes:
        roots: the tensors to be lowered, beside those of the model and its loss.
    """

    def __init__(self, graph: Graph, states: list[StateTensor], given: Any):
        self._updates: list[Update] = []
        names = {id(s): state_name(i, s.variable) for i, s in enumerate(states)}
        split = {id(s): _terms(graph, s) for s in states if s.assigned}
        read: set[int] = set()
        for state in states:
            if state.assigned:
                terms = split[id(state)]
                read |= _ancestors(graph, [state.current] if terms is None else terms)
        for state in states:
            if state.assigned:
                terms = split[id(state)] if id(state.initial) not in read else None
                whole = terms is not None and not any(_averages(graph, t, given) for t in terms)
                self._updates.append(Update(names[id(state)], state, terms, whole))
        self._read = [(names[id(s)], s) for s in states if id(s.initial) in read]
        self.roots: list[keras.KerasTensor] = []
        for update in self._updates:
            for tensor in [update.state.current] if update.terms is None else update.terms:
                if isinstance(tensor, keras.KerasTensor):
                    self.roots.append(tensor)
        graph.label(self.roots, LAYER, given)
        graph.settings |= _nodes(graph, self.roots, given)

    def values(self, lo: Lowering, owner: str) -> dict[int, Secret]:
        """Declares the states that updates look at; their values before the step by id of the tensor."""
        return {
            id(s.initial): _declare(lo, name, s.variable, _fraction(lo, s.variable), owner) for name, s in self._read
        }

    def lower(self, lo: Lowering, walk: Walk, owner: str) -> Carried:
        """Writes the new values of all states, after the walk over the graph; `owner` is who metrics are opened to."""
        done = Carried()
        lo.layer = LAYER
        for name, state in self._read:
            done.states[name] = State(name, "metric", tuple(state.shape), _fraction(lo, state.variable), state.variable)
        for update in self._updates:
            self._write(lo, walk, update, owner, done)
        lo.layer = ""
        return done

    def _write(self, lo: Lowering, walk: Walk, update: Update, owner: str, done: Carried) -> None:
        variable, shape = update.state.variable, tuple(update.state.shape)
        tensors = [update.state.current] if update.terms is None else update.terms
        values = [walk.value(t) if isinstance(t, keras.KerasTensor) else value_of(np.asarray(t)) for t in tensors]
        if any(isinstance(v, Refused) for v in values):
            return
        if update.terms is None:
            fraction = _fraction(lo, variable)
            new = lo.at(shapes.broadcast(lo, values[0], shape), fraction)
        elif all(isinstance(v, Known) and not v.secret for v in values):
            total = sum(np.asarray(v.value, np.float64) for v in values)
            done.tallies[update.name] = np.broadcast_to(total, shape).astype(np.float64)
            return
        else:
            added = _total(lo, values)
            fraction = 0 if update.whole and added.fraction == 0 else _fraction(lo, variable)
            old = _declare(lo, update.name, variable, fraction, owner)
            new = lo.step("add", old, lo.at(shapes.broadcast(lo, added, shape), fraction))
        done.states[update.name] = State(update.name, "metric", shape, fraction, variable)
        done.carried[update.name] = f"new/{update.name}"
        lo.builder.output(new.name, f"new/{update.name}", (), carry=update.name)


def record(
    model: keras.Model,
    graph: Graph,
    y: Any,
    y_pred: Any,
    sample_weight: Any,
    loss: keras.KerasTensor,
    parts: list[Part],
    batch_size: int,
) -> Recorded:
    """Records what a step does to the compiled metrics and to the trackers of losses, as Keras does it.

    Args:
        model: compiled model whose call and loss were recorded.
        graph: what was recorded; to be called while it is.
        y: structure of targets, or None.
        y_pred: structure of outputs.
        sample_weight: tensor of one weight for each sample, or None.
        loss: the total loss.
        parts: the losses of outputs, for models with several.
        batch_size: samples in the step.

    Raises:
        UnsupportedError: the model computes metrics in a way of its own.
    """
    if type(model).compute_metrics is not keras.Model.compute_metrics:
        raise UnsupportedError(
            "the model has a `compute_metrics` of its own. Write what it computes as a metric for `compile`."
        )
    compiled = model._compile_metrics if y is not None else None
    if compiled is not None and not compiled.built:
        # As Keras does: metrics are chosen and their variables made for these shapes.
        backend.compute_output_spec(compiled.update_state, y, y_pred, sample_weight)
    with standing_in(model) as states:
        model._loss_tracker.update_state(loss, sample_weight=batch_size)
        for metric, value, samples in parts:
            metric.update_state(value, sample_weight=samples)
        if compiled is not None:
            compiled.update_state(y, y_pred, sample_weight)
        given = [t for t in tree.flatten([y, y_pred, sample_weight, loss, [p[1] for p in parts]]) if t is not None]
        return Recorded(graph, states, given)


def _terms(graph: Graph, state: StateTensor) -> list[Any] | None:
    """What was added to the state, if nothing else was done to it."""
    terms: list[Any] = []
    tensor = state.current
    while tensor is not state.initial:
        made = graph.producer(tensor)
        if made is None or not isinstance(made[0].operation, knp.Add):
            return None
        operands = list(made[0].arguments.args)
        chain = [x for x in operands if id(state.initial) in _ancestors(graph, [x])]
        if len(chain) != 1 or len(operands) != 2 or tuple(chain[0].shape) != tuple(state.shape):
            return None
        terms += [x for x in operands if x is not chain[0]]
        tensor = chain[0]
    return terms


def _ancestors(graph: Graph, tensors: list[Any]) -> set[int]:
    """Ids of the tensors and of all that they were computed from."""
    seen: set[int] = set()
    stack = [t for t in tensors if isinstance(t, keras.KerasTensor)]
    while stack:
        tensor = stack.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            made = graph.producer(tensor)
            stack.extend(made[0].input_tensors if made is not None else ())
    return seen


def _between(graph: Graph, tensors: list[Any], given: list[Any]) -> Iterator[Any]:
    """Nodes that lead from `given` to `tensors`."""
    seen = {id(t) for t in given}
    stack = [t for t in tensors if isinstance(t, keras.KerasTensor)]
    while stack:
        tensor = stack.pop()
        made = None if id(tensor) in seen else graph.producer(tensor)
        seen.add(id(tensor))
        if made is not None:
            yield made[0]
            stack.extend(made[0].input_tensors)


def _nodes(graph: Graph, tensors: list[Any], given: list[Any]) -> set[int]:
    nodes = list(_between(graph, tensors, given))
    graph.keep.extend(nodes)
    return {id(node) for node in nodes}


def _averages(graph: Graph, term: Any, given: list[Any]) -> bool:
    """Whether integers may become fractions at some batch sizes only, a mean over one sample being one too."""
    for node in _between(graph, [term], given):
        operation = node.operation
        if isinstance(operation, knp.Divide | knp.TrueDivide | knp.DivideNoNan | knp.Average):
            return True
        if isinstance(operation, knp.Mean):
            axes = [operation.axis] if isinstance(operation.axis, int) else operation.axis
            rank = len(node.input_tensors[0].shape)
            if axes is None or any(a % rank == 0 for a in axes):
                return True
    return False


def _fraction(lo: Lowering, variable: keras.Variable) -> int:
    return lo.fraction if backend.standardize_dtype(variable.dtype).startswith(("float", "bfloat")) else 0


def _declare(lo: Lowering, name: str, variable: keras.Variable, fraction: int, owner: str) -> Secret:
    return lo.secret(
        lo.builder.input(name, tuple(variable.shape), fraction, owner, label=path_of(variable.path))
    )


def _total(lo: Lowering, values: list[Value]) -> Secret:
    total = values[0]
    for value in values[1:]:
        total = arithmetic.add(lo, total, value)
    if isinstance(total, Known):
        return lo.known(total, 0 if integral(total) else lo.fraction)
    return lo.as_secret(total)
