"""Refuses, before it is shared, a batch whose values would leave the range of fixed point on their way."""
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from private_keras.errors import InputError
from private_keras.plan.ranges import ranges
from private_keras.plan.shadow import Shadow, shadow, span_of
from private_keras.plan.spans import Span
from private_keras.tracing import Traced

_NAMED = 4  # layers that an error names at most


ADVICE = "Scale the data as for training, or add a normalisation before."


class Problem(NamedTuple):
    """A layer that would go wrong: where, in which primitive, what was expected and received."""

    layer: str
    operation: str
    message: str


class Guard:
    """Of one plan. Remembers for which sizes of inputs bounds prove that nothing wraps: then a batch costs a maximum.

    Args:
        model: name, for errors.
        traced: the model as a plan, with its weights.
        largest: size of inputs that the plan was made for; None for any.
    """

    def __init__(self, model: str, traced: Traced, largest: float | None = None):
        self._model = model
        self._traced = traced
        self._largest = math.inf if largest is None else largest
        self._proven: dict[tuple[float, ...], bool] = {}
        self._weights: dict[str, np.ndarray] | None = None
        self._spans: dict[str, Span] = {}

    def check(self, values: Mapping[str, np.ndarray]) -> None:
        """Passes a batch that stays in range.

        Args:
            values: real values of the model's inputs by name in the plan, checked already.

        Raises:
            InputError: naming the layers that would wrap, or whose functions would give something else than Keras.

        Cost: the largest |value| of the batch where bounds prove enough; otherwise a prediction in float64, in the
            clear.
        """
        specs = self._traced.inputs
        sizes = tuple(self._bound(values[spec.name]) for spec in specs)
        if sizes not in self._proven:
            spans = {
                spec.name: Span(max(spec.low, -size), min(spec.high, size))
                for spec, size in zip(specs, sizes, strict=True)
            }
            self._proven[sizes] = ranges(self._traced.plan, spans, self._traced.weights).proven
        if self._proven[sizes]:
            return
        if self._weights is None:
            # Kept, because turning a large model's weights to float64 takes as long as predicting with them.
            self._weights = {name: np.asarray(w, np.float64) for name, w in self._traced.weights.items()}
            self._spans = {name: span_of(w) for name, w in self._weights.items()}
        found = problems(shadow(self._traced.plan, {**self._weights, **values}, self._spans))
        if found:
            lines = [f"Layer {p.layer!r} ({p.operation}): {p.message}" for p in found[:_NAMED]]
            if len(found) > _NAMED:
                lines.append(f"And {len(found) - _NAMED} more layers.")
            raise InputError(
                f"model {self._model!r}: fixed point cannot hold this batch on its way; nothing of it was shared. "
                f"{' '.join(lines)} {ADVICE} model.check(x) lists the ranges of all layers."
            )

    def _bound(self, values: np.ndarray) -> float:
        """A bound on |value|: a power of two from 1 on, so that few are looked at, or what the plan was made for."""
        largest = max(-float(values.min()), float(values.max()))
        rounded = 2.0 ** math.ceil(math.log2(max(largest, 1.0)))
        return self._largest if largest <= self._largest < rounded else rounded


def problems(seen: Shadow) -> list[Problem]:
    """What is wrong, one for each layer; empty if nothing is. Quotes no value of the data."""
    found = {problem.layer: problem for problem in wrapping(seen)}
    for item in seen.exits if seen.matters else ():
        layer = item.step.layer or "-"
        least = "" if math.isinf(item.low) else f"from {item.low:.3g} "
        text = f"expected operands {least}up to {item.high:.4g}. Received: operands outside."
        found.setdefault(layer, Problem(layer, item.step.op, text))
    return list(found.values())


def wrapping(seen: Shadow) -> list[Problem]:
    """Layers where values would wrap, once each."""
    found: dict[str, Problem] = {}
    for item in seen.overflows:
        layer = item.step.layer or "-"
        text = f"expected values below {item.limit:.4g} in size. Received: values beyond."
        found.setdefault(layer, Problem(layer, item.step.op, text))
    return list(found.values())
