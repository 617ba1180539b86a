"""Tape: writes the steps of gradients, with fractions kept long until a factor needs them short.

A truncation costs an opening, a longer fraction costs nothing until it runs out of the ring. So a product of a gradient
(24 bits) and a value (18) keeps its 42 bits, or 43 where it is held twice, through sums, movements and gates, and is
truncated when it is a factor again; not at all where it is not. A value is truncated once for all who ask, and before
it is repeated.
"""
import math
from collections.abc import Sequence

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients.records import Gradient
from private_keras.plan.primitives.constant import decode
from private_keras.plan.primitives.rules import broadcast_shape
from private_keras.plan.records import Step, TensorType

# Of products, one bit more where they are held twice: values below 2^19 stay below 2^62 in ring units.
FACTORS, LONGEST = 42, 43
# Significant bits of public factors: a relative error of 2^-17, the size of the rounding of what they multiply.
FACTOR_BITS = 16
# Steps that repeat or arrange elements and compute nothing: what is done after them can be done before.
_SPREADS = ("broadcast", "reshape")


class Tape:
    """Writes the steps that compute gradients.

    Args:
        builder: the plan that is written.
        fraction: fractional bits that a gradient is truncated to where it is a factor.

    Attributes:
        layer: the layer that steps are counted to.
    """

    def __init__(self, builder: PlanBuilder, fraction: int):
        if not 12 <= fraction <= FACTORS - 12:
            raise PlanError(f"gradients: expected a fraction of 12 to {FACTORS - 12} bits. Received: {fraction}")
        self.builder = builder
        self.fraction = fraction
        self.layer = ""
        self._cut: dict[tuple[str, int], str] = {}
        self._uniform: dict[str, float | None] = {}
        for step in builder.steps:
            if step.op == "truncate":
                self._cut.setdefault((step.inputs[0], builder.type(step.output).fraction), step.output)

    # --- values of the plan -------------------------------------------------------------------------------------------
    def step(self, op: str, *names: str, **attributes: object) -> str:
        """Appends a step, counted to the layer whose gradient is written; returns the name of its value."""
        return self.builder.add(op, *names, layer=self.layer, **attributes)

    def type(self, name: str) -> TensorType:
        """Type of a value."""
        return self.builder.type(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.builder.type(name).shape

    def constant(self, number: float, fraction: int, shape: tuple[int, ...] = ()) -> str:
        """A public tensor that holds one number everywhere, rounded to the fraction."""
        units = np.asarray(round(number * 2.0**fraction), np.int64)
        return self.expanded(self.builder.constant(units, fraction, layer=self.layer), shape)

    def expanded(self, name: str, shape: tuple[int, ...]) -> str:
        """The value broadcast to a shape."""
        return name if self.shape(name) == shape else self.step("broadcast", name, shape=list(shape))

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        """The value in another shape of as many elements."""
        return name if self.shape(name) == tuple(shape) else self.step("reshape", name, shape=list(shape))

    def cut(self, name: str, fraction: int) -> str:
        """The value at exactly this fraction: truncated (once for all who ask), or shifted, which is exact and free."""
        have = self.type(name).fraction
        if have == fraction:
            return name
        key = (name, fraction)
        if key not in self._cut:
            if have < fraction:
                self._cut[key] = self.step("shift", name, bits=fraction - have)
            else:
                source, moves = self._before_spreading(name)
                short = self.cut(source, fraction) if moves else self.step("truncate", name, bits=have - fraction)
                self._cut[key] = self._replayed(short, moves)
        return self._cut[key]

    def aligned(self, *names: str) -> list[str]:
        """The values at one fraction: the longest of them, but no longer than `LONGEST`."""
        fraction = min(max(self.type(name).fraction for name in names), LONGEST)
        return [self.cut(name, fraction) for name in names]

    def minus(self, x: str, y: str) -> str:
        """x - y for values of any fractions."""
        return self.step("subtract", *self.aligned(x, y))

    def times(self, x: str, y: str, most: int = 18) -> str:
        """x * y for values of any fractions, each truncated to at most `most` bits where the product is too long."""
        if self.type(x).fraction + self.type(y).fraction > FACTORS:
            x, y = (self.cut(name, most) if self.type(name).fraction > most else name for name in (x, y))
        return self.step("multiply", x, y)

    def uniform(self, name: str) -> float | None:
        """The one real number that a public value holds everywhere; None if it holds several or is not a constant."""
        chain = []
        while name not in self._uniform:
            chain.append(name)
            maker = self.builder.maker(name)
            if maker is None or maker.op not in ("constant", *_SPREADS):
                self._uniform[name] = None
            elif maker.op == "constant":
                units = decode(maker.attributes).astype(np.int64).ravel()
                alike = bool((units == units[0]).all())
                self._uniform[name] = float(units[0]) / 2.0 ** self.type(name).fraction if alike else None
            else:
                name = maker.inputs[0]
        self._uniform.update(dict.fromkeys(chain, self._uniform[name]))
        return self._uniform[name]

    def _before_spreading(self, name: str) -> tuple[str, list[Step]]:
        """The elements before a broadcast repeated them, and the steps that did; (name, []) where none did."""
        moves: list[Step] = []
        source, maker = name, self.builder.maker(name)
        while maker is not None and maker.op in _SPREADS:
            moves.append(maker)
            source = maker.inputs[0]
            maker = self.builder.maker(source)
        return (source, moves[::-1]) if self.type(source).size < self.type(name).size else (name, [])

    def _replayed(self, value: str, moves: list[Step]) -> str:
        for move in moves:
            value = self.step(move.op, value, **move.attributes)
        return value

    # --- gradients ----------------------------------------------------------------------------------------------------
    def at(self, g: Gradient, fraction: int | None = None) -> str:
        """The gradient's value at exactly a fraction, `Tape.fraction` by default; its scale is left to the caller."""
        return self.cut(g.value, self.fraction if fraction is None else fraction)

    def plain(self, g: Gradient, fraction: int | None = None) -> str:
        """The gradient itself, its scale multiplied in, at exactly a fraction (`Tape.fraction` by default)."""
        return self.at(self.rescaled(g, 1.0), fraction)

    def scaled(self, g: Gradient, factor: float) -> Gradient:
        """The gradient times a public number. No step."""
        return Gradient(g.value, g.scale * factor)

    def through(self, g: Gradient, op: str, **attributes: object) -> Gradient:
        """The gradient after a step that moves or sums elements."""
        return Gradient(self.step(op, g.value, **attributes), g.scale)

    def short(self, g: str, x: str, value_bits: int = 18) -> tuple[str, str]:
        """A gradient's value and a value as factors: truncated, as far as it takes, to a product of `FACTORS` bits."""
        gf, xf = self.type(g).fraction, self.type(x).fraction
        if gf + xf > FACTORS and xf > value_bits and min(gf, self.fraction) + xf > FACTORS:
            x = self.cut(x, value_bits)
        if gf + self.type(x).fraction > FACTORS and gf > self.fraction:
            g = self.cut(g, self.fraction)
        return g, x

    def multiply(self, g: Gradient, x: str) -> Gradient:
        """The gradient times a value, elementwise with broadcasting."""
        shape = broadcast_shape(self.shape(g.value), self.shape(x))
        factor = self.uniform(x)
        if factor is not None:
            return Gradient(self.expanded(g.value, shape), g.scale * factor)
        factor = self.uniform(g.value)
        if factor is not None:
            return Gradient(self.expanded(x, shape), g.scale * factor)
        return Gradient(self.step("multiply", *self.short(g.value, x)), g.scale)

    def reduce_to(self, g: Gradient, shape: tuple[int, ...]) -> Gradient:
        """The gradient of what was broadcast from `shape`: summed over the repeated axes."""
        have = self.shape(g.value)
        if have == tuple(shape):
            return g
        lead = len(have) - len(shape)
        axes = [i for i, n in enumerate(have) if i < lead or (shape[i - lead] == 1 and n != 1)]
        count = math.prod(have[i] for i in axes)
        number = self.uniform(g.value)
        if number is not None:
            return Gradient(self.constant(number, self.type(g.value).fraction, tuple(shape)), g.scale * count)
        if any(have[i] > 1 for i in axes):
            g = self.through(g, "reduce_sum", axes=axes)
        return Gradient(self.reshaped(g.value, shape), g.scale)

    def add(self, *terms: Gradient) -> Gradient:
        """The sum of gradients of one shape: at the largest of their scales, and the longest fraction."""
        scales: dict[str, float] = {}
        for g in terms:
            scales[g.value] = scales.get(g.value, 0.0) + g.scale
        if not scales:
            raise PlanError("gradients: expected at least one to add. Received: none")
        largest = max(scales.values(), key=abs)
        if not largest:
            return Gradient(terms[0].value, 0.0)
        each = [Gradient(value, scale) for value, scale in scales.items() if scale]
        near = [g if abs(g.scale) == abs(largest) else self.rescaled(g, largest) for g in each]
        near.sort(key=lambda g: (g.scale != largest, self.type(g.value).fraction))
        total = near[0].value
        for g in near[1:]:
            total = self.step("add" if g.scale == near[0].scale else "subtract", *self.aligned(total, g.value))
        return Gradient(total, near[0].scale)

    def rescaled(self, g: Gradient, scale: float) -> Gradient:
        """The same gradient at another scale: its value times a public factor of `FACTOR_BITS` significant bits.

        Powers of two are exact, and free.
        """
        if g.scale == scale:
            return g
        ratio = g.scale / scale
        if not math.isfinite(ratio):
            raise PlanError(f"gradients: expected scales that are finite and not 0. Received: {g.scale} and {scale}")
        number = self.uniform(g.value)
        if number is not None:
            return self._rescaled_number(g, number * ratio, scale)
        source, moves = self._before_spreading(g.value)
        return Gradient(self._replayed(self._times_public(source, ratio), moves), scale)

    def _rescaled_number(self, g: Gradient, number: float, scale: float) -> Gradient:
        units, bits = _factor(number)
        return Gradient(self.constant(units / 2.0**bits, bits, self.shape(g.value)), scale)

    def _times_public(self, name: str, ratio: float) -> str:
        units, bits = _factor(ratio)
        size = abs(units).bit_length() - 1
        # The product is ratio times the value in real size, so that its fraction may be longer by as much.
        if self.type(name).fraction + size > LONGEST:
            name = self.cut(name, min(self.fraction, self.type(name).fraction))
        if self.type(name).fraction + bits > 58:
            name = self.cut(name, max(58 - bits, 0))
        factor = self.builder.constant(np.asarray(units, np.int64), bits, layer=self.layer)
        product = self.step("multiply", name, factor)
        return self.cut(product, LONGEST) if self.type(product).fraction > LONGEST else product


def _factor(ratio: float) -> tuple[int, int]:
    """ratio as units / 2^bits, with at most `FACTOR_BITS` significant bits and 0 <= bits <= 58."""
    if ratio == 0:
        return 0, 0
    exponent = math.frexp(ratio)[1]
    bits = min(max(FACTOR_BITS - exponent, 0), 58)
    units = round(ratio * 2.0**bits)
    while units and units % 2 == 0 and bits:
        units, bits = units // 2, bits - 1
    return units, bits
