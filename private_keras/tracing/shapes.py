"""Movements of traced values. Known values are moved by the client; products are written first."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.values import Known, Product, Secret, Value


def reshape(lo: Lowering, x: Value, shape: Sequence[int]) -> Value:
    """x in another shape; one size may be -1."""
    size = int(np.prod(x.shape, dtype=np.int64))
    rest = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
    shape = tuple(int(n) if n != -1 else size // max(rest, 1) for n in shape)
    if shape == tuple(x.shape):
        return x
    if isinstance(x, Known):
        return lo.derive(f"reshape {shape}", lambda v: v.reshape(shape), x)
    return lo.step("reshape", lo.as_secret(x), shape=list(shape))


def reshape_product(x: Product, shape: tuple[int, ...], lo: Lowering) -> Value:
    """A matmul whose leading axes are reshaped, kept waiting: its operand is reshaped instead."""
    if shape[-1] != x.shape[-1] or len(shape) < 2:
        return reshape(lo, x, shape)
    return replace(x, x=lo.as_secret(reshape(lo, x.x, (*shape[:-1], x.x.shape[-1]))), shape=shape)


def transpose(lo: Lowering, x: Value, axes: Sequence[int]) -> Value:
    axes = [int(a) % max(len(x.shape), 1) for a in axes]
    if axes == list(range(len(axes))):
        return x
    if isinstance(x, Known):
        return lo.derive(f"transpose {axes}", lambda v: v.transpose(axes), x)
    return lo.step("transpose", lo.as_secret(x), axes=axes)


def reduce_sum(lo: Lowering, x: Value, axes: Sequence[int], keepdims: bool = False) -> Value:
    axes = sorted(int(a) % len(x.shape) for a in axes)
    if not axes:
        return x
    if isinstance(x, Known):
        return lo.derive(f"sum {axes} {keepdims}", lambda v: v.sum(axis=tuple(axes), keepdims=keepdims), x)
    y = lo.as_secret(x)
    size = int(np.prod(y.shape, dtype=np.int64))
    if len(axes) == len(y.shape) and y.fraction > lo.fraction and y.fraction + HEADROOM + size.bit_length() > 61:
        y = lo.at(y)  # a loss summed over a batch of large errors
    z = lo.step("reduce_sum", y, axes=axes, keepdims=keepdims)
    return lo.positive(z) if lo.is_positive(y) else z


def broadcast(lo: Lowering, x: Value, shape: Sequence[int]) -> Value:
    shape = tuple(int(n) for n in shape)
    if shape == tuple(x.shape):
        return x
    if isinstance(x, Known):
        return lo.derive(f"broadcast {shape}", lambda v: np.broadcast_to(v, shape), x)
    return lo.step("broadcast", lo.as_secret(x), shape=list(shape))


def concatenate(lo: Lowering, xs: Sequence[Value], axis: int) -> Value:
    axis %= len(xs[0].shape)
    if len(xs) == 1:
        return xs[0]
    if all(isinstance(x, Known) for x in xs):
        return lo.derive(f"concatenate {axis}", lambda *vs: np.concatenate(vs, axis), *xs)
    return lo.step("concatenate", *lo.common(*xs), axis=axis)


def gather(lo: Lowering, x: Value, indices: Sequence[int], axis: int) -> Value:
    axis %= len(x.shape)
    indices = [int(i) for i in indices]
    if indices == list(range(x.shape[axis])):
        return x
    if isinstance(x, Known):
        return lo.derive(f"take {axis} {indices}", lambda v: np.take(v, indices, axis), x)
    return lo.step("gather", lo.as_secret(x), axis=axis, indices=indices)


def cut(lo: Lowering, x: Value, slices: Sequence[slice]) -> Value:
    """x[slices], one slice for each axis; never empty."""
    bounds = [s.indices(n) for s, n in zip(slices, x.shape, strict=True)]
    if all(b == (0, n, 1) for b, n in zip(bounds, x.shape, strict=True)):
        return x
    if isinstance(x, Known):
        return lo.derive(f"slice {bounds}", lambda v: v[tuple(slices)], x)
    # Where a backward slice reaches the first element its stop is "before 0", which counts from the end as -n - 1.
    stops = [stop if stop >= 0 else -n - 1 for (_, stop, _), n in zip(bounds, x.shape, strict=True)]
    return lo.step("slice", lo.as_secret(x), start=[b[0] for b in bounds], stop=stops, step=[b[2] for b in bounds])


def pad(lo: Lowering, x: Value, padding: Sequence[tuple[int, int]]) -> Value:
    """Zeros around x; negative padding cuts."""
    padding = [(int(a), int(b)) for a, b in padding]
    x = cut(lo, x, [slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(padding, x.shape, strict=True)])
    padding = [(max(a, 0), max(b, 0)) for a, b in padding]
    if not any(a or b for a, b in padding):
        return x
    if isinstance(x, Known):
        return lo.derive(f"pad {padding}", lambda v: np.pad(v, padding), x)
    return lo.step("pad", lo.as_secret(x), padding=[list(p) for p in padding])


def move(lo: Lowering, x: Secret, source: np.ndarray) -> Secret:
    """Any movement: element i of the result is element source[i] of x flattened, or 0 where source[i] is -1."""
    shape = source.shape
    size = int(np.prod(x.shape, dtype=np.int64))
    if np.array_equal(source.reshape(-1), np.arange(size)):
        return reshape(lo, x, shape)
    rows = x.shape[0] if x.shape else 1
    flat, indices, axis = reshape(lo, x, (size,)), source.reshape(-1), 0
    if shape and rows > 1 and shape[0] == rows:
        each = source.reshape(rows, -1)
        first = each[0]
        steps = (np.arange(rows) * (size // rows))[:, None]
        if np.all(first < size // rows) and np.array_equal(each, np.where(first < 0, -1, first + steps)):
            flat, indices, axis = reshape(lo, x, (rows, size // rows)), first, 1
    if np.any(indices < 0):
        flat = pad(lo, flat, [(0, 0)] * axis + [(0, 1)])
        indices = np.where(indices < 0, flat.shape[axis] - 1, indices)
    return reshape(lo, gather(lo, flat, indices, axis), shape)
