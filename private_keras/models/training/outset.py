"""A look at the first step of training before anything is shared: data that fixed point cannot train on as they are."""
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.models.guard import wrapping
from private_keras.models.training.holdings import Holdings
from private_keras.plan.shadow import shadow
from private_keras.tracing.training.traced import TracedStep

_NAMED = 4  # layers that an error names at most
# More numbers in a step than this are not looked at: it would take longer than the servers' own check.
_ELEMENTS = 1 << 28


def check(model: keras.Model, holdings: Holdings, traced: TracedStep, data: Mapping[str, Any]) -> None:
    """Passes data whose first rows a step can be taken on. Looks at nothing where the client does not know all values.

    Args:
        traced: step of training.
        data: all rows by name of the plan's input; arrays, or what is on the servers already.

    Raises:
        InputError: naming the layers where values would wrap; quotes no value.

    Cost: one step in float64, in the clear.
    """
    plan = traced.plan
    if not holdings.known or sum(kind.size for kind in plan.types.values()) > _ELEMENTS:
        return
    first = int(model.optimizer._iterations)
    public = traced.schedule(first, 1)
    values: dict[str, np.ndarray] = {}
    for item in plan.inputs:
        name = item.name
        if name in data:
            if not isinstance(data[name], np.ndarray):
                return
            values[name] = data[name][: item.type.shape[0]]
        elif name in public:
            values[name] = public[name][0]
        elif name in traced.arrays:
            values[name] = traced.arrays[name]
        else:
            source = traced.states[name] if name in traced.states else traced.public[name]
            values[name] = keras.ops.convert_to_numpy(source.variable)
    if not all(np.isfinite(value).all() for value in values.values()):
        return  # a weight that another model has trained: sharing it says so
    found = wrapping(shadow(plan, values))
    if found:
        lines = [f"{_place(p.layer)} ({p.operation}): {p.message}" for p in found[:_NAMED]]
        raise InputError(
            f"model {model.name!r}: fixed point cannot hold the first step of training on these data; nothing was "
            f"shared. {' '.join(lines)} Scale inputs and targets to about -1 to 1, or use a smaller learning rate."
        )


def _place(layer: str) -> str:
    return "The optimizer's update" if layer == "-" else f"Layer {layer!r}"
