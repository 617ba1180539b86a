"""The update of weights: gradients of the loss, the optimiser, and constraints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from private_keras.plan.gradients import Gradient, gradients
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.training.optimizers import lower_optimizer
from private_keras.tracing.training.traced import PublicInput, ScheduleValues, State
from private_keras.tracing.training.weights import Weights
from private_keras.tracing.values import Secret, Value

# Fractional bits of gradients: more than values have, since most of them are small.
GRADIENT_BITS = 24


def _stay(iteration: int) -> None:
    pass


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
        settle: brings Keras' own public variables up to date; called with the iteration of the next step.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    public: Mapping[str, PublicInput] = field(default_factory=dict)
    schedule: ScheduleValues = _nothing
    settle: Callable[[int], None] = _stay


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
    pairs = zip(before, updates.weights, strict=True)
    values: dict[str, Value] = {old.name: new for old, new in pairs if new.name != old.name}
    values |= {name: value for name, (_, value) in updates.slots.items()}
    states = {name: state for name, (state, _) in updates.slots.items()}
    return Updated(values, states, updates.public, updates.schedule, updates.schedule.settle)


def _gradients(lo: Lowering, loss: Secret, weights: list[Secret]) -> list[tuple[Secret, float] | None]:
    """Value and public scale of the gradient by each weight; None where the loss does not depend on it."""
    seed = Gradient(lo.builder.constant(np.ones(loss.shape, np.int64), 0))
    names = [w.name for w in weights]
    found = gradients(lo.builder, {loss.name: seed}, names, fraction=GRADIENT_BITS, joints=lo.joints)
    return [(lo.secret(g.value), g.scale) if (g := found[name]) is not None else None for name in names]
