"""Steps that send nothing: sums, public factors, slices of shares."""
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Protocol, Share

U = np.uint64
MASK = (1 << 64) - 1


def word(value: int) -> np.uint64:
    """A public integer as a ring element."""
    return U(value & MASK)


def words(values: Sequence) -> np.ndarray:
    """Nested public integers of any size as ring elements, mod 2^64."""
    return np.array(np.vectorize(lambda v: int(v) & MASK, otypes=[U])(np.array(values, dtype=object)), U)


def scale(p: Protocol, x: Share, factor: int) -> Share:
    """x times a public integer."""
    c = word(factor)
    return p.linear(lambda a: a * c, x.shape, x)


def add(p: Protocol, x: Share, y: Share) -> Share:
    """x + y, broadcast as NumPy does."""
    return p.linear(lambda a, b: a + b, np.broadcast_shapes(x.shape, y.shape), x, y)


def subtract(p: Protocol, x: Share, y: Share) -> Share:
    """x - y, broadcast as NumPy does."""
    return p.linear(lambda a, b: a - b, np.broadcast_shapes(x.shape, y.shape), x, y)


def offset(p: Protocol, x: Share, value: int) -> Share:
    """x plus a public integer."""
    return p.add_public(x, np.broadcast_to(word(value), x.shape))


def reduce_sum(p: Protocol, x: Share, axis: int) -> Share:
    """Sum over one axis, removed."""
    axis %= len(x.shape)
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return p.linear(lambda a: a.sum(axis=axis, dtype=U), shape, x)


def take(p: Protocol, x: Share, indices: np.ndarray, axis: int) -> Share:
    """Elements of one axis by public indices, a flat array."""
    axis %= len(x.shape)
    shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
    return p.linear(lambda a: np.take(a, indices, axis=axis), shape, x)


def run(p: Protocol, x: Share, start: int, stop: int) -> Share:
    """Neighbouring elements of the last axis, without a copy."""
    return p.linear(lambda a: a[..., start:stop], (*x.shape[:-1], stop - start), x)


def reshape(p: Protocol, x: Share, shape: tuple[int, ...]) -> Share:
    """The same elements in another shape, all sizes given."""
    return p.linear(lambda a: a.reshape(shape), shape, x)


def axis_last(p: Protocol, x: Share, axis: int) -> Share:
    """x with `axis` moved to the end."""
    shape = list(x.shape)
    shape.append(shape.pop(axis % len(shape)))
    return p.linear(lambda a: np.moveaxis(a, axis, -1), tuple(shape), x)


def axis_back(p: Protocol, x: Share, axis: int) -> Share:
    """x with its last axis moved to `axis`: undoes `axis_last`."""
    shape = list(x.shape)
    shape.insert(axis % len(x.shape), shape.pop())
    return p.linear(lambda a: np.moveaxis(a, -1, axis), tuple(shape), x)


def stack(p: Protocol, *xs: Share) -> Share:
    """Tensors of one shape along a new first axis."""
    return p.linear(lambda *arrays: np.stack(arrays), (len(xs), *xs[0].shape), *xs)
