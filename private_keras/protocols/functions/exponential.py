"""Exponentials by multiplicative masking: 2^u is a public factor 2^(u + r) times a dealt factor 2^-r.

One dealt factor has about 46 bits for range and precision together, so a wide range is cut in windows by thresholds
that share the comparison with the clamps, and each window is brought to its place by its own truncation.
"""
from collections.abc import Sequence

import numpy as np

from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.functions.spline import polynomial
from private_keras.protocols.protocol import Bits, Protocol, Share

U_FRACTION = 18  # fractional bits of u = log2 of the result, the most that `exp2_masked` takes
FACTOR_BITS = 34  # fractional bits of the public log2(e); 2^34 * 2^20 * 32 < 2^62

WINDOW = 14  # octaves of one window, inside the 16 that one dealt factor of `_windowed` covers


def exp(p: Protocol, x: Share, fraction: int) -> Share:
    """e^x.

    Domain: -13.17 <= x < 15.94 (2^-19 to 2^23), any |x| < 2^61 in ring units is allowed: 0 below, 2^23 above.
    Error: at most 2e-5 of the result plus one unit 2^-fraction.

    Args:
        x: any shape.
        fraction: fractional bits of x and of the result, 12 to 20.

    Cost (trio): 10 rounds for masked x, 400 bytes per element.
    """
    return _windowed(p, x, fraction, lowest=-19, windows=3, capped=True, result_fraction=fraction)


def exp_nonpositive(p: Protocol, x: Share, fraction: int, result_fraction: int | None = None) -> Share:
    """e^x for x <= 0.

    Domain: -22.18 <= x <= 0; 0 below. x > 0 is not allowed (the result would wrap).
    Error: at most 1.6e-5 + 1.6e-5 e^x, plus one unit of the result.

    Args:
        x: any shape, x <= 0.
        fraction: fractional bits of x, 12 to 20.
        result_fraction: fractional bits of the result, up to 30; `fraction` if not given.

    Cost (trio): 9 rounds for masked x, 170 bytes per element.
    """
    result_fraction = fraction if result_fraction is None else result_fraction
    shift = fraction + FACTOR_BITS - U_FRACTION
    bits = p.compare(x, [_ceil_ln2(-32, fraction) + 1])
    # u + 32 less one unit, so that x = 0 stays below 32.
    zero = (32 << (U_FRACTION + shift)) - (1 << shift)
    u = p.truncate(polynomial(p, x, bits, [[0, 0], [zero, tables.log2_e(FACTOR_BITS)]]), shift)
    # 47 bits for the dealt factor: one factor errs by 2^-16 of e^0, the other by 2^-16 of the result.
    power = p.exp2_masked(u, U_FRACTION, 5, -32, 62)
    return p.truncate(power, 62 - result_fraction)


def exp_for_sum(p: Protocol, x: Share, fraction: int, result_fraction: int) -> Share:
    """e^x for x <= 0, precise enough for sums of thousands: small results err by 2e-5 of themselves.

    Domain: -18.7 <= x <= 0; 0 below. Args as `exp_nonpositive`. Cost (trio): 10 rounds for masked x.
    """
    return _windowed(p, x, fraction, lowest=-27, windows=2, capped=False, result_fraction=result_fraction)


def _windowed(
    p: Protocol, x: Share, fraction: int, lowest: int, windows: int, capped: bool, result_fraction: int
) -> Share:
    """e^x from 2^lowest to 2^(lowest + 14 windows); 0 below; above, the upper end if `capped`, else not allowed."""
    top = lowest + WINDOW * windows
    # A little more than a unit of u early, so that rounding up cannot leave a window at its top.
    early = 2 << max(fraction - U_FRACTION, 0)
    knots = [_ceil_ln2(lowest + WINDOW * i, fraction) - early for i in range(windows + capped)]
    bits = p.compare(x, knots)
    # In window i: u - lowest - 14 i + 2, from 2 to 16. Below the domain any u of the first window will do.
    slope = tables.log2_e(FACTOR_BITS)
    shift = fraction + FACTOR_BITS - U_FRACTION
    pieces = [[2 << (U_FRACTION + shift), 0]]
    pieces += [[(2 - lowest - WINDOW * i) << (U_FRACTION + shift), slope] for i in range(windows)]
    if capped:
        pieces += [[((2 + WINDOW) << (U_FRACTION + shift)) - (1 << shift), 0]]
    u = p.truncate(polynomial(p, x, bits, pieces), shift)
    # 32 bits for the dealt factor, so that both have 16 at least wherever the window is.
    power = p.exp2_masked(u, U_FRACTION, 4, -2, 48)
    p.mask(power)
    # The top of the window stands at 2^62; it belongs at 2^(top + fraction) in the last one, 2^14 lower in each before.
    placed = [p.truncate(power, 62 - top - result_fraction + WINDOW * (windows - 1 - i)) for i in range(windows)]
    return _choose(p, bits, placed)


def _choose(p: Protocol, bits: Bits, values: Sequence[Share]) -> Share:
    """values[i] where bit i is the last that is set, 0 where none is. One mask round."""
    shape = values[0].shape
    steps = p.linear(
        lambda *a: np.stack([a[0], *(after - before for before, after in zip(a, a[1:], strict=False))]),
        (len(values), *shape), *values,
    )
    entered = p.bits_linear(lambda b: b[: len(values)], steps.shape, bits)
    return local.reduce_sum(p, p.multiply_bits(entered, steps), 0)


def _ceil_ln2(octaves: int, fraction: int) -> int:
    """octaves * ln 2 in ring units, rounded up."""
    return -((-octaves * tables.LN2_60) >> (60 - fraction))
