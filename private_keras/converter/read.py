"""Reads `.h5` files of Keras 2 and 3 and `.keras` files."""
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format

from private_keras.converter import archive, config, hdf5
from private_keras.converter.build import build
from private_keras.errors import FileError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZIP_SIGNATURE = b"PK\x03\x04"


def read_model(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> tuple[keras.Model, dict[str, Any] | None]:
    """A plain Keras model with the weights of a file.

    Args:
        path: of an `.h5`, `.hdf5` or `.keras` file. What it is, is decided by its first bytes, not by its name.
        custom_objects: classes and functions by name that the model uses and the caller vouches for.
        compile: also return how the model was compiled.

    Returns:
        The model, not compiled, and Keras' compile configuration, None if the file has none or `compile` is false.

    Raises:
        FileError: missing, damaged or hostile file, or one that needs code which Keras does not have.
    """
    path, custom_objects = Path(path), dict(custom_objects or {})
    if not path.is_file():
        raise FileError(f"{path}: no such file. Expected an .h5 or .keras file written by Keras.")
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_ZIP_SIGNATURE):
        return _read_keras(path, custom_objects, compile)
    if start == _HDF5_SIGNATURE:
        return _read_hdf5(path, custom_objects, compile)
    raise FileError(f"{path}: is neither HDF5 nor a .keras archive (starts with {start!r}). Expected a file written by Keras' "
                    "model.save('....keras') or model.save('....h5').")


def _read_keras(path: Path, custom_objects: dict, compile: bool) -> tuple[keras.Model, dict | None]:
    with tempfile.TemporaryDirectory(prefix="private_keras-") as directory:
        with archive.opened(path, Path(directory)) as parts:
            description = config.parse(parts.config, str(path), "config.json")
            config.check(description, str(path), custom_objects)
            compiled = description.pop("compile_config", None)
            with hdf5.opened(parts.weights) as file:
                stored = hdf5.check(file, str(path), path.stat().st_size)
            model = build(description, stored, str(path), custom_objects)
            model.load_weights(parts.weights)
    return model, compiled if compile else None


def _read_hdf5(path: Path, custom_objects: dict, compile: bool) -> tuple[keras.Model, dict | None]:
    with hdf5.opened(path) as file:
        if "model_config" not in file.attrs:
            raise FileError(f"{path}: holds weights but no model. Build the model in code and call "
                            "model.load_weights(path), or save it with model.save(...).")
        stored = hdf5.check(file, str(path), path.stat().st_size)
        description = config.parse(_text(file, "model_config", path), str(path), "the attribute 'model_config'")
        config.check(description, str(path), custom_objects)
        model = build(description, stored, str(path), custom_objects)
        if not isinstance(file.get("model_weights"), h5py.Group):
            raise FileError(f"{path}: has no group 'model_weights'. It was saved without weights; save the whole model.")
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)
        compiled = None
        if compile and "training_config" in file.attrs:
            compiled = config.parse(_text(file, "training_config", path), str(path), "the attribute 'training_config'")
            config.check(compiled, str(path), custom_objects)
    return model, compiled


def _text(file: h5py.File, name: str, path: Path) -> str:
    value = file.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        raise FileError(f"{path}: attribute {name!r} must be text; received {type(value).__name__}. The file is damaged.")
    return value


def check_weights(path: str | os.PathLike) -> None:
    """Checks a file of weights (`.weights.h5`, `.h5`, `.keras`) before Keras reads it.

    Raises:
        FileError: missing, damaged or hostile file.
    """
    path = Path(path)
    if path.suffix == ".keras":
        with tempfile.TemporaryDirectory(prefix="private_keras-") as directory:
            with archive.opened(path, Path(directory)) as parts, hdf5.opened(parts.weights):
                return
    with hdf5.opened(path):
        return
