"""The protocol's steps in C++, one native call each. This side settles dtypes, strides and result shapes; the extension
checks every length again.
"""

from collections.abc import Sequence
from functools import cache

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

# Counting a level's planes anew would take longer than a small step.
_product_planes = cache(tree.product_planes)
_opened_planes = cache(tree.opened_planes)


class NativeSteps(Kernel):
    """See `steps.Steps`. A subclass sets `_engine`, and `_openssl`, which makes streams where the engine cannot."""

    def words(self, words: Words) -> np.ndarray:
        if not isinstance(words, Draw):
            return words
        odd = words.first % 2
        return self.random(words.key, words.nonce, words.size + odd, first_block=words.first // 2)[odd:]

    def _source(self, words: Words) -> Words:
        """What the engine takes for words that it reads once."""
        if isinstance(words, Draw):
            return self.words(words) if self._openssl else words
        ring(words)
        return flat(words)

    def add(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(x.size, U) if out is None else out
        self._engine.add_words(self._source(x), self._source(y), True, out)
        return out

    def subtract(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(x.size, U) if out is None else out
        self._engine.add_words(self._source(x), self._source(y), False, out)
        return out

    def mask(self, z: np.ndarray, words: Words, own: np.ndarray, message: np.ndarray) -> None:
        ring(z)
        self._engine.mask(flat(z), self._source(words), own, message)

    def multiply(
        self, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], g: Words, party: int
    ) -> np.ndarray:
        arrays = [*x, *y]
        ring(*arrays)
        if len({a.shape for a in arrays}) != 1:
            raise KernelError(f"expected factors of one shape. Received: {x[0].shape} and {y[0].shape}")
        out = np.empty(x[0].shape, U)
        self._engine.multiply(*map(flat, arrays), self._source(g), party, out.reshape(-1))
        return out

    def multiply_deal(self, x: np.ndarray, y: np.ndarray, g0: Words) -> np.ndarray:
        ring(x, y)
        out = np.empty(x.size, U)
        self._engine.multiply_deal(flat(x), flat(y), self._source(g0), out)
        return out

    def rescale(self, m: np.ndarray, dealt: Words, factor: int, bits: int, party: int) -> np.ndarray:
        ring(m)
        out = np.empty(m.shape, U)
        size = _factor(factor, bits)
        self._engine.rescale(flat(m), self._source(dealt), size, factor < 0, bits, party, out.reshape(-1))
        return out

    def rescale_deal(self, r: np.ndarray, dealt0: Words, factor: int, bits: int) -> np.ndarray:
        ring(r)
        size = _factor(factor, bits)
        out = np.empty(r.size + bits * plane_words(r.size), U)
        self._engine.rescale_deal(flat(r), self._source(dealt0), size, bits, out)
        return out

    def gate(
        self, hat: np.ndarray, m: np.ndarray, l: np.ndarray, lam: Words, lam_l: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        ring(hat, m, l)
        out = np.empty(m.shape, U)
        self._engine.gate(
            flat(hat), flat(m), flat(l), self._source(lam), self._source(lam_l), party, out.reshape(-1)
        )  # fmt: skip
        return out

    def gate_deal(
        self, lam: np.ndarray, r: np.ndarray, lam0: Words, lam_l0: Words, bits: np.ndarray, products: np.ndarray
    ) -> None:
        ring(lam, r)
        self._engine.gate_deal(flat(lam), flat(r), self._source(lam0), self._source(lam_l0), bits, products)

    def gate_rescaled(self, hat: np.ndarray, m: np.ndarray, dealt: Words, bits: int, party: int) -> np.ndarray:
        ring(hat, m)
        _factor(1, bits)
        out = np.empty(m.shape, U)
        self._engine.gate_rescaled(flat(hat), flat(m), self._source(dealt), bits, party, out.reshape(-1))
        return out

    def gate_rescaled_deal(self, lam: np.ndarray, r: np.ndarray, dealt0: Words, bits: int) -> np.ndarray:
        ring(lam, r)
        _factor(1, bits)
        out = np.empty(3 * r.size + 2 * bits * plane_words(r.size), U)
        self._engine.gate_rescaled_deal(flat(lam), flat(r), self._source(dealt0), bits, out)
        return out

    def bit_share(self, hat: np.ndarray, lam: Words, n: int, party: int) -> np.ndarray:
        ring(hat)
        out = np.empty(length(n, hat), U)
        self._engine.bit_share(flat(hat), self._source(lam), party, out)
        return out

    def bit_deal(self, lam: np.ndarray, lam0: Words, n: int) -> np.ndarray:
        ring(lam)
        out = np.empty(length(n, lam), U)
        self._engine.bit_deal(flat(lam), self._source(lam0), out)
        return out

    def piecewise(
        self, m: np.ndarray, l: np.ndarray, hats: np.ndarray, rows: np.ndarray, dealt: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        ring(m, l, hats, rows)
        out = np.empty(m.shape, U)
        self._engine.piecewise(
            flat(m), flat(l), flat(hats), packed(rows), self._source(dealt), party, out.reshape(-1)
        )  # fmt: skip
        return out

    def piecewise_deal(self, r: np.ndarray, lams: np.ndarray, rows: np.ndarray, dealt0: Words) -> np.ndarray:
        ring(r, lams, rows)
        out = np.empty(dealt0.size, U)
        self._engine.piecewise_deal(flat(r), flat(lams), packed(rows), self._source(dealt0), out)
        return out

    def exp2_share(
        self, hat: np.ndarray, m: np.ndarray, dealt: Words, fraction: int, integer_bits: int, offset: int,
    ) -> np.ndarray:
        ring(hat, m)
        how = _powers(fraction, integer_bits, offset)
        out = np.empty(m.shape, U)
        jump = 1 << integer_bits
        self._engine.exp2_share(flat(hat), flat(m), self._source(dealt), *how, jump, out.reshape(-1))
        return out

    def exp2_deal(
        self, lam: np.ndarray, r: np.ndarray, dealt0: Words, fraction: int, integer_bits: int, scale: int
    ) -> np.ndarray:
        ring(lam, r)
        out = np.empty(2 * r.size, U)
        how = _powers(fraction, integer_bits, scale - (1 << integer_bits))
        self._engine.exp2_deal(flat(lam), flat(r), self._source(dealt0), *how, out)
        return out

    def digits_deal(self, r: np.ndarray, width: int, share0: Words, *, low: int = 0) -> np.ndarray:
        ring(r)
        _width(width)
        within("low", low, 0, 63 - width)
        out = np.empty(tree.digit_planes(width) * plane_words(r.size), U)
        self._engine.digits_deal(flat(r), width, low, self._source(share0), out)
        return out

    def digits_compare(
        self, m: np.ndarray, offsets: Sequence[int], width: int, digits: Words, party: int, masks: Words, *, top: bool,
        low: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        ring(m)
        opened, kept = _level_results(width, 0, m.size, len(offsets))
        within("low", low, 0, 63 - width)
        added = np.array([offset & 0xFFFFFFFFFFFFFFFF for offset in offsets], U)
        self._engine.digits_compare(
            flat(m), added, width, low, top, self._source(digits), party, self._source(masks), opened, kept
        )  # fmt: skip
        return opened, kept

    def tree_deal(
        self, masks0: Words, masks1: Words, width: int, n: int, level: int, share0: Words, *, count: int = 1
    ) -> np.ndarray:
        _level(width, level)
        within("number of elements", n, 0, MAX_ELEMENTS)
        words = count * _product_planes(width, level) * plane_words(n)
        out = np.empty(min(words, share0.size), U)  # a short share must not make a huge result
        self._engine.tree_deal(
            self._source(masks0), self._source(masks1), width, n, level, count, self._source(share0), out
        )  # fmt: skip
        return out

    def tree_combine(
        self, mine: np.ndarray, theirs: np.ndarray, kept: np.ndarray, products: Words, own_masks: Words,
        width: int, n: int, level: int, party: int, next_masks: Words, *, count: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        ring(mine, theirs, kept)
        _level(width, level)
        results = _level_results(width, level + 1, length(n, mine), count)
        self._engine.tree_combine(
            flat(mine), flat(theirs), flat(kept), self._source(products), self._source(own_masks), width, n, level,
            count, party, self._source(next_masks), *results,
        )  # fmt: skip
        return results


def ring(*arrays: np.ndarray) -> None:
    for a in arrays:
        if not isinstance(a, np.ndarray) or a.dtype != np.uint64:
            received = getattr(a, "dtype", type(a).__name__)
            raise KernelError(f"Expected uint64 arrays of ring elements. Received: {received}")


def packed(x: np.ndarray) -> np.ndarray:
    """Contiguous and aligned; a copy only where it has to be."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else np.require(x, U, ["C", "A"])


def flat(x: np.ndarray) -> np.ndarray:
    """One axis, contiguous and aligned; a copy only where it has to be."""
    x = packed(x)
    return x if x.ndim == 1 else x.reshape(-1)


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


def _level(width: int, level: int) -> None:
    _width(width)
    within("level", level, 0, len(tree.levels(width)) - 1)


def length(n: int, of: np.ndarray | None = None) -> int:
    """n, if an array of that many bits or words can be meant: a short message must not make a huge result."""
    within("number of elements", n, 0, MAX_ELEMENTS)
    if of is not None and plane_words(n) > of.size:
        raise KernelError(f"a message of {of.size} words holds no {n} elements")
    return n


def _level_results(width: int, level: int, n: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for what a step hands to level `level`: opened and kept wires, or one plane after the last level."""
    _width(width)
    groups = tree.levels(width)
    if level == len(groups):
        return np.empty(count * plane_words(n), U), np.zeros(0, U)
    kept = sum(2 if g.size == 1 and g.need_equal else 1 for g in groups[level])
    words = count * plane_words(n)
    return np.empty(_opened_planes(width, level) * words, U), np.empty(kept * words, U)
