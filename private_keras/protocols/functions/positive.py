"""Reciprocal, roots and logarithm of positive numbers over a wide range.

A bank of thresholds, powers of 4 or 16, finds where x is; x is brought to [1, 4) or [1, 16) by a product with a power
of two; a quadratic spline does the rest; a power of two puts the result in its place. Both ends of the range saturate
in the bank itself, so nothing wraps. What is public but for the piece that x is in (a power of two, the coefficients
of a spline) is chosen by the bits of the comparisons as integers: a sum of them with public weights, which is local.
"""
from collections.abc import Sequence
from dataclasses import dataclass

from private_keras.errors import PlanError
from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.protocol import Bits, Protocol, Share, times

NORMAL = 20  # fractional bits of the normalised value: what the tables are made for
WIDE = 24  # from this many powers of two on, thresholds at powers of 16 cost less than the longer spline
CURVE = 28  # most fractional bits of the spline's value before it is put in its place
KNOT_BITS = 16  # of the coarser copy of y that finds its piece: comparisons of so few bits take two rounds, not three
LEAST_CURVE = 20  # fewest: relative errors of 2^-19
ROOM = 60  # bits of the spline's value times its place


@dataclass(frozen=True)
class Bank:
    """Thresholds 2^low, ..., 2^high in ring units, those between at every `step`-th power of two.

    Piece 0 lies below them all, piece i + 1 above threshold i. `fraction` is that of x.
    """

    low: int
    high: int
    fraction: int
    step: int

    @classmethod
    def of(cls, fraction: int, low_bit: int, high_bit: int, table: tables.Table) -> "Bank":
        """The bank for 2^low_bit <= x < 2^high_bit."""
        low = max(low_bit + fraction, 0)
        return cls(low, max(high_bit + fraction, low + 1), fraction, table.octaves)

    @property
    def exponents(self) -> list[int]:
        """Where x stands in each piece but the first and the last: in [2^e, 2^(e + step)), in ring units.

        As real values they are even powers of two, so that their roots are powers of two.
        """
        top = self.high + (self.high - self.fraction) % 2
        return list(range(top - self.step, self.low - self.step, -self.step))[::-1]

    @property
    def scales(self) -> list[int]:
        """The same for the real value, for every piece: the ends are as the pieces beside them."""
        scales = [e - self.fraction for e in self.exponents]
        return [scales[0], *scales, scales[-1]]

    def compare(self, p: Protocol, x: Share, width: int = 62) -> Bits:
        return p.compare(x, [1 << e for e in (self.low, *self.exponents[1:], self.high)], width)

    def normalised(
        self, p: Protocol, x: Share, bits: Bits, places: Sequence[int], fractions: Sequence[int] = (NORMAL,)
    ) -> tuple[list[Share], Share]:
        """x as a number in [1, 2^step) at each of some fractions, `NORMAL` at most, and places[i] for x in piece i.

        Outside the range the number is where the range ends: 2^low in piece 0, 2^high in the last, which may be 2^step
        of the scale below. The place is masked. 2 rounds, 1 more if x is not masked, 1 less where nothing is cut off.
        """
        exponents = self.exponents
        octave = max(exponents[-1], NORMAL)  # where the number stands before it is truncated
        inside = [1 << (octave - e) for e in exponents]
        ends = [self.low - exponents[0], self.high - exponents[-1]]
        first, last = (1 << (octave + e) for e in ends)
        factor, end, place = chosen(p, bits, [[0, *inside, 0], [first, *[0] * len(inside), last], places])
        p.mask(x, factor, place)
        y = local.add(p, p.bilinear(times, x.shape, x, factor), end)
        if any(octave > fraction for fraction in fractions):
            p.mask(y)
        return [p.truncate(y, octave - fraction) if octave > fraction else y for fraction in fractions], place


def chosen(p: Protocol, bits: Bits, rows: Sequence[Sequence[int]]) -> list[Share]:
    """For each row of public integers, the one of the piece that an element is in: bit j says piece j + 1 or above."""
    steps = local.words([[after - before for before, after in zip(row, row[1:], strict=False)] for row in rows])
    hot = p.bits_to_share(bits)
    shape = hot.shape[1:]
    values = p.linear(
        lambda a: p.kernel.matmul(steps, a.reshape(len(a), -1)).reshape(len(rows), *shape), (len(rows), *shape), hot
    )
    return [
        local.offset(p, p.linear(lambda a, i=i: a[i], shape, values), row[0]) for i, row in enumerate(rows)
    ]


def _curve(p: Protocol, numbers: Sequence[Share], table: tables.Table) -> Share:
    """The table's spline of y, at the table's scale; `numbers` are y and a coarser copy of it. 4 rounds if unmasked.

    The copy may lie a unit beyond the knot where y does not: 2^-12 at most, where pieces are 0.1 long.
    """
    y, coarse = numbers
    p.mask(y, coarse)
    square = p.bilinear(times, y.shape, y, y)
    cut = NORMAL - _coarse(table)
    bits = p.compare(coarse, [round(k / (1 << cut)) for k in table.knots], KNOT_BITS)
    constant, slope, bend = chosen(p, bits, list(zip(*table.coefficients, strict=True)))
    p.mask(slope, bend, square)
    straight = local.add(p, constant, p.bilinear(times, y.shape, slope, y))
    return local.add(p, straight, p.bilinear(times, y.shape, bend, square))


def _coarse(table: tables.Table) -> int:
    """Fractional bits of the coarser copy: y and knots lie from 1 to 2^octaves, so they differ by less than that."""
    return KNOT_BITS - table.octaves


def _scaled(
    p: Protocol, x: Share, bank: Bank, table: tables.Table, exponents: Sequence[int | None], fraction: int
) -> Share:
    """table(y) * 2^exponents[piece], at `fraction` bits; None stands for zero."""
    powers = [e for e in exponents if e is not None]
    least = min(powers)
    bits = min(CURVE, ROOM - max(powers) + least)
    if bits < LEAST_CURVE or max(powers) + fraction > ROOM - 2:
        raise PlanError(
            f"expected results within {ROOM - LEAST_CURVE} powers of two, below 2^{ROOM - 2 - fraction}. "
            f"Received: a domain that gives 2^{min(powers)} to 2^{max(powers)}"
        )
    # At least one bit is cut off at the end.
    least = min(least, bits - fraction - 1)
    numbers, place = bank.normalised(
        p, x, bank.compare(p, x), [0 if e is None else 1 << (e - least) for e in exponents], (NORMAL, _coarse(table))
    )
    curve = _curve(p, numbers, table)
    product = p.bilinear(times, x.shape, p.truncate(curve, table.scale - bits), place)
    return p.truncate(product, bits - fraction - least)


def reciprocal(
    p: Protocol, x: Share, fraction: int, low_bit: int = -12, high_bit: int = 20, result_fraction: int | None = None
) -> Share:
    """1 / x for x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default 2^-12 = 0.00024 to 2^20. x below it, also x <= 0, saturates at
    2^-low_bit; x above it gives 2^-high_bit, which by default is a unit at most (at 20 bits).
    Error: at most 3e-5 of the result, plus one unit.

    Args:
        x: any shape; |x| < 2^61 in ring units.
        fraction: fractional bits of x, up to 44.
        low_bit: where the range begins; high_bit - low_bit may be 40 at most. A proven narrower range is cheaper, by
            28 bytes per factor of 4.
        high_bit: where it ends, 60 - fraction at most.
        result_fraction: fractional bits of the result, up to 28; `fraction` if not given.

    Cost (trio): 12 rounds for masked x, 944 bytes per element over the default range.
    """
    bank = Bank.of(fraction, low_bit, high_bit, tables.RECIPROCAL)
    return _scaled(p, x, bank, tables.RECIPROCAL, [-e for e in bank.scales], result_fraction or fraction)


def _for_roots(
    fraction: int, low_bit: int, high_bit: int, narrow: tables.Table, wide: tables.Table
) -> tuple[Bank, tables.Table]:
    """The bank and the table that cost least."""
    table = wide if high_bit - max(low_bit, -fraction) >= WIDE else narrow
    return Bank.of(fraction, low_bit, high_bit, table), table


def rsqrt(
    p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22, result_fraction: int | None = None
) -> Share:
    """1 / sqrt(x) for x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default every positive value up to 2^22. x below it, also x <= 0, saturates
    at the result for the lower end (512 at 18 bits), x above the range at 2^(-high_bit / 2).
    Error: at most 3e-5 of the result, plus one unit.

    Args: as `reciprocal`, but that 60 powers of two may lie between the ends. Cost (trio): 12 rounds for masked x,
    830 bytes per element over the default range (`sqrt` 737); 977 (885) for 60 powers of two.
    """
    bank, table = _for_roots(fraction, low_bit, high_bit, tables.RSQRT, tables.RSQRT_WIDE)
    return _scaled(p, x, bank, table, [-e // 2 for e in bank.scales], result_fraction or fraction)


def sqrt(
    p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22, result_fraction: int | None = None
) -> Share:
    """Square root of x >= 0.

    Domain: 0 and 2^low_bit <= x < 2^high_bit; by default every value >= 0 up to 2^22. x below it, also x <= 0, gives 0;
    x above it saturates at 2^(high_bit / 2).
    Error: at most 3e-5 of the result, plus one unit.

    Args and cost: as `rsqrt`.
    """
    bank, table = _for_roots(fraction, low_bit, high_bit, tables.SQRT, tables.SQRT_WIDE)
    _, *exponents = [e // 2 for e in bank.scales]
    return _scaled(p, x, bank, table, [None, *exponents], result_fraction or fraction)


def log(p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22) -> Share:
    """Natural logarithm of x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default every positive value up to 2^22. x <= 0 saturates at the logarithm
    of the lower end (-12.48 at 18 bits), x above the range at that of the upper end.
    Error: at most 3e-5 plus one unit.

    Args: as `reciprocal`. Cost (trio): 10 rounds for masked x, 950 bytes per element over the default range.
    """
    bank = Bank.of(fraction, low_bit, high_bit, tables.LOG)
    scale = tables.LOG.scale
    places = [(e * tables.LN2_60) >> (60 - scale) for e in bank.scales]
    numbers, place = bank.normalised(p, x, bank.compare(p, x), places, (NORMAL, _coarse(tables.LOG)))
    return p.truncate(local.add(p, _curve(p, numbers, tables.LOG), place), scale - fraction)
