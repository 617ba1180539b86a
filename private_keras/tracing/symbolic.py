"""Calls a Keras model on symbolic tensors so that every `keras.ops` operation is recorded, with weights kept symbolic.

For the length of one trace, three things change *on the instances of this model only*, and are put back whatever
happens: each `keras.Variable` held by a layer is replaced by a `WeightTensor` (else Keras would compute with the
value and the weight would end up in the plan as a public constant), `symbolic_call` of each layer runs the layer's own
`call` (else the graph would stop at the layer), and lists of graph nodes that Keras appends to.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops, tree
from keras.src.random.seed_generator import SeedGenerator, global_seed_generator

from private_keras.errors import UnsupportedError
from private_keras.tracing.rules.layers import ACTIVATIONS, LAYERS
from private_keras.tracing.rules.refused import LAYERS_REFUSED

HIDDEN = (
    "is held where it cannot be kept secret: not in an attribute of a layer, or a list, tuple or dict there. "
    "Assign it to an attribute of its layer."
)


RANDOM = "it draws random numbers while predicting. Do that in training only, or apply it to the data before `predict`."
RANDOM_TRAINING = (
    "it draws random numbers in a way that cannot be followed. Use Keras' Dropout and noise layers, or change the data "
    "before `fit`."
)
QUANTIZED = (
    "it is quantized to {}; use the model as it was before `quantize`: weights are fixed point on shares anyway."
)
FOLLOW = (
    "Write it with `keras.ops` operations on tensors, without a backend's own functions and without branches on values."
)


class Stopped(Exception):
    """A refused layer left no outputs to go on with; the findings say why."""


class WeightTensor(keras.KerasTensor):
    """Stands for a `keras.Variable` in a trace."""

    def __init__(self, variable: keras.Variable, index: int):
        super().__init__(variable.shape, dtype=variable.dtype, name=variable.path)
        self.variable = variable
        self.index = index
        self.path = variable.path
        self.trainable = variable.trainable
        self.regularizer = None
        self.constraint = None

    @property
    def value(self) -> "WeightTensor":
        return self

    def assign(self, *_args: Any, **_kwargs: Any) -> None:
        raise UnsupportedError(
            f"weight '{self.path}' is changed while predicting; prediction on shares keeps no state. Use a layer whose "
            "`call` assigns no variable when `training` is false."
        )

    assign_add = assign_sub = assign


@dataclass
class Finding:
    """One thing that cannot run on shares."""

    layer: str
    operation: str
    message: str


@dataclass
class Graph:
    """What a symbolic call recorded.

    Attributes:
        inputs: the model's input tensors, flattened in Keras' order.
        outputs: the nested structure of output tensors.
        history: producer of a tensor, by id; a layer overwrites Keras' own record of what `call` returned.
        layer_of: layer path by id of the node that recorded an operation.
        findings: layers that could not be called symbolically.
        losses: what layers add to the loss: `add_loss` and activity regularisers; None where nobody asks for it.
        roots: the tensors that are wanted; None for the outputs.
        settings: ids of nodes whose arrays are settings, public (thresholds of metrics), and no data of the model.
        keep: keeps tensors alive so that ids stay unique.
        random: whether a layer that draws random numbers was found.
    """

    inputs: list[keras.KerasTensor]
    outputs: Any = None
    history: dict[int, Any] = field(default_factory=dict)
    layer_of: dict[int, str] = field(default_factory=dict)
    layers: list[keras.Layer] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    losses: list[Any] | None = None
    roots: list[keras.KerasTensor] | None = None
    settings: set[int] = field(default_factory=set)
    keep: list[Any] = field(default_factory=list)
    random: bool = False

    @property
    def ends(self) -> list[Any]:
        """The tensors that the graph was recorded for."""
        return tree.flatten(self.outputs) if self.roots is None else self.roots

    def producer(self, tensor: keras.KerasTensor) -> tuple[Any, int] | None:
        """The node that made a tensor and the index of the tensor among its outputs; None for a root of the graph."""
        record = self.history.get(id(tensor), getattr(tensor, "_keras_history", None))
        if record is None or record.operation is None:
            return None
        return record.operation._inbound_nodes[record.node_index], record.tensor_index

    def remember(self, structure: Any) -> None:
        for tensor in tree.flatten(structure):
            if isinstance(tensor, keras.KerasTensor) and id(tensor) not in self.history:
                self.history[id(tensor)] = getattr(tensor, "_keras_history", None)
                self.keep.append(tensor)

    def add_loss(self, loss: Any) -> None:
        """What `keras.Layer.add_loss` does, for symbolic tensors."""
        if self.losses is not None:
            self.losses.extend(tree.flatten(loss))

    def label(self, structure: Any, layer: str, given: Any) -> None:
        """Notes `layer` for all nodes that lead from `given` to `structure` and belong to no layer yet."""
        seen = {id(t) for t in tree.flatten(given)}
        stack = [t for t in tree.flatten(structure) if isinstance(t, keras.KerasTensor)]
        while stack:
            tensor = stack.pop()
            made = None if id(tensor) in seen else self.producer(tensor)
            seen.add(id(tensor))
            if made is not None:
                if id(made[0]) not in self.layer_of:
                    self.layer_of[id(made[0])] = layer
                    self.keep.append(made[0])
                stack.extend(made[0].input_tensors)


StandIn = Callable[[keras.Variable], keras.KerasTensor]


def call(model: keras.Model, inputs: Any) -> Graph:
    """Calls `model` for prediction on `inputs`, a structure of KerasTensors, and returns what was recorded."""
    variables: dict[int, WeightTensor] = {}

    def stand_in(variable: keras.Variable) -> WeightTensor:
        return variables.setdefault(id(variable), WeightTensor(variable, len(variables)))

    for variable in model.variables:
        stand_in(variable)
    with calling(model, inputs, stand_in) as graph:
        return graph


@contextmanager
def calling(
    model: keras.Model, inputs: Any, stand_in: StandIn, training: bool = False, losses: bool = False
) -> Iterator[Graph]:
    """Calls `model` on `inputs` and gives what was recorded; more may be recorded on its tensors in the `with`.

    Args:
        model: built Keras model.
        inputs: structure of KerasTensors.
        stand_in: the symbolic tensor for a variable, always the same for the same.
        training: as in Keras.
        losses: whether to record what layers add to the loss.

    Returns:
        The graph; its `outputs` are None if the call could not go on after a finding.
    """
    graph = Graph(tree.flatten(inputs), losses=[] if losses else None)
    graph.remember(inputs)
    with _symbolic(model, graph, stand_in, training):
        try:
            graph.outputs = model(inputs, training=training)
        except Stopped:
            pass
        graph.remember(graph.outputs)
        yield graph
        # Nodes are looked up by position in lists that are about to be put back: resolve them now.
        _resolve(graph)


def _resolve(graph: Graph) -> None:
    stack = [t for t in graph.ends if isinstance(t, keras.KerasTensor)]
    seen: dict[int, Any] = {}
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        made = graph.producer(tensor)
        seen[id(tensor)] = made
        graph.keep.append(tensor)
        if made is not None:
            stack.extend(made[0].input_tensors)
    graph.producer = lambda tensor: seen.get(id(tensor))  # type: ignore[method-assign]


@contextmanager
def _symbolic(model: keras.Model, graph: Graph, stand_in: StandIn, training: bool) -> Iterator[None]:
    undo: list[Callable[[], None]] = []
    seen: set[int] = set()
    found: set[int] = set()

    def replace(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            found.add(id(value))
            return stand_in(value)
        if isinstance(value, list | tuple) and _holds_variable(value):
            return type(value)(replace(v) for v in value) if type(value) is tuple else [replace(v) for v in value]
        if isinstance(value, dict) and _holds_variable(list(value.values())):
            return {k: replace(v) for k, v in value.items()}
        if callable(value) and not isinstance(value, keras.Layer):
            return ACTIVATIONS.get(value, value) if value.__hash__ else value
        return value

    def swap(attributes: dict[str, Any], key: str, value: Any) -> None:
        if key in attributes:
            undo.append(lambda v=attributes[key]: attributes.__setitem__(key, v))
        else:
            undo.append(lambda: attributes.pop(key, None))
        attributes[key] = value

    def visit(layer: keras.Layer) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        graph.layers.append(layer)
        attributes = vars(layer)
        for key, value in list(attributes.items()):
            if key.startswith(("_trainable_var", "_non_trainable_var", "_tracker", "_losses", "_metrics", "_seed")):
                continue
            changed = replace(value)
            if changed is not value:
                swap(attributes, key, changed)
        _save_nodes(layer, undo)
        swap(attributes, "symbolic_call", _inliner(layer, graph))
        swap(attributes, "add_loss", graph.add_loss)
        for operation in getattr(layer, "_operations", None) or []:
            if not isinstance(operation, keras.Layer):
                _save_nodes(operation, undo)
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            visit(inner)

    try:
        visit(model)
        for variable in model.weights:
            if id(variable) not in found:
                graph.findings.append(Finding(model.name, "weight", f"'{variable.path}' {HIDDEN}"))
        if training:
            undo.append(lambda draw=SeedGenerator.next: setattr(SeedGenerator, "next", draw))
            SeedGenerator.next = _refuse_to_draw
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def _refuse_to_draw(self: SeedGenerator, ordered: bool = True) -> Any:
    """A number drawn while tracing would be the same in every step, and known."""
    raise UnsupportedError(RANDOM_TRAINING)


def _holds_variable(values: Any) -> bool:
    return any(isinstance(v, keras.Variable) or (isinstance(v, list | tuple) and _holds_variable(v)) for v in values)


def _save_nodes(operation: Any, undo: list[Callable[[], None]]) -> None:
    for name in ("_inbound_nodes", "_outbound_nodes"):
        nodes = vars(operation).get(name)
        if nodes is not None:
            count = len(nodes)
            undo.append(lambda n=nodes, length=count: n.__delitem__(slice(length, None)))


def _inliner(layer: keras.Layer, graph: Graph) -> Callable[..., Any]:
    rule = next((LAYERS[c] for c in type(layer).__mro__ if c in LAYERS), None)
    inside = type(layer).call
    refused = next((LAYERS_REFUSED[c] for c in type(layer).__mro__ if c in LAYERS_REFUSED), None)
    if rule is not None and not _is_keras(inside):
        rule = None  # a user's subclass with a `call` of its own

    path = layer.path or layer.name

    def find(message: str, args: Any, kwargs: Any) -> Any:
        """Notes the finding and goes on with outputs of the right shape, if they can be known."""
        graph.findings.append(Finding(path, type(layer).__name__, message))
        try:
            return layer.compute_output_spec(*args, **kwargs)
        except Exception:  # noqa: BLE001 - a layer that does not run may not know its shape either
            raise Stopped(path) from None

    def symbolic_call(*args: Any, **kwargs: Any) -> Any:
        graph.remember((args, kwargs))
        drawn = _random_state()
        try:
            if refused is not None:
                raise UnsupportedError(refused)
            if getattr(layer, "quantization_mode", None) is not None:
                raise UnsupportedError(QUANTIZED.format(layer.quantization_mode))
            outputs = rule(layer, *args, **kwargs) if rule is not None else layer.call(*args, **kwargs)
            if _random_state() != drawn and not graph.random:
                graph.random = True
                graph.findings.append(Finding(path, type(layer).__name__, RANDOM))
            if graph.losses is not None:
                graph.losses.extend(_activity_losses(layer, outputs))
        except Stopped:
            raise
        except UnsupportedError as error:
            outputs = find(str(error), args, kwargs)
        except Exception as error:  # noqa: BLE001 - whatever a layer raises on symbolic tensors, the user learns which layer
            outputs = find(
                f"its `call` cannot be followed on symbolic tensors ({_kind(error)}). {FOLLOW}", args, kwargs
            )
        graph.remember(outputs)
        graph.label(outputs, path, (args, kwargs))
        return outputs

    return symbolic_call


def _activity_losses(layer: keras.Layer, outputs: Any) -> list[Any]:
    """As `keras.Layer.__call__` has them on tensors that are not symbolic: divided by the batch's size."""
    if layer.activity_regularizer is None:
        return []
    losses = [(layer.activity_regularizer(y), y) for y in tree.flatten(outputs)]
    return [ops.multiply(loss, 1 / y.shape[0]) if y.shape else loss for loss, y in losses]


def _random_state() -> list[int]:
    """What Keras draws its random numbers from where no seed is given."""
    return keras.ops.convert_to_numpy(global_seed_generator().state).tolist()


def _is_keras(function: Any) -> bool:
    return getattr(function, "__module__", "").startswith("keras.")


def _kind(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
