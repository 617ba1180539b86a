"""Pooling over windows."""

import numpy as np
from keras.src.ops import nn

from private_keras.tracing.arithmetic import scale
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.convolution import as_given, channels_last, paddings, per_axis
from private_keras.tracing.values import Value


def max_pool(lo: Lowering, op: nn.MaxPool, x: Value) -> Value:
    x = lo.as_secret(channels_last(lo, x, op.data_format))
    window, strides, padding = _windows(op, x)
    y = lo.step("max_pool", x, window=window, strides=strides, padding=padding)
    return as_given(lo, lo.positive(y) if lo.is_positive(x) else y, op.data_format)


def average_pool(lo: Lowering, op: nn.AveragePool, x: Value) -> Value:
    """Sum over the window, times one over the number of elements that are not padding: a public number per position."""
    x = lo.as_secret(channels_last(lo, x, op.data_format))
    window, strides, padding = _windows(op, x)
    total = lo.step("sum_pool", x, window=window, strides=strides, padding=padding)
    counts = np.ones([1] * (len(window) + 2))
    for axis, (n, k, s, (before, _)) in enumerate(zip(x.shape[1:-1], window, strides, padding, strict=True), start=1):
        starts = np.arange(total.shape[axis]) * s - before
        taps = np.minimum(starts + k, n) - np.maximum(starts, 0)
        counts = counts * taps.reshape([-1 if a == axis else 1 for a in range(counts.ndim)])
    factor = 1 / counts
    factor = factor.reshape(-1)[0] if np.all(factor == factor.reshape(-1)[0]) else factor
    return as_given(lo, scale(lo, total, factor), op.data_format)


def _windows(op: nn.MaxPool, x: Value) -> tuple[list[int], list[int], list[list[int]]]:
    space = len(x.shape) - 2
    window = per_axis(op.pool_size, space)
    strides = window if op.strides is None else per_axis(op.strides, space)
    padding = paddings(op.padding, x.shape[1:-1], window, strides, [1] * space)
    return window, strides, [list(p) for p in padding]


RULES = {nn.MaxPool: max_pool, nn.AveragePool: average_pool}
