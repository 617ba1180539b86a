"""A model's inputs as inputs of the plan: integers where the model wants integers, with the range that is known."""

from dataclasses import dataclass
from typing import Any

import keras
from keras.src.ops import core, nn, numpy

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.values import Secret


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
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype.startswith(("complex", "string")):
            raise UnsupportedError(
                f"input '{tensor.name}': expected numbers. Received: dtype {dtype}. Encode it before predict."
            )
        same = _copies(tensor, nodes)
        uses = [node for node in nodes if any(t is s for t in node.input_tensors for s in same) and not _copy(node)]
        casts = [node for node in uses if isinstance(node.operation, core.Cast) and _integer(node.outputs[0])]
        # A mask is made by comparing the same input; on whole numbers that is the same comparison.
        masks = [node for node in uses if isinstance(node.operation, numpy.Equal | numpy.NotEqual)]
        integers = dtype.startswith(("int", "uint", "bool")) or (
            bool(casts) and len(casts) + len(masks) == len(uses)
        )
        low, high = (
            _range([*same, *(node.outputs[0] for node in casts)], nodes)
            if integers
            else (-(2.0**HEADROOM), 2.0**HEADROOM)
        )
        if dtype == "bool":
            low, high = 0, 2
        name = lo.builder.input(f"x{i}", tensor.shape, 0 if integers else lo.fraction, owner, label=known_as[:200])
        values[id(tensor)] = lo.secret(name)
        specs.append(InputSpec(name, known_as, tuple(tensor.shape), dtype, 0 if integers else lo.fraction, low, high))
    return specs, values


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
        if isinstance(operation, nn.OneHot) and any(operands[0] is t for t in same):
            low, high = 0, min(high, operation.num_classes)
    return low, high
