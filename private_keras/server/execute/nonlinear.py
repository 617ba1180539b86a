"""Functions of one variable, and softmax."""
from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol
from private_keras.server.execute.values import Operation, Value, as_share, elementwise


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
    return functions.spline(
        p, as_share(p, x), a["knots"], a["coefficients"], bits, tuple(a["slopes"]), a["slope_bits"]
    )


_STEPS = {
    "exp": exp,
    "reciprocal": reciprocal,
    "rsqrt": rsqrt,
    "sqrt": sqrt,
    "log": log,
    "softmax": softmax,
    "spline": spline,
}

OPERATIONS = {name: elementwise(step) for name, step in _STEPS.items()}
