"""Functions of one variable, and softmax. Domains and errors: `protocols/functions.py`."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import AXIS, Int, Ints, Rows, Text
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


def _softmax(attributes: dict[str, Any], x: TensorType) -> TensorType:
    _function(attributes, x)
    checked_axis(attributes["axis"], x)
    return x


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


PRIMITIVES = (
    Primitive("exp", (1, 1), _function),
    Primitive("reciprocal", (1, 1), _function),
    Primitive("rsqrt", (1, 1), _function),
    Primitive("sqrt", (1, 1), _function),
    Primitive("log", (1, 1), _function),
    Primitive("softmax", (1, 1), _softmax, {"axis": AXIS}),
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
        },
    ),
)
