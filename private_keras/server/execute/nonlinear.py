"""Functions of one variable, and softmax."""
import numpy as np

from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.bilinear import times
from private_keras.server.execute.values import Operation, Value, as_share

U = np.uint64


def exp(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.exp(p, as_share(p, x), at.result.fraction)


def reciprocal(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.reciprocal(p, as_share(p, x), at.result.fraction)


def rsqrt(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.rsqrt(p, as_share(p, x), at.result.fraction)


def sqrt(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.sqrt(p, as_share(p, x), at.result.fraction)


def log(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.log(p, as_share(p, x), at.result.fraction)


def softmax(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.softmax(p, as_share(p, x), at.result.fraction, at.attributes["axis"])


def spline(p: Protocol, at: Operation, x: Value) -> Value:
    a = at.attributes
    bits = a["scale"] - a["fraction"]
    if len(a["coefficients"]) > 1:
        return functions.spline(p, as_share(p, x), a["knots"], a["coefficients"], bits)
    result = _polynomial(p, as_share(p, x), a["coefficients"][0])
    return p.truncate(result, bits) if bits else result


def _polynomial(p: Protocol, x: Share, row: list[int]) -> Share:
    """One piece needs no comparison."""
    a0, a1, a2 = (np.asarray(np.int64(a)).astype(U) for a in [*row, 0][:3])
    result = p.linear(lambda v: times(v, a1), x.shape, x)
    if len(row) == 3:
        square = p.bilinear(times, x.shape, x, x)
        result = p.linear(lambda v, s: np.asarray(v + times(s, a2)), x.shape, result, square)
    return p.add_public(result, a0)


OPERATIONS = {
    "exp": exp,
    "reciprocal": reciprocal,
    "rsqrt": rsqrt,
    "sqrt": sqrt,
    "log": log,
    "softmax": softmax,
    "spline": spline,
}
