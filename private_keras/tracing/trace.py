"""`trace`: a Keras model to a plan, the plaintext of its weights, and what callers must know of inputs and outputs."""

import re
import threading
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from private_keras.errors import InputError, UnsupportedError
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.tracing.inputs import InputSpec, read_inputs
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.symbolic import Finding, call
from private_keras.tracing.walk import Walk, topological

APPROXIMATIONS = ("accurate", "fast")
# Recording a call replaces parts of Keras for all threads while it lasts.
RECORDING = threading.RLock()


@dataclass(frozen=True)
class Traced:
    """A model as a plan.

    Attributes:
        plan: what servers run, of kind "predict".
        weights: plaintext of each input that the model's owner provides, by name in the plan. A name stands for one
            expression over weights and its scale, whatever the batch size: what was shared under a name for one batch
            size serves another, as long as the model's weights do not change.
        inputs: one for each model input, in the order in which Keras flattens them.
        outputs: Keras' nested structure of outputs, with each output's name in the plan as the leaves.
        output_dtypes: the dtype Keras gives each output, by name.
        layers: path and class of each layer called, in order.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    inputs: list[InputSpec]
    outputs: Any
    output_dtypes: dict[str, str]
    layers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return tree.flatten(self.outputs)


def trace(
    model: keras.Model,
    batch_size: int,
    *,
    approximation: str = "accurate",
    fraction: int = 18,
    input_owner: str = "client",
    weight_owner: str = "model-owner",
    receivers: tuple[str, ...] = ("client",),
) -> Traced:
    """Lowers `model`'s prediction on a batch to a plan.

    Args:
        model: built Keras model; it is left as it was.
        batch_size: rows of a batch.
        approximation: "accurate" (activations within about 1e-4) or "fast" (within about 1e-3, fewer pieces).
        fraction: working fractional bits.
        input_owner: party that provides the model's inputs.
        weight_owner: party that provides the weights.
        receivers: parties that the outputs are opened to.

    Raises:
        UnsupportedError: naming layer, operation and advice for everything that cannot run on shares.
        InputError: a batch size or approximation that is none.
    """
    check_arguments(batch_size, approximation)
    with RECORDING:
        traced, findings = _attempt(model, batch_size, approximation, fraction, input_owner, weight_owner, receivers)
    if traced is None:
        raise UnsupportedError(report(model, findings))
    return traced


def check_arguments(batch_size: int, approximation: str) -> None:
    """Raises an InputError for a batch size or approximation that is none."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size: expected an integer of at least 1. Received: {batch_size!r}")
    if approximation not in APPROXIMATIONS:
        raise InputError(f"approximation: expected one of {', '.join(APPROXIMATIONS)}. Received: {approximation!r}")


def unsupported(model: keras.Model, batch_size: int = 1) -> list[Finding]:
    """Everything in `model` that cannot run on shares: layer, operation and advice. Empty if it can run."""
    with RECORDING:
        return _attempt(model, batch_size, "accurate", 18, "client", "model-owner", ("client",))[1]


def report(model: keras.Model, findings: list[Finding]) -> str:
    """The findings as text."""
    lines = [f"  layer '{f.layer}', {f.operation}: {f.message}" for f in findings]
    return "\n".join([f"model '{model.name}' cannot run on shares; nothing was shared.", *lines])


def _attempt(
    model: keras.Model,
    batch_size: int,
    approximation: str,
    fraction: int,
    input_owner: str,
    weight_owner: str,
    receivers: tuple[str, ...],
) -> tuple[Traced | None, list[Finding]]:
    try:
        graph = call(model, symbolic_inputs(model, batch_size))
    except UnsupportedError as error:
        return None, [Finding(model.name, "input", str(error))]
    if graph.outputs is None:
        return None, graph.findings
    lo = Lowering(fraction, approximation, weight_owner)
    nodes = topological(graph)
    functional = getattr(model, "_functional", None) or model
    try:
        specs, values = read_inputs(lo, graph, nodes, input_owner, getattr(functional, "input_names", None) or [])
    except UnsupportedError as error:
        return None, [*graph.findings, Finding(model.name, "input", str(error))]
    walk = Walk(lo, graph, values, list(graph.findings))
    walk.run(nodes)
    findings = walk.findings
    names: list[str] = []
    dtypes: dict[str, str] = {}
    for i, tensor in enumerate(tree.flatten(graph.outputs)):
        names.append(output_name(model, i, names))
        dtypes[names[-1]] = keras.backend.standardize_dtype(tensor.dtype)
        walk.open(tensor, names[-1], receivers)
    if findings:
        return None, findings
    plan = optimise(lo.builder.build(model.name, "predict"))
    layers = [(layer.path or layer.name, type(layer).__name__) for layer in graph.layers]
    outputs = tree.pack_sequence_as(graph.outputs, names)
    return Traced(plan, lo.weights, specs, outputs, dtypes, layers), []


def output_name(model: keras.Model, index: int, taken: list[str]) -> str:
    """Keras' name of the output, made fit for a plan and unique."""
    functional = getattr(model, "_functional", None) or model
    given = getattr(functional, "output_names", None) or []
    name = re.sub(r"[^A-Za-z0-9_.:/-]", "_", str(given[index]) if index < len(given) else f"output{index}").lstrip(
        "_.:/-"
    )
    return name if name and name not in taken else f"{name or 'output'}.{index}"


def symbolic_inputs(model: keras.Model, batch_size: int) -> Any:
    """The model's inputs for a batch, as KerasTensors in Keras' structure.

    Raises:
        UnsupportedError: shapes that are not known.
    """
    struct = getattr(model, "_inputs_struct", None)
    if struct is None and getattr(model, "_functional", None) is not None:
        struct = model._functional._inputs_struct
    if struct is None and getattr(model, "_build_shapes_dict", None):
        shapes = model._build_shapes_dict
        # Calling a model on data builds it with that batch's size, which says nothing about other batches.
        struct = tree.map_shape_structure(lambda s: keras.KerasTensor((None, *s[1:])), next(iter(shapes.values())))
    if struct is None:
        raise UnsupportedError(
            "it has no input shape yet. Call it once on data, build it, or begin it with `keras.Input`."
        )
    if isinstance(model, keras.Sequential) and isinstance(struct, list | tuple) and len(struct) == 1:
        struct = struct[0]
    return tree.map_structure(lambda t: _symbolic_input(model, t, batch_size), struct)


def _symbolic_input(model: keras.Model, tensor: keras.KerasTensor, batch_size: int) -> keras.KerasTensor:
    if tensor.shape and tensor.shape[0] not in (None, batch_size):
        raise UnsupportedError(
            f"'{tensor.name}' was built for batches of {tensor.shape[0]}. Received: batch_size {batch_size}."
        )
    if any(n is None for n in tensor.shape[1:]):
        raise UnsupportedError(
            f"'{tensor.name}': expected fixed sizes but for the batch, since a plan is made for one "
            f"shape. Received: {tensor.shape}. Build the model with `keras.Input` of a full shape."
        )
    return keras.KerasTensor((batch_size, *tensor.shape[1:]), dtype=tensor.dtype, sparse=False, name=tensor.name)
