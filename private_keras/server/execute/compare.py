"""Comparisons, truth values and choices between values."""
import numpy as np

from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.bilinear import both, multiply, product, times
from private_keras.server.execute.linear import add, negative, subtract
from private_keras.server.execute.values import Operation, Truth, Value, as_share, elementwise, public, settled, spread

U = np.uint64

Kept = tuple[Value, Truth]  # a result, and the bits [x > 0] that are needed again; see `gates`


def relu(p: Protocol, at: Operation, x: Value) -> Value | Kept:
    x, bits, width = as_share(p, x), at.attributes["truncate"], at.attributes["width"]
    if not at.keeps:
        return p.relu(x, bits, width)
    y, positive = p.relu_and_bits(x, bits, width)
    return y, Truth(positive, x.shape)


def gate(p: Protocol, at: Operation, x: Value, g: Value, positive: Truth | None = None) -> Value | Kept:
    """g where x > 0, else 0: by the bits of an earlier comparison where there is one."""
    if positive is None:
        positive = _not_below(p, x, 1)
    g, bits = as_share(p, g), at.attributes["truncate"]
    result = p.gate(positive.bits, g, bits) if bits else p.multiply_bits(positive.bits, g)
    return (result, positive) if at.keeps else result


def _not_below(p: Protocol, x: Value, units: int) -> Truth:
    bits = p.compare(as_share(p, x), [units])
    return Truth(p.bits_linear(lambda b: b[0], x.shape, bits), x.shape)


def absolute(p: Protocol, at: Operation, x: Value) -> Value | Kept:
    x = as_share(p, x)
    if not at.keeps:
        return functions.absolute(p, x)
    y, positive = p.relu_and_bits(x)
    return p.linear(lambda a, b: a + a - b, x.shape, y, x), Truth(positive, x.shape)


def sign(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.sign(p, as_share(p, x))


def _pair(p: Protocol, at: Operation, x: Value, y: Value) -> tuple[Share, Share]:
    return as_share(p, spread(p, x, at.shape)), as_share(p, spread(p, y, at.shape))


def maximum(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return functions.maximum(p, *_pair(p, at, x, y))


def minimum(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return functions.minimum(p, *_pair(p, at, x, y))


def greater_equal(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return _not_below(p, subtract(p, at, x, y), 0)


def less(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return logical_not(p, at, greater_equal(p, at, x, y))


def equal(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    bits = p.compare(as_share(p, subtract(p, at, x, y)), [0, 1])
    not_below = Truth(p.bits_linear(lambda b: b[0], at.shape, bits), at.shape)
    above = Truth(p.bits_linear(lambda b: b[1], at.shape, bits), at.shape)
    return Truth(both(p, at.shape, not_below, logical_not(p, at, above)), at.shape)


def logical_not(p: Protocol, at: Operation, x: Value) -> Value:
    if isinstance(x, Truth):
        return Truth(p.bits_not(x.bits), x.shape)
    if public(x):
        return np.asarray(U(1) - x)
    return p.add_public(negative(p, x), np.asarray(U(1)))


def logical_and(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return multiply(p, at, x, y)


def logical_or(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    if isinstance(x, Truth) and isinstance(y, Truth):
        neither = both(p, at.shape, logical_not(p, at, x), logical_not(p, at, y))
        return Truth(p.bits_not(neither), at.shape)
    return subtract(p, at, add(p, at, x, y), multiply(p, at, x, y))


def select(p: Protocol, at: Operation, c: Value, x: Value, y: Value) -> Value:
    # y + c (x - y): one product, and none of the branches is known to be taken.
    difference = _difference(p, x, y)
    if isinstance(c, Truth) and not public(difference):
        chosen = p.multiply_bits(spread(p, c, at.shape).bits, difference)
    else:
        chosen = product(p, times, at.shape, c, difference)
    return add(p, at, chosen, y)


def _difference(p: Protocol, x: Value, y: Value) -> Value:
    """x - y in the shape of the two, which may be narrower than the choice's."""
    x, y = settled(p, x), settled(p, y)
    shape = np.broadcast_shapes(x.shape, y.shape)
    if public(x, y):
        return np.asarray(np.subtract(x, y))
    if public(y):
        return p.add_public(spread(p, x, shape), np.asarray(np.negative(y)))
    if public(x):
        return p.add_public(spread(p, negative(p, y), shape), x)
    return p.linear(lambda a, b: np.asarray(np.subtract(a, b)), shape, x, y)


def one_hot(p: Protocol, at: Operation, x: Value) -> Value:
    return p.one_hot(as_share(p, x), at.attributes["depth"])


_STEPS = {
    "relu": relu,
    "gate": gate,
    "abs": absolute,
    "sign": sign,
    "maximum": maximum,
    "minimum": minimum,
    "greater_equal": greater_equal,
    "less": less,
    "equal": equal,
    "logical_not": logical_not,
    "logical_and": logical_and,
    "logical_or": logical_or,
    "select": select,
    "one_hot": one_hot,
}

OPERATIONS = {name: elementwise(step) for name, step in _STEPS.items()}
