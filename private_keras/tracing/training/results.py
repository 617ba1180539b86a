"""`trace_results`: what metrics say at the end of an epoch, and nothing else, as a plan of its own.

Keras' own `result` of each metric is recorded. The last operations are often ones that the client can do alone and
undo: divide by the number of samples, which is public, or take a root. There the servers open what these operations
begin with, which tells the client the same, and costs nothing: a mean is a sum that is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.src.ops import core
from keras.src.ops import numpy as knp

from private_keras.errors import InputError, UnsupportedError
from private_keras.plan.passes import optimise
from private_keras.tracing.names import path_of
from private_keras.tracing.states import StateTensor, recording
from private_keras.tracing.symbolic import Finding, Graph
from private_keras.tracing.trace import RECORDING, report
from private_keras.tracing.training.metrics import LAYER, standing_in, state_name
from private_keras.tracing.training.quotients import QUOTIENT, RESULTS, ResultLowering
from private_keras.tracing.training.traced import PublicInput, TracedResults, TracedStep
from private_keras.tracing.values import Known, Refused
from private_keras.tracing.walk import Walk, topological

# Operations that can be undone by who knows all operands but one: by which place that one may have.
_ANY, _FIRST = (0, 1), (0,)
_UNDONE: dict[type, tuple[int, ...]] = {
    knp.Add: _ANY,
    knp.Subtract: _ANY,
    knp.Multiply: _ANY,
    knp.Divide: _FIRST,
    knp.TrueDivide: _FIRST,
    knp.DivideNoNan: _FIRST,
    knp.Negative: _FIRST,
    knp.Sqrt: _FIRST,
    knp.Reshape: _FIRST,
    knp.Squeeze: _FIRST,
    knp.ExpandDims: _FIRST,
    core.ConvertToTensor: _FIRST,
}


class ResultWalk(Walk):
    """A walk with the rules for results."""

    table = RESULTS


@dataclass(frozen=True)
class Reader:
    """The client's part of results: from what was opened, and what it has counted, to Keras' results.

    Attributes:
        results: recorded structure of each result, by Keras' name; in Keras' order.
        leaves: name of the output, by id of the tensor that it opens.
        tallied: name of a public variable and the variable, by id of the tensor that stands for it.
        graph: the recorded operations.
    """

    results: Mapping[str, Any]
    leaves: Mapping[int, str]
    tallied: Mapping[int, tuple[str, keras.Variable]]
    graph: Graph

    def __call__(self, opened: Mapping[str, np.ndarray], tallies: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Keras' results by name: numbers, or arrays of them.

        Args:
            opened: what the plan opened, by name of the output.
            tallies: for each public variable, the sum over all steps of what `TracedStep.tallies` says.
        """
        values: dict[int, Any] = {}

        def compute(tensor: Any) -> Any:
            if not isinstance(tensor, keras.KerasTensor):
                return tensor
            if id(tensor) not in values:
                values[id(tensor)] = self._value(tensor, opened, tallies, compute)
            return values[id(tensor)]

        return {name: np.asarray(ops.convert_to_numpy(compute(t))) for name, t in self.results.items()}

    def _value(self, tensor: Any, opened: Mapping[str, Any], tallies: Mapping[str, Any], compute: Any) -> Any:
        if id(tensor) in self.leaves:
            return ops.convert_to_tensor(opened[self.leaves[id(tensor)]], dtype=tensor.dtype)
        if id(tensor) in self.tallied:
            name, variable = self.tallied[id(tensor)]
            held = np.asarray(ops.convert_to_numpy(variable), np.float64)
            return ops.convert_to_tensor(held + tallies.get(name, 0.0), dtype=tensor.dtype)
        node, place = self.graph.producer(tensor)
        args, kwargs = node.arguments.convert(compute)
        return tree.flatten(node.operation(*args, **kwargs))[place]


def trace_results(model: keras.Model, step: TracedStep, *, receiver: str = "client") -> TracedResults:
    """The results of a model's metrics after any number of steps, as a plan that opens them.

    Args:
        model: compiled model.
        step: a step that the metrics took part in: of the same kind, and with weights of samples or without, as all
            others since the metrics were reset.
        receiver: whom results are opened to.

    Raises:
        UnsupportedError: naming metric, operation and advice for what cannot run on shares.
    """
    with RECORDING, recording(), standing_in(model) as states:
        try:
            results = _unpacked(model.get_metrics_result())
        except Exception as error:  # noqa: BLE001 - whatever a metric raises, the user learns that it was a metric
            raise UnsupportedError(
                report(model, [Finding(LAYER, "result", f"it cannot be followed ({type(error).__name__}: {error}).")])
            ) from None
        return _trace(model, step, states, results, receiver)


def _unpacked(results: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by name; a metric whose result is a dict has a name for each of its entries, as in Keras' logs."""
    found: dict[str, Any] = {}
    for name, result in results.items():
        if isinstance(result, Mapping):
            found |= _unpacked(result)
        else:
            found[name] = result.current if isinstance(result, StateTensor) else result
    return found


def _trace(
    model: keras.Model, step: TracedStep, states: list[StateTensor], results: dict[str, Any], receiver: str
) -> TracedResults:
    graph = Graph([], outputs=list(results.values()))
    names = {id(s.initial): state_name(i, s.variable) for i, s in enumerate(states)}
    secret = {i for i, name in names.items() if name in step.states}
    tallied = {id(s.initial): (names[id(s.initial)], s.variable) for s in states if id(s.initial) not in secret}
    finder = _Leaves(graph, secret)
    leaves = {name: finder.leaf(t) for name, t in results.items() if finder.is_secret(t)}
    if not leaves:
        raise InputError("no metric depends on the data; expected at least the loss. Trace a step with targets.")
    graph.roots = list(leaves.values())
    lo = ResultLowering(receiver)
    lo.layer = LAYER
    nodes = topological(graph)
    graph.settings |= {id(node) for node in nodes}
    used = {id(t) for node in nodes for t in node.input_tensors} | {id(t) for t in graph.roots}
    values = {}
    public: dict[str, PublicInput] = {}
    for state in states:
        name = names[id(state.initial)]
        if id(state.initial) in used:
            shape, label = tuple(state.shape), path_of(state.path)
            if id(state.initial) in secret:
                lo.builder.input(name, shape, step.states[name].fraction, receiver, label=label)
            else:
                whole = np.array_equal(step.tallies.get(name, 0.0), np.rint(step.tallies.get(name, 0.0)))
                public[name] = PublicInput(name, shape, 0 if whole else 18, state.variable)
                lo.builder.input(name, shape, public[name].fraction, receiver, label=label, public=True)
            values[id(state.initial)] = lo.secret(name)
    walk = ResultWalk(lo, graph, values, [])
    walk.run(nodes)
    opened: dict[int, str] = {}
    for leaf in leaves.values():
        found = walk.value(leaf)
        if id(leaf) in opened or isinstance(found, Refused | Known):
            continue
        fit = f"result/{len(opened)}"
        value = lo.as_secret(found)
        lo.builder.output(lo.upto(value, QUOTIENT).name, fit, (receiver,))
        opened[id(leaf)] = fit
    if walk.findings:
        raise UnsupportedError(report(model, walk.findings))
    plan = optimise(lo.builder.build(f"{model.name} results", "evaluate"))
    return TracedResults(
        plan,
        {item.name: step.states[item.name] for item in plan.inputs if not item.public},
        {item.name: public[item.name] for item in plan.inputs if item.public},
        {name: opened[id(leaf)] for name, leaf in leaves.items() if id(leaf) in opened},
        Reader(results, opened, tallied, graph),
    )


def _places(node: Any) -> tuple[int, ...]:
    """Where the operand may be that the operation can be undone for."""
    if isinstance(node.operation, core.Cast):
        return _FIRST if keras.backend.standardize_dtype(node.outputs[0].dtype).startswith("float") else ()
    return _UNDONE.get(type(node.operation), ())


class _Leaves:
    """Finds where in a result the client's part begins."""

    def __init__(self, graph: Graph, secret: set[int]):
        self._graph = graph
        self._found: dict[int, bool] = dict.fromkeys(secret, True)

    def is_secret(self, tensor: Any) -> bool:
        """Whether a tensor depends on a secret state."""
        if not isinstance(tensor, keras.KerasTensor):
            return False
        stack = [tensor]
        while stack:
            made = self._graph.producer(stack[-1])
            operands = [] if made is None else made[0].input_tensors
            if id(stack[-1]) in self._found:
                stack.pop()
            elif waiting := [t for t in operands if id(t) not in self._found]:
                stack.extend(waiting)
            else:
                self._found[id(stack.pop())] = any(self._found[id(t)] for t in operands)
        return self._found[id(tensor)]

    def leaf(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """What has to be opened for this result: the client can compute either from the other."""
        while (made := self._graph.producer(tensor)) is not None:
            node = made[0]
            args = list(node.arguments.args)
            places = [i for i, a in enumerate(args) if self.is_secret(a)]
            others = any(map(self.is_secret, node.arguments.kwargs.values()))
            if others or len(places) != 1 or places[0] not in _places(node):
                break
            tensor = args[places[0]]
        return tensor
