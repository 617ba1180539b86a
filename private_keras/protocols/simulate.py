"""Not a secret sharing: one party that holds plain ring elements, and rounds and truncates as `trio` does.

For accuracy studies and for the client that wants to know what fixed point does to a model before paying for shares:
the same plan, the same arithmetic mod 2^64, the same stochastic rounding. It keeps nothing secret and sends nothing.
"""

import secrets
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Bits, Cost, Kept, Linear, Protocol, Share, relu_window
from private_keras.protocols.rounds import Rounds
from private_keras.ring.kernel import Kernel

U = np.uint64


class SimulatedShare(Share):
    """The value itself."""

    def __init__(self, value: np.ndarray):
        self.value = np.asarray(value)
        self.shape = self.value.shape


class SimulatedBits(Bits):
    """The bits themselves."""

    def __init__(self, value: np.ndarray):
        self.value = value
        self.shape = value.shape


class Simulate(Protocol):
    """See `Protocol`; costs nothing."""

    name = "simulate"
    parties = 1
    party = 0

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.cost = Cost()
        self.rounds = Rounds()
        self._key = secrets.token_bytes(16)
        self._draws = 0

    def _random(self, shape: tuple[int, ...]) -> np.ndarray:
        self._draws += 1
        return self.kernel.random(self._key, self._draws, int(np.prod(shape, dtype=np.int64))).reshape(shape)

    def constant(self, values: np.ndarray) -> SimulatedShare:
        return SimulatedShare(values)

    def output(self, x: SimulatedShare) -> np.ndarray:
        return x.value

    def keep(self, *xs: SimulatedShare) -> list[Kept]:
        return [(x.value.copy(), np.broadcast_to(U(0), x.shape)) for x in xs]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: SimulatedShare) -> SimulatedShare:
        return SimulatedShare(fn(*(x.value for x in xs)))

    def add_public(self, x: SimulatedShare, values: np.ndarray) -> SimulatedShare:
        return SimulatedShare(x.value + values)

    def mask(self, *xs: SimulatedShare) -> None:
        return None

    def bilinear(
        self, op: Bilinear, shape: tuple[int, ...], x: SimulatedShare, y: SimulatedShare, twice: bool = False
    ) -> SimulatedShare:
        product = op(x.value, y.value)
        return SimulatedShare(product + product if twice else product)

    def truncate(self, x: SimulatedShare, bits: int) -> SimulatedShare:
        dither = self._random(x.shape) >> U(64 - bits)
        return SimulatedShare(((x.value + dither).astype(np.int64) >> bits).astype(U))

    def rescale(self, x: SimulatedShare, factor: int, bits: int) -> SimulatedShare:
        # As two servers do it: the difference of two floors, of the masked value and of the mask.
        r = self._random(x.shape)
        lifted = x.value + U(1 << 62)
        low = self.kernel.multiply_shift(np.asarray(lifted + r), abs(factor), bits)
        z = low - self.kernel.multiply_shift(r, abs(factor), bits) - U((abs(factor) << (62 - bits)) & (2**64 - 1))
        wrapped = np.asarray(lifted + r) < r
        z = np.asarray(z + wrapped * U((abs(factor) << (64 - bits)) & (2**64 - 1)))
        return SimulatedShare(z if factor >= 0 else np.asarray(np.negative(z)))

    def relu_and_bits(
        self, x: SimulatedShare, bits: int = 0, width: int = 62
    ) -> tuple[SimulatedShare, SimulatedBits]:
        low, count = relu_window(bits, width)
        positive = SimulatedBits(self.compare(x, [1 << low], low + count, low).value[0])
        return self.gate(positive, x, bits) if bits else self.multiply_bits(positive, x), positive

    def compare(
        self, x: SimulatedShare, thresholds: Sequence[int], width: int = 62, low: int = 0
    ) -> SimulatedBits:
        # As two servers do it: without the low bits of the masked value and of the mask.
        dither = self._random(x.shape) & U((1 << low) - 1) if low else U(0)
        # Only the width + 1 low bits of x - t count, so that a wrong `width` goes as wrong here as it does on shares.
        t = np.array([int(v) & 0xFFFFFFFFFFFFFFFF for v in thresholds], U).reshape(-1, *[1] * len(x.shape))
        lifted = (x.value + dither)[None] - t + (U(1) << U(width))
        return SimulatedBits(((lifted >> U(width)) & U(1)).astype(bool))

    def exp2_masked(
        self, x: SimulatedShare, fraction: int, integer_bits: int, offset: int, scale: int
    ) -> SimulatedShare:
        bits = fraction + integer_bits
        low = U((1 << bits) - 1)
        r = self._random(x.shape) & low
        c = (x.value + r) & low
        dealt = exp2_scale(integer_bits, scale)
        wrap = np.where(c < r, 1 << integer_bits, 0)
        factor = np.where(
            wrap > 0,
            self.kernel.exp2_public(c, fraction, offset + (1 << integer_bits), scale - dealt),
            self.kernel.exp2_public(c, fraction, offset, scale - dealt),
        )
        return SimulatedShare(factor * self.kernel.exp2_public(low + U(1) - r, fraction, -(1 << integer_bits), dealt))

    def multiply_bits(self, bits: SimulatedBits, x: SimulatedShare) -> SimulatedShare:
        return SimulatedShare(np.where(bits.value, x.value, U(0)))

    def gate(self, gates: SimulatedBits, x: SimulatedShare, bits: int) -> SimulatedShare:
        return self.multiply_bits(gates, self.truncate(x, bits))

    def bits_to_share(self, bits: SimulatedBits) -> SimulatedShare:
        return SimulatedShare(bits.value.astype(U))

    def piecewise(self, x: SimulatedShare, bits: SimulatedBits, coefficients: np.ndarray) -> SimulatedShare:
        rows = coefficients.astype(U)
        total = evaluate(rows[0], x.value)
        for j in range(1, len(rows)):
            total = total + np.where(bits.value[j - 1], evaluate(rows[j], x.value), U(0))
        return SimulatedShare(total)

    def bits_and(self, bits: SimulatedBits, axis: int) -> SimulatedBits:
        return SimulatedBits(bits.value.all(axis=axis))

    def bits_not(self, bits: SimulatedBits) -> SimulatedBits:
        return SimulatedBits(~bits.value)

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: SimulatedBits) -> SimulatedBits:
        return SimulatedBits(fn(*(b.value for b in bits)))

    def one_hot(self, x: SimulatedShare, depth: int) -> SimulatedShare:
        k = max(1, (depth - 1).bit_length())
        low = x.value & U((1 << k) - 1)
        return SimulatedShare((low[..., None] == np.arange(depth, dtype=U)).astype(U))


def exp2_scale(integer_bits: int, scale: int) -> int:
    """Fractional bits of the dealt factor 2^-r of `exp2_masked`: half the error to each of the two factors."""
    return (scale + (1 << integer_bits)) // 2


def evaluate(row: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Horner's rule in the ring, coefficients lowest degree first."""
    total = np.full_like(x, row[-1])
    for a in row[-2::-1]:
        # As functions, not operators: NumPy takes rank 0 for a scalar there and warns when it wraps.
        total = np.asarray(np.add(np.multiply(total, x), a))
    return total
