"""What a trace of a training step tells those who run it.

A layer with an attribute `public` that is true holds public weights, as do the layers in it: they are public inputs of
plans, and products with them cost no communication. They cannot be trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from private_keras.plan.plan import Plan
from private_keras.tracing.inputs import InputSpec

Kind = Literal["weight", "optimizer", "metric"]


@dataclass(frozen=True)
class Target:
    """One leaf of y, or of sample weights, as the data have it.

    Attributes:
        shape: without the batch.
        dtype: of the data; integers and truth values are shared as they are, real numbers in fixed point.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class State:
    """A secret that plans read and replace: the same in every plan of a model, whatever the batch size.

    Attributes:
        name: of the input in plans: "weight/<i>/<path>", "optimizer/<i>/<path>", "metric/<i>/<path>", where i is the
            variable's place in `model.weights`, `optimizer.variables` or the list of all metrics' variables.
        kind: whose it is.
        shape: of the tensor.
        fraction: fractional bits on the servers.
        variable: Keras' variable, which holds the value to begin with.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    fraction: int
    variable: keras.Variable = field(repr=False)


@dataclass(frozen=True)
class PublicInput:
    """A public input of a plan.

    Attributes:
        name: in the plan.
        shape: of one step's value.
        fraction: fractional bits.
        variable: a public weight, the same in all steps; None for what `Schedule.values` gives.
    """

    name: str
    shape: tuple[int, ...]
    fraction: int
    variable: keras.Variable | None = field(default=None, repr=False)


# (first iteration, number of steps) -> by name of the public input, an array of (steps, *shape), in real numbers
ScheduleValues = Callable[[int, int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class TracedStep:
    """One step of training, evaluation or prediction on weights that are on the servers.

    Attributes:
        plan: of kind "train", "evaluate" or "predict", optimised.
        batch_size: rows of a step.
        inputs: one for each model input, in the order in which Keras flattens them; names in the plan.
        targets: one for each leaf of y, in the order in which Keras flattens them.
        sample_weight: the plan's input of shape (batch,), or None.
        arrays: plaintext of further secret inputs, by name: arrays of real numbers that layers hold and that are no
            weights (a table, statistics). They are the model owner's, and the same in every step.
        states: all states that the plan reads, by name of the plan's input.
        carried: name of the kept output that is a state's new value, by the state's name; states that a step does not
            change are missing.
        public: public inputs by name: weights that are public, learning rates and other scalars, random seeds.
        schedule: values of the public inputs that change by step; does not include those that are a `variable`.
        tallies: what every step adds to metric variables that are public and no states (numbers of samples), by what
            the state would be called; the client counts.
        outputs: Keras' nested structure of outputs, with each output's name in the plan as leaves; for "predict".
        output_dtypes: the dtype Keras gives each output, by name; for "predict".
    """

    plan: Plan
    batch_size: int
    inputs: list[InputSpec]
    targets: list[InputSpec]
    sample_weight: str | None
    states: Mapping[str, State]
    carried: Mapping[str, str]
    public: Mapping[str, PublicInput]
    schedule: ScheduleValues
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    tallies: Mapping[str, np.ndarray] = field(default_factory=dict)
    outputs: Any = None
    output_dtypes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TracedResults:
    """The plan that opens metrics at the end of an epoch, from their states; see `training.results`.

    Attributes:
        plan: of kind "evaluate"; its secret inputs are metric states, its outputs are opened to the client. Opens
            nothing else.
        states: metric states by name of the plan's input.
        public: public inputs by name: metric variables that are public and that a result needs on the servers. Their
            value is that of `variable` plus the sum of what `TracedStep.tallies` said in all steps.
        names: Keras' name of each result ("loss", "accuracy", ...) to the output that it is read from; several may be
            read from one. Results that need no opening are missing.
        read: (opened outputs by name, sums of `TracedStep.tallies` over all steps by name) -> Keras' results by name,
            in Keras' order: arrays, of rank 0 for most metrics.
    """

    plan: Plan
    states: Mapping[str, State]
    public: Mapping[str, PublicInput]
    names: Mapping[str, str]
    read: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], dict[str, np.ndarray]]
