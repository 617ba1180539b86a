"""Sums and scales."""
import numpy as np

from private_keras.protocols.protocol import Protocol
from private_keras.server.execute.values import Operation, Value, as_share, elementwise, public, settled, spread

U = np.uint64


def add(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    x, y = settled(p, x), settled(p, y)
    if public(x, y):
        return np.asarray(np.add(x, y))
    if public(x):
        x, y = y, x
    if public(y):
        return p.add_public(spread(p, x, at.shape), y)
    return p.linear(lambda a, b: np.asarray(np.add(a, b)), at.shape, x, y)


def subtract(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    x, y = settled(p, x), settled(p, y)
    if public(x, y):
        return np.asarray(np.subtract(x, y))
    if public(y):
        return p.add_public(spread(p, x, at.shape), np.asarray(np.negative(y)))
    if public(x):
        return p.add_public(spread(p, negative(p, y), at.shape), x)
    return p.linear(lambda a, b: np.asarray(np.subtract(a, b)), at.shape, x, y)


def negative(p: Protocol, x: Value) -> Value:
    """-x."""
    return scaled(p, x, lambda a: np.asarray(np.negative(a)))


def negate(p: Protocol, at: Operation, x: Value) -> Value:
    return negative(p, x)


def shift(p: Protocol, at: Operation, x: Value) -> Value:
    bits = U(at.attributes["bits"])
    return scaled(p, x, lambda a: np.asarray(np.left_shift(a, bits)))


def scaled(p: Protocol, x: Value, fn) -> Value:
    """A linear map that keeps the shape."""
    x = settled(p, x)
    return fn(x) if public(x) else p.linear(fn, x.shape, x)


def truncate(p: Protocol, at: Operation, x: Value) -> Value:
    return p.truncate(as_share(p, x), at.attributes["bits"])


def rescale(p: Protocol, at: Operation, x: Value, factor: Value) -> Value:
    return p.rescale(as_share(p, x), factor.astype(np.int64).item(), at.attributes["bits"])


OPERATIONS = {
    "add": add,
    "subtract": subtract,
    "negate": negate,
    "shift": shift,
    "truncate": elementwise(truncate),
    "rescale": elementwise(rescale),
}
