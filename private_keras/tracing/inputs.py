"""A model's inputs as inputs of the plan: integers where the model wants integers, with the range that is known."""

from dataclasses import dataclass
from typing import Any

import keras
from keras.src.ops import core, nn, numpy

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.names import label
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.values import Secret

# What leaves numbers as they are.
PASSED = (core.Cast, core.ConvertToTensor, numpy.Reshape, numpy.Squeeze, numpy.ExpandDims)


@dataclass(frozen=True)
class InputSpec:
    """One model input.

    Attributes:
        name: in the plan.
        keras_name: in the model.
        shape: with the batch.
        dtype: what Keras wants.
        fraction: 0 if values must be integers.
        low, high: values must lie in low <= x < high.
    """

    name: str
    keras_name: str
    shape: tuple[int, ...]
    dtype: str
    fraction: int
    low: float
    high: float


def read_inputs(
    lo: Lowering, graph: Graph, nodes: list[Any], owner: str, names: list[str]
) -> tuple[list[InputSpec], dict[int, Secret]]:
    """Declares the plan's inputs; returns what callers must know, and the value of each input tensor by id."""
    specs, values = [], {}
    for i, tensor in enumerate(graph.inputs):
        known_as = names[i] if i < len(names) else tensor.name
        same = _copies(tensor, nodes)
        uses = [node for node in nodes if any(t is s for t in node.input_tensors for s in same) and not _copy(node)]
        spec, value = _declare(lo, tensor, same, uses, nodes, f"x{i}", known_as, owner)
        values[id(tensor)] = value
        specs.append(spec)
    return specs, values


def read_targets(
    lo: Lowering, tensors: list[keras.KerasTensor], nodes: list[Any], owner: str
) -> tuple[list[InputSpec], dict[int, Secret]]:
    """Declares what predictions are compared with as inputs of the plan; labels of classes have a range."""
    specs, values = [], {}
    for i, tensor in enumerate(tensors):
        same = _reached(tensor, nodes)
        uses = [n for n in nodes if any(t is s for t in n.input_tensors for s in same) and not _passes(n)]
        spec, value = _declare(lo, tensor, same, uses, nodes, f"y{i}", tensor.name, owner)
        values[id(tensor)] = value
        specs.append(spec)
    return specs, values


def _declare(
    lo: Lowering,
    tensor: keras.KerasTensor,
    same: list[keras.KerasTensor],
    uses: list[Any],
    nodes: list[Any],
    name: str,
    known_as: str,
    owner: str,
) -> tuple[InputSpec, Secret]:
    """One input: `same` are the tensors that hold its values, `uses` the nodes that take them."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype.startswith(("complex", "string")):
        raise UnsupportedError(
            f"input '{tensor.name}': expected numbers. Received: dtype {dtype}. Encode it before predict."
        )
    casts = [node for node in uses if isinstance(node.operation, core.Cast) and _integer(node.outputs[0])]
    # A mask is made by comparing the same input; on whole numbers that is the same comparison.
    others = [n for n in uses if isinstance(n.operation, numpy.Equal | numpy.NotEqual) or _labels(n, same)]
    integers = dtype.startswith(("int", "uint", "bool")) or (
        bool(casts or any(_labels(n, same) for n in uses)) and len(casts) + len(others) == len(uses)
    )
    low, high = (
        _range([*same, *(node.outputs[0] for node in casts)], nodes) if integers else (-(2.0**HEADROOM), 2.0**HEADROOM)
    )
    if dtype == "bool":
        low, high = 0, 2
    fraction = 0 if integers else lo.fraction
    value = lo.secret(lo.builder.input(name, tensor.shape, fraction, owner, label=label(known_as)))
    return InputSpec(name, known_as, tuple(tensor.shape), dtype, fraction, low, high), value


def _labels(node: Any, same: list[keras.KerasTensor]) -> bool:
    """Whether the node takes the tensor for the numbers of classes."""
    takes = isinstance(node.operation, nn.SparseCategoricalCrossentropy)
    return takes and any(node.input_tensors[0] is tensor for tensor in same)


def _passes(node: Any) -> bool:
    return isinstance(node.operation, PASSED)


def _reached(tensor: keras.KerasTensor, nodes: list[Any]) -> list[keras.KerasTensor]:
    """The tensor and all that hold the same numbers in another type or shape."""
    same = [tensor]
    for node in nodes:
        if _passes(node) and any(node.input_tensors[0] is s for s in same):
            same.append(node.outputs[0])
    return same


def _copies(tensor: keras.KerasTensor, nodes: list[Any]) -> list[keras.KerasTensor]:
    """The tensor and what is the same under another name: Keras converts inputs before it uses them."""
    same = [tensor]
    for node in nodes:
        if _copy(node) and any(node.input_tensors[0] is s for s in same):
            same.append(node.outputs[0])
    return same


def _copy(node: Any) -> bool:
    return (
        isinstance(node.operation, core.ConvertToTensor | core.Cast)
        and node.input_tensors[0].dtype == node.outputs[0].dtype
    )


def _integer(tensor: keras.KerasTensor) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype).startswith(("int", "uint"))


def _range(same: list[keras.KerasTensor], nodes: list[Any]) -> tuple[float, float]:
    """Integers that the input may hold: indices of the smallest table that it is used on."""
    low, high = -(2.0 ** (HEADROOM + 10)), 2.0 ** (HEADROOM + 10)
    for node in nodes:
        operation, operands = node.operation, node.input_tensors
        if isinstance(operation, numpy.Take) and len(operands) > 1 and any(operands[-1] is t for t in same):
            axis = operation.axis or 0
            low, high = 0, min(high, operands[0].shape[axis])
        if _labels(node, same):
            low, high = 0, min(high, operands[1].shape[operation.axis])
        if isinstance(operation, nn.OneHot) and any(operands[0] is t for t in same):
            low, high = 0, min(high, operation.num_classes)
    return low, high
