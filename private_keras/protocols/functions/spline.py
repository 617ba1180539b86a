"""Piecewise polynomials: every bounded smooth function, and the clamps and linear tails of the others."""
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from private_keras.errors import PlanError
from private_keras.protocols.functions import local
from private_keras.protocols.protocol import Bits, Protocol, Share, relu_window, times


def differences(coefficients: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of pieces to rows of `Protocol.piecewise`: the first piece, then what each piece adds to the one before."""
    return _differences(tuple(map(tuple, coefficients)))


# Public numbers of plans and tables; made anew, they would take longer than a small step that uses them.
@lru_cache(256)
def _differences(coefficients: tuple[tuple[int, ...], ...]) -> np.ndarray:
    rows = local.words(coefficients)
    made = np.concatenate([rows[:1], rows[1:] - rows[:-1]])
    made.flags.writeable = False
    return made


def polynomial(p: Protocol, x: Share, bits: Bits, coefficients: Sequence[Sequence[int]]) -> Share:
    """Piecewise polynomial of x, where bit j is [x >= knot j]; exact in the ring. No rounds."""
    return p.piecewise(x, bits, differences(coefficients))


def spline(
    p: Protocol,
    x: Share,
    knots: Sequence[int],
    coefficients: Sequence[Sequence[int]],
    bits: int,
    slopes: tuple[int, int] = (0, 0),
    slope_bits: int = 0,
    width: int = 62,
    cut: int = 0,
) -> Share:
    """Piecewise polynomial of x, plus two exact linear tails.

    y = (a_0 + a_1 x + a_2 x^2) / 2^bits + (left * min(x, 0) + right * max(x, 0)) / 2^slope_bits with (left, right) =
    `slopes` and the row of coefficients of the piece that x is in. The tails are apart because a bounded curve wants
    60 bits of scale, where x itself would wrap: gelu is a small bump plus max(x, 0).

    Args:
        x: any shape, ring units.
        knots: increasing integers in x's units; piece j holds for knots[j - 1] <= x < knots[j].
        coefficients: one row per piece (one more than knots), lowest degree first, 2 or 3 integers; the active piece
            must be below 2^62 in size. Other pieces may wrap.
        bits: the polynomial is divided by 2^bits (0: not), rounded stochastically.
        slopes: integers left and right of 0. When they differ, 0 must be one of the knots.
        slope_bits: the tails are divided by 2^slope_bits (0: not).
        width: |x - knot| < 2^width is proven for all knots.
        cut: x is divided by 2^cut first (0: not), rounded stochastically, and the knots are those of the quotient. The
            piece is found from what is divided: one that begins less than a quarter of a unit above it may be taken.

    Cost (trio): 5 rounds, 1 less if x is masked or nothing is divided by 2^bits, none more for `cut`; 28.5 bytes per
    element, 20.5 per knot (width 62) and 8 per knot and coefficient. Error: below one unit for each of the divisions.
    Leaks nothing.
    """
    knots = [int(k) for k in knots]
    intervals = None
    if cut:
        p.mask(x)
        whole, x = x, p.truncate(x, cut)
        if knots:
            low, count = relu_window(cut, min(width + cut, 62))
            p.begin(x)  # the quotient is masked while the pieces are found
            intervals = p.compare(whole, [k << cut for k in knots], low + count, low)
    elif knots:
        intervals = p.compare(x, knots, width)
    parts = []
    if any(map(any, coefficients)):
        parts.append((_curve(p, x, intervals, coefficients), bits))
    if any(slopes):
        parts.append((_tails(p, x, intervals, knots, *slopes), slope_bits))
    p.mask(*(part for part, shift in parts if shift))
    results = [p.truncate(part, shift) if shift else part for part, shift in parts]
    if not results:
        return local.scale(p, x, 0)
    return results[0] if len(results) == 1 else local.add(p, *results)


def _curve(p: Protocol, x: Share, intervals: Bits | None, coefficients: Sequence[Sequence[int]]) -> Share:
    if intervals is not None:
        return polynomial(p, x, intervals, coefficients)
    constant, slope, *square = coefficients[0]
    y = local.offset(p, local.scale(p, x, slope), constant)
    if any(square):
        y = local.add(p, y, local.scale(p, p.bilinear(times, x.shape, x, x), square[0]))
    return y


def _tails(p: Protocol, x: Share, intervals: Bits | None, knots: Sequence[int], left: int, right: int) -> Share:
    if left == right:
        return local.scale(p, x, left)
    if 0 not in knots:
        raise PlanError(f"Where slopes differ, 0 must be a knot. Received: slopes {(left, right)}, knots {list(knots)}")
    at = knots.index(0)
    positive = p.bits_linear(lambda b: b[at : at + 1], (1, *x.shape), intervals)
    return polynomial(p, x, positive, [[0, left], [0, right]])
