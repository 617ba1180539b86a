"""Layers that are random in training. What they draw is public: all servers draw it from the seed of the step."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops
from keras.src.layers.regularization.spatial_dropout import BaseSpatialDropout

from private_keras.tracing.lowering import Lowering
from private_keras.tracing.symbols import Random
from private_keras.tracing.values import Value

# Of Keras' AlphaDropout: the value that selu goes to far below zero.
SATURATION = -1.7580993408473766


def random(lo: Lowering, op: Random) -> Value:
    if op.distribution == "bernoulli":
        units = min(round(op.probability * 2**32), 2**32)
        return lo.random(op.shape, 0, "bernoulli", op.seed, probability=units)
    return lo.random(op.shape, lo.fraction, op.distribution, op.seed)


def kept(shape: Sequence[int], rate: float, seed: int | None) -> keras.KerasTensor:
    """1 with probability 1 - rate, else 0."""
    return Random(shape, "bernoulli", seed, 1 - rate).symbolic_call()


def scaled_mask(shape: Sequence[int], rate: float, seed: int | None) -> keras.KerasTensor:
    """Dropout's factor: 0 or 1 / (1 - rate)."""
    return ops.multiply(kept(shape, rate, seed), 1 / (1 - rate))


def dropout(layer: layers.Dropout, inputs: Any, training: bool = False) -> Any:
    if not training or layer.rate == 0:
        return inputs
    if layer.rate >= 1:
        return ops.multiply(inputs, 0.0)
    if isinstance(layer, BaseSpatialDropout):
        shape = layer._get_noise_shape(inputs)
    else:
        shape = _filled(layer.noise_shape, inputs)
    return ops.multiply(inputs, scaled_mask(shape, layer.rate, layer.seed))


def alpha_dropout(layer: layers.AlphaDropout, inputs: Any, training: bool = False) -> Any:
    """a (x k + s (1 - k)) + b as a product with a k and a sum with the rest, which are public."""
    if not training or layer.rate == 0:
        return inputs
    mask = kept(_filled(layer.noise_shape, inputs), layer.rate, layer.seed)
    a = ((1 - layer.rate) * (1 + layer.rate * SATURATION**2)) ** -0.5 if layer.rate < 1 else 0.0
    shift = a * SATURATION * (1 - layer.rate)
    rest = ops.add(ops.multiply(mask, -a * SATURATION), shift)
    return ops.add(ops.multiply(inputs, ops.multiply(mask, a)), rest)


def gaussian_dropout(layer: layers.GaussianDropout, inputs: Any, training: bool = False) -> Any:
    if not training or layer.rate == 0:
        return inputs
    noise = Random(inputs.shape, "normal", layer.seed).symbolic_call()
    return ops.multiply(inputs, ops.add(ops.multiply(noise, math.sqrt(layer.rate / (1 - layer.rate))), 1.0))


def gaussian_noise(layer: layers.GaussianNoise, inputs: Any, training: bool = False) -> Any:
    if not training or layer.stddev == 0:
        return inputs
    noise = Random(inputs.shape, "normal", layer.seed).symbolic_call()
    return ops.add(inputs, ops.multiply(noise, layer.stddev))


def _filled(shape: Sequence[int | None] | None, inputs: Any) -> tuple[int, ...]:
    """A noise shape with the input's sizes where it has none."""
    if shape is None:
        return tuple(inputs.shape)
    return tuple(size if given is None else int(given) for given, size in zip(shape, inputs.shape, strict=True))


RULES = {Random: random}
LAYERS: dict[type[keras.Layer], Callable[..., Any]] = {
    layers.Dropout: dropout,
    BaseSpatialDropout: dropout,
    layers.AlphaDropout: alpha_dropout,
    layers.GaussianDropout: gaussian_dropout,
    layers.GaussianNoise: gaussian_noise,
}
