"""Private models from files and from JSON."""
import os
from collections.abc import Mapping
from typing import Any

import keras

from private_keras import converter
from private_keras.cluster import current
from private_keras.errors import InputError, UnsupportedError
from private_keras.models.convert import convert
from private_keras.models.training import checkpoint, reveal
from private_keras.tensor import resolve


def load_model(
    filepath: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None, compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """A private model from a file that Keras wrote; its `predict` runs on shares.

    Args:
        filepath: `.h5` of Keras 2 or 3, or `.keras`.
        custom_objects: classes and functions by name that the model uses. Names registered with
            `keras.saving.register_keras_serializable` are known too; nothing is imported because a file says so.
        compile: compile the model as the file says, as Keras does. From `.keras` the optimizer goes on where it was;
            from `.h5` it begins anew.
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


def load_shares(name: str, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """The model that `save_shares`, or the checkpoint of a `fit`, saved on the servers; its weights stay there.

    Args:
        name: it was saved under; "model-owner/digits" for what model-owner saved as "digits", with a policy that lets
            this client use it. Its weights stay under that policy, and so does what is made of them.
        custom_objects: classes and functions by name that the model uses. Nothing that servers say is run or imported.

    Raises:
        HandleNotFound: nothing is saved under the name on this cluster.
        FileError: what servers give back is damaged, or names something unknown.
        UnsupportedError: the model has no configuration.

    Opens: weights of layers that were declared public, to this client; those of others only if their policy allows
    plans of kind "reveal".
    """
    cluster = current()
    found = checkpoint.read(cluster, *resolve(cluster, name))
    text = found.about["model"]
    if text is None:
        raise UnsupportedError(
            f"{name!r}: model {found.about['name']!r} has no configuration that could be saved with it. Make the model "
            "and compile it as before, and call fit(..., checkpoint=name, resume=True) on it."
        )
    model = model_from_json(text, custom_objects)
    jobs = model._jobs()
    checkpoint.take(model, jobs, cluster, found)
    layers = model._flatten_layers()
    for place in found.about["public"]:
        if not isinstance(place, int) or not 0 <= place < len(layers):
            continue
        layers[place].public = True
        held = [item for variable in layers[place].weights if (item := jobs.holdings.find(variable)) is not None]
        for item, value in zip(held, reveal.opened(cluster, model.name, held), strict=True):
            item.state.variable.assign(value)
    return model
