"""Walks a recorded graph and lowers each operation by its rule; what depends on weights alone the client computes."""

from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops import nn

from private_keras.errors import PlanError, UnsupportedError
from private_keras.tracing.lowering import Lowering, digest
from private_keras.tracing.rules import GENERAL, REFUSED, TABLE
from private_keras.tracing.symbolic import Finding, Graph, WeightTensor
from private_keras.tracing.symbols import Random
from private_keras.tracing.values import Known, Product, Refused, Secret, Value

# Operations whose shape Keras infers wrongly: attention, where values are longer than keys.
MISJUDGED = (nn.DotProductAttention,)


def topological(graph: Graph) -> list[Any]:
    """The nodes that the graph's ends depend on, each after those it depends on."""
    order: list[Any] = []
    state: dict[int, bool] = {}
    stack = [made[0] for t in reversed(graph.ends) if (made := graph.producer(t)) is not None]
    while stack:
        node = stack[-1]
        if state.get(id(node)):
            stack.pop()
            continue
        waiting = [
            made[0]
            for t in node.input_tensors
            if (made := graph.producer(t)) is not None and not state.get(id(made[0]))
        ]
        if waiting:
            stack.extend(waiting)
        else:
            state[id(node)] = True
            order.append(stack.pop())
    return order


class Walk:
    """One pass over a graph. `findings` collects what cannot be lowered; the walk goes on to find all of it."""

    table = TABLE

    def __init__(self, lo: Lowering, graph: Graph, inputs: dict[int, Secret], findings: list[Finding]):
        self.lo = lo
        self._settings = False
        self.graph = graph
        self.findings = findings
        self._values: dict[int, Value] = dict(inputs)
        self._uses: dict[int, int] = {}
        self._arrays = 0

    def run(self, nodes: list[Any]) -> None:
        for tensor in self.graph.ends:
            self._use(tensor)
        for node in nodes:
            for tensor in node.input_tensors:
                self._use(tensor)
        for node in nodes:
            self.lo.layer = self.graph.layer_of.get(id(node), "")
            results = self._lower(node)
            for tensor, result in zip(node.outputs, results, strict=True):
                if isinstance(result, Product) and self._uses.get(id(tensor), 0) > 1:
                    result = self.lo.as_secret(result)  # folding into it would compute it twice
                self._values[id(tensor)] = result

    def value(self, tensor: keras.KerasTensor) -> Value:
        """What a tensor is; a root of the graph that is neither input nor weight is the result of a refused layer."""
        if id(tensor) in self._values:
            return self._values[id(tensor)]
        if isinstance(tensor, WeightTensor):
            return weight(tensor)
        return Refused(tuple(tensor.shape))

    def open(self, tensor: keras.KerasTensor, name: str, receivers: tuple[str, ...]) -> None:
        """Makes a tensor an output of the plan: integers as they are, real numbers at the working fraction."""
        result = self.value(tensor)
        if isinstance(result, Refused):
            return
        if isinstance(result, Known):
            self._find(
                f"output '{name}'",
                "it does not depend on the inputs; opening it would open weights. Remove the output.",
            )
            return
        whole = keras.backend.standardize_dtype(tensor.dtype).startswith(("int", "uint", "bool"))
        try:
            opened = self.lo.as_secret(result) if whole else self.lo.at(result)
            self.lo.builder.output(opened.name, name, receivers)
        except (UnsupportedError, PlanError) as error:
            self._find(f"output '{name}'", str(error))

    def _use(self, tensor: keras.KerasTensor) -> None:
        self._uses[id(tensor)] = self._uses.get(id(tensor), 0) + 1

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, keras.KerasTensor):
            return self.value(argument)
        if isinstance(argument, keras.Variable):
            return Known(np.asarray(argument), True, f"variable:{argument.path}", argument.path)
        if keras.ops.is_tensor(argument) or isinstance(argument, np.ndarray):
            return self._array(np.asarray(keras.ops.convert_to_numpy(argument)))
        return argument

    def _array(self, value: np.ndarray) -> Known:
        # An array of real numbers in a model is model data (a table, statistics), so it is shared like a weight, and
        # named by its place: a name made from its content would tell a server what it is. Zeros and ones are no data.
        data = value.dtype.kind == "f" and value.ndim > 0 and not self._settings
        secret = data and not np.all((value == 0) | (value == 1))
        self._arrays += 1
        identity = (
            f"array:{self._arrays}" if secret else f"public:{value.dtype}:{value.shape}:{digest(value.tobytes())}"
        )
        return Known(value, secret, identity, f"{self.lo.layer or 'model'}/array" if secret else "")

    def _lower(self, node: Any) -> list[Value]:
        operation = node.operation
        self._settings = id(node) in self.graph.settings
        args, kwargs = node.arguments.convert(self._argument)
        flat = tree.flatten((args, kwargs))
        try:
            if not isinstance(operation, Random) and not any(isinstance(a, Secret | Product | Refused) for a in flat):
                return self._compute(node, args, kwargs)
            rule = self.table.get(type(operation))
            if rule is None:
                raise UnsupportedError(REFUSED.get(type(operation), GENERAL))
            if any(isinstance(a, Refused) for a in flat):
                return [Refused(tuple(t.shape)) for t in node.outputs]
            results = tree.flatten(rule(self.lo, operation, *args, **kwargs))
            self._check(node, results)
            return results
        except (UnsupportedError, PlanError) as error:
            self._find(type(operation).__name__, str(error))
        return [Refused(tuple(t.shape)) for t in node.outputs]

    def _find(self, operation: str, message: str) -> None:
        finding = Finding(self.lo.layer or "model", operation, message)
        if finding not in self.findings:
            self.findings.append(finding)

    def _check(self, node: Any, results: list[Value]) -> None:
        if isinstance(node.operation, MISJUDGED):
            return
        expected = [tuple(t.shape) for t in node.outputs]
        received = [tuple(r.shape) for r in results]
        if len(expected) != len(received) or not all(map(_fits, expected, received)):
            raise UnsupportedError(f"its rule gave shapes {received} where Keras says {expected}; please report this.")

    def _compute(self, node: Any, args: Any, kwargs: Any) -> list[Value]:
        """An operation on known values: the client runs Keras' own implementation."""
        operation = node.operation
        known = [a for a in tree.flatten((args, kwargs)) if isinstance(a, Known)]
        plain_args, plain_kwargs = tree.map_structure(lambda a: a.value if isinstance(a, Known) else a, (args, kwargs))
        results = tree.flatten(operation(*plain_args, **plain_kwargs))
        described = tree.map_structure(lambda a: a.identity if isinstance(a, Known) else repr(a), (args, kwargs))
        identity = digest(type(operation).__name__, _configuration(operation), described)
        secret = any(a.secret for a in known)
        label = next((a.label for a in known if a.secret), "")
        return [
            Known(np.asarray(keras.ops.convert_to_numpy(r)), secret, f"{identity}:{i}", label)
            for i, r in enumerate(results)
        ]


def _fits(expected: tuple[int | None, ...], received: tuple[int, ...]) -> bool:
    """Keras may not know a size that it is given as an array."""
    return len(expected) == len(received) and all(a in (None, b) for a, b in zip(expected, received, strict=True))


def weight(tensor: WeightTensor) -> Known:
    """A weight's value, as the client has it."""
    value = np.asarray(keras.ops.convert_to_numpy(tensor.variable))
    return Known(value, True, f"weight:{tensor.index}:{tensor.path}", tensor.path)


def _configuration(operation: keras.Operation) -> str:
    items = {
        k: v
        for k, v in vars(operation).items()
        if not k.startswith("_") and k not in ("name", "arguments", "dtype_policy")
    }
    return repr(sorted(items.items()))
