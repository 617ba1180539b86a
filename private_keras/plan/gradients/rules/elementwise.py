"""Gradients of sums and scales: no steps, but for sums over what was broadcast."""
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step


def _add(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    pairs = zip(step.inputs, wanted, strict=True)
    return [tape.reduce_to(g, tape.shape(name)) if want else None for name, want in pairs]


def _subtract(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    x, y = _add(tape, step, g, wanted)
    return [x, y and tape.scaled(y, -1.0)]


def _negate(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [tape.scaled(g, -1.0)]


def _same(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    """The same real value at another fraction."""
    return [g]


def _rescale(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    return [tape.multiply(g, step.inputs[1]), None]


RULES = {
    "add": _add,
    "subtract": _subtract,
    "negate": _negate,
    "shift": _same,
    "truncate": _same,
    "rescale": _rescale,
}
