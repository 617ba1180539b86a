"""What each primitive means in real numbers: NumPy in float64, without fixed point.

Rounding and wrapping are left out on purpose: `shadow` tells from these numbers where servers would wrap.
"""
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from private_keras.plan.domains import exact, saturated
from private_keras.plan.primitives.constant import decode
from private_keras.plan.records import TensorType
from private_keras.ring import noise
from private_keras.ring.numpy_kernel import NumpyKernel

_WINDOW_BYTES = 32 << 20  # of the windows of a convolution that are written out at a time


class At(NamedTuple):
    """A step as its meaning needs it: what, on what fraction and from which steps, to what type."""

    op: str
    attributes: dict[str, Any]
    fraction: int
    sources: tuple[str, ...]
    result: TensorType
    saturating: bool


def constant(at: At) -> np.ndarray:
    return decode(at.attributes).astype(np.int64) / 2.0**at.result.fraction


def multiply(at: At, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = x * y
    if "sign" not in at.sources and not np.isfinite(z).all():
        # Whatever servers have there is finite: a row of zeros over its sum of 0 is zeros, and a mask hides. But where
        # a sign is a factor it is that of a divisor, and 1 / 0 has no value.
        z = np.where((x == 0) | (y == 0), 0, z)
    return z


def conv(at: At, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One matrix product for each group: all windows, a row each, times all filters. A few images at a time."""
    a = at.attributes
    groups, channels, filters = a["groups"], w.shape[-2], w.shape[-1] // a["groups"]
    sizes = [
        (n - 1) * d + 1 + low + high
        for n, d, (low, high) in zip(x.shape[1:-1], a["input_dilation"], a["padding"], strict=True)
    ]
    padded = np.zeros((x.shape[0], *sizes, x.shape[-1]))
    spread = [
        slice(low, low + (n - 1) * d + 1, d)
        for n, d, (low, _) in zip(x.shape[1:-1], a["input_dilation"], a["padding"], strict=True)
    ]
    padded[(slice(None), *spread)] = x
    out, taps = at.result.shape[1:-1], w.shape[:-2]
    # A window's place, then the place within it.
    places = [n * s for n, s in zip(padded.strides[1:-1], a["strides"], strict=True)]
    inner = [n * d for n, d in zip(padded.strides[1:-1], a["dilation"], strict=True)]
    shape = (*out, *taps, groups, channels)
    strides = (*places, *inner, channels * padded.itemsize, padded.itemsize)
    rows, width = math.prod(out), math.prod(taps) * channels
    matrices = w.reshape(width, groups, filters).transpose(1, 0, 2)
    total = np.empty((x.shape[0], rows, groups, filters))
    some = max(1, _WINDOW_BYTES // (8 * rows * groups * width))
    for i in range(0, x.shape[0], some):
        images = padded[i : i + some]
        windows = np.lib.stride_tricks.as_strided(
            images, (len(images), *shape), (padded.strides[0], *strides), writeable=False
        )
        flat = windows.reshape(len(images) * rows, math.prod(taps), groups, channels).transpose(2, 0, 1, 3)
        product = flat.reshape(groups, -1, width) @ matrices
        total[i : i + some] = product.transpose(1, 0, 2).reshape(len(images), rows, groups, filters)
    return total.reshape(at.result.shape)


def cut(at: At, x: np.ndarray) -> np.ndarray:
    a = at.attributes
    return x[tuple(slice(*part) for part in zip(a["start"], a["stop"], a["step"], strict=True))]


def pooled(at: At, x: np.ndarray) -> np.ndarray:
    """Sums or maxima over windows, one axis after the other."""
    a = at.attributes
    fill, join = (-np.inf, np.maximum) if at.op == "max_pool" else (0.0, np.add)
    x = np.pad(x, [(0, 0), *a["padding"], (0, 0)], constant_values=fill)
    parts = zip(a["window"], a["strides"], at.result.shape[1:-1], strict=True)
    for axis, (window, stride, count) in enumerate(parts, start=1):
        lead = (slice(None),) * axis
        total = x[(*lead, slice(0, stride * (count - 1) + 1, stride))]
        for offset in range(1, window):
            total = join(total, x[(*lead, slice(offset, offset + stride * (count - 1) + 1, stride))])
        x = total
    return x


def one_hot(at: At, x: np.ndarray) -> np.ndarray:
    depth, places = at.attributes["depth"], np.rint(x)
    if at.saturating:
        places = np.mod(places, 2 ** max(1, (depth - 1).bit_length()))
    return (places[..., None] == np.arange(depth)).astype(np.float64)


def softmax(at: At, x: np.ndarray) -> np.ndarray:
    axis = at.attributes["axis"]
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def spline(at: At, x: np.ndarray) -> np.ndarray:
    a = at.attributes
    units = x * 2.0**at.fraction
    piece = np.searchsorted(np.array(a["knots"], np.float64), units, side="right")
    rows = np.array(a["coefficients"], np.float64)
    y = rows[piece, -1]
    for degree in range(rows.shape[1] - 2, -1, -1):
        y = y * units + rows[piece, degree]
    left, right = a["slopes"]
    tails = left * np.minimum(units, 0) + right * np.maximum(units, 0) if left or right else 0.0
    return y / 2.0 ** a["scale"] + tails / 2.0 ** (a["slope_bits"] + a["fraction"])


def function(at: At, x: np.ndarray) -> np.ndarray:
    return saturated(at.op, x, at.fraction, at.attributes) if at.saturating else exact(at.op, x, at.fraction)


def random(at: At, seed: np.ndarray) -> np.ndarray:
    """The very numbers that the servers draw."""
    elements = noise.drawn(NumpyKernel(), int(seed), at.attributes)
    return elements.astype(np.int64) / 2.0**at.result.fraction


def same(at: At, x: np.ndarray) -> np.ndarray:
    return x


MEANINGS: dict[str, Callable[..., np.ndarray]] = {
    "constant": constant,
    "add": lambda at, x, y: x + y,
    "subtract": lambda at, x, y: x - y,
    "negate": lambda at, x: -x,
    "shift": same,
    "truncate": same,
    "rescale": multiply,
    "multiply": multiply,
    "matmul": lambda at, x, y: np.matmul(x, y),
    "conv": conv,
    "reshape": lambda at, x: x.reshape(at.result.shape),
    "transpose": lambda at, x: x.transpose(at.attributes["axes"]),
    "concatenate": lambda at, *xs: np.concatenate(xs, at.attributes["axis"]),
    "slice": cut,
    "pad": lambda at, x: np.pad(x, at.attributes["padding"]),
    "gather": lambda at, x: np.take(x, at.attributes["indices"], at.attributes["axis"]),
    "broadcast": lambda at, x: np.broadcast_to(x, at.result.shape),
    "reduce_sum": lambda at, x: x.sum(tuple(at.attributes["axes"])).reshape(at.result.shape),
    "sum_pool": pooled,
    "reduce_max": lambda at, x: x.max(at.attributes["axis"]).reshape(at.result.shape),
    "reduce_min": lambda at, x: x.min(at.attributes["axis"]).reshape(at.result.shape),
    "argmax": lambda at, x: x.argmax(at.attributes["axis"]),
    "argmin": lambda at, x: x.argmin(at.attributes["axis"]),
    "max_pool": pooled,
    "relu": lambda at, x: np.maximum(x, 0),
    "gate": lambda at, x, g: np.where(x > 0, g, 0),
    "abs": lambda at, x: np.abs(x),
    "sign": lambda at, x: np.sign(x),
    "maximum": lambda at, x, y: np.maximum(x, y),
    "minimum": lambda at, x, y: np.minimum(x, y),
    "greater_equal": lambda at, x, y: x >= y,
    "less": lambda at, x, y: x < y,
    "equal": lambda at, x, y: x == y,
    "logical_not": lambda at, x: 1 - x,
    "logical_and": lambda at, x, y: x * y,
    "logical_or": lambda at, x, y: np.maximum(x, y),
    "select": lambda at, c, x, y: np.where(c > 0.5, x, y),
    "one_hot": one_hot,
    "exp": function,
    "reciprocal": function,
    "rsqrt": function,
    "sqrt": function,
    "log": function,
    "softmax": softmax,
    "spline": spline,
    "random": random,
}
