"""Gradient rules, one for each primitive, in the families that primitives have.

A rule gets the tape, the step, the gradient of its result and, for each input, whether a gradient is wanted; it returns
a gradient of each input's shape, or None where it is zero or not wanted.
"""
from collections.abc import Callable, Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.rules import bilinear, compare, conv, elementwise, functions, reduce, shape
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step

__all__ = ["RULES", "Rule"]

Rule = Callable[[Tape, Step, Gradient, Sequence[bool]], Sequence[Gradient | None]]


def _zero(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> Sequence[None]:
    """Steps: constant almost everywhere."""
    return [None] * len(step.inputs)


_CONSTANT = (
    "constant", "sign", "argmax", "argmin", "greater_equal", "less", "equal", "logical_not", "logical_and",
    "logical_or", "one_hot", "random",
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_CONSTANT, _zero),
    **elementwise.RULES,
    **bilinear.RULES,
    **conv.RULES,
    **shape.RULES,
    **reduce.RULES,
    **compare.RULES,
    **functions.RULES,
}
