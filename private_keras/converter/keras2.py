"""Brings configurations that Keras 2 wrote to what Keras 3 reads, where only the wording differs.

Keras 2 wrote down arguments that a layer inherited without having them, and some that only chose between equal ways to
compute. Keras 3 refuses them. They are left out where they have the value that means nothing, and refused otherwise.
"""
from typing import Any

from private_keras.errors import FileError

_ANY = object()
_NO_GROUPS = {"groups": 1}
_SEPARABLE = {"groups": 1, "kernel_initializer": _ANY, "kernel_regularizer": None, "kernel_constraint": None}
_RECURRENT = {"time_major": False, "implementation": _ANY}

# Layer -> argument that Keras 3 does not have -> the only value that may be left out.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "Conv1DTranspose": _NO_GROUPS,
    "Conv2DTranspose": _NO_GROUPS,
    "Conv3DTranspose": _NO_GROUPS,
    "DepthwiseConv1D": _NO_GROUPS,
    "DepthwiseConv2D": _NO_GROUPS,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "SimpleRNN": _RECURRENT,
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "RNN": {"time_major": False},
    "GRUCell": {"implementation": _ANY},
    "LSTMCell": {"implementation": _ANY},
    "Embedding": {"input_length": _ANY},
}
# How Keras 2.11 and later wrote its own optimizers.
_REGISTERED = "Custom>"
# Arguments under another name.
RENAMED = {("LeakyReLU", "alpha"): "negative_slope", ("ThresholdedReLU", "theta"): "threshold"}


def modernise(node: Any, path: str) -> Any:
    """A copy of a configuration in the words of Keras 3.

    Args:
        node: a checked configuration, or a part of one.
        path: of the file, for errors.

    Raises:
        FileError: an argument with a value that Keras 3 has no layer for.
    """
    if isinstance(node, list):
        return [modernise(child, path) for child in node]
    if not isinstance(node, dict):
        return node
    if node.get("class_name") == "Sequential":
        node = {**node, "config": _with_input(node.get("config"))}
    node = {key: modernise(child, path) for key, child in node.items()}
    name, config = node.get("class_name"), node.get("config")
    if name == "Policy" and isinstance(config, dict):
        config = {"name": config.get("name")}
        return {"module": "keras", "class_name": "DTypePolicy", "config": config, "registered_name": None}
    if not isinstance(name, str) or not isinstance(config, dict):
        return node
    if name != "InputLayer":
        config.pop("batch_input_shape", None)  # repeats the InputLayer
    if name.startswith(_REGISTERED) and "learning_rate" in config:
        node["class_name"] = name.removeprefix(_REGISTERED)
    if "is_legacy_optimizer" in config:
        for key in ("is_legacy_optimizer", "jit_compile", "decay"):
            config.pop(key, None)
    for key, neutral in LEFT_OUT.get(name, {}).items():
        if key in config and neutral is not _ANY and config[key] != neutral:
            raise FileError(
                f"{path}: layer {config.get('name')!r} ({name}) has {key}={config[key]!r}, which Keras 3 does not "
                "have. Rebuild the "
                "layer without it and save the model again."
            )
        config.pop(key, None)
    for (layer, old), new in RENAMED.items():
        if name == layer and old in config:
            config[new] = config.pop(old)
    if name == "ThresholdedReLU":
        node["class_name"] = "ReLU"
    return node


def _with_input(config: Any) -> Any:
    """Configuration of a Sequential model with an InputLayer; old files have the shape in the first layer alone."""
    if isinstance(config, list):  # Keras 2 before 2.2
        config = {"name": "sequential", "layers": config}
    layers = config.get("layers") if isinstance(config, dict) else None
    first = layers[0] if isinstance(layers, list) and layers and isinstance(layers[0], dict) else {}
    inner = first.get("config")
    shape = inner.get("batch_input_shape") if isinstance(inner, dict) else None
    if first.get("class_name") == "InputLayer" or shape is None:
        return config
    entry = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "input"}}
    return {**config, "layers": [entry, *layers]}
