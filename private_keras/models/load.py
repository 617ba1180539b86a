"""Private models from files and from JSON."""
import os
from collections.abc import Mapping
from typing import Any

import keras

from private_keras import converter
from private_keras.errors import InputError, UnsupportedError
from private_keras.models.convert import convert


def load_model(
    filepath: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None, compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """A private model from a file that Keras wrote; its `predict` runs on shares.

    Args:
        filepath: `.h5` of Keras 2 or 3, or `.keras`.
        custom_objects: classes and functions by name that the model uses. Names registered with
            `keras.saving.register_keras_serializable` are known too; nothing is imported because a file says so.
        compile: compile the model as the file says, as Keras does. The state of the optimizer is not loaded.
        safe_mode: must be True: code from files never runs here.

    Raises:
        FileError: missing, truncated or hostile file, or one whose model needs code from the file.
        UnsupportedError: safe_mode=False.
        InputError: not a path.
    """
    if not safe_mode:
        raise UnsupportedError(
            "load_model: safe_mode=False would run Python code from the file, which private_keras never does. Replace "
            "Lambda "
            "layers by layers or keras.ops, save the model again, and leave safe_mode at True."
        )
    if not isinstance(filepath, str | os.PathLike):
        raise InputError(f"load_model: expected the path of a file. Received: {type(filepath).__name__}")
    return convert(converter.read_model(filepath, custom_objects, compile))


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """A private model from `model.to_json()`, with fresh weights; names are looked up as in `load_model`.

    Raises:
        FileError: not a model's configuration, or one that names something unknown.
    """
    return convert(converter.model_from_json(json_string, custom_objects))
