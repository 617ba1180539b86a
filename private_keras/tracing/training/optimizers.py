"""`lower_optimizer`: an optimiser's update of all weights, as steps of a plan.

Keras' own optimiser is recorded (`updating/record.py`), so that every argument does what it does in Keras and a user's
own optimiser works if it is written with `keras.ops`. What is public stays with the client (`updating/public.py`); the
rest is written with fixed-point care (`updating/scaled.py`). See docs/training.md, Optimisers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import StateTensor
from private_keras.tracing.training.traced import PublicInput, State
from private_keras.tracing.training.updating.kinds import ordered, secret_tensors, squares
from private_keras.tracing.training.updating.public import Public, argument, constant, evaluate, root
from private_keras.tracing.training.updating.record import Recorded, record
from private_keras.tracing.training.updating.roots import force
from private_keras.tracing.training.updating.rules import RULES, general
from private_keras.tracing.training.updating.scaled import BUDGET, PLAIN, SIZE, SQUARE, Scaled, Writer
from private_keras.tracing.training.updating.schedule import Counters, Rate, Schedule, upcoming
from private_keras.tracing.training.weights import sanitised
from private_keras.tracing.values import Secret

# Real size of weights, and of the values that gradients come as, as powers of two.
WEIGHT_SIZE = VALUE_SIZE = 20

REFUSED = {
    keras.optimizers.LossScaleOptimizer: "whether gradients are finite is not known on shares, and fixed point "
    "needs no loss scale. Use the inner optimizer itself; where the policy mixed_float16 put it there, leave out the "
    "policy: shares are fixed point in any case.",
    keras.optimizers.Adafactor: "it divides averages of squares by each other, which needs more range than 64 bits "
    "have. Use Adam, or RMSprop for less memory.",
}


@dataclass(frozen=True)
class Updates:
    """What a step does to weights and to the optimiser's states.

    Attributes:
        weights: new value of each weight, at the weight's fraction.
        slots: by name of the plan's input: the optimiser's secret states and their new values.
        public: public inputs by name.
        schedule: their values; `schedule.settle(iteration)` brings Keras' own public variables up to date.
    """

    weights: list[Secret]
    slots: Mapping[str, tuple[State, Secret]]
    public: Mapping[str, PublicInput]
    schedule: Schedule


def lower_optimizer(
    lo: Lowering,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    weights: Sequence[Secret],
    gradients: Sequence[tuple[Secret, float] | None],
) -> Updates:
    """Writes an optimiser's update into `lo.builder`. For the caller who holds the trace's lock.

    Args:
        lo: the lowering of the training step.
        optimizer: Keras' optimiser; built here on `variables` if it is not yet, otherwise left as it was.
        variables: the trainable variables it is built on.
        weights: their values on the servers.
        gradients: of the loss, not multiplied by `loss_scale_factor`: value and public scale of each, real gradient =
            value * scale; values are below 2^19 and have at most 44 fractional bits. None for a variable that the loss
            does not depend on: Keras leaves it as it is.

    Raises:
        UnsupportedError: for what cannot run on shares, naming operation and advice; nothing was shared by then.
    """
    for kind, reason in REFUSED.items():
        if isinstance(optimizer, kind):
            raise UnsupportedError(f"optimizer {kind.__name__} cannot run on shares: {reason}")
    if not optimizer.built:
        optimizer.build(list(variables))
    recorded = record(optimizer, variables, [g is not None for g in gradients])
    return _Update(lo, optimizer, variables, weights, gradients, recorded).write()


class _Update:
    """The writing of one recorded update."""

    def __init__(
        self,
        lo: Lowering,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        weights: Sequence[Secret],
        gradients: Sequence[tuple[Secret, float] | None],
        recorded: Recorded,
    ):
        self.lo = lo
        self.optimizer = optimizer
        self.states = recorded.states
        self.trained = [recorded.states[id(v)] for v in variables]
        self.weights = weights
        trained = {id(s) for s in self.trained}
        iteration = recorded.states[id(optimizer._iterations)]
        held = [s for s in recorded.states.values() if id(s) not in trained and s is not iteration]
        self.ends = [s.current for s in recorded.states.values() if s.assigned and s is not iteration]
        self.nodes = ordered(self.ends)
        used = {id(t) for node in self.nodes for t in node.input_tensors} | {id(t) for t in self.ends}
        held = [s for s in held if s.assigned or id(s.initial) in used]
        given = [g for g in recorded.gradients if g is not None] + [s.initial for s in self.trained]
        self.secret, hidden = secret_tensors(self.nodes, given, held)
        self.slots = self._named(hidden)
        self.counters = Counters(optimizer)
        self.values: dict[int, Any] = {id(recorded.rate): Rate(optimizer).public()}
        self.values[id(iteration.initial)] = root("iteration", (), lambda steps: steps.iterations)
        self._public_states([s for s in held if not any(s is h for h in hidden)])
        self.writer = Writer(lo, upcoming(int(optimizer._iterations)))
        self._secret_roots(recorded, gradients)

    def _named(self, hidden: Sequence[StateTensor]) -> list[tuple[State, StateTensor]]:
        """The secret states in the order of `optimizer.variables`."""
        places = {id(v): i for i, v in enumerate(self.optimizer.variables)}
        flagged = squares(self.nodes, hidden)
        named = []
        for extra, state in enumerate(hidden):
            index = places.get(id(state.variable), len(places) + extra)
            path = sanitised(state.path)
            fraction = SQUARE if id(state) in flagged else PLAIN
            item = State(
                f"optimizer/{index}/{path}", "optimizer", tuple(state.shape), fraction, state.variable
            )
            named.append((index, item, state))
        return [(item, state) for _, item, state in sorted(named, key=lambda entry: entry[0])]

    def _public_states(self, states: Sequence[StateTensor]) -> None:
        self.changing = [s for s in states if s.assigned]
        for state in states:
            if state.assigned:
                self.values[id(state.initial)] = self.counters.public(state)
            else:
                self.values[id(state.initial)] = root(
                    ("variable", state.path), (), lambda steps, v=state.variable: np.full(steps.count, float(v))
                )
        evaluate(self.nodes, self.values, self.secret)
        self.counters.follow([self.values[id(s.current)] for s in self.changing])

    def _secret_roots(self, recorded: Recorded, gradients: Sequence[tuple[Secret, float] | None]) -> None:
        for state, weight in zip(self.trained, self.weights, strict=True):
            self.values[id(state.initial)] = Scaled(weight, WEIGHT_SIZE)
        for tensor, given in zip(recorded.gradients, gradients, strict=True):
            if tensor is not None:
                value, scale = given
                size = min(SIZE - min(math.frexp(abs(scale))[1] - 1, 0), VALUE_SIZE, BUDGET - value.fraction)
                self.values[id(tensor)] = Scaled(value, size, float(scale))
        for item, state in self.slots:
            self.lo.builder.input(item.name, item.shape, item.fraction, self.lo.owner, label=item.name[-200:])
            square = item.fraction == SQUARE
            self.values[id(state.initial)] = Scaled(self.lo.secret(item.name), SIZE, square=square, positive=square)

    def write(self) -> Updates:
        for node in self.nodes:
            if any(id(t) in self.secret for t in node.input_tensors):
                args, kwargs = node.arguments.convert(lambda a: argument(a, self.values))
                rule = RULES.get(type(node.operation), general)
                value = rule(self.writer, node.operation, *args, **kwargs)
                self.values[id(node.outputs[0])] = value
        weights = [
            self._final(s, w.fraction, w.shape) for s, w in zip(self.trained, self.weights, strict=True)
        ]
        slots = {item.name: (item, self._final(s, item.fraction, item.shape)) for item, s in self.slots}
        public = {name: item for name, (item, _, _) in self.writer.public.items()}
        return Updates(weights, slots, public, Schedule(dict(self.writer.public), self.optimizer, self.counters))

    def _final(self, state: StateTensor, fraction: int, shape: tuple[int, ...]) -> Secret:
        value = self.values[id(state.current)]
        if isinstance(value, Public):
            wanted = constant(np.broadcast_to(value.constant, shape).copy()) if value.constant is not None else value
            secret = self.writer.number(wanted, fraction)
        else:
            secret = self.writer.write(force(self.writer, value), fraction)
        return secret if secret.shape == shape else self.lo.step("broadcast", secret, shape=list(shape))
