"""Gradients of relu and of choices. A relu's gate takes the comparison that the relu paid for."""
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step


def gated(tape: Tape, x: str, g: Gradient, short: bool = True) -> Gradient:
    """The gradient where x > 0; truncated by the same opening, if `short`, to what a factor may have."""
    bits = max(tape.type(g.value).fraction - tape.fraction, 0) if short else 0
    return Gradient(tape.step("gate", x, g.value, truncate=bits), g.scale)


def _relu(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [gated(tape, step.inputs[0], g)]


def _gate(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    return [None, gated(tape, step.inputs[0], g) if wanted[1] else None]


def _abs(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient]:
    return [tape.multiply(g, tape.step("sign", step.inputs[0]))]


def _extreme(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    x, y = step.inputs
    if x == y:
        return [g, None]
    ahead = tape.step("subtract", *((x, y) if step.op == "maximum" else (y, x)))
    kept = gated(tape, ahead, g, short=False)
    return _parts(tape, g, kept, (x, y), wanted)


def _select(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    c, x, y = step.inputs
    kept = tape.multiply(g, c)
    return [None, *_parts(tape, g, kept, (x, y), wanted[1:])]


def _parts(
    tape: Tape, g: Gradient, kept: Gradient, names: Sequence[str], wanted: Sequence[bool]
) -> list[Gradient | None]:
    """What is kept goes to the first, the rest to the second."""
    first = tape.reduce_to(kept, tape.shape(names[0])) if wanted[0] else None
    rest = tape.add(g, tape.scaled(kept, -1.0)) if wanted[1] else None
    return [first, rest and tape.reduce_to(rest, tape.shape(names[1]))]


RULES = {
    "relu": _relu,
    "gate": _gate,
    "abs": _abs,
    "maximum": _extreme,
    "minimum": _extreme,
    "select": _select,
}
