"""Checks a model's configuration before Keras sees it: size, nesting, and every name in it."""
import json
import math
from collections.abc import Mapping
from typing import Any

import keras

from private_keras.converter import names
from private_keras.errors import FileError

MAX_BYTES = 1 << 26
MAX_DEPTH = 100
# An input of more elements than this would not fit a server's memory as shares anyway (8 bytes each, several copies).
MAX_INPUT_ELEMENTS = 1 << 30


def parse(text: str | bytes, path: str, what: str) -> dict[str, Any]:
    """Parses and checks JSON from a file; `what` names it in errors.

    Raises:
        FileError: not UTF-8, not JSON, not an object, or over 64 MiB.
    """
    if len(text) > MAX_BYTES:
        raise FileError(f"{path}: {what} has {len(text)} bytes; at most {MAX_BYTES} are read. The file is not a Keras "
                        "model.")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: {what} is not valid JSON ({type(error).__name__}). The file is damaged; get it "
                        "again.") from None
    if not isinstance(config, dict):
        raise FileError(f"{path}: {what} must be a JSON object; received {type(config).__name__}. The file is damaged.")
    return config


def check(config: Any, path: str, custom_objects: Mapping[str, Any]) -> None:
    """Refuses a configuration that names anything outside the table, holds code, or is nested beyond reason.

    Args:
        config: the parsed configuration; not modified.
        path: of the file, for errors.
        custom_objects: names that the caller vouches for, besides those registered with Keras in this process.

    Raises:
        FileError: names the layer and says what to do.
    """
    known = {*custom_objects, *keras.saving.get_custom_objects()}
    stack = [(config, "", 0)]
    while stack:
        node, layer, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise FileError(f"{path}: the configuration is nested deeper than {MAX_DEPTH} levels; no Keras model is.")
        if isinstance(node, list):
            stack.extend((child, layer, depth + 1) for child in node)
        elif isinstance(node, dict):
            layer = _label(node) or layer
            if "class_name" in node:
                _check_name(node, layer, path, known)
            for key in ("batch_shape", "batch_input_shape", "input_shape"):
                _check_shape(node.get(key), layer, path)
            stack.extend((child, layer, depth + 1) for child in node.values())


def _label(node: dict) -> str:
    """What to call this part of the configuration in an error: the layer's name where it has one."""
    inner = node.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _check_name(node: dict, layer: str, path: str, known: set[str]) -> None:
    name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    where = f" (in {layer!r})" if layer else ""
    if not all(n is None or isinstance(n, str) for n in (name, module, registered)) or name is None:
        raise FileError(f"{path}: class_name, module and registered_name must be strings{where}. The file is damaged.")
    if name in names.REFUSED:
        raise FileError(f"{path}: {name}{where} is not loaded: {names.REFUSED[name]}.")
    if name in names.DATA or name in known or (registered or "") in known:
        return
    if name == "function":
        inner = node.get("config")
        allowed = isinstance(inner, str) and (inner in known or inner in names.FUNCTIONS)
        name = inner if isinstance(inner, str) else name
    elif module is None:
        allowed = name in names.LEGACY
    else:
        allowed = name in names.CLASSES.get(module, ())
    if not allowed and module is None and name in names.OPERATIONS:
        raise FileError(f"{path}: {name!r}{where} is an operation, which Keras writes to .h5 files and cannot read "
                        "back. Save the "
                        "model as .keras.")
    if not allowed:
        full = f"{module}.{name}" if module else name
        raise FileError(
            f"{path}: {full!r}{where} is not part of Keras, and nothing is imported because a file says so. If you "
            "wrote "
            f"it, pass custom_objects={{{name.split('>')[-1]!r}: ...}}, or register it with "
            "keras.saving.register_keras_serializable before loading."
        )


def _check_shape(shape: Any, layer: str, path: str) -> None:
    if not isinstance(shape, list) or not all(n is None or isinstance(n, int) for n in shape):
        return
    if math.prod(n for n in shape if n is not None) > MAX_INPUT_ELEMENTS:
        raise FileError(f"{path}: {layer or 'the model'!r} declares an input of shape {shape}, more than "
                        f"{MAX_INPUT_ELEMENTS} elements. The file is damaged or hostile.")
