"""The boundary every protocol fills. All code above it (functions, executor) is written once, for all of them.

Written from one party's view: an object is one party in one job. Every party of a job calls the same methods in the
same order with the same shapes and public arguments; that order, fixed by the plan, is what matches messages and
randomness.

Public values are plain uint64 arrays of ring elements. Real numbers appear nowhere: scales are the caller's business.
Values must satisfy |z| < 2^62 wherever a method compares or truncates.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from private_keras.protocols.rounds import Rounds
from private_keras.ring.kernel import Kernel
from private_keras.ring.steps import Factor, made

# `times`, or a product that takes `out` and `subtract` as `Kernel.matmul` does.
Bilinear = Callable[..., np.ndarray]
Linear = Callable[..., np.ndarray]
# One party's part of a value in the masked form: words that are not its mask alone, and its own mask.
Kept = tuple[np.ndarray, np.ndarray]


def times(a: Factor, b: Factor) -> np.ndarray:
    """Elementwise product with broadcasting; an array even where NumPy would give a scalar."""
    return np.asarray(np.multiply(made(a), made(b)))


def relu_window(bits: int, width: int) -> tuple[int, int]:
    """(low, count): a relu that divides by 2^bits looks at bits low .. low+count-1 of numbers below 2^width.

    Positive ones below a quarter of the result's unit may then count as 0: less than what truncation rounds away. The
    numbers that are compared may be 2^low larger than those without low bits; one bit more where a width has no room.
    """
    low = max(0, min(bits - 2, width - 4))
    return low, width - low + (low > 0 and width == 62)


class Share:
    """A secret tensor of ring elements, as this party holds it. Opaque above the protocol; only `shape` may be read."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Bits:
    """A secret tensor of bits, as this party holds it. Opaque above the protocol; only `shape` may be read."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Cost:
    """Rounds and payload bytes, declared or measured. `sent[i, j]` is bytes from party i to party j.

    `ahead` is the part of the bytes that depends on no input, so that it can be sent before the inputs exist.
    """

    rounds: int = 0
    sent: tuple[tuple[tuple[int, int], int], ...] = ()
    ahead: int = 0

    @cached_property
    def _hash(self) -> int:
        return hash((self.rounds, self.sent, self.ahead))

    def __hash__(self) -> int:
        """Kept, since small steps look a cost up as often as they send."""
        return self._hash

    @property
    def bytes(self) -> int:
        return sum(n for _, n in self.sent)

    def __add__(self, other: "Cost") -> "Cost":
        sent = dict(self.sent)
        for pair, n in other.sent:
            sent[pair] = sent.get(pair, 0) + n
        return Cost(self.rounds + other.rounds, tuple(sorted(sent.items())), self.ahead + other.ahead)

    def __mul__(self, times: int) -> "Cost":
        sent = tuple((pair, n * times) for pair, n in self.sent)
        return Cost(self.rounds * times, sent, self.ahead * times)

    def __sub__(self, other: "Cost") -> "Cost":
        sent = dict(self.sent)
        for pair, n in other.sent:
            sent[pair] = sent.get(pair, 0) - n
        return Cost(
            self.rounds - other.rounds, tuple((p, n) for p, n in sorted(sent.items()) if n), self.ahead - other.ahead
        )


class Protocol(ABC):
    """One party of one job.

    Attributes:
        name: the protocol's name in `cluster.json`.
        parties: number of servers.
        party: this server's index.
        kernel: ring arithmetic.
        cost: what the steps so far have declared; tests hold the channels' counters to it.
        rounds: what this party opens together with others; see `Rounds.together` for branches of a function.
    """

    name: str
    parties: int
    party: int
    kernel: Kernel
    cost: Cost
    rounds: Rounds

    # --- in and out -----------------------------------------------------------------------------------------------
    @abstractmethod
    def constant(self, values: np.ndarray) -> Share:
        """A public tensor as a share. Local."""

    @abstractmethod
    def output(self, x: Share) -> np.ndarray:
        """This party's contribution to an opening, re-randomised: contributions of all parties add up to the value.

        uint64, of x's shape; all zero for a party that contributes nothing. Leaks to whoever gets all contributions:
        the value, and nothing else. Local.
        """

    @abstractmethod
    def keep(self, *xs: Share) -> list[Kept]:
        """This party's parts of values that outlive the job, all together in one round.

        Each is masked anew, whatever its form was, so that nothing that is stored has a mask in common with a value of
        the job. The arrays are the caller's own. Leaks nothing.
        """

    # --- linear, local --------------------------------------------------------------------------------------------
    @abstractmethod
    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: Share) -> Share:
        """A Z_2^64-linear map of one or several tensors: reshape, gather, concatenate, sum, product with a public one.

        `fn` maps plain arrays to a plain array of `shape`; it must be linear, fn(a + b) = fn(a) + fn(b), and must not
        modify its arguments. Local.
        """

    @abstractmethod
    def add_public(self, x: Share, values: np.ndarray) -> Share:
        """x + values, values broadcast to x's shape. Local."""

    # --- interactive ----------------------------------------------------------------------------------------------
    @abstractmethod
    def mask(self, *xs: Share) -> None:
        """Brings all xs into the form that products and comparisons start from, together in one round.

        Methods below do this by themselves; calling it on several tensors first saves rounds. Costs nothing for
        tensors that are in this form already. Changes the representation in place, not the value.
        """

    def begin(self, *xs: Share) -> None:
        """`mask` without waiting: goes with what is opened next, and is over before anything uses them."""
        return None

    def settle(self, xs: Sequence[Share]) -> None:
        """Waits for those that another branch is masking just now: what is computed from them is masked then, too.

        For a step's operands, before it begins. Costs nothing by itself.
        """
        return None

    def settling(self, xs: Sequence[Share]) -> bool:
        """Whether `settle` would wait."""
        return False

    @abstractmethod
    def bilinear(self, op: Bilinear, shape: tuple[int, ...], x: Share, y: Share, twice: bool = False) -> Share:
        """op(x, y) for a bilinear op (`times`, matmul, conv), of result `shape`; no truncation.

        `twice`: 2 op(x, y) instead, mod 2^64. That is one product at every server, where op(x, y) is two at each
        evaluator and one at the helper.
        """

    @abstractmethod
    def truncate(self, x: Share, bits: int) -> Share:
        """x / 2^bits, rounded stochastically: error below one unit, exact on average; |x| < 2^62, 1 <= bits <= 60."""

    def relu(self, x: Share, bits: int = 0, width: int = 62) -> Share:
        """max(x, 0) / 2^bits, rounded as by `truncate`; bits = 0 for none. Numbers below 2^(bits-2) may count as 0.

        `width`: |x| <= 2^width - 2^(bits-2) is known to hold, or 62 for |x| < 2^62.
        """
        return self.relu_and_bits(x, bits, width)[0]

    @abstractmethod
    def rescale(self, x: Share, factor: int, bits: int) -> Share:
        """x factor / 2^bits for a public factor: a truncation whose product is never formed, so that it cannot wrap.

        Rounded stochastically, error below one unit; |x| and the result below 2^62, |factor| < 2^62, 1 <= bits <= 62.
        One opening, as `truncate`, at the same cost.
        """

    @abstractmethod
    def relu_and_bits(self, x: Share, bits: int = 0, width: int = 62) -> tuple[Share, Bits]:
        """`relu` of x, and the bits [x > 0] that it finds on its way, true for all that does not count as 0. They cost
        nothing beyond.
        """

    @abstractmethod
    def compare(self, x: Share, thresholds: Sequence[int], width: int = 62, low: int = 0) -> Bits:
        """[x >= t] for each public integer t, together; bits of shape (len(thresholds), *x.shape).

        `width`: |x - t| < 2^width is known to hold for all t; narrower is cheaper. Never assume it, prove it.
        `low`: so many low bits are not looked at, which is cheaper, too: x between t - 2^low and t may count as t. Then
        |x - t| + 2^low <= 2^width must hold, and `width` may be 63.
        """

    @abstractmethod
    def exp2_masked(self, x: Share, fraction: int, integer_bits: int, offset: int, scale: int) -> Share:
        """2^(y/2^fraction + offset), times 2^scale, for y = x mod 2^(fraction + integer_bits); one secret factor dealt.

        fraction <= 18. The result is at most 2^(2^integer_bits + offset + scale), and that at most 2^62; rounding of
        the two factors may lift it above by 2^-15 of itself.
        """

    @abstractmethod
    def multiply_bits(self, bits: Bits, x: Share) -> Share:
        """bits * x elementwise; x broadcasts to bits.shape. No truncation."""

    @abstractmethod
    def gate(self, gates: Bits, x: Share, bits: int) -> Share:
        """gates * x / 2^bits elementwise, rounded as by `truncate`; equal shapes. One opening for both, 1 <= bits."""

    @abstractmethod
    def bits_to_share(self, bits: Bits) -> Share:
        """Bits as integers 0 and 1."""

    @abstractmethod
    def piecewise(self, x: Share, bits: Bits, coefficients: np.ndarray) -> Share:
        """sum_j b_j * q_j(x) + q_first(x), for b_j = bits[j - 1]; exact in the ring, no truncation.

        Args:
            x: any shape.
            bits: (pieces - 1, *x.shape), from `compare` on x.
            coefficients: int64/uint64 (pieces, degree + 1), lowest degree first, degree 1 or 2. Row 0 is the first
                piece; row j is the difference to piece j - 1.
        """

    @abstractmethod
    def bits_and(self, bits: Bits, axis: int) -> Bits:
        """AND over one axis of length 1 to 16."""

    @abstractmethod
    def bits_not(self, bits: Bits) -> Bits:
        """1 - bits. Local."""

    @abstractmethod
    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: Bits) -> Bits:
        """Rearranges bits (reshape, gather, concatenate), or XORs them: `fn` moves elements of boolean arrays and joins
        them by `^`, no more. Local."""

    @abstractmethod
    def one_hot(self, x: Share, depth: int) -> Share:
        """[x == j] for j in 0 .. depth-1 as a new last axis, for integers 0 <= x < depth. No comparison is needed."""
