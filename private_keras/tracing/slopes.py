"""Gradients of activations that are curves: from the output where it says all, else by a curve of the derivative.

A spline within 1e-4 of a curve need not be within 1e-4 of its slope, so the derivative is fitted for itself, to the
same error. Others have no joint here: sigmoid and tanh have a rule by their label, and where activations are piecewise
linear or quadratic the slopes of their pieces are exact.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from private_keras.plan.gradients import Gradient, Joint, Tape
from private_keras.tracing.approximation import Spline, fit
from private_keras.tracing.curves import ERRORS, FAR, SELU_ALPHA, SELU_SCALE, UNIT, Activation

Backward = Callable[[Tape, Gradient], list[Gradient]]


def slope(name: str, x: str, y: str, accuracy: str, **parameters: Any) -> Joint | None:
    """The gradient of an activation.

    Args:
        name: of the activation, as in `curves.ACTIVATIONS`.
        x: operand of its step.
        y: result of its step, of the same fraction.
        accuracy: "accurate" or "fast": as the activation's own.
        parameters: of the activation.

    Returns:
        None for activations whose splines have a rule that is as good.

    Cost: elu, celu and selu one comparison and one product; the others a spline as long as the activation's own, and a
    product.
    """
    if name in _EXPONENTIAL:
        return Joint((x,), _exponential(x, y, *_EXPONENTIAL[name](**parameters)))
    if name in DERIVATIVES:
        fitted = derivative(name, accuracy, **parameters)

        def backward(tape: Tape, g: Gradient) -> list[Gradient]:
            return [tape.multiply(g, tape.step("spline", x, **fitted.attributes(tape.type(y).fraction)))]

        return Joint((x,), backward)
    return None


def derivative(name: str, accuracy: str, **parameters: Any) -> Activation:
    """The derivative of an activation of `DERIVATIVES` as a curve. Cached."""
    return _fitted(name, ERRORS[accuracy], tuple(sorted(parameters.items())))


@cache
def _fitted(name: str, error: float, parameters: tuple[tuple[str, Any], ...]) -> Activation:
    return Activation(f"slope of {name}", DERIVATIVES[name](error, **dict(parameters)))


# c e^(a x) - c below 0: (its slope at 0, how its slope changes with its value, the slope above 0).
_EXPONENTIAL: dict[str, Callable[..., tuple[float, float, float]]] = {
    "elu": lambda alpha=1.0: (alpha, 1.0, 1.0),
    "celu": lambda alpha=1.0: (1.0, 1 / alpha, 1.0),
    "selu": lambda: (SELU_SCALE * SELU_ALPHA, 1.0, SELU_SCALE),
}


def _exponential(x: str, y: str, start: float, change: float, above: float) -> Backward:
    """start + change y below 0, `above` from 0 on: both sides by gates of the same comparison."""

    def backward(tape: Tape, g: Gradient) -> list[Gradient]:
        below = tape.minus(y, tape.step("gate", x, y))
        terms = [tape.scaled(g, start), tape.scaled(tape.multiply(g, below), change)]
        if above != start:
            terms.append(Gradient(tape.step("gate", x, g.value), g.scale * (above - start)))
        return [tape.add(*terms)]

    return backward


def _curve(function: Callable[..., np.ndarray], reach: float, left: float, right: float, kink: bool = False):
    """A derivative that is `left` and `right` far from 0."""
    breaks = (0.0,) if kink else ()

    def make(error: float) -> Spline:
        return fit(function, -reach, reach, error, left=[left], right=[right], breaks=breaks, unit=UNIT)

    return make


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


def _silu(x: np.ndarray) -> np.ndarray:
    return _sigmoid(x) * (1 + x * (1 - _sigmoid(x)))


def _mish(x: np.ndarray) -> np.ndarray:
    tanh = np.tanh(np.logaddexp(0, x))
    return tanh + x * _sigmoid(x) * (1 - tanh * tanh)


def _gelu(error: float, approximate: bool = False) -> Spline:
    def exact(x: np.ndarray) -> np.ndarray:
        return (1 + _erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def by_tanh(x: np.ndarray) -> np.ndarray:
        root = math.sqrt(2 / math.pi)
        tanh = np.tanh(root * (x + 0.044715 * x**3))
        return (1 + tanh) / 2 + x / 2 * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * x * x)

    return _curve(by_tanh if approximate else exact, 12.0, 0.0, 1.0)(error)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _squareplus(error: float, b: float = 4.0) -> Spline:
    return _curve(lambda x: (1 + x / np.sqrt(x * x + b)) / 2, FAR * max(b / 4, 1.0), 0.0, 1.0)(error)


DERIVATIVES: dict[str, Callable[..., Spline]] = {
    "softplus": _curve(_sigmoid, 20.0, 0.0, 1.0),
    "log_sigmoid": _curve(lambda x: _sigmoid(-x), 20.0, 1.0, 0.0),
    "silu": _curve(_silu, 25.0, 0.0, 1.0),
    "mish": _curve(_mish, 25.0, 0.0, 1.0),
    "gelu": _gelu,
    "erf": _curve(lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x), 6.0, 0.0, 0.0),
    "tanh_shrink": _curve(lambda x: np.tanh(x) ** 2, 10.0, 1.0, 1.0),
    "softsign": _curve(lambda x: (1 + np.abs(x)) ** -2.0, FAR, 0.0, 0.0, kink=True),
    "squareplus": _squareplus,
}
