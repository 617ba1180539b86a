"""Steps of the protocol as a kernel computes them, one call each.

Words that a party draws are made where they are used: a call takes a `Draw` wherever it takes an array of dealt or
random words. `party` is 0 or 1, the two evaluators; a method whose name ends in `_deal` is the helper's part of the
step of that name. Formulas are those of docs/security.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """`size` words from word `first` of the stream of (key, nonce), see `Kernel.random`; not made yet."""

    key: bytes
    nonce: int
    first: int
    size: int

    def __repr__(self) -> str:
        """Without the key: errors and logs may quote it."""
        return f"Draw(nonce={self.nonce}, first={self.first}, size={self.size})"


Words = np.ndarray | Draw


def part(words: Words, at: int, count: int) -> Words:
    """`count` words from word `at` on, without a copy."""
    if isinstance(words, Draw):
        key, nonce, first, _ = words
        return Draw(key, nonce, first + at, count)
    return words[at : at + count]


def cut(words: Words, counts: Sequence[int]) -> list[Words]:
    """Consecutive parts of `counts` words."""
    if len(counts) == 1 and counts[0] == words.size:
        return [words]
    out, at = [], 0
    for count in counts:
        out.append(part(words, at, count))
        at += count
    return out


class Twofold(NamedTuple):
    """The words m - 2 l, an operand of a product; made where they are read. Arrays of one shape."""

    m: np.ndarray
    l: np.ndarray  # noqa: E741

    @property
    def shape(self) -> tuple[int, ...]:
        return self.m.shape

    @property
    def words(self) -> np.ndarray:
        """As an array."""
        words = np.subtract(self.m, self.l, out=np.empty(self.m.shape, np.uint64))
        return np.subtract(words, self.l, out=words)

    def __repr__(self) -> str:
        """Without words: errors and logs may quote it."""
        return f"Twofold(shape={self.m.shape})"


Factor = np.ndarray | Twofold


def made(factor: Factor) -> np.ndarray:
    """The words of a factor."""
    return factor.words if isinstance(factor, Twofold) else factor


class Steps(ABC):
    """See the module. Arrays of elements may have any shape and strides, and results have the shape of m; planes and
    messages are flat. Raises `errors.KernelError` for what does not fit.
    """

    @abstractmethod
    def words(self, words: Words) -> np.ndarray:
        """A draw as an array; an array as it is."""

    @abstractmethod
    def add(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        """x + y, flat, of equally many words; `out` may be x."""

    @abstractmethod
    def subtract(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        """x - y, flat, of equally many words; `out` may be x."""

    @abstractmethod
    def mask(self, z: np.ndarray, words: Words, own: np.ndarray, message: np.ndarray) -> None:
        """own = words, message = z + own, into the flat arrays `own` and `message`."""

    @abstractmethod
    def multiply(
        self, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], g: Words, party: int
    ) -> np.ndarray:
        """Share of x y, element by element, for x and y as (m, own l): mx (my - ly) - lx my + g at party 0, and
        -mx ly - lx my + g at party 1.
        """

    @abstractmethod
    def multiply_deal(self, x: np.ndarray, y: np.ndarray, g0: Words) -> np.ndarray:
        """x y - g0, flat: evaluator 1's share of the product of two masks."""

    @abstractmethod
    def rescale(self, m: np.ndarray, dealt: Words, factor: int, bits: int, party: int) -> np.ndarray:
        """Share of z factor / 2^bits, for |z| < 2^62 masked as m = z + r; a truncation has factor 1.

        With c = m + 2^62 it is s (carry - word), plus s (floor(c f / 2^bits) - f 2^(62-bits)) at party 0, where
        f = |factor| below 2^63, s its sign, carry = [c < 2^63] f 2^(64-bits) t, and (word, t) are shares of
        floor(r f / 2^bits) and of the top bit of r. `dealt` is n words, then t mod 2^bits: the upper bits of n words at
        evaluator 0, `bits` planes at evaluator 1. `bits` from 1 to 62.
        """

    @abstractmethod
    def rescale_deal(self, r: np.ndarray, dealt0: Words, factor: int, bits: int) -> np.ndarray:
        """Evaluator 1's message for `rescale`, given evaluator 0's words."""

    @abstractmethod
    def gate(
        self, hat: np.ndarray, m: np.ndarray, l: np.ndarray, lam: Words, lam_l: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        """Share of x times the bit hat xor lam: x - k where hat is 1, else k, for k = m lam - lam_l, of which lam and
        lam_l are shares of the bit's mask and of its product with l. `hat` is a plane.
        """

    @abstractmethod
    def gate_deal(
        self, lam: np.ndarray, r: np.ndarray, lam0: Words, lam_l0: Words, bits: np.ndarray, products: np.ndarray
    ) -> None:
        """bits = lam - lam0 and products = lam r - lam_l0, for a plane `lam`, into flat arrays."""

    @abstractmethod
    def gate_rescaled(self, hat: np.ndarray, m: np.ndarray, dealt: Words, bits: int, party: int) -> np.ndarray:
        """Share of x times the bit hat xor lam, divided by 2^bits; linear in dealt words as `rescale` is.

        `dealt` is r >> bits, lam and lam (r >> bits), n words each, then the top bit of r and lam times it mod 2^bits,
        as in `rescale`.
        """

    @abstractmethod
    def gate_rescaled_deal(self, lam: np.ndarray, r: np.ndarray, dealt0: Words, bits: int) -> np.ndarray:
        """Evaluator 1's message for `gate_rescaled`."""

    @abstractmethod
    def bit_share(self, hat: np.ndarray, lam: Words, n: int, party: int) -> np.ndarray:
        """Share of the bits hat xor lam as ring elements: [party 0] - lam where the plane `hat` is 1, else lam."""

    @abstractmethod
    def bit_deal(self, lam: np.ndarray, lam0: Words, n: int) -> np.ndarray:
        """lam - lam0 for a plane `lam`."""

    @abstractmethod
    def piecewise(
        self, m: np.ndarray, l: np.ndarray, hats: np.ndarray, rows: np.ndarray, dealt: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        """Share of q_0(x) + sum_j (hat_j xor lam_j) q_j(x) for masked x.

        `rows` holds the pieces' coefficients, two or three each, lowest degree first; `hats` a plane for each piece but
        the first. `dealt` is l^2 if there are three coefficients, then lam_j, lam_j l and, if so, lam_j l^2 of each
        piece. With q(x) = q(m) - q'(m) l + a2 l^2 and b = hat + (1 - 2 hat) lam, all is linear in them.
        """

    @abstractmethod
    def piecewise_deal(self, r: np.ndarray, lams: np.ndarray, rows: np.ndarray, dealt0: Words) -> np.ndarray:
        """Evaluator 1's message for `piecewise`; of `rows` only the shape matters."""

    @abstractmethod
    def exp2_share(
        self, hat: np.ndarray, m: np.ndarray, dealt: Words, fraction: int, integer_bits: int, offset: int,
    ) -> np.ndarray:
        """Share of D 2^(c / 2^fraction + offset + w 2^integer_bits) for c = m mod 2^(fraction + integer_bits) and the
        bit w = hat xor lam; the power is `exp2_public`, and `dealt` is D, then lam D.
        """

    @abstractmethod
    def exp2_deal(
        self, lam: np.ndarray, r: np.ndarray, dealt0: Words, fraction: int, integer_bits: int, scale: int
    ) -> np.ndarray:
        """Evaluator 1's message for `exp2_share`, of D = 2^(scale - r' / 2^fraction) for the low bits r' of r."""

    @abstractmethod
    def digits_deal(self, r: np.ndarray, width: int, share0: Words, *, low: int = 0) -> np.ndarray:
        """One-hot planes of the base-16 digits of r's bits low .. low+width-1, XOR `share0`.

        Digit i covers bits 4i..min(4i+3, width-1) of them; its planes are [digit == v] for v = 1 .. 2^(bits of the
        digit) - 1 (v = 0 is left out). `share0` is evaluator 0's random share, same layout; the result is evaluator
        1's.
        """

    @abstractmethod
    def digits_compare(
        self, m: np.ndarray, offsets: Sequence[int], width: int, digits: Words, party: int, masks: Words, *, top: bool,
        low: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """From public c = m + offset and its share of r's digits, shares of [c_i < r_i] and [c_i == r_i], masked.

        All offsets are compared with the same r; they are further planes of each message, one comparison after another.
        Of c and r count bits low .. low+width-1; with `top`, the next one of c is added to the share of [c < r] at
        party 0.

        Returns (opened, kept): `opened` = this party's share of the wires of tree level 1 XOR `masks` (same layout,
        see `tree.level_wires`); `kept` = shares of each group's top `less` wire.
        """

    @abstractmethod
    def tree_deal(
        self, masks0: Words, masks1: Words, width: int, n: int, level: int, share0: Words, *, count: int = 1
    ) -> np.ndarray:
        """All products of wire masks (`masks0` XOR `masks1`) that level `level` of `count` comparisons needs, XOR
        `share0`; layout `tree.level_products`.
        """

    @abstractmethod
    def tree_combine(
        self, mine: np.ndarray, theirs: np.ndarray, kept: np.ndarray, products: Words, own_masks: Words,
        width: int, n: int, level: int, party: int, next_masks: Words, *, count: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One level of the 4-ary prefix, G = g3 + e3 g2 + e3 e2 g1 + e3 e2 e1 g0 and E = e3 e2 e1 e0, `count` times.

        `mine` XOR `theirs` are the masked wires, `products` this party's share of the mask products, `own_masks` its
        share of the masks. Returns (opened, kept) for the next level as `digits_compare` does, or, after the last
        level, (share of [c < r] XOR next_masks, empty): one plane for each comparison.
        """
