"""Layers and activations that bypass `keras.ops`: written here in `keras.ops`, for the time of a trace.

A rule takes the layer and the arguments of its `call` and returns what `call` would. The operations it uses are lowered
by their own rules.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops
from keras.src.activations import activations
from keras.src.layers.convolutional.base_conv import BaseConv

from private_keras.errors import UnsupportedError
from private_keras.tracing.rules import categories, image, noise, recurrent
from private_keras.tracing.symbols import BatchNorm, GroupedConv, Standardize

MASKED = -30000.0  # far enough below any logit for exp to give 0, and short enough for fixed point


def normalization(layer: layers.Normalization, inputs: Any, **_: Any) -> Any:
    """(x - mean) / max(sqrt(variance), epsilon): a factor and a term that the client knows."""
    mean, variance = layer.mean, layer.variance
    if layer.input_mean is None:
        # Statistics that came from data are weights. Keras keeps arrays made of them, where a single number would pass
        # for a constant of the modeller's.
        mean, variance = (ops.reshape(w, layer._broadcast_shape) for w in (layer.adapt_mean, layer.adapt_variance))
    deviation = ops.maximum(ops.sqrt(variance), keras.backend.epsilon())
    if layer.invert:
        return ops.add(mean, ops.multiply(inputs, deviation))
    factor = ops.divide(1.0, deviation)
    return ops.add(ops.multiply(inputs, factor), ops.negative(ops.multiply(mean, factor)))


def batch_normalization(layer: layers.BatchNormalization, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """By the moving averages; in training, unless the layer is frozen, by the batch, which moves the averages."""
    offset, scale = layer.beta if layer.center else None, layer.gamma if layer.scale else None
    mean, variance = layer.moving_mean, layer.moving_variance
    if training and layer.trainable:
        if layer.renorm:
            raise UnsupportedError("renorm=True cannot be trained on shares; use renorm=False.")
        if mask is None:
            axes = sorted(a % len(inputs.shape) for a in layer._reduction_axes)
            outputs, mean, variance = Standardize(axes, layer.epsilon)(inputs)
            shape = [n if a == layer.axis % len(inputs.shape) else 1 for a, n in enumerate(inputs.shape)]
            outputs = outputs if scale is None else ops.multiply(outputs, ops.reshape(scale, shape))
            outputs = outputs if offset is None else ops.add(outputs, ops.reshape(offset, shape))
        else:
            mean, variance = layer._moments(inputs, mask)
            outputs = BatchNorm(layer.axis, layer.epsilon)(inputs, mean, variance, offset, scale)
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            average.assign_add(ops.multiply(ops.subtract(value, average), 1 - layer.momentum))
        return outputs
    return BatchNorm(layer.axis, layer.epsilon)(inputs, mean, variance, offset, scale)


def rescaling(layer: layers.Rescaling, inputs: Any, **_: Any) -> Any:
    return ops.add(ops.multiply(inputs, layer.scale), layer.offset)


def softmax(layer: layers.Softmax, inputs: Any, mask: Any = None) -> Any:
    """Masked places are set far below, and their results to 0."""
    if mask is not None:
        inputs = ops.where(mask, inputs, MASKED)
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) and len(layer.axis) == 1 else layer.axis
    if isinstance(axis, list | tuple):
        outputs = ops.exp(ops.subtract(inputs, ops.logsumexp(inputs, axis=tuple(axis), keepdims=True)))
    else:
        outputs = ops.softmax(inputs, axis=axis)
    return outputs if mask is None else ops.where(mask, outputs, 0.0)


def time_distributed(layer: layers.TimeDistributed, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """Rows of a batch are treated alike, so time joins the batch: one call instead of one for each step.

    Not where a layer in training looks at the whole batch.
    """
    if mask is not None and layer.layer._call_has_mask_arg:
        raise UnsupportedError("a mask on TimeDistributed is not supported; call the inner layer without a mask.")
    shape = inputs.shape
    if training and any(isinstance(inner, layers.BatchNormalization) for inner in layer.layer._flatten_layers()):
        return ops.stack([layer.layer(inputs[:, t]) for t in range(shape[1])], axis=1)
    outputs = layer.layer(ops.reshape(inputs, (shape[0] * shape[1], *shape[2:])))
    return ops.reshape(outputs, (shape[0], shape[1], *outputs.shape[1:]))


def convolution(layer: BaseConv, inputs: Any) -> Any:
    """A convolution in groups; all others are followed in Keras' own `call`."""
    if layer.groups == 1 or not type(layer).convolution_op.__module__.startswith("keras."):
        return layer.call(inputs)
    padding = layer.padding
    if padding == "causal":
        inputs, padding = ops.pad(inputs, layer._compute_causal_padding()), "valid"
    conv = GroupedConv(list(layer.strides), padding, layer.data_format, layer.dilation_rate)
    y = conv(inputs, layer.kernel)
    if layer.use_bias:
        last = layer.data_format == "channels_last"
        y = ops.add(y, ops.reshape(layer.bias, (*[1] * (layer.rank + 1), -1) if last else (1, -1, *[1] * layer.rank)))
    return y if layer.activation is None else layer.activation(y)


def mish(x: Any) -> Any:
    return activations.Mish()(x)


LAYERS: dict[type, Callable[..., Any]] = {
    **recurrent.RULES,
    **image.LAYERS,
    **categories.LAYERS,
    **noise.LAYERS,
    BaseConv: convolution,
    layers.BatchNormalization: batch_normalization,
    layers.Normalization: normalization,
    layers.Rescaling: rescaling,
    layers.Softmax: softmax,
    layers.TimeDistributed: time_distributed,
}
# Functions of keras.activations that convert to a backend's tensor first.
ACTIVATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    keras.activations.mish: mish,
    keras.activations.hard_silu: ops.hard_silu,
    keras.activations.sparsemax: ops.sparsemax,
}
