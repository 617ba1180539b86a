"""Results of metrics for somebody else, who knows neither the model nor how many samples there were.

To this client the servers open sums, which it divides itself. For others they are multiplied by public numbers first,
so that what is opened is what Keras says: a mean.
"""
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from private_keras.errors import UnsupportedError
from private_keras.plan.openings import shown_inputs
from private_keras.plan.plan import Plan, PlanInput, PlanOutput, Step, TensorType
from private_keras.tracing.training.traced import TracedResults
from private_keras.tracing.training.weights import sanitised

# Fractional bits of a public factor: a mean of 10^6 samples is off by 10^-3 of itself at most, of 10^3 by 10^-6.
FACTOR = 30
CLIENT = "client"


@dataclass(frozen=True)
class Delivered:
    """What opens results to others.

    Attributes:
        plan: with an output for each metric, by its name.
        public: values of its public inputs beside those of the results' own plan.
    """

    plan: Plan
    public: Mapping[str, np.ndarray]


def delivered(results: TracedResults, tallies: Mapping[str, np.ndarray]) -> Delivered:
    """Results as somebody else gets them.

    Args:
        results: as this client would open them.
        tallies: what it has counted.

    Raises:
        UnsupportedError: a metric that is no sum times a public number plus another, as a root.
    """
    plan = results.plan
    values = {item.name: item.value for item in plan.outputs}
    inputs, steps, outputs = list(plan.inputs), list(plan.steps), []
    public: dict[str, np.ndarray] = {}
    for index, (name, opened) in enumerate(sorted(results.names.items())):
        kind = plan.types[values[opened]]
        parts = _linear(results, tallies, name, opened, kind.shape)
        if parts is None:
            raise UnsupportedError(f"metric {name!r} cannot be sent to others: the servers open what it is computed "
                                   "of, and not itself. Compile the model with a metric that is a mean.")
        value = values[opened]
        for what, op, number, fraction in (
            ("factor", "multiply", parts[0], FACTOR), ("term", "add", parts[1], kind.fraction + FACTOR)
        ):  # fmt: skip
            if what == "term" and not number.any():
                continue
            given = f"{what}/{index}"
            inputs.append(PlanInput(given, TensorType(kind.shape, fraction), CLIENT, f"{name}: {what}"[:200], True))
            steps.append(Step(op, (value, given), f"{what}/{index}/{op}", {}, "metrics"))
            public[given] = number
            value = steps[-1].output
        outputs.append(PlanOutput(value, sanitised(name), (CLIENT,)))
    shows = shown_inputs(inputs, steps)
    # To others a sum is opened as what it is.
    kind = "reveal" if any(shows[item.value] for item in outputs) else plan.kind
    return Delivered(replace(plan, kind=kind, inputs=tuple(inputs), steps=tuple(steps), outputs=tuple(outputs)), public)


def _linear(
    results: TracedResults, tallies: Mapping[str, np.ndarray], name: str, opened: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and term that make the result of what is opened; None if there are none."""
    zeros = {item.name: np.zeros(results.plan.types[item.value].shape) for item in results.plan.outputs}

    def read(value: np.ndarray) -> np.ndarray:
        return np.asarray(results.read({**zeros, opened: value}, tallies)[name], np.float64)

    term = read(np.zeros(shape))
    if term.shape != shape:
        return None
    factor = read(np.ones(shape)) - term
    for value in (np.full(shape, 3.0), np.arange(1.0, 1.0 + term.size).reshape(shape)):
        if not np.allclose(read(value), factor * value + term, rtol=1e-4, atol=1e-6):
            return None
    return factor, term
