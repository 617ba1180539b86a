"""Fixed point for updates: values times public factors that wait, and products that cannot wrap.

Three kinds of value, by the fractional bits they are kept at:
- weights: 18 bits, below 2^20;
- gradients, momenta, ratios ("plain"): 24 bits, below 2^16;
- squares and their averages: 44 bits, below 2^16, which is a gradient below 2^8.
A public factor costs no step until something is added to the value. Then the value is truncated to what the budget of
61 bits leaves beside the factor, multiplied (local), and truncated to the wanted fraction.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from private_keras.tracing.lowering import Lowering
from private_keras.tracing.training.traced import PublicInput
from private_keras.tracing.training.updating.public import ONE, Public, Steps, constant, fold, product
from private_keras.tracing.values import Secret

PLAIN, SQUARE = 24, 44
SIZE = 16  # real size, as a power of two, that plain values and squares stay below
FACTOR_SIZE = 8  # the same for factors of a product of two secrets
RATIO = 12  # and for quotients of two secrets
BUDGET = 61  # ring elements stay below 2^62; a bit is for rounding
LONGEST = 58  # fraction


@dataclass(frozen=True)
class Scaled:
    """Real value = secret * scale * factor.

    Attributes:
        secret: value of the plan.
        size: its real value is below 2^size.
        scale: what the secret was to be multiplied by from the beginning (1 / batch).
        factor: public, a number.
        square: whether it is a square or an average of squares.
        positive: whether it cannot be negative.
        low: it is known to be at least 2^low, before scale and factor; None if nothing is known.
    """

    secret: Secret
    size: int
    scale: float = 1.0
    factor: Public = ONE
    square: bool = False
    positive: bool = False
    low: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.secret.shape

    @property
    def fraction(self) -> int:
        return SQUARE if self.square else PLAIN

    @property
    def total(self) -> Public:
        return product(constant(np.float64(self.scale)), self.factor) if self.scale != 1 else self.factor

    @property
    def plain(self) -> bool:
        """Whether no factor waits."""
        return self.scale == 1 and self.factor.key == ONE.key


class Writer:
    """Writes the steps of an update.

    Attributes:
        lo: the lowering.
        public: public inputs declared so far, by name, with what they stand for and the bound each must keep.
    """

    def __init__(self, lo: Lowering, probe: Steps):
        self.lo = lo
        self.public: dict[str, tuple[PublicInput, Public, float]] = {}
        self._probe = probe
        self._names: dict[tuple[object, int], str] = {}
        self._done: dict[tuple[object, ...], Secret] = {}

    # --- public numbers ----------------------------------------------------------------------------------------------
    def magnitude(self, x: Public) -> int:
        """|x| < 2^magnitude in all steps; the schedule refuses steps where it is not."""
        if x.constant is not None:
            return math.frexp(float(np.max(np.abs(x.constant), initial=0)))[1]
        values = np.abs(np.asarray(x.over(self._probe), np.float64))
        largest = float(np.max(values, where=np.isfinite(values), initial=0)) or 1.0
        return math.frexp(largest)[1] + x.margin

    def number(self, x: Public, fraction: int) -> Secret:
        """A public value in the plan: a constant, or an input that the schedule gives."""
        if x.constant is not None:
            units = np.rint(np.asarray(x.constant, np.float64) * 2.0**fraction)
            if not np.max(np.abs(units), initial=0) < 2.0**BUDGET:  # NaN fails too
                raise self.lo.refuse("an update", "a public number in it is not finite or too large for fixed point.")
            return self.lo.secret(self.lo.builder.constant(units.astype(np.int64), fraction))
        key = (x.key, fraction)
        if key not in self._names:
            name = f"public/{len(self._names)}"
            self.lo.builder.input(name, x.shape, fraction, self.lo.owner, label="schedule", public=True)
            bound = 2.0 ** min(self.magnitude(x), BUDGET - fraction)
            self.public[name] = (PublicInput(name, x.shape, fraction), x, bound)
            self._names[key] = name
        return self.lo.secret(self._names[key])

    # --- factors -----------------------------------------------------------------------------------------------------
    def write(self, x: Scaled, fraction: int | None = None) -> Secret:
        """x with its factors multiplied in, at this fraction (by default that of its kind)."""
        fraction = x.fraction if fraction is None else fraction
        key = (x.secret.name, x.total.key, fraction)
        if key not in self._done:
            self._done[key] = self._write(x, fraction)
        return self._done[key]

    def settle(self, x: Scaled) -> Scaled:
        """x without factors, at the fraction of its kind."""
        if x.plain and x.secret.fraction <= x.fraction:
            return x
        secret = self.write(x)
        size = min(x.size + self.magnitude(x.total), SIZE)
        return Scaled(secret, size, square=x.square, positive=self.keeps_sign(x))

    def start(self, x: Scaled) -> Scaled:
        """x with its scale multiplied in, at the fraction of its kind; the factor still waits."""
        if x.scale == 1 and x.secret.fraction <= x.fraction:
            return x
        bare = replace(x, factor=ONE)
        size = min(x.size + self.magnitude(bare.total), SIZE)
        return Scaled(self.write(bare), size, factor=x.factor, square=x.square, positive=x.positive and x.scale > 0)

    def keeps_sign(self, x: Scaled) -> bool:
        """Whether x is not negative with its factors, too."""
        total = x.total
        if not x.positive:
            return False
        values = total.constant if total.constant is not None else total.over(self._probe)
        return bool(np.all(np.asarray(values) >= 0))

    def _write(self, x: Scaled, fraction: int) -> Secret:
        total = x.total
        if total.key == ONE.key:
            return self.lo.at(x.secret, fraction)
        if total.constant is not None and abs(math.frexp(float(total.constant))[0]) == 0.5:
            return self._power_of_two(x, float(total.constant), fraction)
        magnitude = self.magnitude(total)
        taken, bits = self.split(x, magnitude, fraction)
        y = self.lo.at(x.secret, taken)
        places = min(bits - magnitude, LONGEST - taken)
        return self.lo.at(self.lo.step("multiply", y, self.number(total, places)), fraction)

    def split(self, x: Scaled, magnitude: int, fraction: int) -> tuple[int, int]:
        """Fraction of x before it is multiplied, and bits of the factor: together within the budget.

        Without a truncation before, if that leaves the factor enough bits. Else x keeps what the result can show and
        three bits more, or what leaves the factor the least it needs, if that is less.
        """
        varying = x.total.constant is None
        least, most = (20, 26) if varying else (11 if x.square else 15, 20)
        own = x.secret.fraction
        bits = min(most, BUDGET - x.size - own, LONGEST - own + magnitude)
        if bits >= least:
            return own, bits
        needed = fraction + magnitude + 3
        room = min(BUDGET - x.size, LONGEST + magnitude)
        taken = max(min(room - least, max(needed, room - most), own), 0)
        bits = min(most, BUDGET - x.size - taken)
        if bits < 8:
            raise self.lo.refuse("an update", "its values need more than 62 bits; use a smaller factor or clip them.")
        return taken, bits

    def _power_of_two(self, x: Scaled, factor: float, fraction: int) -> Secret:
        """x * 2^e: a constant of one unit at fraction -e names other bits of the same number."""
        exponent = math.frexp(abs(factor))[1] - 1
        y, sign = x.secret, math.copysign(1, factor)
        if exponent < 0:
            places = min(-exponent, LONGEST)
            if y.fraction + places > LONGEST:
                y = self.lo.at(y, LONGEST - places)
            one = self.number(constant(sign * 2.0**exponent), places)
        else:
            if x.size + exponent + y.fraction > BUDGET:
                y = self.lo.at(y, max(min(BUDGET - x.size - exponent, fraction), 0))
            one = self.number(constant(sign * 2.0**exponent), 0)
        return self.lo.at(self.lo.step("multiply", y, one), fraction)

    # --- sums --------------------------------------------------------------------------------------------------------
    def add(self, x: Scaled, y: Scaled, sign: int = 1) -> Scaled:
        """x + sign * y."""
        square = x.square or y.square
        top = SQUARE if square else PLAIN
        positive = sign > 0 and x.positive and y.positive
        if x.total.key == y.total.key:
            x, y = self.start(x), self.start(y)
            size = max(x.size, y.size) + (0 if x.positive and y.positive else 1)
            common = min(max(x.secret.fraction, y.secret.fraction), max(top, 0), BUDGET - size)
            z = self._sum(self.lo.at(x.secret, common), self.lo.at(y.secret, common), sign)
            return Scaled(z, min(size, SIZE + 1), factor=x.factor, square=square, positive=positive)
        if not x.plain and not y.plain:
            x, y = self.start(x), self.start(y)
        positive = sign > 0 and self.keeps_sign(x) and self.keeps_sign(y)
        reach = [v.size + self.magnitude(v.total) for v in (x, y)]
        size = min(max(reach), SIZE) + 1
        if x.plain or y.plain:
            common = min((x if x.plain else y).secret.fraction, top)
            z = self._sum(self.write(x, common), self.write(y, common), sign)
        else:
            z = self._long(x, y, sign, top, max(reach) + 1)
        return Scaled(z, size, square=square, positive=positive)

    def _sum(self, x: Secret, y: Secret, sign: int) -> Secret:
        return self.lo.step("add" if sign > 0 else "subtract", x, y)

    def _long(self, x: Scaled, y: Scaled, sign: int, top: int, size: int) -> Secret:
        """Two values with factors: both products at one long fraction, so that one truncation serves both."""
        operands = []
        for v in (x, y):
            m, own = self.magnitude(v.total), v.secret.fraction
            least, most = (20, 26) if v.total.constant is None else (15, 20)
            bits = min(most, BUDGET - v.size - own, LONGEST - own + m)
            operands.append((v, own, m, least, own + bits - m))
        common = min(BUDGET - size, *(longest for *_, longest in operands))
        if any(common - own + m < least or common <= own for _, own, m, least, _ in operands):
            return self._sum(self.write(x, top), self.write(y, top), sign)
        products = [
            self.lo.step("multiply", v.secret, self.number(v.total, common - own)) for v, own, *_ in operands
        ]
        return self._sum(*products, sign)

    def offset(self, x: Scaled, term: Public) -> Scaled:
        """x + a public number; the factor of x still waits."""
        if not term.shape and term.constant is not None and float(term.constant) == 0:
            return x
        x = self.start(x)
        inside = term if x.plain else fold("divide", np.divide, term, x.factor)
        z = self.lo.step("add", x.secret, self.number(inside, x.secret.fraction))
        low = None
        known = inside.constant is not None and bool(np.all(np.asarray(inside.constant) > 0))
        if known and (x.positive or x.square):
            low = math.frexp(float(np.min(inside.constant)))[1] - 1
        positive = x.positive and (known or term.constant is None)
        size = max(x.size, self.magnitude(inside)) + 1
        return replace(x, secret=z, size=size, positive=positive, low=low)

    # --- products ----------------------------------------------------------------------------------------------------
    def times(self, x: Scaled, y: Scaled) -> Scaled:
        """x * y, both secret, each taken to be below 2^FACTOR_SIZE."""
        x, y = self.start(x), self.start(y)
        same = x.secret == y.secret
        a, b = self._fit(x, y, min(x.size, FACTOR_SIZE), min(y.size, FACTOR_SIZE), 22 if same else PLAIN)
        z = self.lo.step("multiply", a, b)
        size = min(x.size, FACTOR_SIZE) + min(y.size, FACTOR_SIZE)
        square = same or x.square != y.square
        return Scaled(
            z, size, factor=product(x.factor, y.factor), square=square, positive=same or x.positive and y.positive
        )

    def _fit(self, x: Scaled, y: Scaled, size_x: int, size_y: int, most: int) -> tuple[Secret, Secret]:
        """Both secrets at fractions that a product within the budget allows, the longer one shortened first."""
        first = min(x.secret.fraction, SQUARE if x.square else most)
        second = min(y.secret.fraction, SQUARE if y.square else most)
        excess = max(first + second - min(BUDGET - size_x - size_y, LONGEST), 0)
        cut = min(max(first - second, 0), excess) if first > second else 0
        first, excess = first - cut, excess - cut
        cut = min(max(second - first, 0), excess) if second > first else 0
        second, excess = second - cut, excess - cut
        first, second = first - -(-excess // 2), second - excess // 2
        if min(first, second) < 8:
            raise self.lo.refuse("a product in an update", "its values need more than 62 bits; clip them.")
        return self.lo.at(x.secret, first), self.lo.at(y.secret, second)
