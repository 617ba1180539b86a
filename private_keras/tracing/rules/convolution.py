"""Convolutions. All become `conv`: depthwise as groups, transposed as a spread input and a turned kernel."""

from collections.abc import Sequence

import keras
import numpy as np
from keras.src.ops import nn

from private_keras.tracing import shapes
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.symbols import GroupedConv
from private_keras.tracing.values import Known, Value

Pairs = list[tuple[int, int]]


def per_axis(value: int | Sequence[int], space: int) -> list[int]:
    """One number for each space axis."""
    return [int(value)] * space if isinstance(value, int | np.integer) else [int(v) for v in value]


def paddings(
    mode: str, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """Zeros before and after each space axis, as TensorFlow places them."""
    if mode == "valid":
        return [(0, 0)] * len(sizes)
    result = []
    for n, window, stride, spread in zip(sizes, windows, strides, dilation, strict=True):
        total = max((-(-n // stride) - 1) * stride + (window - 1) * spread + 1 - n, 0)
        result.append((total // 2, total - total // 2))
    return result


def channels_last(lo: Lowering, x: Value, data_format: str | None) -> Value:
    if (data_format or keras.config.image_data_format()) == "channels_last":
        return x
    return shapes.transpose(lo, x, [0, *range(2, len(x.shape)), 1])


def as_given(lo: Lowering, x: Value, data_format: str | None) -> Value:
    """Back from channels last to the layer's own order."""
    if (data_format or keras.config.image_data_format()) == "channels_last":
        return x
    return shapes.transpose(lo, x, [0, len(x.shape) - 1, *range(1, len(x.shape) - 1)])


def convolve(
    lo: Lowering,
    x: Value,
    w: Value,
    strides: list[int],
    padding: Pairs,
    dilation: list[int],
    groups: int,
    input_dilation: list[int] | None = None,
) -> Value:
    """`conv` of x, channels last, with w (*window, channels / groups, filters)."""
    space = len(x.shape) - 2
    spread = input_dilation or [1] * space
    sizes = [
        ((n - 1) * d + lo_ + hi - (k - 1) * e) // s + 1
        for n, d, (lo_, hi), k, e, s in zip(x.shape[1:-1], spread, padding, w.shape, dilation, strides, strict=False)
    ]
    attributes = {
        "strides": strides,
        "padding": [list(p) for p in padding],
        "dilation": dilation,
        "input_dilation": spread,
        "groups": groups,
    }
    if isinstance(w, Known):
        return lo.product("conv", x, w, attributes, (x.shape[0], *sizes, w.shape[-1]))
    return lo.product_step("conv", lo.operand(x), lo.operand(w), **attributes)


def conv(lo: Lowering, op: nn.Conv, x: Value, kernel: Value) -> Value:
    return _conv(lo, op, x, kernel, None)


def depthwise_conv(lo: Lowering, op: nn.DepthwiseConv, x: Value, kernel: Value) -> Value:
    """A kernel (*window, channels, multiplier) is one of `channels` groups."""
    return _conv(lo, op, x, _grouped(lo, kernel), kernel.shape[-2])


def separable_conv(lo: Lowering, op: nn.SeparableConv, x: Value, depthwise: Value, pointwise: Value) -> Value:
    space = len(x.shape) - 2
    y = _conv(lo, op, x, _grouped(lo, depthwise), depthwise.shape[-2], back=False)
    ones = [1] * space
    z = convolve(lo, y, pointwise, ones, [(0, 0)] * space, ones, 1)
    return as_given(lo, z, op.data_format)


def _grouped(lo: Lowering, kernel: Value) -> Value:
    return shapes.reshape(lo, kernel, (*kernel.shape[:-2], 1, kernel.shape[-2] * kernel.shape[-1]))


def _conv(lo: Lowering, op: nn.Conv, x: Value, kernel: Value, groups: int | None, back: bool = True) -> Value:
    x = channels_last(lo, x, op.data_format)
    space = len(x.shape) - 2
    strides, dilation = per_axis(op.strides, space), per_axis(op.dilation_rate, space)
    padding = paddings(op.padding, x.shape[1:-1], kernel.shape[:space], strides, dilation)
    groups = groups or x.shape[-1] // kernel.shape[-2]
    y = convolve(lo, x, kernel, strides, padding, dilation, groups)
    return as_given(lo, y, op.data_format) if back else y


def conv_transpose(lo: Lowering, op: nn.ConvTranspose, x: Value, kernel: Value) -> Value:
    """The gradient of a convolution: x is spread by the strides and convolved with the turned kernel."""
    spec = op.compute_output_spec(keras.KerasTensor(x.shape), keras.KerasTensor(kernel.shape))
    last = (op.data_format or keras.config.image_data_format()) == "channels_last"
    out = list(spec.shape[1:-1] if last else spec.shape[2:])
    x = channels_last(lo, x, op.data_format)
    space = len(x.shape) - 2
    strides, dilation = per_axis(op.strides, space), per_axis(op.dilation_rate, space)
    windows = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:space], dilation, strict=True)]
    padding = []
    for n, stride, window, size in zip(x.shape[1:-1], strides, windows, out, strict=True):
        forward = max((n - 1) * stride + window - size, 0) // 2 if op.padding == "same" else 0
        before = window - 1 - forward
        padding.append((before, size - (n - 1) * stride - 1 - before + window - 1))
    turned = _turned(lo, kernel, space)
    y = convolve(lo, x, turned, [1] * space, [(max(a, 0), max(b, 0)) for a, b in padding], dilation, 1, strides)
    y = shapes.pad(lo, y, [(0, 0), *((min(a, 0), min(b, 0)) for a, b in padding), (0, 0)]) if _negative(padding) else y
    return as_given(lo, y, op.data_format)


def _negative(padding: Pairs) -> bool:
    return any(a < 0 or b < 0 for a, b in padding)


def _turned(lo: Lowering, kernel: Value, space: int) -> Value:
    """(*window, filters, channels) to (*reversed window, channels, filters)."""
    flipped = shapes.cut(lo, kernel, [slice(None, None, -1)] * space + [slice(None)] * 2)
    return shapes.transpose(lo, flipped, [*range(space), space + 1, space])


RULES = {
    nn.Conv: conv,
    GroupedConv: conv,
    nn.DepthwiseConv: depthwise_conv,
    nn.SeparableConv: separable_conv,
    nn.ConvTranspose: conv_transpose,
}
