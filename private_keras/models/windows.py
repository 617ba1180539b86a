"""Predictions whose comparisons look at fewer bits, for inputs that their owner says are not large."""

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real

import numpy as np

from private_keras.errors import InputError
from private_keras.plan.passes.windows import narrow_windows
from private_keras.plan.spans import Span
from private_keras.tensor import Column
from private_keras.tracing import Traced


def checked(largest: float | None) -> float | None:
    """What `narrow` was given; raises an InputError for what is no size."""
    if largest is None:
        return None
    if isinstance(largest, bool) or not isinstance(largest, Real) or not 0 < largest < math.inf:
        raise InputError(
            f"narrow: expected the largest size of an input, a number above 0, or None. Received: {largest!r}"
        )
    return float(largest)


def narrowed(traced: Traced, largest: float) -> Traced:
    """The same with a plan for inputs of this size at most; its weights prove the rest."""
    spans = {spec.name: Span(max(spec.low, -largest), min(spec.high, largest)) for spec in traced.inputs}
    return replace(traced, plan=narrow_windows(traced.plan, spans, traced.weights))


def within(values: Mapping[str, np.ndarray | Column], largest: float) -> bool:
    """Whether a batch is of inputs of this size at most; what is shared already cannot be looked at."""
    return all(isinstance(value, np.ndarray) and np.abs(value).max() <= largest for value in values.values())
