"""The activations of Keras as steps of a plan: each is one `spline`, a bounded curve plus exact linear tails.

gelu, silu, softplus and their like are max(x, 0) plus a bump that dies away; the bump fits 60 bits of scale, where x
itself would wrap. Piecewise linear activations are exact. `activation(name)` is all that lowering rules need:

    step("spline", x, **activation("gelu").attributes(fraction))
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from private_keras.errors import UnsupportedError
from private_keras.tracing.approximation import KNOT_BITS, Function, Spline, fit

ERRORS = {"accurate": 1e-4, "fast": 1e-3}
SIGMOID_ERROR = 1e-5  # of the accurate one: probabilities are what people read
LARGEST_BITS = 45  # |x| up to 2^45 ring units never wraps
UNIT = 2.0**-20  # a square's coefficient is rounded to this: scale 60 with 20 fractional bits
FAR = 2.0**14  # where x / (1 + |x|) and its like are within 1e-4 of their tails
LINE_SAMPLES = 257
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """f(x) = spline(x) + slopes[0] * min(x, 0) + slopes[1] * max(x, 0).

    Attributes:
        label: name for people, in the plan.
        spline: bounded where a slope is not whole or its polynomials are not linear; with a knot at 0 if slopes differ.
        slopes: of the tails left and right of 0.
    """

    label: str
    spline: Spline
    slopes: tuple[float, float] = (0.0, 0.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """What shares compute, in float64 and without rounding."""
        return self.spline(x) + self.slopes[0] * np.minimum(x, 0) + self.slopes[1] * np.maximum(x, 0)

    def attributes(self, fraction: int) -> dict[str, Any]:
        """Attributes of the plan's `spline` step for x, and a result, of this fraction; |x| < 2^45 ring units."""
        knots, coefficients, scale = self.spline.quantise(fraction, 2.0 ** (LARGEST_BITS - fraction))
        slope_bits = 0
        if any(s != int(s) for s in self.slopes):
            slope_bits = int(61.5 - LARGEST_BITS - math.log2(max(1.0, *(abs(s) for s in self.slopes))))
        return {
            "knots": knots,
            "coefficients": coefficients,
            "scale": scale,
            "fraction": fraction,
            "slopes": [round(s * 2**slope_bits) for s in self.slopes],
            "slope_bits": slope_bits,
            "width": LARGEST_BITS + 1,
            "label": self.label,
        }


def activation(name: str, accuracy: str = "accurate", **parameters: float | bool | None) -> Activation:
    """The activation of this name, as in `keras.activations`; also `erf` and `threshold`. Cached.

    Args:
        name: a key of `ACTIVATIONS`.
        accuracy: "accurate" (error 1e-4; sigmoid 1e-5) or "fast" (1e-3), everywhere, tails included; rounding adds at
            most two units. Piecewise linear and quadratic activations are exact in both.
        parameters: as in Keras: `alpha`, `negative_slope`, `approximate`, ...

    Raises:
        UnsupportedError: no such activation or accuracy.
    """
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"No activation {name!r} runs on shares. Use one of {', '.join(sorted(ACTIVATIONS))}")
    if accuracy not in ERRORS:
        raise UnsupportedError(f"accuracy: expected one of {', '.join(ERRORS)}. Received: {accuracy!r}")
    return _made(name, ERRORS[accuracy], tuple(sorted(parameters.items())))


@cache
def _made(name: str, error: float, parameters: tuple[tuple[str, float | bool | None], ...]) -> Activation:
    spline, slopes = ACTIVATIONS[name](error, **dict(parameters))
    label = f"{name}({', '.join(f'{k}={v}' for k, v in parameters)})" if parameters else name
    return Activation(label, spline, slopes)


@cache
def log_of_largest(n: int) -> Activation:
    """log(x) for 1 / n <= x <= 1, which the largest of n probabilities is; constant beyond. Error 1e-4."""
    return Activation("log", fit(np.log, 1 / n, 1.0, ERRORS["accurate"], left=[-math.log(n)], right=[0.0], unit=UNIT))


Made = tuple[Spline, tuple[float, float]]


def _curve(function: Function, reach: float, left: float = 0.0, right: float = 0.0, slopes: tuple = (0.0, 0.0)):
    """An activation without parameters: a curve with constant tails, plus linear tails."""
    kink = (0.0,) if slopes[0] != slopes[1] else ()

    def make(error: float) -> Made:
        return fit(function, -reach, reach, error, left=[left], right=[right], breaks=kink, unit=UNIT), slopes

    return make


def _odd(function: Function, reach: float, right: float, slope: float = 0.0):
    """An activation with f(-x) = 2 f(0) - f(x): exact at 0, where classes tie and units without input stand.

    A line through the middle, as long as the error allows, and curves that mirror each other beside it.
    """

    def make(error: float) -> Made:
        middle = float(function(np.zeros(1))[0])
        end, steepness = _line(function, middle, error, reach)
        above = fit(function, end, reach, error, right=[right], unit=UNIT)
        knots = [-k for k in reversed(above.knots)] + [-end, end, *above.knots]
        below = [(2 * middle - c, b, -a) for c, b, a in reversed(above.polynomials)]
        rows = [*below, (middle, steepness, 0.0), *above.polynomials]
        return Spline(tuple(knots), tuple(rows)), (slope, slope)

    return make


def _line(function: Function, middle: float, error: float, reach: float) -> tuple[float, float]:
    """The longest line from (0, middle) within the error: its end, a knot, and its slope."""
    low, high = 0.0, reach
    best = 0.0, 0.0
    while high - low > 2.0**-KNOT_BITS:
        end = math.ceil((low + high) / 2 * 2**KNOT_BITS) / 2**KNOT_BITS
        if end == high:
            break
        node = end * math.sqrt(3) / 2  # a zero of the Chebyshev polynomial T3: there an odd cubic meets its best line
        slope = float(function(np.array([node]))[0] - middle) / node
        xs = np.linspace(0, end, LINE_SAMPLES)
        if (np.abs(middle + slope * xs - function(xs)) <= error).all():
            low, best = end, (end, slope)
        else:
            high = end
    return best


def _linear(knots: Sequence[float], rows: Sequence[tuple[float, float]]) -> Made:
    """A piecewise linear activation, exact: rows of (constant, slope)."""
    if all(slope == int(slope) for _, slope in rows):
        return Spline(tuple(knots), tuple(rows)), (0.0, 0.0)
    slopes = (rows[0][1], rows[-1][1])
    if slopes[0] != slopes[1] and 0.0 not in knots:
        at = sum(k < 0 for k in knots)
        knots, rows = [*knots[:at], 0.0, *knots[at:]], [*rows[: at + 1], *rows[at:]]
    # Pieces left of 0 end at a knot that is 0 or less.
    signs = [*(int(k > 0) for k in knots), 1]
    return Spline(tuple(knots), tuple((c, s - slopes[side]) for side, (c, s) in zip(signs, rows, strict=True))), slopes


def _above(x: float) -> float:
    """The knot for "greater than x", since knots mean "x or more"."""
    return math.nextafter(x, math.inf)


def _relu(_: float, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Made:
    knots, rows = [threshold], [(-negative_slope * threshold, negative_slope), (0.0, 1.0)]
    if max_value is not None:
        # Where max_value is below threshold, everything from max_value on is max_value.
        knots, rows = ([threshold, max_value], [*rows, (max_value, 0.0)]) if threshold < max_value else (
            [max_value], [rows[0], (max_value, 0.0)])
    return _linear(knots, rows)


def _elu(error: float, alpha: float = 1.0) -> Made:
    return _negative(lambda x: alpha * np.expm1(np.minimum(x, 0)), -alpha, 20.0, error), (0.0, 1.0)


def _celu(error: float, alpha: float = 1.0) -> Made:
    return _negative(lambda x: alpha * np.expm1(np.minimum(x, 0) / alpha), -alpha, 20.0 * alpha, error), (0.0, 1.0)


def _selu(error: float) -> Made:
    height = SELU_SCALE * SELU_ALPHA
    return _negative(lambda x: height * np.expm1(np.minimum(x, 0)), -height, 20.0, error), (0.0, SELU_SCALE)


def _negative(function: Function, left: float, reach: float, error: float) -> Spline:
    """A curve that is 0 from 0 on."""
    return fit(function, -reach, 1.0, error, left=[left], right=[0.0], breaks=(0.0,), unit=UNIT)


def _squareplus(error: float, b: float = 4.0) -> Made:
    return _curve(lambda x: (np.sqrt(x * x + b) - np.abs(x)) / 2, FAR * max(b / 4, 1.0), slopes=(0.0, 1.0))(error)


def _gelu(error: float, approximate: bool = False) -> Made:
    def exact(x: np.ndarray) -> np.ndarray:
        return x / 2 * (1 + _erf(x / math.sqrt(2)))

    def by_tanh(x: np.ndarray) -> np.ndarray:
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    gelu = by_tanh if approximate else exact
    return _curve(lambda x: gelu(x) - np.maximum(x, 0), 12.0, slopes=(0.0, 1.0))(error)


def _soft_shrink(_: float, threshold: float = 0.5) -> Made:
    return _linear([-threshold, threshold], [(threshold, 1.0), (0.0, 0.0), (-threshold, 1.0)])


def _hard_shrink(_: float, threshold: float = 0.5) -> Made:
    return _linear([-threshold, _above(threshold)], [(0.0, 1.0), (0.0, 0.0), (0.0, 1.0)])


def _threshold(_: float, threshold: float, default_value: float) -> Made:
    return _linear([_above(threshold)], [(default_value, 0.0), (0.0, 1.0)])


def _quadratic(knots: Sequence[float], rows: Sequence[tuple[float, float, float]]) -> Made:
    return Spline(tuple(knots), tuple(rows)), (0.0, 1.0)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


def _softplus_bump(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(-np.abs(x)))


def _silu_bump(x: np.ndarray) -> np.ndarray:
    return x * _sigmoid(x) - np.maximum(x, 0)


def _mish_bump(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(0, x)) - np.maximum(x, 0)


# name -> (error, **parameters) -> (spline, slopes)
ACTIVATIONS: dict[str, Callable[..., Made]] = {
    "sigmoid": lambda error: _odd(_sigmoid, 20.0, 1.0)(SIGMOID_ERROR if error == ERRORS["accurate"] else error),
    "tanh": _odd(np.tanh, 10.0, 1.0),
    "erf": _odd(_erf, 6.0, 1.0),
    "softsign": _odd(lambda x: x / (1 + np.abs(x)), FAR, 1.0),
    "softplus": _curve(_softplus_bump, 20.0, slopes=(0.0, 1.0)),
    "squareplus": _squareplus,
    "gelu": _gelu,
    "silu": _curve(_silu_bump, 25.0, slopes=(0.0, 1.0)),
    "mish": _curve(_mish_bump, 25.0, slopes=(0.0, 1.0)),
    "elu": _elu,
    "celu": _celu,
    "selu": _selu,
    "log_sigmoid": _curve(lambda x: -_softplus_bump(x), 20.0, slopes=(1.0, 0.0)),
    "tanh_shrink": _odd(lambda x: -np.tanh(x), 10.0, -1.0, slope=1.0),
    "relu": _relu,
    "relu6": lambda error: _relu(error, max_value=6.0),
    "leaky_relu": lambda error, negative_slope=0.2: _relu(error, negative_slope),
    "hard_tanh": lambda _: _linear([-1.0, 1.0], [(-1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]),
    "hard_sigmoid": lambda _: _linear([-3.0, 3.0], [(0.0, 0.0), (0.5, 1 / 6), (1.0, 0.0)]),
    "sparse_sigmoid": lambda _: _linear([-1.0, 1.0], [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0)]),
    "soft_shrink": _soft_shrink,
    "hard_shrink": _hard_shrink,
    "threshold": _threshold,
    "hard_silu": lambda _: _quadratic(
        [-3.0, 0.0, 3.0], [(0.0, 0.0, 0.0), (0.0, 0.5, 1 / 6), (0.0, -0.5, 1 / 6), (0.0, 0.0, 0.0)]
    ),
    "sparse_plus": lambda _: _quadratic(
        [-1.0, 0.0, 1.0], [(0.0, 0.0, 0.0), (0.25, 0.5, 0.25), (0.25, -0.5, 0.25), (0.0, 0.0, 0.0)]
    ),
}
