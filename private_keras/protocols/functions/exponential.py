"""Exponentials by multiplicative masking: 2^u is a public factor 2^(u + r) times a dealt factor 2^-r.

The factors depend on the low bits of u alone, so u need not be clamped first: outside the domain they give some number
of the same size, which is multiplied by 0 afterwards. One dealt factor has 46 bits for range and precision together, so
a wide range is cut in windows of 16 octaves. The comparisons that find the window take place beside that of the factor;
each window is brought to its place by its own truncation.
"""
import numpy as np

from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.protocol import Bits, Protocol, Share

U_FRACTION = 18  # fractional bits of u = log2 of the result, the most that `exp2_masked` takes
WINDOW_BITS = 4  # 16 octaves in a window
WIDE_BITS = 5  # 32 octaves, where small results may err as large ones do
CENTRE = 61  # a power below 2^62 (1 + 2^-15) less 2^61 is below 2^62 in size, whatever its factors were rounded to

TOP, LOWEST = 23, -19  # of `exp`: from 2^-19 to 2^23
LEAST = -27  # of `exp2_nonpositive` in windows
# Units of u that keep a power of 32 octaves below 2^62: one unit that is allowed, and factors rounded up by 2^-16.
BELOW = 8


def binary(p: Protocol, x: Share, fraction: int) -> Share:
    """x log2(e) at `U_FRACTION` bits, off by less than a unit; 0 where x is 0.

    Domain: |x| < 2^43, and < 2^61 in ring units. Cost (trio): no round for masked x, 16 bytes per element.
    """
    bits = min(60 + fraction - U_FRACTION, 62)
    return p.rescale(x, tables.log2_e(bits + U_FRACTION - fraction), bits)


def exp(p: Protocol, x: Share, fraction: int) -> Share:
    """e^x.

    Domain: -13.17 <= x < 15.94 (2^-19 to 2^23); 0 below, 2^23 above. |x| < 2^43, and < 2^61 in ring units.
    Error: at most 2e-5 of the result plus one unit 2^-fraction.

    Args:
        x: any shape.
        fraction: fractional bits of x and of the result, 12 to 20.

    Cost (trio): 5 rounds for masked x, 321 bytes per element.
    """
    u = binary(p, x, fraction)
    bits, power = _power(p, u, [LOWEST, TOP - 32, TOP - 16, TOP], TOP)
    # All but the last window end where the next begins; above the last stands the upper end.
    tops = [TOP - 32, TOP - 16, TOP]
    ends = p.bits_linear(lambda b: b[:-1] ^ b[1:], (len(tops), *x.shape), bits)
    return _placed(p, bits, ends, power, [62 - top - fraction for top in tops], 1 << (TOP + fraction))


def exp2_nonpositive(p: Protocol, u: Share, result_fraction: int, wide: bool) -> Share:
    """2^u for u <= 0 at `U_FRACTION` bits, times 1 - 2.1e-5: a factor that all have in common, for quotients.

    Domain: -32 <= u <= 0 (-27 in windows), and one unit above; 0 below, for |u| < 2^61 in units. Any larger u is not
    allowed: the result would wrap.
    Error: at most 1.6e-5 of 2^0 if `wide`, else of the result; plus one unit.

    Args:
        u: any shape.
        result_fraction: fractional bits of the result, up to 30.
        wide: one window of 32 octaves, where small results err as large ones do, else two of 16.

    Cost (trio): 5 rounds for u that is not masked; 166 bytes per element if `wide`, else 229.
    """
    low = p.add_public(u, np.asarray(local.word(-BELOW)))
    if not wide:
        bits, power = _power(p, low, [LEAST, -16], 0)
        ends = p.bits_linear(lambda b: np.stack([b[0] ^ b[1], b[1]]), (2, *u.shape), bits)
        return _placed(p, bits, ends, power, [62 + 16 - result_fraction, 62 - result_fraction], 0)
    p.mask(low)
    inside, power = p.rounds.together(
        lambda: p.compare(low, [-32 << U_FRACTION]),
        # 47 bits for the dealt factor: one factor errs by 2^-16 of 2^0, the other by 2^-16 of the result.
        lambda: p.exp2_masked(low, U_FRACTION, WIDE_BITS, -32, 62),
    )
    inside = p.bits_linear(lambda b: b[0], u.shape, inside)
    return p.gate(inside, power, 62 - result_fraction)


def _power(p: Protocol, u: Share, octaves: list[int], top: int) -> tuple[Bits, Share]:
    """The bits [u >= octave], and 2^u as part of the end of its window, which stands at 2^62; windows end at `top`."""
    p.mask(u)
    raised = p.add_public(u, np.asarray(local.word((-top % 16) << U_FRACTION)))
    # 31 bits for the dealt factor, 15 for the other: each errs by at most 2^-16 of the result.
    bits, power = p.rounds.together(
        lambda: p.compare(u, [octave << U_FRACTION for octave in octaves]),
        lambda: p.exp2_masked(raised, U_FRACTION, WINDOW_BITS, 0, 46),
    )
    return bits, power


def _placed(p: Protocol, bits: Bits, inside: Bits, power: Share, shifts: list[int], above: int) -> Share:
    """power / 2^shifts[i] where inside[i]; `above` where all `bits` are set and there are more of them than shifts."""
    centred = p.add_public(power, np.asarray(local.word(-1 << CENTRE)))
    p.mask(centred)
    parts = [
        p.gate(p.bits_linear(lambda b, i=i: b[i], power.shape, inside), centred, shift)
        for i, shift in enumerate(shifts)
    ]
    # The centre, put in its place: what each bit adds to it.
    centres = [1 << (CENTRE - shift) for shift in shifts] + [above] * (bits.shape[0] > len(shifts))
    steps = np.array([local.word(b - a) for a, b in zip([0, *centres], centres, strict=False)], local.U)
    steps = steps.reshape(-1, *[1] * len(power.shape))
    centre = p.linear(
        lambda a: (a * steps).sum(0, dtype=local.U), power.shape, p.bits_to_share(bits)
    )
    return p.linear(lambda *a: np.sum(a, axis=0, dtype=local.U), power.shape, centre, *parts)
