"""Server 2, from its own view: it walks the plan over the masks alone and deals what the evaluators need.

It receives nothing in a job, from nobody. All it sends are corrections value - F(key shared with evaluator 0), to
evaluator 1, where `value` is a function of masks; so it can run ahead of the inputs, as far as the wire buffers.
"""
import math
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Kept, Linear
from private_keras.protocols.rounds import Opened, Settle
from private_keras.protocols.simulate import exp2_scale
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.party import OFFSET, Party, U, compared_together, conjunction_groups, cut, subsets
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring import planes, tree
from private_keras.ring.kernel import plane_words


class Helper(Party):
    """See `Protocol` for the methods. Shares hold only masks: `l` in the masked form, nothing in the additive one."""

    def __init__(self, kernel, channels, keys):
        super().__init__(2, kernel, channels, keys)

    # --- messages -------------------------------------------------------------------------------------------------
    def _send(self, parts: list[np.ndarray]) -> None:
        self._channels[1].send(self.step(1), np.concatenate(parts) if len(parts) > 1 else parts[0])

    def _deal(self, *values: np.ndarray) -> None:
        """Shares ring elements: evaluator 0's part is drawn, evaluator 1's sent; one message."""
        share0 = self.draw_parts(0, [value.size for value in values])
        self._send([value.ravel() - part for value, part in zip(values, share0, strict=True)])

    def _carry(self, top: np.ndarray, bits: int, share0: np.ndarray) -> np.ndarray:
        """Correction of a 0/1 word shared mod 2^bits, as planes."""
        return self.kernel.to_planes(top - (share0 >> U(64 - bits)), bits)

    # --- forms ----------------------------------------------------------------------------------------------------
    def masked(self, m: None, l: np.ndarray) -> TrioShare:  # noqa: E741
        """A client's input: the whole mask l = l0 + l1; m is not for the helper."""
        return TrioShare(l.shape, l=l, masked=True)

    def constant(self, values: np.ndarray) -> TrioShare:
        return TrioShare(values.shape, l=np.broadcast_to(U(0), values.shape), masked=True)

    def output(self, x: TrioShare) -> np.ndarray:
        return np.zeros(x.shape, U)

    def keep(self, *xs: TrioShare) -> list[Kept]:
        fresh = [TrioShare(x.shape, masked=False) for x in xs]
        self.mask(*fresh)
        return [(None, x.l.copy()) for x in fresh]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        if all(x.masked for x in xs):
            return TrioShare(shape, l=fn(*(x.l for x in xs)), masked=True)
        return TrioShare(shape, masked=False)

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        # A share of its own, as at the evaluators: masking the sum must not mask x here alone.
        return TrioShare(x.shape, l=x.l, masked=x.masked)

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        fresh = self.draw(0, total)
        fresh += self.draw(1, total)

        def settle(_: None) -> None:
            at = 0
            for x in xs:
                x.l, x.masked, x.opening = fresh[at : at + x.size].reshape(x.shape), True, None
                at += x.size

        return total, settle

    # --- products -------------------------------------------------------------------------------------------------
    def bilinear(self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare) -> TrioShare:
        self.mask(x, y)
        product = op(x.l, y.l)
        self._deal(product)
        self.charge(costs.dealt(product.size))
        return TrioShare(shape, masked=False)

    # --- one opening ----------------------------------------------------------------------------------------------
    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        r = x.l.ravel()
        word0, top0 = self.draw_parts(0, [r.size] * 2)
        self._send([(r >> U(bits)) - word0, self._carry(r >> U(63), bits, top0)])
        self.charge(costs.carry(x.size, bits))
        return TrioShare(x.shape, masked=False)

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        self.mask(x)
        r = x.l.ravel()
        word0, top0 = self.draw_parts(0, [r.size] * 2)
        self._send([self.kernel.multiply_shift(r, abs(factor), bits) - word0, self._carry(r >> U(63), bits, top0)])
        self.charge(costs.carry(x.size, bits))
        return TrioShare(x.shape, masked=False)

    def _less(self, r: np.ndarray, count: int, width: int, *, top: bool) -> list[np.ndarray]:
        """Deals for `count` comparisons of public words with r; returns the masks of their results, as planes."""
        self.charge(costs.compare(r.size, count, width))
        digit_words = plane_words(r.size) * tree.digit_planes(width)
        # Many comparisons of a few elements are one comparison of them all, each in words of its own.
        repeats = count if compared_together(r.size, count) else 1
        count //= repeats
        n = r.size if repeats == 1 else repeats * plane_words(r.size) * 64
        words = plane_words(n)
        depth = len(tree.levels(width))
        product_words = [words * tree.product_planes(width, level) for level in range(depth)]
        share0 = self.draw_parts(0, [digit_words] + product_words * count)
        mask_words = [words * tree.opened_planes(width, level) for level in range(depth)] + [words]
        drawn = cut(self.draw(0, sum(mask_words) * count) ^ self.draw(1, sum(mask_words) * count), mask_words * count)
        message, results = [self.kernel.digits_deal(r, width, share0[0])], []
        for t in range(count):
            masks = drawn[t * len(mask_words) : (t + 1) * len(mask_words)]
            for level in range(depth):
                dealt = share0[1 + t * depth + level]
                message.append(self.kernel.tree_deal(masks[level], width, n, level, dealt))
            results += list(masks[-1].reshape(repeats, -1))
        self._send(message)
        for opened in costs.openings(r.size, repeats * count, width):
            self.rounds.open(opened)
        top_bits = self.kernel.to_planes(r, 1, width) if top else U(0)
        return [mask ^ top_bits for mask in results]

    def relu_and_bits(self, x: TrioShare, bits: int = 0) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        (lam,) = self._less(x.l.ravel(), 1, OFFSET, top=True)
        return self._kept(self.kernel.bit_words(lam, x.size), x, bits), TrioBits(planes=lam[None], shape=x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(self._words(gates).ravel(), x, bits)

    def _kept(self, lam: np.ndarray, x: TrioShare, bits: int) -> TrioShare:
        """Deals for masked x times the secret bits that `lam` masks, divided by 2^bits."""
        r = x.l.ravel()
        if not bits:
            self._deal(lam, lam * r)
            self.charge(costs.dealt(2 * x.size))
        else:
            high = r >> U(bits)
            share0 = self.draw_parts(0, [r.size] * 5)
            words = [value - part for value, part in zip((high, lam, lam * high), share0[:3], strict=True)]
            top = r >> U(63)
            self._send([*words, self._carry(top, bits, share0[3]), self._carry(lam * top, bits, share0[4])])
            self.charge(costs.carry(x.size, bits), costs.carry(x.size, bits), costs.dealt(x.size))
        return TrioShare(x.shape, masked=False)

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET) -> TrioBits:
        self.mask(x)
        lams = self._less(x.l.ravel(), len(thresholds), width, top=True)
        return TrioBits(planes=np.stack(lams), shape=(len(lams), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        bits = fraction + integer_bits
        r = x.l.ravel() & U((1 << bits) - 1)
        (lam,) = self._less(r, 1, bits, top=False)
        d = self.kernel.exp2_public(U(1 << bits) - r, fraction, -(1 << integer_bits), exp2_scale(integer_bits, scale))
        self._deal(d, self.kernel.bit_words(lam, x.size) * d)
        self.charge(costs.dealt(2 * x.size))
        return TrioShare(x.shape, masked=False)

    # --- bits -----------------------------------------------------------------------------------------------------
    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        lam = self._words(bits)
        self._deal(lam, lam * x.l)
        self.charge(costs.dealt(2 * bits.size))
        return TrioShare(bits.shape, masked=False)

    def _words(self, bits: TrioBits) -> np.ndarray:
        """The bits' masks as ring elements."""
        n = bits.size // len(bits.planes)
        return np.stack([self.kernel.bit_words(plane, n) for plane in bits.planes]).reshape(bits.shape)

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        self._deal(self._words(bits))
        self.charge(costs.dealt(bits.size))
        return TrioShare(bits.shape, masked=False)

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        degree, n, pieces = coefficients.shape[1] - 1, x.size, len(coefficients)
        r = x.l.ravel()
        powers = [np.ones_like(r), r, r * r][: degree + 1]
        words = [powers[2]] if degree == 2 else [np.zeros(0, U)]
        lams = self._words(bits)
        for j in range(1, pieces):
            lam = lams[j - 1].ravel()
            words += [lam * power for power in powers]
        self._deal(*words)
        self.charge(costs.dealt(n * ((degree == 2) + (degree + 1) * (pieces - 1))))
        return TrioShare(x.shape, masked=False)

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        lams = np.moveaxis(bits.word, axis, 0)
        shape, count = lams.shape[1:], lams.shape[0]
        n = math.prod(shape)
        words = plane_words(n)
        current = planes.pack_bits(lams.reshape(count, n))
        for groups in conjunction_groups(count):
            message = [
                np.concatenate([np.bitwise_and.reduce(current[group][list(s)]) for s in subsets(len(group))])
                for group in groups if len(group) > 1
            ]
            share0 = self.draw_parts(0, [part.size for part in message])
            self._send([part ^ own for part, own in zip(message, share0, strict=True)])
            size = words * len(message)
            fresh = (self.draw(0, size) ^ self.draw(1, size)).reshape(len(message), words)
            passed = [current[g[0]] for g in groups if len(g) == 1]
            current = np.concatenate([fresh, np.stack(passed)]) if passed else fresh
            self.rounds.open(size)
            self.charge(costs.dealt(sum(map(len, message))), costs.exchange(size))
        return TrioBits(planes.unpack_bits(current[0], n).reshape(shape))

    def bits_not(self, bits: TrioBits) -> TrioBits:
        return bits

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: TrioBits) -> TrioBits:
        return TrioBits(fn(*(b.word for b in bits)))

    def one_hot(self, x: TrioShare, depth: int) -> TrioShare:
        self.mask(x)
        size = 1 << max(1, (depth - 1).bit_length())
        hot = (x.l.ravel() & U(size - 1))[:, None] == np.arange(size, dtype=U)
        self._deal(hot.astype(U))
        self.charge(costs.dealt(x.size * size))
        return TrioShare((*x.shape, depth), masked=False)
