"""Gradients of functions, by their own results wherever these tell."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step

# Fractional bits of derivatives, as of the values of a model.
_FRACTION = 18


def _exp(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [tape.multiply(g, step.output)]


def _reciprocal(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    # -y^2. Factor by factor: y^2 alone would lose small numbers, which the gradient's longer fraction holds.
    return [tape.scaled(tape.multiply(tape.multiply(g, step.output), step.output), -1.0)]


def _rsqrt(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    # -y^3 / 2
    for _ in range(3):
        g = tape.multiply(g, step.output)
    return [tape.scaled(g, -0.5)]


def _sqrt(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    declared = {name: step.attributes[name] for name in ("low", "high")}
    inverse = tape.step("rsqrt", step.inputs[0], **declared, fraction=_FRACTION)
    return [tape.scaled(tape.multiply(g, inverse), 0.5)]


def _log(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [tape.multiply(g, tape.step("reciprocal", step.inputs[0]))]


def _softmax(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    # y g - y sum(y g): the sum alone, which is short, is truncated between the two products.
    axis, y = step.attributes["axis"], step.output
    weighted = tape.multiply(g, y)
    mean = tape.through(weighted, "reduce_sum", axes=[axis], keepdims=True)
    return [tape.add(weighted, tape.scaled(tape.multiply(mean, y), -1.0))]


def _spline(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    y = step.output
    if step.attributes["label"] == "sigmoid":
        # y - y^2
        first = tape.multiply(g, y)
        return [tape.add(first, tape.scaled(tape.multiply(first, y), -1.0))]
    if step.attributes["label"] == "tanh":
        # 1 - y^2
        return [tape.add(g, tape.scaled(tape.multiply(tape.multiply(g, y), y), -1.0))]
    x = step.inputs[0]
    fraction, knots = tape.type(x).fraction, step.attributes["knots"]
    slopes = linear_slopes(step.attributes, fraction)
    if slopes is not None and len(knots) == 1:
        # Leaky relu and the like: a gate instead of a comparison, a product and a truncation; and exact.
        edge = tape.step("subtract", x, tape.builder.constant(np.asarray(knots[0]), fraction)) if knots[0] else x
        above = Gradient(tape.step("gate", edge, g.value), g.scale * (slopes[1] - slopes[0]))
        return [tape.add(tape.scaled(g, slopes[0]), above)]
    return [tape.multiply(g, tape.step("spline", x, **derivative(step.attributes, fraction)))]


def linear_slopes(a: dict[str, Any], fraction: int) -> list[float] | None:
    """The slope of each piece of a spline, if they are all linear.

    Args: as `derivative`.
    """
    if any(len(row) > 2 and row[2] for row in a["coefficients"]):
        return None
    unit = 2.0**fraction
    tails = [slope * unit / 2.0 ** (a["slope_bits"] + a["fraction"]) for slope in a["slopes"]]
    return [
        row[1] * unit / 2.0 ** a["scale"] + tails[_side(a["knots"], index)]
        for index, row in enumerate(a["coefficients"])
    ]


def _side(knots: Sequence[int], piece: int) -> int:
    """0 for pieces left of 0, which end at a knot that is 0 or less, else 1; slopes differ only if 0 is a knot."""
    return 0 if piece < len(knots) and knots[piece] <= 0 else 1


def derivative(a: dict[str, Any], fraction: int) -> dict[str, Any]:
    """Attributes of the `spline` step that is the derivative of another: the same knots, one degree less.

    Args:
        a: attributes of the spline, in normal form.
        fraction: of its operand.
    """
    # With X = 2^fraction x, d/dx of (a1 X + a2 X^2) / 2^scale is (a1 + 2 a2 X) / 2^(scale - fraction).
    scale, lift = a["scale"] - fraction, 0
    result = min(_FRACTION, max(a["fraction"], 12))
    if scale < result:
        scale, lift = result, result - scale
    if scale - result > 60:
        result = scale - 60
    edge = scale + fraction - a["slope_bits"] - a["fraction"]
    tails = [_shifted(slope, edge) for slope in a["slopes"]]
    rows = []
    for index, (_, linear, *square) in enumerate(a["coefficients"]):
        behind = tails[_side(a["knots"], index)]
        rows.append([(linear << lift) + behind, 2 * (square[0] if square else 0) << lift])
    return {
        "knots": a["knots"], "coefficients": rows, "scale": scale, "fraction": result,
        "label": f"derivative of {a['label']}"[:200] if a["label"] else "", "width": a["width"],
    }


def _shifted(number: int, bits: int) -> int:
    """number * 2^bits, rounded."""
    return number << bits if bits >= 0 else (number + (1 << (-bits - 1))) >> -bits


RULES = {
    "exp": _exp,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "sqrt": _sqrt,
    "log": _log,
    "softmax": _softmax,
    "spline": _spline,
}
