"""Functions on shares, written once above the `Protocol` boundary: the same code for every protocol and every party.

Control flow depends on shapes and public arguments only. Each function states its domain, what it gives outside, its
error and its cost; `docs/functions.md` has them in one table.
"""
from private_keras.protocols.functions.exponential import exp
from private_keras.protocols.functions.order import absolute, argmax, maximum, minimum, reduce_max, sign
from private_keras.protocols.functions.positive import log, reciprocal, rsqrt, sqrt
from private_keras.protocols.functions.softmax import softmax
from private_keras.protocols.functions.spline import spline

__all__ = [
    "absolute", "argmax", "exp", "log", "maximum", "minimum", "reciprocal", "reduce_max", "rsqrt",
    "sign", "softmax", "spline", "sqrt",
]
