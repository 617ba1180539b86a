"""What the evaluators do before inputs exist: docs/security.md, "Made ahead". The job that uses it is in `supplied`.

Nothing that the helper deals depends on inputs. So an evaluator can walk the plan ahead over shapes alone, and receive
all of it. No word of an input, of a weight or of a mask is needed for that.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import FrameError, SecurityError
from private_keras.protocols.protocol import Bilinear, Cost, Kept, Linear, relu_window
from private_keras.protocols.rounds import Opened, Settle
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.counting import CountingTrio
from private_keras.protocols.trio.party import OFFSET, Party, U, conjunction_groups
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring.kernel import Kernel, plane_words
from private_keras.transport.channel import Channel

EVALUATORS, HELPER = (0, 1), 2
# What memory takes for a message beside its words, at most: an array of one word takes 160 bytes.
PIECE_BYTES = 256


@dataclass(frozen=True)
class Supply:
    """What one evaluator holds for one job to come. It must serve one job and no second: its masks are in it.

    Attributes:
        key: shared with the helper.
        draws: how often the job draws from it.
        dealt: evaluator 1: the helper's messages, one after the other.
        ends: where each message ends in `dealt`.
    """

    key: bytes = field(repr=False)
    draws: int
    dealt: np.ndarray | None = field(repr=False, default=None)
    ends: tuple[int, ...] = field(repr=False, default=())

    @property
    def nbytes(self) -> int:
        """In memory, at most: words, and what it takes to keep them apart, which is more where they are few."""
        return (0 if self.dealt is None else self.dealt.nbytes) + PIECE_BYTES * (1 + len(self.ends))


class Ahead(Party):
    """An evaluator's walk: it receives what the job will read, and counts what the job will draw, in the same order.

    Args:
        party: 0 or 1.
        room: evaluator 1: how many words the helper deals; they are received into one block.
    """

    def __init__(self, party: int, kernel: Kernel, channels: dict[int, Channel], keys: dict[int, bytes], room: int):
        super().__init__(party, kernel, channels, keys)
        self._key = keys[HELPER]
        self._block = np.empty(room, U) if party else None
        self._ends: list[int] = []

    def supply(self) -> Supply:
        """What the walk leaves for the job."""
        if self.party and (self._ends or [0])[-1] != self._block.size:
            raise FrameError(f"server{HELPER} dealt less than the plan says")
        return Supply(self._key, self._draws[HELPER], self._block, tuple(self._ends))

    # --- messages -------------------------------------------------------------------------------------------------
    def _passed(self) -> None:
        """A draw, whose words only the job needs."""
        self._draws[HELPER] += 1

    def _dealt(self, cost: Cost) -> None:
        """What the helper deals in one message, at the bytes that the step declares for it."""
        words = cost.ahead // U(0).nbytes
        self.charge(costs.dealt(words))
        if self.party == 0:
            self._passed()
            return
        begin = self._ends[-1] if self._ends else 0
        if begin + words > self._block.size:
            raise FrameError(f"server{HELPER} deals more than the plan says")
        self._channels[HELPER].receive(self.step(HELPER), self._block[begin : begin + words])
        self._ends.append(begin + words)

    # --- forms ----------------------------------------------------------------------------------------------------
    def input(self, shape: tuple[int, ...]) -> TrioShare:
        """A stored value, or a batch to come."""
        return TrioShare(shape, masked=True)

    def constant(self, values: np.ndarray) -> TrioShare:
        return TrioShare(values.shape, masked=True)

    def output(self, x: TrioShare) -> np.ndarray:
        raise SecurityError("nothing is opened before inputs exist")

    def keep(self, *xs: TrioShare) -> list[Kept]:
        raise SecurityError("nothing is kept before inputs exist")

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        return TrioShare(shape, masked=all(x.masked for x in xs))

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        return TrioShare(x.shape, masked=x.masked)

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        self._passed()

        def settle(_: None) -> None:
            for x in xs:
                x.masked, x.opening = True, None

        return total, settle

    # --- products -------------------------------------------------------------------------------------------------
    def bilinear(
        self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare, twice: bool = False
    ) -> TrioShare:
        self.mask(x, y)
        self._dealt(costs.dealt(math.prod(shape)))
        return TrioShare(shape, masked=False)

    # --- one opening ----------------------------------------------------------------------------------------------
    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        self._dealt(costs.carry(x.size, bits))
        return TrioShare(x.shape, masked=False)

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        return self.truncate(x, bits)

    def _less(self, n: int, count: int, width: int) -> None:
        self._dealt(costs.compare(n, count, width))
        self._passed()
        for opened in costs.openings(n, count, width):
            self.rounds.open(opened)

    def relu_and_bits(self, x: TrioShare, bits: int = 0, width: int = OFFSET) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        self._less(x.size, 1, relu_window(bits, width)[1])
        return self._kept(x, bits), _bits(x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(x, bits)

    def _kept(self, x: TrioShare, bits: int) -> TrioShare:
        n = x.size
        self._dealt(costs.carry(n, bits) * 2 + costs.dealt(n) if bits else costs.dealt(2 * n))
        return TrioShare(x.shape, masked=False)

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET, low: int = 0) -> TrioBits:
        self.mask(x)
        self._less(x.size, len(thresholds), width - low)
        return _bits((len(thresholds), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        self._less(x.size, 1, fraction + integer_bits)
        self._dealt(costs.dealt(2 * x.size))
        return TrioShare(x.shape, masked=False)

    # --- bits -----------------------------------------------------------------------------------------------------
    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        self._dealt(costs.dealt(2 * bits.size))
        return TrioShare(bits.shape, masked=False)

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        self._dealt(costs.dealt(bits.size))
        return TrioShare(bits.shape, masked=False)

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        self._dealt(costs.dealt(x.size * costs.piece_words(coefficients.shape)))
        return TrioShare(x.shape, masked=False)

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        shape = tuple(np.delete(bits.shape, axis).tolist())
        words = plane_words(math.prod(shape))
        for groups in conjunction_groups(bits.shape[axis], words):
            real = [g for g in groups if len(g) > 1]
            self._dealt(costs.dealt(words * sum((1 << len(g)) - 1 for g in real)))
            self._passed()
            self.rounds.open(words * len(real))
        return _bits(shape)

    def bits_not(self, bits: TrioBits) -> TrioBits:
        return bits

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: TrioBits) -> TrioBits:
        return _bits(shape)

    def one_hot(self, x: TrioShare, depth: int) -> TrioShare:
        self.mask(x)
        self._dealt(costs.dealt(x.size << max(1, (depth - 1).bit_length())))
        return TrioShare((*x.shape, depth), masked=False)


def _bits(shape: tuple[int, ...]) -> TrioBits:
    return TrioBits(np.broadcast_to(np.False_, shape))


class CountingAhead(CountingTrio):
    """What a supply takes, known before it is made.

    Attributes:
        cost: of the job; its `ahead` is the helper's messages.
        pieces: messages of the helper, at most.
    """

    def __init__(self, kernel: Kernel):
        super().__init__(kernel)
        self.pieces = 0

    def charge(self, *costs: Cost) -> None:
        super().charge(*costs)
        self.pieces += len(costs)  # nothing is dealt in more than one message for each
