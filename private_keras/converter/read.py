"""Reads `.h5` files of Keras 2 and 3 and `.keras` files."""
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format, saving_utils

from private_keras.converter import archive, config, hdf5
from private_keras.converter.build import UNLIMITED, build
from private_keras.converter.keras2 import modernise
from private_keras.errors import FileError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"


def read_model(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> keras.Model:
    """A plain Keras model with the weights of a file.

    Args:
        path: of an `.h5`, `.hdf5` or `.keras` file. What it is, is decided by its first bytes, not by its name.
        custom_objects: classes and functions by name that the model uses and the caller vouches for.
        compile: compile the model as the file says. With `.keras` the optimizer goes on where it was, as in Keras; with
            `.h5` it begins anew.

    Raises:
        FileError: missing, damaged or hostile file, or one that needs code which Keras does not have.
    """
    path, custom_objects = Path(path), dict(custom_objects or {})
    start = _start(path)
    if start.startswith(_ZIP_SIGNATURE):
        return _read_keras(path, custom_objects, compile)
    if start == _HDF5_SIGNATURE:
        return _read_hdf5(path, custom_objects, compile)
    raise FileError(
        f"{path}: is neither HDF5 nor a .keras archive. Received first bytes: {start!r}. Expected a file that Keras "
        "wrote with "
        "model.save('....keras') or model.save('....h5')."
    )


def model_from_json(text: str, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """A plain Keras model with initial weights, from `model.to_json()`.

    Raises:
        FileError: not a model's configuration, or one that names something unknown.
    """
    shown, custom_objects = "the JSON text", dict(custom_objects or {})
    description = config.parse(text, shown, "the configuration")
    config.check(description, shown, custom_objects)
    compiled = description.pop("compile_config", None)
    try:
        model = build(description, UNLIMITED, shown, custom_objects)
    except FileError:
        raise
    except Exception as error:
        raise hdf5.damaged(shown, error) from error
    if compiled:
        with keras.saving.custom_object_scope(custom_objects):
            _compile(shown, lambda: model.compile_from_config(compiled))
    return model


def check_weights(path: str | os.PathLike) -> None:
    """Checks a file of weights (`.weights.h5`, `.h5`, `.keras`) before Keras reads it.

    Raises:
        FileError: missing, damaged or hostile file.
    """
    path = Path(path)
    if _start(path).startswith(_ZIP_SIGNATURE):
        with tempfile.TemporaryDirectory(prefix="private_keras-") as directory:
            with archive.opened(path, Path(directory)) as parts, hdf5.opened(parts.weights, str(path)):
                return
    with hdf5.opened(path, str(path)):
        return


def _start(path: Path) -> bytes:
    if not path.is_file():
        what = "is no file" if path.exists() else "no such file"
        raise FileError(f"{path}: {what}. Expected an .h5 or .keras file written by Keras.")
    with path.open("rb") as file:
        return file.read(8)


def _read_keras(path: Path, custom_objects: dict[str, Any], compile: bool) -> keras.Model:
    with tempfile.TemporaryDirectory(prefix="private_keras-") as directory:
        with archive.opened(path, Path(directory)) as parts:
            description = config.parse(parts.config, str(path), "config.json")
            config.check(description, str(path), custom_objects)
            compiled = description.pop("compile_config", None)
            with hdf5.opened(parts.weights, str(path)) as (_, stored):
                model = build(description, stored, str(path), custom_objects)
            model.load_weights(parts.weights)
            if compile and compiled:
                with keras.saving.custom_object_scope(custom_objects):
                    _compile(path, lambda: model.compile_from_config(compiled))
                with hdf5.opened(parts.weights, str(path)) as (file, _):
                    _restore(model, file)
    return model


def _restore(model: keras.Model, file: h5py.File) -> None:
    """Puts the state of an optimiser back. One that was saved before it was trained has none, and begins anew."""
    optimizer, group = model.optimizer, file.get("optimizer/vars")
    if optimizer is None or not isinstance(group, h5py.Group):
        return
    stored = [group.get(str(i)) for i in range(len(group))]
    if [getattr(item, "shape", None) for item in stored] == [tuple(v.shape) for v in optimizer.variables]:
        for variable, item in zip(optimizer.variables, stored, strict=True):
            variable.assign(item[()])


def _read_hdf5(path: Path, custom_objects: dict[str, Any], compile: bool) -> keras.Model:
    with hdf5.opened(path, str(path)) as (file, stored):
        if "model_config" not in file.attrs:
            raise FileError(
                f"{path}: holds weights but no model. Build the model in code and call model.load_weights(path), or "
                "save it with "
                "model.save(...)."
            )
        description = modernise(_attribute(file, "model_config", path), str(path))
        config.check(description, str(path), custom_objects)
        model = build(description, stored, str(path), custom_objects)
        if not isinstance(file.get("model_weights"), h5py.Group):
            raise FileError(f"{path}: has no group 'model_weights'. It was saved without weights; save the whole "
                            "model.")
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)
        if compile and "training_config" in file.attrs:
            compiled = modernise(_attribute(file, "training_config", path), str(path))
            config.check(compiled, str(path), custom_objects)
            _compile(
                path, lambda: model.compile(**saving_utils.compile_args_from_training_config(compiled, custom_objects))
            )
    return model


def _compile(path: Path | str, action: Callable[[], None]) -> None:
    """Runs `action`, which compiles a model. What fails costs only training: Keras cannot read all its own."""
    try:
        action()
    except Exception as error:
        warnings.warn(
            f"{path}: the model is loaded without being compiled, because it cannot be compiled as the file says "
            f"({type(error).__name__}: {error}). It predicts as it is; compile=False loads it without this warning.",
            stacklevel=2,
        )


def _attribute(file: h5py.File, name: str, path: Path) -> dict[str, Any]:
    value = file.attrs[name]
    if not isinstance(value, str | bytes):
        raise FileError(f"{path}: attribute {name!r} must be text. Received: {type(value).__name__}. The file is "
                        "damaged.")
    return config.parse(value, str(path), f"the attribute {name!r}")
