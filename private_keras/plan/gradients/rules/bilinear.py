"""Gradients of products: one product for each operand that wants one; transposes are free."""
import math
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step


def _multiply(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    x, y = step.inputs
    if x == y:
        return [tape.scaled(tape.multiply(g, x), 2.0), None]
    pairs = ((x, y, wanted[0]), (y, x, wanted[1]))
    return [tape.reduce_to(tape.multiply(g, other), tape.shape(name)) if want else None for name, other, want in pairs]


def _matmul(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    x, y = step.inputs
    by_x = by_y = None
    if wanted[0]:
        by_x = tape.reduce_to(_product(tape, g, y, lambda a, b: (a, _transposed(tape, b))), tape.shape(x))
    if wanted[1]:
        if len(tape.shape(y)) == 2:
            by_y = _product(tape, g, x, lambda a, b: (_transposed(tape, _rows(tape, b)), _rows(tape, a)))
        else:
            by_y = tape.reduce_to(_product(tape, g, x, lambda a, b: (_transposed(tape, b), a)), tape.shape(y))
    return [by_x, by_y]


def _product(tape: Tape, g: Gradient, other: str, arrange) -> Gradient:
    return Gradient(tape.step("matmul", *arrange(*tape.short(g.value, other)), twice=True), g.scale)


def _transposed(tape: Tape, name: str) -> str:
    rank = len(tape.shape(name))
    return tape.step("transpose", name, axes=[*range(rank - 2), rank - 1, rank - 2])


def _rows(tape: Tape, name: str) -> str:
    """A batch of matrices as one of all their rows: a product with it sums over the batch."""
    shape = tape.shape(name)
    return tape.reshaped(name, (math.prod(shape[:-1]), shape[-1]))


RULES = {"multiply": _multiply, "matmul": _matmul}
