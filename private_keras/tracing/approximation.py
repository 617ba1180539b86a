"""Fits piecewise polynomials to functions, on the client: NumPy only. `curves` has the activations made from it.

On each piece the polynomial interpolates at Chebyshev nodes, which is within a few percent of minimax for pieces as short
as these. Pieces are as long as the error allows, from left to right; then the error is lowered as far as the same number of
pieces permits, so that no piece at the end is wasted.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from private_keras.errors import InputError

Function = Callable[[np.ndarray], np.ndarray]
KNOT_BITS = 12  # knots are multiples of 2^-12, so they are exact in fixed point of 12 or more fractional bits
SAMPLES = 65  # points at which the error of a piece is measured
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

        With X = x * 2^fraction, a piece is (a0 + a1 X + a2 X^2) / 2^scale. The highest coefficient is rounded first and the
        lower ones make up for it on the piece. `scale` is the largest up to `max_scale` at which the piece that is active
        stays below 2^61 for every |x| <= max_value between `low` and `high`.

        Raises:
            InputError: no scale of at least `fraction` bits exists.
        """
        edges = [max(-max_value, self.low), *self.knots, min(max_value, self.high)]
        size = max(
            np.abs(np.polynomial.polynomial.polyval(np.linspace(a, b, SAMPLES), row)).max()
            for a, b, row in zip(edges, edges[1:], self.polynomials, strict=False)
        )
        scale = min(max_scale, RESULT_BITS - max(0, int(np.floor(np.log2(max(size, 1.0)))) + 1))
        if scale < fraction:
            raise InputError(f"A spline of values up to {size:g} cannot be held at {fraction} fractional bits; lower max_value")
        rows = [
            _integers(row, a, b, fraction, scale) for a, b, row in zip(edges, edges[1:], self.polynomials, strict=False)
        ]
        return [round(k * 2**fraction) for k in self.knots], rows, scale


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
        left: polynomial below `low`, lowest degree first; it takes over from as far right as it is within `error`. If not
            given, the first piece goes on.
        right: the same above `high`.
        breaks: points where the function or its derivatives jump.
        unit: the highest coefficient is rounded to a multiple of it: what fixed point will be able to hold.

    Raises:
        InputError: the range is empty, the degree is not 1 or 2, or a piece would have to be shorter than 2^-12.
    """
    if not low < high or degree not in (1, 2):
        raise InputError(f"fit expects low < high and degree 1 or 2. Received: low={low}, high={high}, degree={degree}")
    tolerance = error if callable(error) else lambda x: np.full_like(x, error)
    start, end = _tail_end(function, tolerance, low, high, left), _tail_end(function, tolerance, high, low, right)
    if left is not None and start >= high:
        return Spline((), (_padded(left, degree),), high=high if right is None else np.inf)
    stops = [s for s in sorted(_grid(b) for b in breaks) if start < s < end] + [end]
    pieces: list[tuple[float, float, tuple[float, ...]]] = []
    for stop in stops:
        pieces += _balanced(function, tolerance, pieces[-1][1] if pieces else start, stop, degree, unit)
    knots = [a for a, _, _ in pieces[1:]]
    rows = [row for _, _, row in pieces]
    if left is not None:
        knots, rows = [start, *knots], [_padded(left, degree), *rows]
    if right is not None:
        knots, rows = [*knots, end], [*rows, _padded(right, degree)]
    return _merged(knots, rows, low if left is None else -np.inf, high if right is None else np.inf)


def _grid(x: float) -> float:
    return round(x * 2**KNOT_BITS) / 2**KNOT_BITS


def _padded(row: Sequence[float], degree: int) -> tuple[float, ...]:
    return (*(float(a) for a in row), *[0.0] * (degree + 1 - len(row)))


def _merged(knots: list[float], rows: list[tuple[float, ...]], low: float, high: float) -> Spline:
    """Without knots between equal rows."""
    keep = [i for i in range(len(knots)) if rows[i] != rows[i + 1]]
    return Spline(tuple(knots[i] for i in keep), (rows[0], *(rows[i + 1] for i in keep)), low, high)


def _tail_end(function: Function, tolerance: Function, near: float, far: float, tail: Sequence[float] | None) -> float:
    """How far the tail polynomial reaches from `near` towards `far`."""
    if tail is None:
        return _grid(near)
    xs = np.linspace(near, far, 20001)
    bad = np.abs(function(xs) - np.polynomial.polynomial.polyval(xs, tail)) > tolerance(xs)
    reach = xs[max(int(np.argmax(bad)) - 1, 0)] if bad.any() else far
    return float(np.floor(reach * 2**KNOT_BITS) if near < far else np.ceil(reach * 2**KNOT_BITS)) / 2**KNOT_BITS


def _balanced(function: Function, tolerance: Function, start: float, stop: float, degree: int, unit: float) -> list:
    pieces = _greedy(function, tolerance, 1.0, start, stop, degree, unit)
    low, high = 0.25, 1.0
    for _ in range(6):
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
    """Pieces from left to right, each as long as `share` of the tolerance allows; None if there are more than `most`."""
    pieces = []
    step = 2.0**-KNOT_BITS
    while start < stop:
        if most is not None and len(pieces) == most:
            return None
        # Bisection over grid points: `fits` holds, `fails` does not.
        fits, fails = 0, round((stop - start) / step) + 1
        row = None
        while fails - fits > 1:
            middle = fails - 1 if not fits and fails * step > stop - start else (fits + fails) // 2
            tried = _piece(function, start, start + middle * step, degree, unit)
            xs = np.linspace(start, start + middle * step, SAMPLES)
            miss = np.abs(np.polynomial.polynomial.polyval(xs, tried) - function(_inside(xs)))
            if (miss <= share * tolerance(xs)).all():
                fits, row = middle, tried
            else:
                fails = middle
        if row is None:
            raise InputError(f"fit needs pieces shorter than 2^-{KNOT_BITS} near {start:g}: allow a larger error, or name the jump in `breaks`")
        pieces.append((start, start + fits * step, row))
        start += fits * step
    return pieces


def _inside(xs: np.ndarray) -> np.ndarray:
    """The same points, the ends a little inside: a function may jump where a piece ends."""
    inset = (xs[-1] - xs[0]) * 1e-9
    return np.clip(xs, xs[0] + inset, xs[-1] - inset)


def _piece(function: Function, a: float, b: float, degree: int, unit: float) -> tuple[float, ...]:
    """Interpolation at Chebyshev nodes of [a, b], the highest coefficient a multiple of `unit`."""
    nodes = (a + b) / 2 + (b - a) / 2 * np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    centre = (a + b) / 2
    local = np.linalg.solve(np.vander(nodes - centre, degree + 1, increasing=True), function(_clip(nodes, a, b)))
    row = [float(c) for c in local]
    # From powers of x - centre to powers of x.
    if degree == 2:
        row = [row[0] - row[1] * centre + row[2] * centre**2, row[1] - 2 * row[2] * centre, row[2]]
    else:
        row = [row[0] - row[1] * centre, row[1]]
    return _rounded_top(row, a, b, unit) if unit else tuple(row)


def _clip(x: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.clip(x, a, b)


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
