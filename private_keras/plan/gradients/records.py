"""What reverse mode passes around."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from private_keras.plan.gradients.tape import Tape


@dataclass(frozen=True)
class Gradient:
    """A gradient as a value of the plan times a public number.

    Attributes:
        value: name of a value, of the shape of what it is the gradient of; any fraction.
        scale: public factor; multiplying by a constant changes it and costs no step.
    """

    value: str
    scale: float = 1.0


@dataclass(frozen=True)
class Joint:
    """The gradient of a value over several steps at once, instead of walking through them.

    Attributes:
        inputs: the values of the plan that it is a function of, all computed before it.
        backward: (tape, gradient of the value) to one gradient for each input, of that input's shape; None for zero.
    """

    inputs: tuple[str, ...]
    backward: Callable[["Tape", Gradient], Sequence[Gradient | None]]
