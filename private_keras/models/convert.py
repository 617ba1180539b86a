"""A plain Keras model in memory to a private one with the same layers and weights."""
import warnings
from typing import Any

import keras

from private_keras.errors import InputError, UnsupportedError
from private_keras.layers.secure import COUNTERPARTS
from private_keras.models.classes import Model, Sequential
from private_keras.models.private import PrivateModel


def convert(model: keras.Model) -> keras.Model:
    """The private model that predicts like a plain one.

    Args:
        model: built Sequential, Functional or subclassed Keras model; not changed; no weight is shared with it.

    Returns:
        A `private_keras.Sequential` or `private_keras.Model`, compiled like the model, with the state of its optimiser;
        the model itself if it is one already.

    Raises:
        InputError: not a Keras model, or not built.
        UnsupportedError: a layer or model that cannot be copied, because it does not give its configuration.
    """
    if not isinstance(model, keras.Model):
        raise InputError(
            f"convert: expected a keras.Model; load_model(path) reads a file. Received: {type(model).__name__}"
        )
    if isinstance(model, PrivateModel):
        return model
    if not model.built:
        raise InputError(f"convert: model {model.name!r} is not built. Begin it with keras.Input(shape), or call it "
                         "once on data.")
    if isinstance(model, keras.Sequential):
        clone = keras.models.clone_model(model, clone_function=_counterpart)
        layers = clone.layers if clone.inputs is None else [keras.Input(tensor=clone.inputs[0]), *clone.layers]
        private = Sequential(layers, name=model.name, trainable=model.trainable)
    elif hasattr(model, "_inputs_struct"):
        clone = keras.models.clone_model(model, clone_function=_counterpart)
        inputs = clone._inputs_struct
        if isinstance(inputs, list) and len(inputs) == 1:
            # As old files have it; Keras would warn when given the array itself.
            inputs = inputs[0]
        private = Model(inputs, clone._outputs_struct, name=model.name)
        private.trainable = model.trainable
    else:
        private = Converted(_copy(model), name=model.name)
        private(_symbolic(model))
    private.set_weights(model.get_weights())
    if model.compiled:
        _compile(private, model)
    return private


def clone_model(model: keras.Model, *args: Any, **kwargs: Any) -> keras.Model:
    """As in Keras, with fresh weights; the clone is private, whatever the model is."""
    return convert(keras.models.clone_model(model, *args, **kwargs))


class Converted(Model):
    """A subclassed Keras model as a private one: calls a copy of it."""

    def __init__(self, inner: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training) if self.inner._call_has_training_arg else self.inner(inputs)


def _compile(private: keras.Model, model: keras.Model) -> None:
    """Compiles a private model as a plain one, with the optimiser's state; without it where it cannot be trained."""
    try:
        private.compile_from_config(model.get_compile_config())
    except UnsupportedError as error:
        warnings.warn(f"model {model.name!r} is converted without being compiled; it predicts as it is. {error}",
                      stacklevel=3)
        return
    ours, theirs = private.optimizer, model.optimizer
    if ours is not None and ours.built and theirs.built and len(ours.variables) == len(theirs.variables):
        for variable, value in zip(ours.variables, theirs.variables, strict=True):
            variable.assign(value)


def _counterpart(layer: keras.Operation) -> keras.Operation:
    """A new layer of our class of the same name, or of its own class if we have none, with the same configuration."""
    try:
        if isinstance(layer, keras.layers.Lambda):
            return _lambda(layer)
        return COUNTERPARTS.get(type(layer), type(layer)).from_config(layer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied: {error}. Give it get_config() and "
            "from_config()."
        ) from error


def _lambda(layer: keras.layers.Lambda) -> keras.Operation:
    """A Lambda with the very function of this one: Keras would write its code down and refuse to read it back."""
    config = layer.get_config()
    config.update(function=layer.function, mask=layer.mask, arguments=layer.arguments)
    config["output_shape"] = layer._output_shape
    return COUNTERPARTS.get(type(layer), type(layer))(**config)


def _copy(model: keras.Model) -> keras.Model:
    try:
        copy = type(model).from_config(model.get_config())
    except (NotImplementedError, TypeError) as error:
        raise UnsupportedError(
            f"model {model.name!r} ({type(model).__name__}) cannot be copied: {error}. Derive the class from "
            "private_keras.Model "
            "instead of keras.Model, or give it get_config()."
        ) from error
    copy(_symbolic(model))
    return copy


def _symbolic(model: keras.Model) -> Any:
    """Symbolic inputs of the shapes that a subclassed model was built with: calling a copy on them builds it."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    if len(shapes) != 1:
        raise UnsupportedError(
            f"model {model.name!r} ({type(model).__name__}) was built with inputs {sorted(shapes)}; only models whose "
            "call takes one argument with all inputs are converted. Derive the class from private_keras.Model instead "
            "of keras.Model."
        )
    (structure,) = shapes.values()
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor((None, *shape[1:])), structure)
