"""Weights that stay on the servers, in the hands of callbacks: what `get_weights` gives while `fit` runs."""
from collections.abc import Sequence
from typing import Any, NoReturn

import keras
import numpy as np

from private_keras.cluster.shares import Share
from private_keras.errors import InputError, UnsupportedError
from private_keras.models.training.holdings import Holdings


class SecretWeight:
    """One weight as it was on the servers when this was made. Prints shape and dtype, never a value."""

    def __init__(self, path: str, dtype: str, share: Share):
        self.path = path
        self.shape = share.handle.shape
        self.dtype = dtype
        self.share = share

    def __repr__(self) -> str:
        return f"<secret weight {self.path!r}, shape {self.shape}, {self.dtype}>"

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(f"{self!r} is not known here. model.reveal() opens weights to their owner.")


class SecretWeights(list):
    """Of a model, in the order of `model.weights`: a `SecretWeight`, or an array that the client knows anyway.

    `model.set_weights` takes it back. It costs nothing but the room on the servers.
    """

    def __repr__(self) -> str:
        secret = sum(isinstance(item, SecretWeight) for item in self)
        return f"<{len(self)} weights, {secret} of them secret>"

    __str__ = __repr__


def taken(model: keras.Model, holdings: Holdings) -> SecretWeights:
    """The weights of a model as they are now."""
    result = SecretWeights()
    for variable in model.weights:
        held = holdings.find(variable)
        if held is not None and held.secret:
            result.append(SecretWeight(variable.path, str(variable.dtype), held.share))
        else:
            result.append(keras.ops.convert_to_numpy(variable).copy())
    return result


def put(model: keras.Model, holdings: Holdings, weights: Sequence[Any]) -> None:
    """What `set_weights` does with a list that has secret weights in it.

    Raises:
        InputError: another number of weights, or other shapes.
    """
    variables = model.weights
    if len(weights) != len(variables):
        raise InputError(f"set_weights: model {model.name!r} has {len(variables)} weights. Received: {len(weights)}")
    for variable, value in zip(variables, weights, strict=True):
        if tuple(variable.shape) != tuple(np.shape(value) if not isinstance(value, SecretWeight) else value.shape):
            raise InputError(f"set_weights: weight {variable.path!r} has shape {tuple(variable.shape)}. Received: "
                             f"{value.shape}")
    for variable, value in zip(variables, weights, strict=True):
        if isinstance(value, SecretWeight):
            holdings.adopt(holdings.state(variable, value.share.handle.fraction), value.share)
        else:
            variable.assign(value)
