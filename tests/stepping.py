"""Runs traced steps on simulated shares, and compares one with Keras' own on the same data."""

from typing import Any

import keras
import numpy as np

from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import Target, TracedStep


def units(values, fraction: int) -> np.ndarray:
    return np.asarray(np.rint(np.asarray(values, np.float64) * 2.0**fraction), np.int64).astype(np.uint64)


def targets(y: Any) -> Any:
    """What `trace_step` needs to know of y."""
    return None if y is None else keras.tree.map_structure(lambda a: Target(a.shape[1:], str(a.dtype)), y)


def run_step(traced: TracedStep, values: dict[str, np.ndarray], iteration: int = 0) -> dict[str, np.ndarray]:
    """All outputs of one step, opened or kept, as real numbers; `values` are those of inputs that the trace has not."""
    values = {
        **{name: keras.ops.convert_to_numpy(state.variable) for name, state in traced.states.items()},
        **{n: keras.ops.convert_to_numpy(p.variable) for n, p in traced.public.items() if p.variable is not None},
        **{name: given[0] for name, given in traced.schedule(iteration, 1).items()},
        **traced.arrays,
        **values,
    }
    shares = {}
    for item in traced.plan.inputs:
        encoded = units(values[item.name], item.type.fraction)
        shares[item.name] = encoded if item.public else SimulatedShare(encoded)
    results = Program(traced.plan).compute(Simulate(NumpyKernel()), shares)
    fractions = {o.name: traced.plan.types[o.value].fraction for o in traced.plan.outputs}
    return {name: share.value.astype(np.int64) / 2.0 ** fractions[name] for name, share in results.items()}


def feed(traced: TracedStep, x: Any, y: Any = None, sample_weight: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A batch by names of the plan."""
    values = {spec.name: a for spec, a in zip(traced.inputs, keras.tree.flatten(x), strict=True)}
    if y is not None:
        values |= {spec.name: a for spec, a in zip(traced.targets, keras.tree.flatten(y), strict=True)}
    if sample_weight is not None:
        values[traced.sample_weight] = sample_weight
    return values


def new_weights(traced: TracedStep, results: dict[str, np.ndarray], model: keras.Model) -> list[np.ndarray]:
    """The model's weights after a step."""
    weights = [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.weights]
    for name, output in traced.carried.items():
        state = traced.states[name]
        if state.kind == "weight":
            weights[next(i for i, w in enumerate(model.weights) if w is state.variable)] = results[output]
    return weights


def train_error(
    model: keras.Model, x: Any, y: Any = None, sample_weight: np.ndarray | None = None
) -> tuple[float, float]:
    """One training step of a compiled model: the largest difference to Keras' new weights, and the largest change."""
    rows = len(keras.tree.flatten(x)[0])
    before = model.get_weights()
    traced = trace_step(model, "train", rows, y=targets(y), sample_weight=sample_weight is not None)
    found = new_weights(traced, run_step(traced, feed(traced, x, y, sample_weight)), model)
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    model.train_on_batch(x, y, sample_weight=sample_weight)
    after = model.get_weights()
    assert [w.shape for w in found] == [w.shape for w in after]
    error = max(float(np.max(np.abs(a - b))) for a, b in zip(found, after, strict=True))
    change = max(float(np.max(np.abs(a - b))) for a, b in zip(before, after, strict=True))
    return error, change
