"""Functions of one variable, and softmax. Domains and errors: `protocols/functions.py`."""
from collections.abc import Callable
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import AXIS, WIDTH, Int, Ints, Rows, Text
from private_keras.plan.primitives.elementwise import truncated
from private_keras.plan.primitives.primitive import Primitive
from private_keras.plan.primitives.rules import checked_axis
from private_keras.plan.records import TensorType

_RING = 2**63 - 1
# What the functions on shares are made for: their steps wrap or lose all precision beyond.
_FRACTIONS = (12, 20)


def _function(_: dict[str, Any], x: TensorType) -> TensorType:
    low, high = _FRACTIONS
    if not low <= x.fraction <= high:
        raise PlanError(f"expected an operand of {low} to {high} fractional bits; shift or truncate first. "
                        f"Received: {x.fraction}")
    return x


# "By default": no attribute can be null.
UNDECLARED = -128
# Results of more bits than the tables have would pretend to a precision that is not there.
_MOST_RESULT = 28
_MOST_OPERAND = 44
_MOST_BITS = 60


def _scaled(widest: int, largest: Callable[[int, int], int]) -> Callable[..., TensorType]:
    """Type rule of a function over powers of two.

    Args:
        widest: the most octaves that its domain may have.
        largest: the exponent of its largest result on the domain from 2^low to 2^high.
    """

    def rule(attributes: dict[str, Any], x: TensorType) -> TensorType:
        low, high, fraction = (attributes[name] for name in ("low", "high", "fraction"))
        declared = low != UNDECLARED and high != UNDECLARED
        if UNDECLARED in (low, high) and low != high:
            raise PlanError("expected both low and high, or neither. Received: one of them")
        if not declared or x.fraction < _FRACTIONS[0]:
            _function(attributes, x)
        elif x.fraction > _MOST_OPERAND:
            raise PlanError(f"expected an operand of at most {_MOST_OPERAND} fractional bits. Received: {x.fraction}")
        if declared and not (low < high <= _MOST_BITS - x.fraction and max(high, 0) - min(low, 0) <= widest):
            raise PlanError(
                f"low, high: expected low < high <= {_MOST_BITS - x.fraction}, and at most {widest} octaves from low "
                f"to high and to 1. Received: {low} and {high}"
            )
        result = x.fraction if fraction == UNDECLARED else fraction
        if not _FRACTIONS[0] <= result <= _MOST_RESULT:
            raise PlanError(
                f"fraction: expected a result of {_FRACTIONS[0]} to {_MOST_RESULT} fractional bits. Received: {result}"
            )
        if declared and largest(max(low, -x.fraction), high) + result >= _MOST_BITS - 2:
            raise PlanError(
                f"low, high: expected results below 2^{_MOST_BITS - 2 - result}, at {result} fractional bits. "
                f"Received: {low} and {high}"
            )
        return TensorType(x.shape, result)

    return rule


def _softmax(attributes: dict[str, Any], x: TensorType) -> TensorType:
    result = _function(attributes, truncated(x, attributes["truncate"]))
    if x.fraction > _MOST_OPERAND:
        raise PlanError(f"expected an operand of at most {_MOST_OPERAND} fractional bits. Received: {x.fraction}")
    checked_axis(attributes["axis"], x)
    return result


def _spline(attributes: dict[str, Any], x: TensorType) -> TensorType:
    knots, rows = attributes["knots"], attributes["coefficients"]
    if any(a >= b for a, b in zip(knots, knots[1:], strict=False)):
        raise PlanError("knots: expected increasing integers. Received: knots that are not")
    if len(rows) != len(knots) + 1 or len({len(row) for row in rows}) != 1:
        raise PlanError(
            f"coefficients: expected {len(knots) + 1} rows of one length, one more than knots. Received: {len(rows)}"
        )
    if not 0 <= attributes["scale"] - attributes["fraction"] <= 60:
        raise PlanError(
            f"expected a scale from the result's fraction {attributes['fraction']} to 60 bits above. "
            f"Received: {attributes['scale']}"
        )
    if len(attributes["slopes"]) != 2:
        raise PlanError(f"slopes: expected two, left and right of 0. Received: {len(attributes['slopes'])}")
    if attributes["slopes"][0] != attributes["slopes"][1] and 0 not in knots:
        raise PlanError(f"slopes: expected a knot at 0 where slopes differ. Received: slopes {attributes['slopes']}")
    return TensorType(x.shape, attributes["fraction"])


_DOMAIN = {
    "low": Int(UNDECLARED, _MOST_BITS, required=False, default=UNDECLARED),
    "high": Int(UNDECLARED, _MOST_BITS, required=False, default=UNDECLARED),
    "fraction": Int(UNDECLARED, limits.MAX_FRACTION, required=False, default=UNDECLARED),
}

PRIMITIVES = (
    Primitive("exp", (1, 1), _function),
    Primitive("reciprocal", (1, 1), _scaled(40, lambda low, high: -low), _DOMAIN),
    Primitive("rsqrt", (1, 1), _scaled(_MOST_BITS, lambda low, high: -low // 2), _DOMAIN),
    Primitive("sqrt", (1, 1), _scaled(_MOST_BITS, lambda low, high: (high + 1) // 2), _DOMAIN),
    Primitive("log", (1, 1), _function),
    Primitive("softmax", (1, 1), _softmax, {"axis": AXIS, "truncate": Int(0, 58, required=False, default=0)}),
    Primitive(
        "spline", (1, 1), _spline,
        {
            "knots": Ints(-_RING, _RING, limits.MAX_PIECES - 1),
            "coefficients": Rows(-_RING, _RING, 2, 3, limits.MAX_PIECES),
            "scale": Int(0, 118),
            "slopes": Ints(-_RING, _RING, 2, required=False, default=(0, 0)),
            "slope_bits": Int(0, 60, required=False, default=0),
            "fraction": Int(0, limits.MAX_FRACTION),
            "label": Text(required=False, default=""),
            "width": WIDTH,
        },
    ),
)
