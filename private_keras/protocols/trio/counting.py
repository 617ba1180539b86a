"""A walk over shapes that adds up what `trio` declares: the cost of a plan, known before it runs.

It follows the forms of shares (masked or additive) as the parties do, holds no data and computes nothing.
"""
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Cost, Kept, Linear, relu_window
from private_keras.protocols.rounds import Opened, Rounds, Settle, Ticket
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.masking import Masking
from private_keras.protocols.trio.party import OFFSET, conjunction_groups
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring.kernel import Kernel, plane_words


class CountingTrio(Masking):
    """See `Protocol`.

    Attributes:
        costs: by number of the branch that runs (a step of a plan; -1 outside of all), what it costs. A round of
            several branches is of the one with the smallest number.
    """

    party = 2

    def __init__(self, kernel: Kernel):
        super().__init__(kernel)
        self.rounds = Rounds(told=self._count)
        self.costs: dict[int, Cost] = {}

    def charge(self, *costs: Cost) -> None:
        super().charge(*costs)
        for cost in costs:
            self._add(self.rounds.current, cost)

    def _add(self, number: int, cost: Cost) -> None:
        self.costs[number] = self.costs.get(number, Cost()) + cost

    def _count(self, tickets: Sequence[Ticket]) -> None:
        self._add(min(ticket.owner for ticket in tickets), Cost(1))

    def _result(self, shape: tuple[int, ...], cost: Cost) -> TrioShare:
        self.charge(cost)
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

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        def settle(_: None) -> None:
            for x in xs:
                x.masked, x.opening = True, None

        return total, settle

    def _compare(self, n: int, thresholds: int, width: int) -> None:
        self.charge(costs.compare(n, thresholds, width))
        for opened in costs.openings(n, thresholds, width):
            self.rounds.open(opened)

    def bilinear(
        self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare, twice: bool = False
    ) -> TrioShare:
        self.mask(x, y)
        return self._result(shape, costs.dealt(int(np.prod(shape, dtype=np.int64))))

    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._result(x.shape, costs.carry(x.size, bits))

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        return self.truncate(x, bits)

    def relu_and_bits(self, x: TrioShare, bits: int = 0, width: int = OFFSET) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        self._compare(x.size, 1, relu_window(bits, width)[1])
        return self._kept(x, bits), _bits(x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(x, bits)

    def _kept(self, x: TrioShare, bits: int) -> TrioShare:
        n = x.size
        words = costs.carry(n, bits) + costs.carry(n, bits) + costs.dealt(n) if bits else costs.dealt(2 * n)
        return self._result(x.shape, words)

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET, low: int = 0) -> TrioBits:
        self.mask(x)
        self._compare(x.size, len(thresholds), width - low)
        return _bits((len(thresholds), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        self._compare(x.size, 1, fraction + integer_bits)
        return self._result(x.shape, costs.dealt(2 * x.size))

    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        return self._result(bits.shape, costs.dealt(2 * bits.size))

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        return self._result(bits.shape, costs.dealt(bits.size))

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        return self._result(x.shape, costs.dealt(x.size * costs.piece_words(coefficients.shape)))

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        shape = tuple(np.delete(bits.shape, axis))
        words = plane_words(int(np.prod(shape, dtype=np.int64)))
        for groups in conjunction_groups(bits.shape[axis], words):
            real = [g for g in groups if len(g) > 1]
            self.charge(costs.dealt(words * sum((1 << len(g)) - 1 for g in real)), costs.exchange(words * len(real)))
            self.rounds.open(words * len(real))
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
