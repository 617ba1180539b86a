"""The update of weights: gradients of the loss, the optimiser, and constraints."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from private_keras.errors import UnsupportedError
from private_keras.plan.gradients import Gradient, gradients
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import recording
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.training.optimizers import lower_optimizer
from private_keras.tracing.training.traced import PublicInput, ScheduleValues, State
from private_keras.tracing.training.weights import Weights
from private_keras.tracing.values import Secret, Value
from private_keras.tracing.walk import Walk, topological

# Fractional bits of gradients: more than values have, since most of them are small.
GRADIENT_BITS = 24


def _nothing(first: int, steps: int) -> dict[str, np.ndarray]:
    return {}


@dataclass(frozen=True)
class Updated:
    """What an update adds to a plan.

    Attributes:
        values: new values by name of the state's input.
        states: the optimiser's states by name.
        public: its public inputs by name.
        schedule: the values of these.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    public: Mapping[str, PublicInput] = field(default_factory=dict)
    schedule: ScheduleValues = _nothing


def update(lo: Lowering, model: keras.Model, weights: Weights, loss: Value) -> Updated:
    """Writes the update of all trainable weights that the loss depends on.

    Raises:
        UnsupportedError: naming what stands in the way.
    """
    trainable = weights.trainable()
    if not trainable:
        raise lo.refuse("training", "the model has no trainable weights; set trainable=True on a layer.")
    before = [weights.declare(lo, variable) for variable in trainable]
    found = _gradients(lo, lo.as_secret(loss), before)
    if not any(found):
        raise lo.refuse("training", "the loss does not depend on any trainable weight.")
    lo.layer = ""
    updates = lower_optimizer(lo, model.optimizer, trainable, before, found)
    values: dict[str, Value] = {}
    for variable, old, new, gradient in zip(trainable, before, updates.weights, found, strict=True):
        if gradient is not None:
            values[old.name] = constrained(lo, variable, new)
    values |= {name: value for name, (_, value) in updates.slots.items()}
    states = {name: state for name, (state, _) in updates.slots.items()}
    return Updated(values, states, updates.public, updates.schedule)


def _gradients(lo: Lowering, loss: Secret, weights: list[Secret]) -> list[tuple[Secret, float] | None]:
    """Value and public scale of the gradient by each weight; None where the loss does not depend on it."""
    seed = Gradient(lo.builder.constant(np.ones(loss.shape, np.int64), 0))
    names = [w.name for w in weights]
    found = gradients(lo.builder, {loss.name: seed}, names, fraction=GRADIENT_BITS, joints=lo.joints)
    return [(lo.secret(g.value), g.scale) if (g := found[name]) is not None else None for name in names]


def constrained(lo: Lowering, variable: keras.Variable, value: Secret) -> Secret:
    """A new value after the variable's constraint, if it has one."""
    if variable.constraint is None:
        return value
    graph = Graph([keras.KerasTensor(value.shape, name=variable.path)])
    with recording():
        graph.outputs = variable.constraint(graph.inputs[0])
    walk = Walk(lo, graph, {id(graph.inputs[0]): value}, [])
    walk.run(topological(graph))
    if walk.findings:
        found = walk.findings[0]
        raise UnsupportedError(f"constraint of '{variable.path}', {found.operation}: {found.message}")
    return lo.at(walk.value(graph.outputs))
