"""Reciprocal, roots and logarithm of positive numbers over a wide range.

A bank of thresholds, powers of 4 or 16, finds where x is; x is brought to [1, 4) or [1, 16) by a product with a power
of two; a quadratic spline does the rest; a power of two puts the result in its place. Both ends of the range saturate
in the bank itself, so nothing wraps. What is public but for the piece that x is in (a power of two, the coefficients
of a spline) is chosen by the bits of the comparisons as integers: a sum of them with public weights, which is local.

A threshold on x is compared in 62 bits, the most of what it all costs. So for large tensors a first bank has few, 6 to
14 powers of two apart, and a second one, of powers of 4, compares what the first gives in 26 to 34 bits.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from private_keras.errors import PlanError
from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.protocol import Bits, Protocol, Share, times

NORMAL = 20  # fractional bits of the normalised value: what the tables are made for
WIDE = 24  # from this many powers of two on, thresholds at powers of 16 cost less than the longer spline
LARGE = 1 << 15  # from so many elements on, fewer bytes are worth the six rounds of a second bank
MANY = 15  # and where one bank would have so many thresholds
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


@dataclass(frozen=True)
class Places:
    """Banks that bring x to where a table begins, one after the other, and the powers of two that undo it.

    Attributes:
        banks: the first for x, a second, if there is one, for what the first gives.
        powers: for each bank and each of its pieces an exponent, None for a result of zero; those of banks add up.
    """

    banks: tuple[Bank, ...]
    powers: tuple[tuple[int | None, ...], ...]

    @classmethod
    def of(cls, banks: Sequence[Bank], power: Callable[[int], int], zero: bool) -> "Places":
        """`power`: exponent of the result for an x of 2^e; with `zero`, results are 0 below the first bank."""
        powers = [tuple(power(e) for e in bank.scales) for bank in banks]
        return cls(tuple(banks), ((None, *powers[0][1:]) if zero else powers[0], *powers[1:]))

    @property
    def least(self) -> list[int]:
        """For each bank the smallest exponent."""
        return [min(e for e in powers if e is not None) for powers in self.powers]

    @property
    def most(self) -> int:
        """The largest exponent that all banks together may give."""
        return sum(max(e for e in powers if e is not None) for powers in self.powers)

    @property
    def bits(self) -> int:
        """Fractional bits that the spline's value may have before it is put in its place."""
        return min(CURVE, ROOM - self.most + sum(self.least))

    def fit(self, fraction: int) -> bool:
        """Whether results have room at `fraction` bits."""
        return self.bits >= LEAST_CURVE and self.most + fraction <= ROOM - 2


def _two_banks(size: int, one: Bank) -> list[Bank]:
    """A coarse bank and one of powers of 4 for what it gives, instead of one; none where that costs less."""
    span = one.high - one.low
    if size < LARGE or span < MANY * one.step:
        return []
    step = min(range(6, 16, 2), key=lambda step: (-(-span // step) * 2 + step // 2, -span % step))
    return [Bank(one.low, one.high, one.fraction, step), Bank(NORMAL, NORMAL + step, NORMAL, 2)]


def _normalised(
    p: Protocol, x: Share, banks: Sequence[Bank], places: Sequence[Sequence[int]], table: tables.Table
) -> tuple[list[Share], list[Share]]:
    """x brought to where the table begins, with a coarser copy; and its place in each bank, masked."""
    width, found = 62, []
    for bank, of_pieces in zip(banks, places, strict=True):
        fractions = (NORMAL, _coarse(table)) if bank is banks[-1] else (NORMAL,)
        numbers, place = bank.normalised(p, x, bank.compare(p, x, width), of_pieces, fractions)
        # What a bank gives lies from 1 to 2^step, as the thresholds of the next.
        x, width = numbers[0], NORMAL + bank.step
        found.append(place)
    return numbers, found


def _scaled(
    p: Protocol, x: Share, fraction: int, ends: tuple[int, int], narrow: tables.Table, wide: tables.Table,
    power: Callable[[int], int], result_fraction: int, zero: bool = False,
) -> Share:
    """table(y) * 2^power(e) for x = y 2^e, at `result_fraction` bits; 0 below the domain if `zero`."""
    table = wide if ends[1] - max(ends[0], -fraction) >= WIDE else narrow
    one = Bank.of(fraction, *ends, table)
    places = Places.of([one], power, zero)
    if not places.fit(result_fraction):
        raise PlanError(
            f"expected results within {ROOM - LEAST_CURVE} powers of two, below 2^{ROOM - 2 - result_fraction}. "
            f"Received: a domain that gives 2^{places.least[0]} to 2^{places.most}"
        )
    if banks := _two_banks(x.size, one):
        two = Places.of(banks, power, zero)
        places, table = (two, narrow) if two.fit(result_fraction) else (places, table)
    # At least one bit is cut off at the end.
    bits, (least, *others) = places.bits, places.least
    least = min(least, bits - result_fraction - 1 - sum(others))
    numbers, found = _normalised(p, x, places.banks, [
        [0 if e is None else 1 << (e - base) for e in powers]
        for base, powers in zip((least, *others), places.powers, strict=True)
    ], table)
    place = found[0] if len(found) == 1 else p.bilinear(times, x.shape, *found)
    curve = p.truncate(_curve(p, numbers, table), table.scale - bits)
    return p.truncate(p.bilinear(times, x.shape, curve, place), bits - result_fraction - least - sum(others))


def reciprocal(
    p: Protocol, x: Share, fraction: int, low_bit: int = -12, high_bit: int = 20, result_fraction: int | None = None
) -> Share:
    """1 / x for x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default 2^-12 = 0.00024 to 2^20. x below it, also x <= 0, saturates at
    2^-low_bit; x above it gives 2^-high_bit, which by default is a unit at most (at 20 bits).
    Error: at most 2e-5 of the result, plus one unit.

    Args:
        x: any shape; |x| < 2^61 in ring units.
        fraction: fractional bits of x, up to 44.
        low_bit: where the range begins; high_bit - low_bit may be 40 at most. A proven narrower range is cheaper, by
            28 bytes per factor of 4.
        high_bit: where it ends, 60 - fraction at most.
        result_fraction: fractional bits of the result, up to 28; `fraction` if not given.

    Cost (trio): 12 rounds for masked x, 982 bytes per element over the default range.
    """
    table = tables.RECIPROCAL
    return _scaled(p, x, fraction, (low_bit, high_bit), table, table, lambda e: -e, result_fraction or fraction)


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
    return _scaled(
        p, x, fraction, (low_bit, high_bit), tables.RSQRT, tables.RSQRT_WIDE, lambda e: -e // 2,
        result_fraction or fraction,
    )


def sqrt(
    p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22, result_fraction: int | None = None
) -> Share:
    """Square root of x >= 0.

    Domain: 0 and 2^low_bit <= x < 2^high_bit; by default every value >= 0 up to 2^22. x below it, also x <= 0, gives 0;
    x above it saturates at 2^(high_bit / 2).
    Error: at most 3e-5 of the result, plus one unit.

    Args and cost: as `rsqrt`.
    """
    return _scaled(
        p, x, fraction, (low_bit, high_bit), tables.SQRT, tables.SQRT_WIDE, lambda e: e // 2,
        result_fraction or fraction, zero=True,
    )


def log(p: Protocol, x: Share, fraction: int, low_bit: int = -20, high_bit: int = 22) -> Share:
    """Natural logarithm of x > 0.

    Domain: 2^low_bit <= x < 2^high_bit; by default every positive value up to 2^22. x <= 0 saturates at the logarithm
    of the lower end (-12.48 at 18 bits), x above the range at that of the upper end.
    Error: at most 3e-5 plus one unit.

    Args: as `reciprocal`. Cost (trio): 10 rounds for masked x, 950 bytes per element over the default range.
    """
    table, scale = tables.LOG, tables.LOG.scale
    one = Bank.of(fraction, low_bit, high_bit, table)
    banks = _two_banks(x.size, one) or [one]
    places = [[(e * tables.LN2_60) >> (60 - scale) for e in bank.scales] for bank in banks]
    numbers, found = _normalised(p, x, banks, places, table)
    curve = _curve(p, numbers, table)
    for place in found:
        curve = local.add(p, curve, place)
    return p.truncate(curve, scale - fraction)
