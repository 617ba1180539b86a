"""The protocol's steps in C++, one native call each. This side makes room for results; the extension checks dtypes and
lengths, and copies what does not lie in one run.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from private_keras.errors import KernelError
from private_keras.ring import exp2_table, tree
from private_keras.ring.kernel import Kernel, plane_words
from private_keras.ring.steps import Draw, Words

U = np.uint64
_INTEGERS = (int, np.integer)
MAX_WIDTH = 62
# More elements than any machine holds, small enough that planes * words never wraps in 64 bits.
MAX_ELEMENTS = 1 << 40

KEPT = 1024


class NativeSteps(Kernel):
    """See `steps.Steps`. A subclass sets `_engine`."""

    def words(self, words: Words) -> np.ndarray:
        if not isinstance(words, Draw):
            return words
        odd = words.first % 2
        return self.random(words.key, words.nonce, words.size + odd, first_block=words.first // 2)[odd:]

    def add(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(x.size, U) if out is None else out
        self._engine.add_words(x, y, True, out)
        return out

    def subtract(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(x.size, U) if out is None else out
        self._engine.add_words(x, y, False, out)
        return out

    def mask(self, z: np.ndarray, words: Words, own: np.ndarray, message: np.ndarray) -> None:
        self._engine.mask(z, words, own, message)

    def multiply(
        self, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], g: Words, party: int
    ) -> np.ndarray:
        (mx, lx), (my, ly) = x, y
        if not mx.shape == lx.shape == my.shape == ly.shape:
            raise KernelError(f"expected factors of one shape. Received: {mx.shape} and {my.shape}")
        out = np.empty(mx.shape, U)
        self._engine.multiply(mx, lx, my, ly, g, party, out)
        return out

    def multiply_deal(self, x: np.ndarray, y: np.ndarray, g0: Words) -> np.ndarray:
        out = np.empty(x.size, U)
        self._engine.multiply_deal(x, y, g0, out)
        return out

    def rescale(self, m: np.ndarray, dealt: Words, factor: int, bits: int, party: int) -> np.ndarray:
        out = np.empty(m.shape, U)
        size = _factor(factor, bits)
        self._engine.rescale(m, dealt, size, factor < 0, bits, party, out)
        return out

    def rescale_deal(self, r: np.ndarray, dealt0: Words, factor: int, bits: int) -> np.ndarray:
        size = _factor(factor, bits)
        out = np.empty(r.size + bits * plane_words(r.size), U)
        self._engine.rescale_deal(r, dealt0, size, bits, out)
        return out

    def gate(
        self, hat: np.ndarray, m: np.ndarray, l: np.ndarray, lam: Words, lam_l: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        out = np.empty(m.shape, U)
        self._engine.gate(hat, m, l, lam, lam_l, party, out)
        return out

    def gate_deal(
        self, lam: np.ndarray, r: np.ndarray, lam0: Words, lam_l0: Words, bits: np.ndarray, products: np.ndarray
    ) -> None:
        self._engine.gate_deal(lam, r, lam0, lam_l0, bits, products)

    def gate_rescaled(self, hat: np.ndarray, m: np.ndarray, dealt: Words, bits: int, party: int) -> np.ndarray:
        _factor(1, bits)
        out = np.empty(m.shape, U)
        self._engine.gate_rescaled(hat, m, dealt, bits, party, out)
        return out

    def gate_rescaled_deal(self, lam: np.ndarray, r: np.ndarray, dealt0: Words, bits: int) -> np.ndarray:
        _factor(1, bits)
        out = np.empty(3 * r.size + 2 * bits * plane_words(r.size), U)
        self._engine.gate_rescaled_deal(lam, r, dealt0, bits, out)
        return out

    def bit_share(self, hat: np.ndarray, lam: Words, n: int, party: int) -> np.ndarray:
        out = np.empty(length(n, hat), U)
        self._engine.bit_share(hat, lam, party, out)
        return out

    def bit_deal(self, lam: np.ndarray, lam0: Words, n: int) -> np.ndarray:
        out = np.empty(length(n, lam), U)
        self._engine.bit_deal(lam, lam0, out)
        return out

    def piecewise(
        self, m: np.ndarray, l: np.ndarray, hats: np.ndarray, rows: np.ndarray, dealt: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        out = np.empty(m.shape, U)
        self._engine.piecewise(m, l, hats, rows, dealt, party, out)
        return out

    def piecewise_deal(self, r: np.ndarray, lams: np.ndarray, rows: np.ndarray, dealt0: Words) -> np.ndarray:
        out = np.empty(dealt0.size, U)
        self._engine.piecewise_deal(r, lams, rows, dealt0, out)
        return out

    def exp2_share(
        self, hat: np.ndarray, m: np.ndarray, dealt: Words, fraction: int, integer_bits: int, offset: int,
    ) -> np.ndarray:
        how = _powers(fraction, integer_bits, offset)
        out = np.empty(m.shape, U)
        jump = 1 << integer_bits
        self._engine.exp2_share(hat, m, dealt, *how, jump, out)
        return out

    def exp2_deal(
        self, lam: np.ndarray, r: np.ndarray, dealt0: Words, fraction: int, integer_bits: int, scale: int
    ) -> np.ndarray:
        out = np.empty(2 * r.size, U)
        how = _powers(fraction, integer_bits, scale - (1 << integer_bits))
        self._engine.exp2_deal(lam, r, dealt0, *how, out)
        return out

    def digits_deal(self, r: np.ndarray, width: int, share0: Words, *, low: int = 0) -> np.ndarray:
        _width(width)
        out = np.empty(tree.digit_planes(width) * plane_words(r.size), U)
        self._engine.digits_deal(r, width, low, share0, out)
        return out

    def digits_compare(
        self, m: np.ndarray, offsets: Sequence[int], width: int, digits: Words, party: int, masks: Words, *, top: bool,
        low: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        opened, kept = _level_results(width, 0, m.size, len(offsets))
        added = np.array([offset & 0xFFFFFFFFFFFFFFFF for offset in offsets], U)
        self._engine.digits_compare(m, added, width, low, top, digits, party, masks, opened, kept)
        return opened, kept

    def tree_deal(
        self, masks0: Words, masks1: Words, width: int, n: int, level: int, share0: Words, *, count: int = 1
    ) -> np.ndarray:
        words = _product_words(width, level, n, count)
        out = np.empty(min(words, share0.size), U)  # a short share must not make a huge result
        self._engine.tree_deal(masks0, masks1, width, n, level, count, share0, out)
        return out

    def tree_combine(
        self, mine: np.ndarray, theirs: np.ndarray, kept: np.ndarray, products: Words, own_masks: Words,
        width: int, n: int, level: int, party: int, next_masks: Words, *, count: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        opened, rest = _level_results(width, level + 1, length(n, mine), count)
        self._engine.tree_combine(
            mine, theirs, kept, products, own_masks, width, n, level, count, party, next_masks, opened, rest
        )
        return opened, rest


def ring(*arrays: np.ndarray) -> None:
    for a in arrays:
        if not isinstance(a, np.ndarray) or a.dtype != np.uint64:
            received = getattr(a, "dtype", type(a).__name__)
            raise KernelError(f"Expected uint64 arrays of ring elements. Received: {received}")


def packed(x: np.ndarray) -> np.ndarray:
    """Contiguous and aligned; a copy only where it has to be."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else np.require(x, U, ["C", "A"])


def within(what: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, _INTEGERS) or not low <= value <= high:
        raise KernelError(f"{what} must be {low} .. {high}. Received: {value!r}")


def _factor(factor: int, bits: int) -> int:
    within("factor", factor, 1 - (1 << 63), (1 << 63) - 1)
    within("bits", bits, 1, 62)
    return abs(factor)


def _powers(fraction: int, integer_bits: int, offset: int) -> tuple:
    """Tables and shifts of powers of two."""
    within("fraction", fraction, 0, exp2_table.FRACTION)
    within("integer_bits", integer_bits, 0, 30)
    within("bits", fraction + integer_bits, 1, MAX_WIDTH)
    within("offset", offset, -(1 << 31), (1 << 31) - 63)
    return (*exp2_table.tables(), exp2_table.FRACTION, fraction, offset - 62, fraction + integer_bits)


def _width(width: int) -> None:
    within("width", width, 1, MAX_WIDTH)


@lru_cache(KEPT)
def _product_words(width: int, level: int, n: int, count: int) -> int:
    """Words of mask products that a level needs."""
    _width(width)
    within("level", level, 0, len(tree.levels(width)) - 1)
    within("number of elements", n, 0, MAX_ELEMENTS)
    return count * tree.product_planes(width, level) * plane_words(n)


def length(n: int, of: np.ndarray | None = None) -> int:
    """n, if an array of that many bits or words can be meant: a short message must not make a huge result."""
    within("number of elements", n, 0, MAX_ELEMENTS)
    if of is not None and plane_words(n) > of.size:
        raise KernelError(f"a message of {of.size} words holds no {n} elements")
    return n


def _level_results(width: int, level: int, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for what a step hands to level `level`: opened and kept wires, or one plane after the last level."""
    opened, kept = _result_words(width, level, n, count)
    return np.empty(opened, U), np.empty(kept, U)


@lru_cache(KEPT)
def _result_words(width: int, level: int, n: int, count: int) -> tuple[int, int]:
    _width(width)
    groups, words = tree.levels(width), count * plane_words(n)
    within("level", level, 0, len(groups))
    if level == len(groups):
        return words, 0
    kept = sum(2 if g.size == 1 and g.need_equal else 1 for g in groups[level])
    return tree.opened_planes(width, level) * words, kept * words
