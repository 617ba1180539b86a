"""The public numbers of an update, evaluated for a run of steps: learning rates, corrections, factors made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.tracing.states import StateTensor
from private_keras.tracing.trace import RECORDING
from private_keras.tracing.training.traced import PublicInput
from private_keras.tracing.training.updating.kinds import ordered
from private_keras.tracing.training.updating.public import Public, Steps, evaluate, root
from private_keras.tracing.training.updating.record import record_schedule

# Steps that a plan's factors are made for: the next ones, and some far ahead.
_NEAR, _FAR = 48, 6


def upcoming(iteration: int) -> Steps:
    """Iterations from `iteration` on by which the sizes of public numbers are known before the plan is written."""
    near = iteration + np.arange(_NEAR)
    far = iteration + np.unique(np.geomspace(_NEAR, 10**_FAR, 16).astype(np.int64))
    return Steps(np.concatenate([near, far]))


# What a learning rate may grow by, as a power of two, before the plan must be written anew: callbacks and callables may
# set anything, a schedule may be larger between the steps that were looked at.
_SET, _PLANNED = 6, 2


class Rate:
    """The learning rate of each step, read when it is asked for: callbacks change it between epochs.

    Keras' schedule is followed once on a symbolic iteration, so that all steps are evaluated together; one with
    branches in Python, and a callable, is called for each step.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        self._followed: tuple[object, Public | None] | None = None

    def public(self) -> Public:
        planned = isinstance(self._optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        return root("learning_rate", (), self._over, _PLANNED if planned else _SET)

    def _over(self, steps: Steps) -> np.ndarray:
        rate = self._optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._of_schedule(rate, steps)
        if callable(rate) and not isinstance(rate, keras.Variable):
            return np.array([_plain(rate()) for _ in range(steps.count)], np.float32)
        return np.full(steps.count, _plain(rate), np.float32)

    def _of_schedule(self, schedule: Callable[[Any], Any], steps: Steps) -> np.ndarray:
        dtype = keras.backend.standardize_dtype(self._optimizer._iterations.dtype)

        def called(iterations: np.ndarray) -> np.ndarray:
            given = [_plain(schedule(keras.ops.convert_to_tensor(i, dtype))) for i in iterations.tolist()]
            return np.array(given, np.float32)

        if self._followed is None or self._followed[0] is not schedule:
            self._followed = schedule, _followed(schedule, dtype)
        public = self._followed[1]
        if public is None:
            return called(steps.iterations)
        values = np.asarray(public.over(Steps(steps.iterations)), np.float32)
        ends = [0, steps.count - 1]
        # A schedule that keeps something between calls gives a constant where it should not.
        agrees = np.allclose(values[ends], called(steps.iterations[ends]), rtol=1e-4, atol=1e-9)
        return values if agrees else called(steps.iterations)


def _plain(rate: Any) -> float:
    return float(keras.ops.convert_to_numpy(rate))


def _followed(schedule: Callable[[Any], Any], dtype: str) -> Public | None:
    """The schedule as a function of the iteration."""
    with RECORDING:
        recorded = record_schedule(schedule, dtype)
        if recorded is None:
            return None
        iteration, rate = recorded
        values = {id(iteration): root("iteration", (), lambda steps: steps.iterations)}
        evaluate(ordered([rate]), values)
    return values[id(rate)]


class Counters:
    """Public variables that change by step, as functions of the iteration: Nadam's product of momenta.

    Their values are those of Keras' variables at the iteration that the optimiser says when this is made; other
    iterations are reached from there.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._states: list[StateTensor] = []
        self._next: list[Public] = []
        self._known: dict[int, list[np.ndarray]] = {}
        self._start = int(optimizer._iterations)

    def public(self, state: StateTensor) -> Public:
        """The state before each step."""
        index = len(self._states)
        self._states.append(state)
        shape = tuple(state.shape)
        return root(("state", index), shape, lambda steps: self._over(steps)[index])

    def follow(self, new: Sequence[Public]) -> None:
        """`new`: the states after each step, in the order in which `public` was called."""
        self._next = list(new)
        values = [np.asarray(keras.ops.convert_to_numpy(s.variable)) for s in self._states]
        self._known = {self._start: values}

    def at(self, iteration: int) -> list[np.ndarray]:
        """The states before the step of this iteration."""
        if iteration < self._start:
            raise InputError(
                f"expected steps from iteration {self._start} on, where this optimizer stood when the step was traced. "
                f"Received: {iteration}. Compile the model again."
            )
        now = max(i for i in self._known if i <= iteration)
        values = self._known[now]
        while now < iteration:
            values = self._step(now, values)
            now += 1
        self._known = {self._start: self._known[self._start], iteration: values}
        return values

    def _step(self, iteration: int, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        steps = Steps(np.array([iteration]))
        steps.known.update({("root", ("state", i)): v[None] for i, v in enumerate(values)})
        return [np.asarray(p.over(steps))[0] for p in self._next]

    def _over(self, steps: Steps) -> list[np.ndarray]:
        if "counters" not in steps.known:
            values = self.at(int(steps.iterations[0]))
            rows = []
            for previous, iteration in zip([None, *steps.iterations[:-1].tolist()], steps.iterations, strict=True):
                # Of iterations far ahead only the size matters: the last of the near ones stands for them.
                if previous is not None and iteration == previous + 1:
                    values = self._step(previous, values)
                rows.append(values)
            steps.known["counters"] = [np.stack(column) for column in zip(*rows, strict=True)]
        return steps.known["counters"]

    def settle(self, iteration: int) -> None:
        """Sets Keras' variables to what they are before the step of this iteration."""
        for state, value in zip(self._states, self.at(iteration), strict=True):
            state.variable.assign(value)


@dataclass(frozen=True)
class Schedule:
    """Values of an update's public inputs; called as `ScheduleValues`.

    Attributes:
        inputs: by name: the input, what it stands for, and the size that the plan is made for.
        optimizer: Keras' optimiser.
        counters: its public variables.
    """

    inputs: Mapping[str, tuple[PublicInput, Public, float]]
    optimizer: keras.optimizers.Optimizer
    counters: Counters = field(repr=False)

    def __call__(self, first: int, steps: int) -> dict[str, np.ndarray]:
        """Values for `steps` steps from iteration `first` on, of shape (steps, *shape) by name of the input.

        Raises:
            InputError: where a value is not finite, or larger than the plan can hold: the step must be traced again,
                which takes the sizes from the learning rate as it is then.
        """
        evaluated = Steps(first + np.arange(steps))
        values = {}
        for name, (item, public, bound) in self.inputs.items():
            value = np.asarray(public.over(evaluated), np.float64).reshape((steps, *item.shape))
            if not np.max(np.abs(value), initial=0) < bound:  # NaN fails too
                raise InputError(
                    f"optimizer '{self.optimizer.name}': expected public factors below {bound:g} in iterations {first} "
                    f"to {first + steps - 1}, which the plan was made for. Received: {np.max(np.abs(value)):g}. The "
                    "learning rate changed by more than a factor of 32: compile the model again."
                )
            values[name] = value
        return values

    def settle(self, iteration: int) -> None:
        """Sets the iteration and other public variables of Keras' optimiser to what they are before this step."""
        self.counters.settle(iteration)
        self.optimizer._iterations.assign(iteration)
