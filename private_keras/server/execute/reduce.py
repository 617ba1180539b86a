"""Sums, maxima and their windows."""
from functools import partial

import numpy as np

from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.linear import negative
from private_keras.server.execute.values import Operation, Value, as_share, public, reshaped, settled


def _linear(p: Protocol, fn, shape: tuple[int, ...], x: Value) -> Value:
    x = settled(p, x)
    return fn(x) if public(x) else p.linear(fn, shape, x)


def reduce_sum(p: Protocol, at: Operation, x: Value) -> Value:
    axes, keepdims = tuple(at.attributes["axes"]), at.attributes["keepdims"]
    return _linear(p, lambda a: np.asarray(a.sum(axes, dtype=np.uint64, keepdims=keepdims)), at.shape, x)


def reduce_max(p: Protocol, at: Operation, x: Value) -> Value:
    result = functions.reduce_max(p, *_of_rank_two(p, at, x))
    return reshaped(p, result, at.shape)


def reduce_min(p: Protocol, at: Operation, x: Value) -> Value:
    return negative(p, reduce_max(p, at, negative(p, x)))


def argmax(p: Protocol, at: Operation, x: Value) -> Value:
    result = functions.argmax(p, *_of_rank_two(p, at, x))
    return reshaped(p, result, at.shape)


def argmin(p: Protocol, at: Operation, x: Value) -> Value:
    return argmax(p, at, negative(p, x))


def _of_rank_two(p: Protocol, at: Operation, x: Value) -> tuple[Share, int]:
    """The operand and the axis to reduce, such that the result is not of rank 0."""
    if len(x.shape) > 1:
        return as_share(p, x), at.attributes["axis"]
    return as_share(p, reshaped(p, x, (1, *x.shape))), 1


def window_taps(x: np.ndarray, axis: int, window: int, stride: int, low: int, count: int) -> list[np.ndarray]:
    """For each place in the window over one axis, the elements of x it meets in all `count` windows.

    A place in the padding meets the nearest element of x instead, which lies in the same window (padding is narrower
    than the window); so a maximum over the taps is that over the window.
    """
    result = []
    for offset in range(window):
        start = offset - low
        last = start + stride * (count - 1)
        if start >= 0 and last < x.shape[axis]:
            result.append(x[(slice(None),) * axis + (slice(start, last + 1, stride),)])
        else:
            result.append(np.take(x, np.clip(start + stride * np.arange(count), 0, x.shape[axis] - 1), axis))
    return result


def max_pool(p: Protocol, at: Operation, x: Value) -> Value:
    # One axis after the other: w - 1 comparisons an axis instead of the product of all windows less one.
    a = at.attributes
    share = as_share(p, x)
    parts = zip(a["window"], a["strides"], a["padding"], strict=True)
    for axis, (window, stride, (low, _)) in enumerate(parts, start=1):
        place = (axis, window, stride, low, at.shape[axis])
        shape = (window, *share.shape[:axis], at.shape[axis], *share.shape[axis + 1 :])
        share = functions.reduce_max(p, p.linear(partial(_stacked_taps, place), shape, share), 0, a["width"])
    return share


def _stacked_taps(place: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    return np.stack(window_taps(x, *place))


def sum_pool(p: Protocol, at: Operation, x: Value) -> Value:
    padding = at.attributes["padding"]

    def pooled(a: np.ndarray) -> np.ndarray:
        padded = np.pad(a, [(0, 0), *padding, (0, 0)])
        return window_sums(at, padded)

    return _linear(p, pooled, at.shape, x)


def window_sums(at: Operation, x: np.ndarray) -> np.ndarray:
    """Sum over each window of x, padded already; one axis after the other."""
    for axis, (window, stride, count) in enumerate(
        zip(at.attributes["window"], at.attributes["strides"], at.shape[1:-1], strict=True), start=1
    ):
        lead = (slice(None),) * axis
        span = stride * (count - 1) + 1
        total = x[(*lead, slice(0, span, stride))].copy()
        for offset in range(1, window):
            total += x[(*lead, slice(offset, offset + span, stride))]
        x = total
    return x


OPERATIONS = {
    "reduce_sum": reduce_sum,
    "sum_pool": sum_pool,
    "reduce_max": reduce_max,
    "reduce_min": reduce_min,
    "argmax": argmax,
    "argmin": argmin,
    "max_pool": max_pool,
}
