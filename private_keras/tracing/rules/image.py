"""Image layers: resizing is a public linear map of rows and of columns; augmentation does nothing in prediction."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from keras.src.layers.pooling.base_adaptive_pooling import BaseAdaptiveAveragePooling, BaseAdaptiveMaxPooling
from keras.src.ops import image as kimage

from private_keras.errors import UnsupportedError
from private_keras.tracing import shapes
from private_keras.tracing.arithmetic import factor_bits, public
from private_keras.tracing.lowering import SPARE, Lowering
from private_keras.tracing.rules.convolution import as_given, channels_last, per_axis
from private_keras.tracing.symbols import AdaptiveAverage, AdaptiveMax
from private_keras.tracing.values import Value


def along(lo: Lowering, x: Value, matrix: np.ndarray, axis: int) -> Value:
    """The public `matrix` (new size, size) applied along one axis; not truncated."""
    axis %= len(x.shape)
    if np.array_equal(matrix, np.eye(len(matrix))):
        return x
    order = [a for a in range(len(x.shape)) if a != axis] + [axis]
    turned = shapes.transpose(lo, lo.operand(x, SPARE), order)
    factor = public(np.ascontiguousarray(matrix.T, dtype=np.float64))
    y = lo.step("matmul", lo.as_secret(_matrix(lo, turned)), lo.known(factor, factor_bits(matrix)))
    y = shapes.reshape(lo, y, (*turned.shape[:-1], len(matrix)))
    return shapes.transpose(lo, y, np.argsort(order))


def _matrix(lo: Lowering, x: Value) -> Value:
    return x if len(x.shape) > 1 else shapes.reshape(lo, x, (1, *x.shape))


def resize(lo: Lowering, op: kimage.Resize, x: Value) -> Value:
    """Every interpolation of Keras is linear, and the same for all rows and for all columns."""
    if op.crop_to_aspect_ratio or op.pad_to_aspect_ratio:
        raise lo.refuse("resize that keeps the aspect ratio", "crop or pad first, with Cropping2D or ZeroPadding2D.")
    if len(x.shape) == 3:
        y = resize(lo, op, shapes.reshape(lo, x, (1, *x.shape)))
        return shapes.reshape(lo, y, y.shape[1:])
    x = channels_last(lo, x, op.data_format)
    for axis, size in ((1, op.size[0]), (2, op.size[1])):
        n = x.shape[axis]
        rows = np.eye(n, dtype=np.float32).reshape(n, n, 1, 1)
        turned = rows if axis == 1 else rows.transpose(0, 2, 1, 3)
        wanted = (int(size), 1) if axis == 1 else (1, int(size))
        image = keras.ops.image.resize(
            turned, wanted, interpolation=op.interpolation, antialias=op.antialias, data_format="channels_last"
        )
        x = along(lo, x, np.asarray(keras.ops.convert_to_numpy(image), np.float64).reshape(n, int(size)).T, axis)
    return as_given(lo, x, op.data_format)


def adaptive_average_pool(lo: Lowering, op: AdaptiveAverage, x: Value) -> Value:
    """The mean of a box is the mean of means of rows."""
    x = channels_last(lo, x, op.data_format)
    for axis, size in enumerate(per_axis(op.output_size, len(x.shape) - 2), start=1):
        n = x.shape[axis]
        matrix = np.zeros((size, n))
        for i, (start, stop) in enumerate(_windows(n, size)):
            matrix[i, start:stop] = 1 / (stop - start)
        x = along(lo, x, matrix, axis)
    return as_given(lo, x, op.data_format)


def adaptive_max_pool(lo: Lowering, op: AdaptiveMax, x: Value) -> Value:
    """The maximum of a box is the maximum of maxima of rows."""
    x = channels_last(lo, x, op.data_format)
    for axis, size in enumerate(per_axis(op.output_size, len(x.shape) - 2), start=1):
        parts = []
        for start, stop in _windows(x.shape[axis], size):
            part = shapes.cut(lo, x, [slice(start, stop) if a == axis else slice(None) for a in range(len(x.shape))])
            parts.append(lo.step("reduce_max", lo.as_secret(part), axis=axis, keepdims=True))
        x = shapes.concatenate(lo, parts, axis)
    return as_given(lo, x, op.data_format)


def _windows(n: int, size: int) -> list[tuple[int, int]]:
    return [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]


def grayscale(lo: Lowering, op: kimage.RGBToGrayscale, x: Value) -> Value:
    x = channels_last(lo, x, op.data_format)
    return as_given(lo, along(lo, x, np.array([[0.2989, 0.5870, 0.1140]]), -1), op.data_format)


RULES = {
    kimage.Resize: resize,
    kimage.RGBToGrayscale: grayscale,
    AdaptiveAverage: adaptive_average_pool,
    AdaptiveMax: adaptive_max_pool,
}


def adaptive(operation: type[AdaptiveAverage | AdaptiveMax]) -> Callable[..., Any]:
    """The layer of an adaptive pooling."""

    def rule(layer: keras.Layer, inputs: Any) -> Any:
        return operation(layer.output_size, layer.data_format)(inputs)

    return rule


def resizing(layer: layers.Resizing, images: Any, training: bool = False) -> Any:
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        raise UnsupportedError(
            "keeping the aspect ratio is not supported; crop or pad first, with Cropping2D or ZeroPadding2D."
        )
    return ops.image.resize(
        images,
        (layer.height, layer.width),
        interpolation=layer.interpolation,
        antialias=layer.antialias,
        data_format=layer.data_format,
    )


def center_crop(layer: layers.CenterCrop, images: Any, training: bool = False) -> Any:
    first = 1 if layer.data_format == "channels_last" else 2
    heights, widths = images.shape[first : first + 2]
    top, left = (heights - layer.height) // 2, (widths - layer.width) // 2
    if top < 0 or left < 0:
        raise UnsupportedError("cropping to more than the image needs a resize; use Resizing before it.")
    rows, columns = slice(top, top + layer.height), slice(left, left + layer.width)
    return images[:, rows, columns] if first == 1 else images[:, :, rows, columns]


def unchanged(layer: keras.Layer, inputs: Any, *_: Any, training: Any = None, **__: Any) -> Any:
    """Augmentation changes training data only."""
    if training:
        raise UnsupportedError("it changes images at random, which is not available on shares; apply it before `fit`.")
    return inputs


AUGMENTATION = (
    layers.RandomBrightness,
    layers.RandomColorDegeneration,
    layers.RandomColorJitter,
    layers.RandomContrast,
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomGrayscale,
    layers.RandomHue,
    layers.RandomInvert,
    layers.RandomPerspective,
    layers.RandomPosterization,
    layers.RandomRotation,
    layers.RandomSaturation,
    layers.RandomSharpness,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.AugMix,
    layers.CutMix,
    layers.MixUp,
    layers.RandAugment,
)
LAYERS = {
    BaseAdaptiveAveragePooling: adaptive(AdaptiveAverage),
    BaseAdaptiveMaxPooling: adaptive(AdaptiveMax),
    **dict.fromkeys(AUGMENTATION, unchanged),
    layers.Resizing: resizing,
    layers.CenterCrop: center_crop,
}
