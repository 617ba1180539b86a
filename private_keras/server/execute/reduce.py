"""Sums, maxima and their windows."""
import itertools

import numpy as np

from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol
from private_keras.server.execute.linear import negative
from private_keras.server.execute.values import Operation, Value, as_share, move, public, settled


def _linear(p: Protocol, fn, shape: tuple[int, ...], x: Value) -> Value:
    x = settled(p, x)
    return fn(x) if public(x) else p.linear(fn, shape, x)


def reduce_sum(p: Protocol, at: Operation, x: Value) -> Value:
    axes, keepdims = tuple(at.attributes["axes"]), at.attributes["keepdims"]
    return _linear(p, lambda a: np.asarray(a.sum(axes, dtype=np.uint64, keepdims=keepdims)), at.shape, x)


def reduce_max(p: Protocol, at: Operation, x: Value) -> Value:
    result = functions.reduce_max(p, as_share(p, x), at.attributes["axis"])
    return p.linear(lambda a: a.reshape(at.shape), at.shape, result) if at.attributes["keepdims"] else result


def reduce_min(p: Protocol, at: Operation, x: Value) -> Value:
    return negative(p, reduce_max(p, at, negative(p, x)))


def argmax(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.argmax(p, as_share(p, x), at.attributes["axis"])


def argmin(p: Protocol, at: Operation, x: Value) -> Value:
    return argmax(p, at, negative(p, x))


def window_taps(at: Operation, x: np.ndarray) -> list[np.ndarray]:
    """For each place in the window, the elements of x it meets, of the result's shape.

    A place in the padding meets the nearest element of x instead, which lies in the same window (padding is narrower
    than the window); so a maximum over the taps is that over the window.
    """
    a = at.attributes
    result = []
    for offsets in itertools.product(*map(range, a["window"])):
        tap = x
        for axis, (offset, stride, (low, _), count) in enumerate(
            zip(offsets, a["strides"], a["padding"], at.shape[1:-1], strict=True), start=1
        ):
            start = offset - low
            last = start + stride * (count - 1)
            if start >= 0 and last < x.shape[axis]:
                tap = tap[(slice(None),) * axis + (slice(start, last + 1, stride),)]
            else:
                tap = np.take(tap, np.clip(start + stride * np.arange(count), 0, x.shape[axis] - 1), axis)
        result.append(tap)
    return result


def max_pool(p: Protocol, at: Operation, x: Value) -> Value:
    taps = int(np.prod(at.attributes["window"]))
    if taps == 1:
        return move(p, lambda a: window_taps(at, a)[0], at.shape, x)
    share = as_share(p, x)
    stacked = p.linear(lambda a: np.stack(window_taps(at, a)), (taps, *at.shape), share)
    return functions.reduce_max(p, stacked, 0)


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
        x = sum((x[(*lead, slice(k, k + span, stride))] for k in range(1, window)), start=x[(*lead, slice(0, span, stride))].copy())
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
