"""Fits piecewise polynomials to functions, on the client: NumPy only. `curves` has the activations made from it.

On each piece the polynomial interpolates at Chebyshev nodes, which is within a few percent of minimax for pieces as
short as these. Pieces are as long as the error allows, from left to right; then the error is lowered as far as the same
number of pieces permits, so that no piece at the end is wasted.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from private_keras.errors import InputError

Function = Callable[[np.ndarray], np.ndarray]
KNOT_BITS = 12  # knots are multiples of 2^-12, so they are exact in fixed point of 12 or more fractional bits
SAMPLES = 33  # points at which the size of a piece is measured
POINTS = np.linspace(1e-9, 1 - 1e-9, 25)  # where the error of a piece is measured, from its start to its end
TAIL_SAMPLES = 20001
RESULT_BITS = 61  # the active piece stays below 2^61 in size


@dataclass(frozen=True)
class Spline:
    """Piecewise polynomials of a real variable.

    Attributes:
        knots: increasing; piece j holds for knots[j - 1] <= x < knots[j].
        polynomials: one more than knots, lowest degree first, all of one length.
        low, high: where it was fitted; infinite on the side where a tail goes on for ever.
    """

    knots: tuple[float, ...]
    polynomials: tuple[tuple[float, ...], ...]
    low: float = -np.inf
    high: float = np.inf

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The spline's value at each x, in float64."""
        x = np.asarray(x, np.float64)
        rows = np.array(self.polynomials)[np.searchsorted(self.knots, x, side="right")]
        total = np.zeros_like(x)
        for k in reversed(range(rows.shape[-1])):
            total = total * x + rows[..., k]
        return total

    def quantise(
        self, fraction: int, max_value: float = 2.0**27, max_scale: int = 60
    ) -> tuple[list[int], list[list[int]], int]:
        """Integers for the plan: (knots, coefficients per piece lowest degree first, scale).

        With X = x * 2^fraction, a piece is (a0 + a1 X + a2 X^2) / 2^scale. The highest coefficient is rounded first and
        the lower ones make up for it on the piece. If every piece is a constant plus a whole multiple of x, `scale` is
        `fraction` and nothing needs rounding; otherwise it is the largest up to `max_scale` at which the active piece
        stays below 2^61 for every |x| <= max_value between `low` and `high`.

        Raises:
            InputError: no scale of at least `fraction` bits exists.
        """
        edges = [max(-max_value, self.low), *self.knots, min(max_value, self.high)]
        pieces = list(zip(edges, edges[1:], self.polynomials, strict=False))
        size = max(np.abs(_value(row, np.linspace(a, b, SAMPLES))).max() for a, b, row in pieces)
        scale = min(max_scale, RESULT_BITS - 1 - max(0, int(np.floor(np.log2(max(size, 1.0))))))
        if all(row[1] == int(row[1]) and not any(row[2:]) for row in self.polynomials):
            scale = min(scale, fraction)
        if scale < fraction:
            raise InputError(
                f"A spline of values up to {size:g} does not fit with {fraction} fractional bits; lower max_value"
            )
        # A knot between two grid points belongs to the upper one: x >= knot is X >= ceil(knot * 2^fraction).
        knots = [int(np.ceil(k * 2.0**fraction)) for k in self.knots]
        return knots, [_integers(row, a, b, fraction, scale) for a, b, row in pieces], scale


def fit(
    function: Function,
    low: float,
    high: float,
    error: float | Function,
    degree: int = 2,
    left: Sequence[float] | None = None,
    right: Sequence[float] | None = None,
    breaks: Sequence[float] = (),
    unit: float = 0.0,
) -> Spline:
    """The shortest spline within `error` of `function` on [low, high], and `left`, `right` outside.

    Args:
        function: float64 array to float64 array, smooth between `breaks`.
        low, high: the range that is approximated.
        error: largest absolute error, or a function of x that gives it.
        degree: 1 or 2.
        left: polynomial below `low`, lowest degree first. It takes over from as far right, up to the first break, as it
            is within `error`. If not given, the first piece goes on.
        right: the same above `high`.
        breaks: points where the function or its derivatives jump; each becomes a knot.
        unit: the highest coefficient is rounded to a multiple of it: what fixed point will be able to hold.

    Raises:
        InputError: the range is empty, the degree is not 1 or 2, or a piece would have to be shorter than 2^-12.
    """
    if not low < high or degree not in (1, 2):
        raise InputError(f"fit expects low < high and degree 1 or 2. Received: low={low}, high={high}, degree={degree}")
    tolerance = error if callable(error) else lambda x: np.full_like(x, error)
    inner = [float(b) for b in sorted(breaks) if low < b < high]
    start = low if left is None else _tail_end(function, tolerance, low, inner[0] if inner else high, left)
    end = high if right is None else _tail_end(function, tolerance, high, inner[-1] if inner else low, right)
    if start >= end:
        raise InputError(f"fit: the tails are within the error on all of [{low}, {high}]; no piece is left to fit")
    edges = [start, *(b for b in inner if start < b < end), end]
    pieces = [
        piece
        for a, b in zip(edges, edges[1:], strict=False)
        for piece in _balanced(function, tolerance, a, b, degree, unit)
    ]
    knots = [a for a, _, _ in pieces[1:]]
    rows = [row for _, _, row in pieces]
    if left is not None:
        knots, rows = [start, *knots], [_padded(left, degree), *rows]
    if right is not None:
        knots, rows = [*knots, end], [*rows, _padded(right, degree)]
    return Spline(
        tuple(knots), tuple(rows), low if left is None else -np.inf, high if right is None else np.inf
    )


def _value(row: Sequence[float], x: np.ndarray) -> np.ndarray:
    total = np.zeros_like(x)
    for a in reversed(row):
        total = total * x + a
    return total


def _padded(row: Sequence[float], degree: int) -> tuple[float, ...]:
    return (*(float(a) for a in row), *[0.0] * (degree + 1 - len(row)))


def _tail_end(function: Function, tolerance: Function, near: float, far: float, tail: Sequence[float]) -> float:
    """How far the tail polynomial reaches from `near` towards `far`, rounded back to the grid of knots."""
    xs = np.linspace(near, far, TAIL_SAMPLES)[:-1]
    bad = np.abs(function(xs) - _value(tail, xs)) > tolerance(xs)
    if not bad.any():
        return far
    reach = xs[max(int(np.argmax(bad)) - 1, 0)] * 2.0**KNOT_BITS
    return float(np.floor(reach) if near < far else np.ceil(reach)) / 2.0**KNOT_BITS


def _balanced(function: Function, tolerance: Function, start: float, stop: float, degree: int, unit: float) -> list:
    """Pieces for [start, stop], the error spread evenly over them."""
    pieces = _greedy(function, tolerance, 1.0, start, stop, degree, unit)
    low, high = 0.25, 1.0
    for _ in range(4):
        middle = (low + high) / 2
        try:
            tried = _greedy(function, tolerance, middle, start, stop, degree, unit, len(pieces))
        except InputError:
            tried = None
        if tried is None:
            low = middle
        else:
            pieces, high = tried, middle
    return pieces


def _greedy(
    function: Function, tolerance: Function, share: float, start: float, stop: float, degree: int, unit: float,
    most: int | None = None,
) -> list | None:
    """Pieces from left to right, as long as `share` of the tolerance allows; None if there are more than `most`."""
    pieces: list = []
    guess = (stop - start) / 8
    while start < stop:
        if len(pieces) == most:
            return None
        end, row = _longest(function, tolerance, share, start, stop, degree, unit, guess)
        pieces.append((start, end, row))
        start, guess = end, end - start
    return pieces


def _longest(
    function: Function, tolerance: Function, share: float, start: float, stop: float, degree: int, unit: float,
    guess: float,
) -> tuple[float, tuple[float, ...]]:
    """The longest piece from `start`, within a fiftieth: its end, on the grid of knots or `stop`; its polynomial."""

    def attempt(end: float) -> tuple[float, ...] | None:
        row = _piece(function, start, end, degree, unit)
        # A function may jump where a piece ends: stay a little inside.
        xs = start + (end - start) * POINTS
        return row if (np.abs(_value(row, xs) - function(xs)) <= share * tolerance(xs)).all() else None

    grid = 2.0**KNOT_BITS
    first, last = int(np.floor(start * grid)), int(np.ceil(stop * grid))
    fits, fails, best = first, last + 1, None
    step = max(int(guess * grid), 1)
    while fails - fits > max(1, (fits - first) // 50):
        # Gallop from the guess until there is a bound on both sides, then halve.
        bounded = best is not None and fails <= last
        end = (fits + fails) // 2 if bounded else min(first + step, last)
        row = attempt(min(end / grid, stop))
        if row is None:
            fails = end
            step = max((end - first) * 2 // 3, 1)
            if end == first + 1:
                break
        else:
            fits, best = end, row
            step = (end - first) * 3 // 2 + 1
    if best is None:
        raise InputError(
            f"fit needs pieces shorter than 2^-{KNOT_BITS} near {start:g}: allow a larger error, or name the jump in "
            "`breaks`"
        )
    return min(fits / grid, stop), best


def _piece(function: Function, a: float, b: float, degree: int, unit: float) -> tuple[float, ...]:
    """Interpolation at Chebyshev nodes of [a, b], the highest coefficient a multiple of `unit`."""
    centre, half = (a + b) / 2, (b - a) / 2
    t = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    y = function(centre + half * t)
    # By discrete orthogonality: y = c0 + c1 T1(t) + c2 T2(t), t = (x - centre) / half.
    c = [float(y.mean()), *(2 * float((y * np.cos(k * np.arccos(t))).mean()) for k in range(1, degree + 1))]
    square = 2 * c[2] / half**2 if degree == 2 else 0.0
    slope = c[1] / half - 2 * square * centre
    constant = c[0] - (c[2] if degree == 2 else 0.0) - c[1] / half * centre + square * centre**2
    row = (constant, slope, square)[: degree + 1]
    return _rounded_top(row, a, b, unit) if unit else row


def _rounded_top(row: Sequence[float], a: float, b: float, unit: float) -> tuple[float, ...]:
    """The highest coefficient rounded, the lower ones moved to the best fit of what it lost on [a, b]."""
    top = round(row[-1] / unit) * unit
    lost = row[-1] - top
    if len(row) == 2:
        return row[0] + lost * (a + b) / 2, top
    # x^2 is (a + b) x - (a^2 + 6 a b + b^2) / 8 on [a, b], within (b - a)^2 / 8.
    return row[0] - lost * (a * a + 6 * a * b + b * b) / 8, row[1] + lost * (a + b), top


def _integers(row: Sequence[float], a: float, b: float, fraction: int, scale: int) -> list[int]:
    """A piece on [a, b] as integers, highest coefficient first rounded."""
    for k in range(len(row) - 1, 0, -1):
        unit = 2.0 ** (k * fraction - scale)
        if row[k]:
            row = (*_rounded_top(row[: k + 1], a, b, unit), *row[k + 1 :])
    return [round(c * 2.0 ** (scale - k * fraction)) for k, c in enumerate(row)]
