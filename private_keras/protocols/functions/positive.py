"""Reciprocal, roots and logarithm of positive numbers over a wide range.

A bank of thresholds, powers of 4, finds where x is; x is brought to [1, 4); a quadratic spline does the rest; a power
of two puts the result in its place. Both ends of the range saturate in the bank itself, so nothing wraps.
"""
from dataclasses import dataclass

import numpy as np

from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.functions.spline import polynomial
from private_keras.protocols.protocol import Bits, Protocol, Share

NORMAL = 20  # fractional bits of the normalised value in [1, 4): what the tables are made for
CURVE = 28  # fractional bits of the spline's value before it is put in its place
NORMAL_WIDTH = NORMAL + 3  # [1, 4) minus a knot in [1, 4)


@dataclass(frozen=True)
class Bank:
    """Thresholds 2^low, 2^(low + 2), ..., 2^(low + 2 (count - 1)) in ring units; the last one ends the range."""

    low: int
    count: int

    @classmethod
    def of(cls, fraction: int, low_bit: int, high_bit: int, even: bool) -> "Bank":
        """The bank for 2^low_bit <= x < 2^high_bit, rounded outwards.

        `even`: thresholds are powers of 4 of the real value, which roots need for a scale that is a power of two.
        """
        low = max(low_bit + fraction, 0)
        if even:
            low -= (low - fraction) % 2
        count = -(-(high_bit + fraction - low) // 2) + 1
        return cls(low, max(count, 2))

    @property
    def octave(self) -> int:
        """Exponent where the normalised value stands before it is truncated to `NORMAL` bits."""
        return max(self.low + 2 * (self.count - 2), NORMAL)

    def compare(self, p: Protocol, x: Share) -> Bits:
        # `low` may be -1, where the fraction is odd: the least positive integer is 1 all the same.
        return p.compare(x, [1 << max(self.low + 2 * i, 0) for i in range(self.count)])

    def normalise(self, p: Protocol, x: Share, bits: Bits) -> Share:
        """x times a power of 4, in [2^octave, 2^(octave + 2)); 1.0 outside the range. No rounds."""
        one = 1 << self.octave
        pieces = [[one, 0]]
        pieces += [[0, 1 << (self.octave - self.low - 2 * i)] for i in range(self.count - 1)]
        pieces += [[one, 0]]
        return polynomial(p, x, bits, pieces)

    def select(self, p: Protocol, bits: Bits, values: list[int]) -> Share:
        """values[i] for x in piece i of count + 1, as a share; the public integers fit 62 bits. No rounds."""
        steps = local.words([after - before for before, after in zip(values, values[1:], strict=False)])
        hot = p.bits_to_share(bits)
        weights = steps.reshape(-1, *[1] * (len(hot.shape) - 1))
        chosen = p.linear(lambda a: (a * weights).sum(0, dtype=local.U), hot.shape[1:], hot)
        return local.offset(p, chosen, values[0])


def _curve(p: Protocol, y: Share, table: tables.Table) -> Share:
    """The table's spline of y in [1, 4), at the table's scale. Compare 3 rounds."""
    return polynomial(p, y, p.compare(y, table.knots, NORMAL_WIDTH), table.coefficients)


def _normal(p: Protocol, bank: Bank, y: Share, *others: Share) -> Share:
    """The normalised value at `NORMAL` bits; masks `others` in the same round."""
    p.mask(y, *others)
    if bank.octave > NORMAL:
        y = p.truncate(y, bank.octave - NORMAL)
    return y


def _scaled(
    p: Protocol, x: Share, bank: Bank, table: tables.Table, exponents: list[int | None], fraction: int
) -> Share:
    """table(y) * 2^exponents[piece], at `fraction` bits; None stands for zero."""
    bits = bank.compare(p, x)
    least = min(-1, *(e for e in exponents if e is not None))
    place = bank.select(p, bits, [0 if e is None else 1 << (e - least) for e in exponents])
    y = _normal(p, bank, bank.normalise(p, x, bits), place)
    curve = _curve(p, y, table)
    p.mask(curve)
    curve = p.truncate(curve, table.scale - CURVE)
    product = p.bilinear(np.multiply, x.shape, curve, place)
    return p.truncate(product, CURVE - fraction - least)


def reciprocal(
    p: Protocol, x: Share, fraction: int, low_bit: int = -12, high_bit: int = 20, result_fraction: int | None = None
) -> Share:
    """1 / x for x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default 2^-12 = 0.00024 to 2^20. x below it, also x <= 0, saturates at
    2^-low_bit; x above it gives 2^-high_bit or less, which by default is a unit at most (at 20 bits).
    Error: at most 3e-5 of the result, plus one unit.

    Args:
        x: any shape.
        fraction: fractional bits of x, 12 to 21.
        low_bit: where the range begins; high_bit - low_bit may be 32 at most. A proven narrower range is cheaper, by
            45 bytes per factor of 4.
        high_bit: where it ends.
        result_fraction: fractional bits of the result, up to 28; `fraction` if not given.

    Cost (trio): 11 rounds for masked x, 1.35 KB per element over the default range.
    """
    bank = Bank.of(fraction, low_bit, high_bit, even=False)
    # x = y * 2^(low + 2 i - fraction).
    exponents = [fraction - bank.low - 2 * i for i in range(bank.count)]
    return _scaled(p, x, bank, tables.RECIPROCAL, [exponents[0], *exponents], result_fraction or fraction)


def rsqrt(p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22) -> Share:
    """1 / sqrt(x) for x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default every positive value up to 2^22. x <= 0 saturates at the result for
    the lower end (512 at 18 bits), x above the range at 2^(-high_bit / 2).
    Error: at most 3e-5 of the result, plus one unit.

    Args: as `reciprocal`. Cost (trio): 11 rounds for masked x, 1.4 KB per element over the default range.
    """
    bank = Bank.of(fraction, low_bit, high_bit, even=True)
    exponents = [(fraction - bank.low) // 2 - i for i in range(bank.count)]
    return _scaled(p, x, bank, tables.RSQRT, [exponents[0], *exponents], fraction)


def sqrt(p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22) -> Share:
    """Square root of x >= 0.

    Domain: 0 and 2^low_bit <= x < 2^high_bit; by default every value >= 0 up to 2^22. x below it, also x <= 0, gives 0;
    x above it saturates at 2^(high_bit / 2).
    Error: at most 3e-5 of the result, plus one unit.

    Args and cost: as `rsqrt`.
    """
    bank = Bank.of(fraction, low_bit, high_bit, even=True)
    exponents = [(bank.low - fraction) // 2 + i for i in range(bank.count)]
    return _scaled(p, x, bank, tables.SQRT, [None, *exponents], fraction)


def log(p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22) -> Share:
    """Natural logarithm of x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default every positive value up to 2^22. x <= 0 saturates at the logarithm
    of the lower end (-12.48 at 18 bits), x above the range at that of the upper end.
    Error: at most 3e-5 plus one unit.

    Args: as `reciprocal`. Cost (trio): 9 rounds for masked x, 1.3 KB per element over the default range.
    """
    bank = Bank.of(fraction, low_bit, high_bit, even=False)
    bits = bank.compare(p, x)
    scale = tables.LOG.scale
    octaves = [bank.low + 2 * i - fraction for i in range(bank.count)]
    place = bank.select(p, bits, [(o * tables.LN2_60) >> (60 - scale) for o in [octaves[0], *octaves]])
    y = _normal(p, bank, bank.normalise(p, x, bits))
    return p.truncate(local.add(p, _curve(p, y, tables.LOG), place), scale - fraction)
