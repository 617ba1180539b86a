"""Server 2, from its own view: it walks the plan over the masks alone and deals what the evaluators need.

It receives nothing in a job, from nobody. All it sends are corrections value - F(key shared with evaluator 0), to
evaluator 1, where `value` is a function of masks; so it can run ahead of the inputs, as far as the wire buffers.
"""
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from private_keras.protocols.protocol import Bilinear, Kept, Linear, relu_window, times
from private_keras.protocols.rounds import Opened, Settle
from private_keras.protocols.simulate import exp2_scale
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.dealing import BLOCK, in_pieces, of_elements, pieces
from private_keras.protocols.trio.party import OFFSET, Party, U, conjunction_groups, conjunctions
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring import planes, tree
from private_keras.ring.kernel import BLOCK_WORDS, plane_words
from private_keras.ring.steps import Draw, Words, cut, part

MINUS_TWO = ~U(1)


class Helper(Party):
    """See `Protocol` for the methods. Shares hold only masks: l and l0 - l1 in the masked form, nothing in the
    additive one.
    """

    def __init__(self, kernel, channels, keys):
        super().__init__(2, kernel, channels, keys)

    # --- messages -------------------------------------------------------------------------------------------------
    def _send(self, message: np.ndarray) -> None:
        self._channels[1].send(self.step(1), message)

    def _send_parts(self, words: int, parts: Iterable[np.ndarray]) -> None:
        """One message of `words` words, sent as its parts are made."""
        if not in_pieces(words):
            made = list(parts)
            self._send(made[0] if len(made) == 1 else np.concatenate(made))
            return
        channel = self._channels[1]
        channel.begin(self.step(1), words * U(0).nbytes)
        for message in parts:
            channel.part(message)

    def _deal_by_pieces(
        self, n: int, words: Callable[[int], int], drawn: int, make: Callable[[int, int, Words], np.ndarray]
    ) -> None:
        """Sends make(begin, end, share0) for all pieces of n elements.

        Args:
            n: elements.
            words: how many are sent for how many elements.
            drawn: how many words for each element are evaluator 0's share.
            make: evaluator 1's share of what is dealt for a piece.
        """
        share0 = self.draw(0, drawn * n)
        self._send_parts(words(n), (
            make(begin, end, part(share0, drawn * begin, drawn * (end - begin)))
            for begin, end in pieces(n, words(BLOCK))
        ))  # fmt: skip

    def _deal(self, value: np.ndarray) -> None:
        """Shares ring elements: evaluator 0's part is drawn, evaluator 1's sent."""
        self._send(self.kernel.subtract(value, self.draw(0, value.size)))

    # --- forms ----------------------------------------------------------------------------------------------------
    def masked(self, skew: np.ndarray, l: np.ndarray) -> TrioShare:  # noqa: E741
        """A client's input: l0 - l1, and the whole mask l = l0 + l1; m is not for the helper."""
        return TrioShare(l.shape, l=l, masked=True, skew=lambda: skew)

    def constant(self, values: np.ndarray) -> TrioShare:
        none = np.broadcast_to(U(0), values.shape)
        return TrioShare(values.shape, l=none, masked=True, skew=lambda: none)

    def output(self, x: TrioShare) -> np.ndarray:
        return np.zeros(x.shape, U)

    def keep(self, *xs: TrioShare) -> list[Kept]:
        fresh = [TrioShare(x.shape, masked=False) for x in xs]
        self.mask(*fresh)
        return [(x.skew(), x.l.copy()) for x in fresh]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        for x in xs:
            if not x.masked:
                return TrioShare(shape, masked=False)
        skews = [x.skew for x in xs]
        return TrioShare(
            shape, l=fn(*[x.l for x in xs]), masked=True, skew=lambda: np.asarray(fn(*[skew() for skew in skews]))
        )

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        # A share of its own, as at the evaluators: masking the sum must not mask x here alone.
        return TrioShare(x.shape, l=x.l, masked=x.masked, skew=x.skew)

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        halves = self.draw(0, total), self.draw(1, total)
        fresh = self.kernel.add(*halves)

        def settle(_: None) -> None:
            at = 0
            for x in xs:
                end = at + x.size
                x.l, x.masked, x.opening = fresh[at:end].reshape(x.shape), True, None
                x.skew = partial(self._skew, halves, at, x.shape)
                at = end

        return total, settle

    def _skew(self, halves: tuple[Draw, Draw], at: int, shape: tuple[int, ...]) -> np.ndarray:
        """The difference of draws, of a tensor's part of them: the same words as often as it is asked for."""
        skew = np.empty(shape, U)
        self.kernel.subtract(*(part(half, at, skew.size) for half in halves), out=skew.reshape(-1))
        return skew

    # --- products -------------------------------------------------------------------------------------------------
    def bilinear(
        self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare, twice: bool = False
    ) -> TrioShare:
        self.mask(x, y)
        size = math.prod(shape)
        self.charge(costs.dealt(size))
        if twice:
            r, s = x.skew(), y.skew()
            r, s = (r * MINUS_TWO, s) if r.size < s.size else (r, s * MINUS_TWO)
            self._deal(np.asarray(op(r, s)))
        elif op is times and x.shape == y.shape:
            self._send(self.kernel.multiply_deal(x.l, y.l, self.draw(0, size)))
        else:
            self._deal(np.asarray(op(x.l, y.l)))
        return TrioShare(shape, masked=False)

    # --- one opening ----------------------------------------------------------------------------------------------
    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        return self.rescale(x, 1, bits)

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        self.mask(x)
        r = x.l.reshape(-1)
        self._deal_by_pieces(
            x.size, lambda n: n + costs.carry_words(n, bits, 1), 2,
            lambda begin, end, share0: self.kernel.rescale_deal(r[begin:end], share0, factor, bits),
        )  # fmt: skip
        self.charge(costs.carry(x.size, bits))
        return TrioShare(x.shape, masked=False)

    def _less(self, r: np.ndarray, count: int, width: int, *, top: bool, low: int = 0) -> np.ndarray:
        """Deals for `count` comparisons of public words with r; returns the masks of the results, a plane for each."""
        n, r = r.size, r.reshape(-1)
        self.charge(costs.compare(n, count, width))
        deals, openings = costs.compared_deals(n, count, width), costs.openings(n, count, width)
        digits0, *products0 = cut(self.draw(0, sum(deals)), deals)
        masks0, masks1 = (cut(self.draw(peer, sum(openings)), openings) for peer in (0, 1))

        def parts() -> Iterable[np.ndarray]:
            for begin, end in pieces(n, tree.digit_planes(width) * BLOCK_WORDS):
                yield self.kernel.digits_deal(r[begin:end], width, of_elements(digits0, n, begin, end), low=low)
            for level, share0 in enumerate(products0):
                for begin, end in pieces(n, count * tree.product_planes(width, level) * BLOCK_WORDS):
                    masks = (of_elements(half[level], n, begin, end) for half in (masks0, masks1))
                    share = of_elements(share0, n, begin, end)
                    yield self.kernel.tree_deal(*masks, width, end - begin, level, share, count=count)

        self._send_parts(sum(deals), parts())
        for opened in openings:
            self.rounds.open(opened)
        lams = planes.to_rows(self.kernel.words(masks0[-1]) ^ self.kernel.words(masks1[-1]), count, n)
        return lams ^ self.kernel.to_planes(r, 1, low + width) if top else lams

    def relu_and_bits(self, x: TrioShare, bits: int = 0, width: int = OFFSET) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        low, count = relu_window(bits, width)
        lams = self._less(x.l, 1, count, top=True, low=low)
        return self._kept(lams[0], x, bits), TrioBits(planes=lams, shape=x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(gates.plane, x, bits)

    def _kept(self, lam: np.ndarray, x: TrioShare, bits: int) -> TrioShare:
        """Deals for masked x times the secret bits that the plane `lam` masks, divided by 2^bits."""
        n, r = x.size, x.l.reshape(-1)
        if bits:
            self._deal_by_pieces(
                n, lambda n: 3 * n + 2 * costs.carry_words(n, bits, 1), 5,
                lambda begin, end, share0: self.kernel.gate_rescaled_deal(
                    of_elements(lam, n, begin, end), r[begin:end], share0, bits),
            )  # fmt: skip
            self.charge(costs.carry(n, bits), costs.carry(n, bits), costs.dealt(n))
        else:
            self._deal_gates(lam[None], x.l)
            self.charge(costs.dealt(2 * n))
        return TrioShare(x.shape, masked=False)

    def _deal_gates(self, lams: np.ndarray, r: np.ndarray) -> None:
        """Deals lam, then lam r, for a plane of masks of bits and a row of masks of values each."""
        share0, words, r = self.draw(0, 2 * r.size), 2 * r.size, r.reshape(len(lams), -1)
        n = r.shape[1]

        def parts() -> Iterable[np.ndarray]:
            for row, lam in enumerate(lams):
                for begin, end in pieces(n, 2 * BLOCK):
                    at, size, message = 2 * (row * n + begin), end - begin, np.empty(2 * (end - begin), U)
                    own = cut(part(share0, at, 2 * size), [size] * 2)
                    plane = of_elements(lam, n, begin, end)
                    self.kernel.gate_deal(plane, r[row, begin:end], *own, message[:size], message[size:])
                    yield message

        self._send_parts(words, parts())

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET, low: int = 0) -> TrioBits:
        self.mask(x)
        lams = self._less(x.l, len(thresholds), width - low, top=True, low=low)
        return TrioBits(planes=lams, shape=(len(lams), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        lams = self._less(x.l, 1, fraction + integer_bits, top=False)
        n, r, scaled = x.size, x.l.reshape(-1), exp2_scale(integer_bits, scale)
        self._deal_by_pieces(
            n, lambda n: 2 * n, 2,
            lambda begin, end, share0: self.kernel.exp2_deal(
                of_elements(lams[0], n, begin, end), r[begin:end], share0, fraction, integer_bits, scaled),
        )  # fmt: skip
        self.charge(costs.dealt(2 * n))
        return TrioShare(x.shape, masked=False)

    # --- bits -----------------------------------------------------------------------------------------------------
    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        self._deal_gates(bits.planes, np.broadcast_to(x.l, bits.shape))
        self.charge(costs.dealt(2 * bits.size))
        return TrioShare(bits.shape, masked=False)

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        rows, n = len(bits.planes), bits.size // len(bits.planes)
        share0 = cut(self.draw(0, bits.size), [n] * rows)
        parts = [self.kernel.bit_deal(lam, share, n) for lam, share in zip(bits.planes, share0, strict=True)]
        self._send(parts[0] if rows == 1 else np.concatenate(parts))
        self.charge(costs.dealt(bits.size))
        return TrioShare(bits.shape, masked=False)

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        rows = coefficients.astype(U)
        lams, r, each = bits.rows, x.l.reshape(-1), costs.piece_words(rows.shape)
        self.charge(costs.dealt(x.size * each))
        self._deal_by_pieces(
            x.size, lambda n: n * each, each,
            lambda begin, end, share0: self.kernel.piecewise_deal(
                r[begin:end], lams[:, begin // 64 : -(-end // 64)], rows, share0),
        )  # fmt: skip
        return TrioShare(x.shape, masked=False)

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        lams = np.moveaxis(bits.word, axis, 0)
        shape, count = lams.shape[1:], lams.shape[0]
        n = math.prod(shape)
        words = plane_words(n)
        current = planes.pack_bits(lams.reshape(count, n))
        for groups in conjunction_groups(count, words):
            message = [conjunctions(current[group])[1:].ravel() for group in groups if len(group) > 1]
            products = np.concatenate(message)
            products ^= self.kernel.words(self.draw(0, products.size))
            self._send(products)
            size = words * len(message)
            fresh = self.kernel.words(self.draw(0, size)) ^ self.kernel.words(self.draw(1, size))
            fresh = fresh.reshape(len(message), words)
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
