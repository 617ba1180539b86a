"""Losses on symbolic tensors, lowered with their gradients and run on simulated shares, beside Keras in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from private_keras.plan.gradients import Gradient, Tape, gradients
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program, execute
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import recording
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.walk import Walk, topological
from tests.trio import Session

FRACTION, GRADIENT = 18, 24

Function = Callable[..., Any]  # of tensors, symbolic or not, and the dtype to compute in


@dataclass(frozen=True)
class Lowered:
    """A function and its gradient by the first argument, as a plan with outputs `value` and `gradient`.

    `scale` is the public factor of the gradient; `weights` are arrays in the function, which are shared.
    """

    plan: Plan
    scale: float
    weights: dict[str, np.ndarray]

    def run(self, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Value and gradient as real numbers, on simulated shares."""
        given = {**arrays, **self.weights}
        shares = {i.name: SimulatedShare(units(given[i.name], i.type.fraction)) for i in self.plan.inputs}
        return self.read(execute(self.plan, Simulate(NumpyKernel()), shares))

    def run_on_three(self, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The same on the three parties of `trio`."""
        program, inputs = Program(self.plan), self.plan.inputs

        def one(p: Any, *shares: Any) -> tuple[Any, ...]:
            values = program.compute(p, {i.name: share for i, share in zip(inputs, shares, strict=True)})
            return tuple(values[o.name] for o in self.plan.outputs)

        opened = Session().run(one, *(units(arrays[i.name], i.type.fraction) for i in inputs))
        return self.read({o.name: value for o, value in zip(self.plan.outputs, opened, strict=True)})

    def read(self, opened: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        fractions = {o.name: self.plan.types[o.value].fraction for o in self.plan.outputs}
        real = {name: units.astype(np.int64) / 2.0 ** fractions[name] for name, units in opened.items()}
        return real["value"], real.get("gradient", np.zeros(())) * self.scale


def units(values: np.ndarray, fraction: int) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * 2.0**fraction).astype(np.int64).astype(np.uint64)


def record(function: Function, arrays: dict[str, np.ndarray], training: bool = True) -> tuple[Walk, Any]:
    """function(tensors in the order of `arrays`, dtype), recorded and lowered: the walk, and the symbolic result."""
    tensors = {
        name: keras.KerasTensor(a.shape, dtype="int32" if a.dtype.kind in "iub" else "float32", name=name)
        for name, a in arrays.items()
    }
    with recording():
        result = function(*tensors.values(), "float32")
    lo = Lowering(FRACTION, "accurate", "owner", training)
    roots = {}
    for name, tensor in tensors.items():
        fraction = FRACTION if tensor.dtype.startswith("float") else 0
        roots[id(tensor)] = lo.secret(lo.builder.input(name, tuple(tensor.shape), fraction, "client"))
    graph = Graph(list(tensors.values()), outputs=result)
    walk = Walk(lo, graph, roots, [])
    walk.run(topological(graph))
    return walk, result


def lower(function: Function, arrays: dict[str, np.ndarray], training: bool = True) -> Lowered:
    """A function of `record` as a plan; its gradient is that of the sum of its values, or none if not `training`."""
    walk, result = record(function, arrays, training)
    assert not walk.findings, walk.findings
    lo = walk.lo
    value = lo.at(walk.value(result))
    lo.builder.output(value.name, "value", ("client",))
    if not training:
        return Lowered(optimise(lo.builder.build("loss", "reveal")), 1.0, lo.weights)
    first = next(iter(arrays))
    seed = Gradient(Tape(lo.builder, GRADIENT).constant(1, 0, value.shape))
    gradient = gradients(lo.builder, {value.name: seed}, [first], fraction=GRADIENT, joints=lo.joints)[first]
    assert gradient is not None, "the function does not depend on its first argument"
    lo.builder.output(gradient.value, "gradient", ("client",))
    return Lowered(optimise(lo.builder.build("loss", "reveal")), gradient.scale, lo.weights)


def plain(function: Function, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient by Keras and TensorFlow, in float64."""
    tensors = [tf.constant(a, "int64" if a.dtype.kind in "iub" else "float64") for a in arrays.values()]
    with tf.GradientTape() as tape:
        tape.watch(tensors[0])
        result = function(*tensors, "float64")
        total = tf.reduce_sum(result)
    return np.asarray(result), np.asarray(tape.gradient(total, tensors[0]))


def errors(function: Function, arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Largest absolute errors of value and gradient on simulated shares, each over 1 + the largest true number."""
    value, gradient = lower(function, arrays).run(arrays)
    expected, slope = plain(function, arrays)
    return distance(value, expected), distance(gradient, slope)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, relative to the largest number where that is above 1."""
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected)) / max(1.0, np.max(np.abs(expected))))
