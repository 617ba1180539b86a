"""A walk over shapes that adds up what `trio` declares: the cost of a plan, known before it runs.

It follows the forms of shares (masked or additive) as the parties do, holds no data and computes nothing.
"""
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Cost, Kept, Linear, Protocol
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.party import OFFSET, conjunction_groups
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring.kernel import Kernel, plane_words


class CountingTrio(Protocol):
    """See `Protocol`. `cost` after a step minus `cost` before it is what the step costs."""

    name = "trio"
    parties = 3
    party = 2

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.cost = Cost()

    def _result(self, shape: tuple[int, ...], cost: Cost) -> TrioShare:
        self.cost += cost
        return TrioShare(shape, masked=False)

    def input(self, shape: tuple[int, ...]) -> TrioShare:
        """A client's input or a stored share: masked."""
        return TrioShare(shape, masked=True)

    def constant(self, values: np.ndarray) -> TrioShare:
        return TrioShare(values.shape, masked=True)

    def output(self, x: TrioShare) -> np.ndarray:
        return np.broadcast_to(np.uint64(0), x.shape)

    def keep(self, *xs: TrioShare) -> list[Kept]:
        self.mask(*(TrioShare(x.shape, masked=False) for x in xs))
        return [(None, self.output(x)) for x in xs]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        return TrioShare(shape, masked=all(x.masked for x in xs))

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        return TrioShare(x.shape, masked=x.masked)

    def mask(self, *xs: TrioShare) -> None:
        todo = list({id(x): x for x in xs if not x.masked}.values())
        for x in todo:
            x.masked = True
        if todo:
            self.cost += costs.exchange(sum(x.size for x in todo))

    def bilinear(self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare) -> TrioShare:
        self.mask(x, y)
        return self._result(shape, costs.dealt(int(np.prod(shape, dtype=np.int64))))

    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._result(x.shape, costs.carry(x.size, bits))

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        return self.truncate(x, bits)

    def relu_and_bits(self, x: TrioShare, bits: int = 0) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        self.cost += costs.compare(x.size, 1, OFFSET)
        return self._kept(x, bits), _bits(x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(x, bits)

    def _kept(self, x: TrioShare, bits: int) -> TrioShare:
        n = x.size
        words = costs.carry(n, bits) + costs.carry(n, bits) + costs.dealt(n) if bits else costs.dealt(2 * n)
        return self._result(x.shape, words)

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET) -> TrioBits:
        self.mask(x)
        self.cost += costs.compare(x.size, len(thresholds), width)
        return _bits((len(thresholds), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        return self._result(x.shape, costs.compare(x.size, 1, fraction + integer_bits) + costs.dealt(2 * x.size))

    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        return self._result(bits.shape, costs.dealt(2 * bits.size))

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        return self._result(bits.shape, costs.dealt(bits.size))

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        pieces, terms = coefficients.shape
        return self._result(x.shape, costs.dealt(x.size * ((terms == 3) + terms * (pieces - 1))))

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        shape = tuple(np.delete(bits.shape, axis))
        words = plane_words(int(np.prod(shape, dtype=np.int64)))
        for groups in conjunction_groups(bits.shape[axis]):
            real = [g for g in groups if len(g) > 1]
            self.cost += costs.dealt(words * sum((1 << len(g)) - 1 for g in real)) + costs.exchange(words * len(real))
        return _bits(shape)

    def bits_not(self, bits: TrioBits) -> TrioBits:
        return bits

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: TrioBits) -> TrioBits:
        return _bits(shape)

    def one_hot(self, x: TrioShare, depth: int) -> TrioShare:
        self.mask(x)
        return self._result((*x.shape, depth), costs.dealt(x.size << max(1, (depth - 1).bit_length())))


def _bits(shape: tuple[int, ...]) -> TrioBits:
    return TrioBits(np.broadcast_to(np.False_, shape))
