"""`trace_step`: one step of training, evaluation or prediction on weights that are on the servers."""

import re
from typing import Any, Literal

import keras
import numpy as np
from keras import tree
from keras.src.random.seed_generator import make_default_seed

from private_keras.errors import InputError, PlanError, PrivateKerasError, UnsupportedError
from private_keras.plan.passes import optimise
from private_keras.tracing.inputs import InputSpec, read_inputs, read_targets
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import recording
from private_keras.tracing.symbolic import Finding, Graph, calling
from private_keras.tracing.trace import RECORDING, check_arguments, output_name, report, symbolic_inputs
from private_keras.tracing.training import metrics
from private_keras.tracing.training.objective import record_loss
from private_keras.tracing.training.seeds import seed_inputs, seed_values
from private_keras.tracing.training.traced import Target, TracedStep
from private_keras.tracing.training.update import Updated, update
from private_keras.tracing.training.weights import Weights
from private_keras.tracing.values import Refused, Secret
from private_keras.tracing.walk import Walk, topological

Kind = Literal["predict", "evaluate", "train"]
KINDS = ("predict", "evaluate", "train")


def trace_step(
    model: keras.Model,
    kind: Kind,
    batch_size: int,
    *,
    y: Any = None,
    sample_weight: bool = False,
    approximation: str = "accurate",
    fraction: int = 18,
    seed: int | None = None,
    input_owner: str = "client",
    weight_owner: str = "model-owner",
    receivers: tuple[str, ...] = ("client",),
) -> TracedStep:
    """Lowers one step of `model` on a batch to a plan whose weights are states on the servers.

    Args:
        model: built Keras model, compiled unless `kind` is "predict"; it is left as it was, but for the loss, metrics
            and optimiser that Keras builds at their first use.
        kind: "predict"; "evaluate": forward, loss and metrics; "train": also gradients and the optimiser's update.
        batch_size: rows of a batch.
        y: structure of `Target`s, as the data's; None where the model is trained by losses of its layers alone.
        sample_weight: whether each sample has a weight.
        approximation: "accurate" (activations within about 1e-4) or "fast" (within about 1e-3, fewer pieces).
        fraction: working fractional bits.
        seed: of dropout and noise; the numbers in a step depend on it and on the iteration alone. None draws one. A
            layer that has a seed of its own keeps to that.
        input_owner: party that provides inputs, targets and sample weights.
        weight_owner: party that provides states and public inputs.
        receivers: parties that predictions are opened to; nothing is opened for other kinds.

    Raises:
        UnsupportedError: naming layer, operation and advice for everything that cannot run on shares.
        InputError: an argument that is none, or a model that is not compiled.
    """
    check_arguments(batch_size, approximation)
    if kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}. Received: {kind!r}")
    if kind != "predict" and not model.compiled:
        raise InputError(f"model {model.name!r} is not compiled. Call `compile` with an optimizer and a loss first.")
    step = _Step(model, kind, batch_size, Lowering(fraction, approximation, weight_owner, kind == "train"))
    with RECORDING:
        try:
            step.record(y, sample_weight)
            traced = step.lower(input_owner, receivers, make_default_seed() if seed is None else seed)
        except _Found:
            traced = None
    if traced is None or step.findings:
        raise UnsupportedError(report(model, step.findings))
    return traced


class _Schedule:
    """Values of public inputs by step: the optimiser's, and seeds of random numbers."""

    def __init__(self, updated: Updated, seeds: dict[str, int | None], seed: int):
        self._updated = updated
        self._seeds = seeds
        self._seed = seed

    def __call__(self, first: int, steps: int) -> dict[str, np.ndarray]:
        return {**self._updated.schedule(first, steps), **seed_values(self._seeds, self._seed, first, steps)}

    def settle(self, iteration: int) -> None:
        """Brings Keras' public variables up to date: `iteration` is that of the next step."""
        self._updated.settle(iteration)


class _Found(Exception):
    """Findings leave nothing to go on with."""


class _Step:
    """The trace of one step, in two acts: what Keras does is recorded, then lowered."""

    def __init__(self, model: keras.Model, kind: Kind, batch_size: int, lo: Lowering):
        self.model = model
        self.kind = kind
        self.batch_size = batch_size
        self.lo = lo
        self.weights = Weights(model)
        self.findings: list[Finding] = []
        self.targets: list[keras.KerasTensor] = []
        self.sample_weight: keras.KerasTensor | None = None
        self.loss: keras.KerasTensor | None = None
        self.metrics: metrics.Recorded | None = None

    def find(self, operation: str, message: str) -> None:
        self.findings.append(Finding(self.model.name, operation, message))

    def stop_if_found(self) -> None:
        if self.findings:
            raise _Found

    # --- recording ---------------------------------------------------------------------------------------------------
    def record(self, y: Any, sample_weight: bool) -> None:
        try:
            inputs = symbolic_inputs(self.model, self.batch_size)
        except UnsupportedError as error:
            self.find("input", str(error))
            raise _Found from None
        training, losses = self.kind == "train", self.kind != "predict"
        with recording(), calling(self.model, inputs, self.weights.stand_in, training, losses) as graph:
            self.graph: Graph = graph
            self.findings = graph.findings
            if graph.outputs is None:
                raise _Found
            if self.kind != "predict":
                self._record_loss(inputs, y, sample_weight)
                changed = [state.current for state in self.weights.assigned()]
                graph.roots = [self.loss, *changed, *self.metrics.roots]
            self._refuse_changes()

    def _record_loss(self, inputs: Any, y: Any, sample_weight: bool) -> None:
        targets = tree.map_structure(self._target, y) if y is not None else None
        self.targets = tree.flatten(targets) if y is not None else []
        for i, tensor in enumerate(self.targets):
            tensor.name = f"y{i}" if len(self.targets) > 1 else "y"
        if sample_weight:
            self.sample_weight = keras.KerasTensor((self.batch_size,), name="sample_weight")
        try:
            self.loss, parts = record_loss(
                self.model, self.graph, inputs, targets, self.sample_weight, self.weights, self.kind == "train"
            )
        except Exception as error:  # noqa: BLE001 - whatever Keras finds wrong with a loss is the user's to know
            self.find("loss", _reason(error))
            raise _Found from None
        given = self.graph.outputs, self.sample_weight, self.loss, parts, self.batch_size
        try:
            self.metrics = metrics.record(self.model, self.graph, targets, *given)
        except Exception as error:  # noqa: BLE001 - and with metrics
            self.find("metrics", _reason(error))
            raise _Found from None

    def _target(self, leaf: Target) -> keras.KerasTensor:
        return keras.KerasTensor((self.batch_size, *leaf.shape), dtype=leaf.dtype)

    def _refuse_changes(self) -> None:
        trainable = {id(v) for v in self.model.trainable_weights}
        for state in self.weights.assigned():
            if self.kind != "train":
                self.find("assign", f"weight '{state.path}' is changed, though `training` is false.")
            elif id(state.variable) in trainable:
                self.find("assign", f"trained weight '{state.path}' is assigned in `call`; leave it to the optimizer.")
            elif self.weights.is_public(state.variable):
                self.find("assign", f"public weight '{state.path}' is changed by secret data; set trainable=False.")

    # --- lowering ----------------------------------------------------------------------------------------------------
    def lower(self, input_owner: str, receivers: tuple[str, ...], seed: int) -> TracedStep:
        lo, graph = self.lo, self.graph
        nodes = topological(graph)
        try:
            specs, targets, sample_weight, values = self._declare(nodes, input_owner)
        except UnsupportedError as error:
            self.find("input", str(error))
            raise _Found from None
        self.walk = Walk(lo, graph, values, self.findings)
        self.walk.run(nodes)
        names, dtypes = self._outputs(receivers) if self.kind == "predict" else ([], {})
        measured = metrics.Carried() if self.metrics is None else self.metrics.lower(lo, self.walk, input_owner)
        carried: dict[str, str] = {}
        updated = Updated()
        if self.kind == "train":
            for tensor in list(self.weights.assigned()):
                self._carry(carried, self.weights.declare(lo, tensor.variable), self.walk.value(tensor.current))
            self.stop_if_found()
            updated = self._update()
            for name, value in updated.values.items():
                self._carry(carried, lo.secret(name), value)
        self.stop_if_found()
        plan = optimise(lo.builder.build(self.model.name, self.kind))
        seeds = dict(lo.seeds)
        return TracedStep(
            plan,
            self.batch_size,
            specs,
            targets,
            sample_weight,
            {**self.weights.states, **updated.states, **measured.states},
            {**carried, **measured.carried},
            {**self.weights.public, **updated.public, **seed_inputs(seeds)},
            _Schedule(updated, seeds, seed),
            lo.weights,
            measured.tallies,
            tree.pack_sequence_as(graph.outputs, names) if names else None,
            dtypes,
        )

    def _declare(
        self, nodes: list[Any], owner: str
    ) -> tuple[list[InputSpec], list[InputSpec], str | None, dict[int, Secret]]:
        functional = getattr(self.model, "_functional", None) or self.model
        known_as = getattr(functional, "input_names", None) or []
        specs, values = read_inputs(self.lo, self.graph, nodes, owner, known_as)
        targets, more = read_targets(self.lo, self.targets, nodes, owner)
        values |= more
        name = None
        if self.sample_weight is not None:
            name = self.lo.builder.input(
                "sample_weight", (self.batch_size,), self.lo.fraction, owner, label="sample weights"
            )
            values[id(self.sample_weight)] = self.lo.secret(name)
        if self.metrics is not None:
            values |= self.metrics.values(self.lo, owner)
        values |= self.weights.values(self.lo, [*(t for n in nodes for t in n.input_tensors), *self.graph.ends])
        return specs, targets, name, values

    def _outputs(self, receivers: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
        names: list[str] = []
        dtypes: dict[str, str] = {}
        for i, tensor in enumerate(tree.flatten(self.graph.outputs)):
            names.append(output_name(self.model, i, names))
            dtypes[names[-1]] = keras.backend.standardize_dtype(tensor.dtype)
            self.walk.open(tensor, names[-1], receivers)
        return names, dtypes

    def _update(self) -> Updated:
        try:
            return update(self.lo, self.model, self.weights, self.walk.value(self.loss))
        except (UnsupportedError, PlanError) as error:
            self.find("training", str(error))
            raise _Found from None

    def _carry(self, carried: dict[str, str], state: Secret, value: Any) -> None:
        """Keeps a value as what the state is in the next step."""
        if isinstance(value, Refused):
            return
        lo = self.lo
        lo.layer = ""
        made = lo.at(value, state.fraction)
        if made.shape != state.shape:
            made = lo.step("broadcast", made, shape=list(state.shape))
        carried[state.name] = f"new/{state.name}"
        lo.builder.output(made.name, f"new/{state.name}", (), carry=state.name)


def _reason(error: Exception) -> str:
    """Why Keras, or we, cannot compute a loss or metrics of these outputs and targets."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    if isinstance(error, PrivateKerasError):
        return text
    if "cannot be used as input to a TensorFlow function" in text:
        return "it calls TensorFlow's functions, which cannot be followed on shares. Write it in `keras.ops`."
    return f"it does not fit outputs and targets ({type(error).__name__}: {text[:400]})."
