"""Metrics recorded on symbolic batches, lowered and run on simulated shares over several batches, beside Keras."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import recording
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.training.metrics import Carried, record
from private_keras.tracing.training.results import trace_results
from private_keras.tracing.walk import Walk, topological

FRACTION = 18


class Compiled(keras.Model):
    """A model that is nothing but its compiled metrics."""

    def call(self, x):
        return x


def compiled(metrics: Any, weighted: Any = None) -> keras.Model:
    model = Compiled()
    model.compile(loss=None, metrics=metrics, weighted_metrics=weighted, run_eagerly=True)
    return model


def trace(model: keras.Model, y: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None) -> tuple[Plan, Carried]:
    """One step's update as a plan on inputs y, p and weights (and loss, which is 0)."""
    tensors = {"y": symbolic(y), "p": symbolic(p), "loss": keras.KerasTensor((), name="loss")}
    if weights is not None:
        tensors["weights"] = symbolic(weights)
    graph = Graph([])
    with recording():
        loss = keras.ops.multiply(tensors["loss"], 1.0)
        recorded = record(model, graph, tensors["y"], tensors["p"], tensors.get("weights"), loss, [], len(y))
        graph.roots = recorded.roots
        lo = Lowering(FRACTION, "accurate", "owner", training=True)
        values = {}
        for name, tensor in tensors.items():
            fraction = FRACTION if tensor.dtype.startswith("float") else 0
            values[id(tensor)] = lo.secret(lo.builder.input(name, tuple(tensor.shape), fraction, "client"))
        values |= recorded.values(lo, "client")
        walk = Walk(lo, graph, values, [])
        walk.run(topological(graph))
        assert not walk.findings, walk.findings
        done = recorded.lower(lo, walk, "client")
    return optimise(lo.builder.build("metrics", "train")), done


def symbolic(array: np.ndarray) -> keras.KerasTensor:
    return keras.KerasTensor(array.shape, dtype="int32" if array.dtype.kind in "iub" else "float32")


def units(values: Any, fraction: int) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * 2.0**fraction).astype(np.int64).astype(np.uint64)


def simulated(plan: Plan, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The plan's outputs as real numbers, on simulated shares of real inputs."""
    shares = {}
    for item in plan.inputs:
        elements = units(inputs[item.name], item.type.fraction)
        shares[item.name] = elements if item.public else SimulatedShare(elements)
    made = Program(plan).compute(Simulate(NumpyKernel()), shares)
    fractions = {o.name: plan.types[o.value].fraction for o in plan.outputs}
    return {name: share.value.astype(np.int64) / 2.0 ** fractions[name] for name, share in made.items()}


def on_shares(model: keras.Model, batches: Sequence[Sequence[np.ndarray]], run=simulated) -> dict[str, np.ndarray]:
    """Results of the model's metrics after some batches (y, p) or (y, p, weights), on shares.

    `run`: runs a plan on real inputs.
    """
    held: dict[str, np.ndarray] = {}
    tallies: dict[str, np.ndarray] = {}
    steps: dict[int, tuple[Plan, Carried]] = {}
    for batch in batches:
        size = len(batch[0])
        if size not in steps:
            steps[size] = trace(model, *batch)
        plan, done = steps[size]
        zeros = {name: np.zeros(state.shape) for name, state in done.states.items()}
        given = {"y": batch[0], "p": batch[1], "loss": np.zeros(()), "weights": batch[2] if len(batch) > 2 else None}
        opened = run(plan, {**zeros, **held, **given})
        held |= {name: opened[output] for name, output in done.carried.items()}
        for name, added in done.tallies.items():
            tallies[name] = tallies.get(name, 0.0) + added
    step = SimpleNamespace(states=done.states, tallies=done.tallies)
    results = trace_results(model, step)
    public = {name: tallies[name] for name in results.public}
    opened = run(results.plan, {**{name: held[name] for name in results.states}, **public})
    return results.read(opened, tallies)


def by_keras(model: keras.Model, batches: Sequence[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """What Keras gives for the same batches, of values rounded as shares are."""
    model.reset_metrics()
    for y, p, *weights in batches:
        weight = weights[0] if weights else None
        model._loss_tracker.update_state(0.0, sample_weight=len(y))
        model._compile_metrics.update_state(y, p, weight)
    found: dict[str, np.ndarray] = {}
    for name, value in model.get_metrics_result().items():  # what `fit` logs: results that are dicts are unpacked
        found |= {k: np.asarray(v) for k, v in (value if isinstance(value, dict) else {name: value}).items()}
    model.reset_metrics()
    return found
