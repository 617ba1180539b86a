"""`keras.ops`, also on secret tensors, where they are recorded and run on shares when the result is used.

    x = pk.ops.concatenate([age, gender, income], axis=1)
    y = pk.ops.matmul(x, w) + b
    y.reveal()

An array among the arguments is shared like the caller's own data when the result is used; single numbers, and arrays of
zeros and ones, stand in the plan, which servers see.
"""
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import keras

from private_keras.tensor.operators import apply, secrets_in


def _recording(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, also on secret tensors."""

    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        if secrets_in((args, kwargs)):
            return apply(function, *args, **kwargs)
        return function(*args, **kwargs)

    return recorded


def _fill(module: types.ModuleType, theirs: types.ModuleType) -> list[str]:
    names = [name for name in dir(theirs) if not name.startswith("_")]
    for name in names:
        value = getattr(theirs, name)
        if isinstance(value, types.ModuleType):
            inner = types.ModuleType(f"{module.__name__}.{name}", value.__doc__)
            _fill(inner, value)
            value = inner
        elif callable(value) and not isinstance(value, type):
            value = _recording(value)
        setattr(module, name, value)
    return names


__all__ = _fill(sys.modules[__name__], keras.ops)
