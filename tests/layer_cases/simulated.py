"""Runs a traced model on simulated shares."""

import keras
import numpy as np

from private_keras.models.guard import Guard
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import execute
from private_keras.tracing import Traced, trace
from tests.layer_cases.case import Case

BATCH = 3


def predict(traced: Traced, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs in flat order, as real numbers."""
    values = {**traced.weights, **{spec.name: a for spec, a in zip(traced.inputs, arrays, strict=True)}}
    shares = {i.name: SimulatedShare(units(values[i.name], i.type.fraction)) for i in traced.plan.inputs}
    opened = execute(traced.plan, Simulate(NumpyKernel()), shares)
    fractions = {o.name: traced.plan.types[o.value].fraction for o in traced.plan.outputs}
    return [opened[name].astype(np.int64) / 2.0 ** fractions[name] for name in traced.output_names]


def plain(model: keras.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Keras' own outputs in flat order."""
    structure = arrays[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, arrays)
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(structure, training=False))]


def units(values: np.ndarray, fraction: int) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * 2.0**fraction).astype(np.int64).astype(np.uint64)


def run_layer_test(case: Case) -> float:
    """The largest difference between Keras and the plan on simulated shares.

    The guard lets the inputs pass; shapes agree and nothing changed.
    """
    model = case.model()
    arrays = case.inputs(model, BATCH)
    before = [w.copy() for w in model.get_weights()]
    expected = plain(model, arrays)
    traced = trace(model, BATCH)
    Guard(case.name, traced).check(
        {spec.name: np.asarray(a, np.float64) for spec, a in zip(traced.inputs, arrays, strict=True)}
    )
    results = predict(traced, arrays)
    assert [r.shape for r in results] == [e.shape for e in expected]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(expected, plain(model, arrays), strict=True))
    assert all(np.std(e) > 1e-3 or e.dtype.kind in "iub" for e in expected), (
        "the case computes a constant: it tests nothing"
    )
    return max(float(np.max(np.abs(r - e.astype(np.float64)))) for r, e in zip(results, expected, strict=True))
