"""Functions of one variable, and softmax."""
from collections.abc import Callable

from private_keras.plan.primitives.functions import UNDECLARED
from private_keras.protocols import functions
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.values import Operation, Value, as_share, elementwise


def exp(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.exp(p, as_share(p, x), at.result.fraction)


def _of_positive(function: Callable[..., Share]) -> Callable[[Protocol, Operation, Value], Value]:
    """A function that may have a domain of its own, and a result of another fraction."""

    def run(p: Protocol, at: Operation, x: Value) -> Value:
        a = at.attributes
        declared = {} if a["low"] == UNDECLARED else {"low_bit": a["low"], "high_bit": a["high"]}
        fraction, result = at.operands[0].fraction, at.result.fraction
        return function(p, as_share(p, x), fraction, result_fraction=result, **declared)

    return run


def log(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.log(p, as_share(p, x), at.result.fraction)


def softmax(p: Protocol, at: Operation, x: Value) -> Value:
    return functions.softmax(p, as_share(p, x), at.operands[0].fraction, at.attributes["axis"], at.result.fraction)


def spline(p: Protocol, at: Operation, x: Value) -> Value:
    a = at.attributes
    bits = a["scale"] - a["fraction"]
    return functions.spline(
        p, as_share(p, x), a["knots"], a["coefficients"], bits, tuple(a["slopes"]), a["slope_bits"], a["width"], at.cut
    )


_STEPS = {
    "exp": exp,
    "reciprocal": _of_positive(functions.reciprocal),
    "rsqrt": _of_positive(functions.rsqrt),
    "sqrt": _of_positive(functions.sqrt),
    "log": log,
    "softmax": softmax,
    "spline": spline,
}

OPERATIONS = {name: elementwise(step) for name, step in _STEPS.items()}
