"""Where the functions on shares are accurate, and what they give beyond: the numbers of docs/functions.md.

Plan and protocols do not know each other, so the numbers stand in both; `tests/test_ranges.py` holds them together.
"""
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from private_keras.plan.primitives.functions import UNDECLARED

# A step compares, truncates and opens ring elements below 2^62 in size; beyond, it wraps.
LIMIT_BITS = 62

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sqrt": np.sqrt,
    "log": np.log,
}


_NONE: Mapping[str, Any] = {}


def domain(op: str, fraction: int, attributes: Mapping[str, Any] = _NONE) -> tuple[float, float]:
    """Least and largest operand for which a function is accurate, at this fraction.

    Args:
        op: one of `FUNCTIONS`.
        fraction: fractional bits of the operand.
        attributes: of the step; `low` and `high`, where it declares them.
    """
    low, high = attributes.get("low", UNDECLARED), attributes.get("high", UNDECLARED)
    if low != UNDECLARED:
        # A root of less is 0, as good as any: what optimisers begin with.
        return 0.0 if op == "sqrt" else 2.0 ** max(low, -fraction), 2.0**high
    unit = 2.0**-fraction
    return {
        # Below its domain e^x is less than a unit: 0 is accurate there.
        "exp": (-math.inf, 15.94),
        "reciprocal": (2.0**-12, 2.0**20),
        "rsqrt": (unit, 2.0**22),
        "sqrt": (0.0, 2.0**22),
        "log": (unit, 2.0**22),
    }[op]


def depth_domain(depth: int) -> tuple[float, float]:
    """Least and largest index that `one_hot` tells apart: it looks at the low bits alone."""
    return 0.0, float(2 ** max(1, (depth - 1).bit_length()) - 1)


def saturated(op: str, x: np.ndarray, fraction: int, attributes: Mapping[str, Any] = _NONE) -> np.ndarray:
    """What servers give for x, but for rounding: the function at the nearest operand of its domain; 0 for the root of
    a smaller one.

    Args:
        op: one of `FUNCTIONS`.
        x: real operands, any shape.
        fraction: fractional bits of the operand.
        attributes: of the step.
    """
    y = FUNCTIONS[op](np.clip(x, *domain(op, fraction, attributes)))
    return np.where(x < 2.0 ** attributes.get("low", UNDECLARED), 0.0, y) if op == "sqrt" else y


def exact(op: str, x: np.ndarray, fraction: int) -> np.ndarray:
    """What the function is, infinite or NaN where it has no value.

    Operands within two units of 0 are 0 to the servers. A root's inverse there is as the servers have it: they, and
    Keras by its epsilon, normalise a row of zeros to zeros.
    """
    x = np.where((x < 0) & (x > -2.0 ** (1 - fraction)), 0, x) if op != "exp" else x
    with np.errstate(all="ignore"):
        y = FUNCTIONS[op](x)
    if op == "rsqrt":
        # Smaller squares are of numbers below a unit.
        return np.where((x >= 0) & (x < 4.0**-fraction), 2.0 ** (fraction / 2), y)
    return y
