"""A private model as a plain Keras model: the inverse of `convert`."""
from typing import Any

import keras

from private_keras.errors import UnsupportedError
from private_keras.layers.secure import COUNTERPARTS, PACKAGE

# Ours -> Keras' class.
_PLAIN = {ours: plain for plain, ours in COUNTERPARTS.items()}
_MODELS = {
    "Sequential": ("keras", "Sequential"),
    "Functional": ("keras.src.models.functional", "Functional"),
}


def plain_model(model: keras.Model) -> keras.Model:
    """A Sequential or Functional model of Keras' own classes with the same configuration, and fresh weights.

    Layers that Keras does not have (`Sigmoid`, an activation with `approximation`) stay as they are: they compute as
    well in the clear, and a file with them needs this package.

    Raises:
        UnsupportedError: a subclass of `Model`, whose code names its own class.
    """
    if isinstance(model, keras.Sequential):
        clone = keras.models.clone_model(model, clone_function=_plain_layer)
        layers = clone.layers if clone.inputs is None else [keras.Input(tensor=clone.inputs[0]), *clone.layers]
        made = keras.Sequential(layers, name=model.name, trainable=model.trainable)
    elif hasattr(model, "_inputs_struct"):
        clone = keras.models.clone_model(model, clone_function=_plain_layer)
        inputs = clone._inputs_struct
        if isinstance(inputs, list) and len(inputs) == 1:
            inputs = inputs[0]
        made = keras.Model(inputs, clone._outputs_struct, name=model.name)
        made.trainable = model.trainable
    else:
        raise UnsupportedError(
            f"model {model.name!r} ({type(model).__name__}) is a subclass of private_keras.Model, so that there is no "
            "plain class for it. get_weights() gives its weights, for a keras.Model that you write alike; save() keeps "
            "them in a file."
        )
    return made


def _plain_layer(layer: keras.Operation) -> keras.Operation:
    if isinstance(layer, keras.Model):
        return plain_model(layer)
    config = layer.get_config()
    if isinstance(layer, keras.layers.Lambda):
        config.update(function=layer.function, mask=layer.mask, arguments=layer.arguments)
        config["output_shape"] = layer._output_shape
        return keras.layers.Lambda(**config)
    if getattr(layer, "approximation", None) is not None or type(layer) not in _PLAIN:
        return type(layer).from_config(config)
    config.pop("approximation", None)
    return _PLAIN[type(layer)].from_config(_renamed(config))


def _renamed(config: Any) -> Any:
    """A configuration in which layers inside of layers are Keras' own."""
    if isinstance(config, list | tuple):
        return type(config)(_renamed(part) for part in config)
    if not isinstance(config, dict):
        return config
    result = {key: _renamed(value) for key, value in config.items()}
    registered = str(config.get("registered_name") or "")
    if registered.startswith(f"{PACKAGE}>"):
        ours = keras.saving.get_registered_object(registered)
        inner = result.get("config") or {}
        if ours in _PLAIN and inner.get("approximation") is None:
            inner.pop("approximation", None)
            result.update(module="keras.layers", class_name=_PLAIN[ours].__name__, registered_name=None)
        elif registered.split(">")[1] in _MODELS:
            module, name = _MODELS[registered.split(">")[1]]
            result.update(module=module, class_name=name, registered_name=name if module != "keras" else None)
    return result
