"""Builds a plain Keras model from a checked configuration, without allocating more than the file has weights for."""
import copy
import math
from collections.abc import Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state

from private_keras.errors import FileError

# Variables that no file stores or that stay small: seeds, counters, moving statistics of preprocessing layers.
_UNSTORED = 1 << 16
# What a configuration without a file of weights may ask for: 2 GiB of float32.
UNLIMITED = 1 << 29
_PENDING = "uninitialized_variables"


def build(config: dict[str, Any], stored: int, path: str, custom_objects: Mapping[str, Any]) -> keras.Model:
    """The model that a configuration describes, with initial weights.

    Args:
        config: checked by `config.check`; either of Keras 3, or of the older format without "module".
        stored: elements that the file holds. The model is first built with variables that have a shape but no memory,
            so that a small file cannot ask for a huge one.
        path: for errors.
        custom_objects: names that the caller vouches for.
    """
    with keras.saving.custom_object_scope(dict(custom_objects)):
        # A copy: Keras appends to the list that it keeps.
        pending = list(global_state.get_global_attribute(_PENDING) or [])
        try:
            with keras.StatelessScope(initialize_variables=False):
                wanted = sum(math.prod(v.shape) for v in _revive(config).variables)
        finally:
            # Keras would allocate them all the next time it fills such variables.
            global_state.set_global_attribute(_PENDING, pending)
        if wanted > stored + _UNSTORED:
            raise FileError(f"{path}: describes a model of {wanted} parameters and stores {stored}. The file is "
                            "damaged or hostile.")
        return _revive(config)


def _revive(config: dict[str, Any]) -> keras.Model:
    config = copy.deepcopy(config)  # Keras changes configurations while it reads them
    if "module" in config:
        model = keras.saving.deserialize_keras_object(config)
    else:
        model = _legacy_class(config["class_name"]).from_config(config["config"])
    if not isinstance(model, keras.Model):
        raise TypeError(f"the file describes a {type(model).__name__}, not a model")
    return model


def _legacy_class(name: str) -> type[keras.Model]:
    """The class of a model in the older format; all its layers are found by Keras itself."""
    if name == "Sequential":
        return keras.Sequential
    if name in ("Functional", "Model"):
        return keras.Model
    return keras.saving.get_registered_object(name)
