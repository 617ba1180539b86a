"""Servers 0 and 1, from their own view: what they hold, what they open to each other, what they compute.

Server 0 draws its half of every dealt value from the key it shares with the helper; server 1 receives the helper's
correction. Everything that crosses between the evaluators is masked by a fresh draw that the other one cannot make.
"""
import math
from collections.abc import Callable, Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Kept, Linear, relu_window, times
from private_keras.protocols.rounds import Opened, Rounds, Settle
from private_keras.protocols.simulate import exp2_scale
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.dealing import BLOCK, in_pieces, of_elements, pieces
from private_keras.protocols.trio.party import OFFSET, Party, U, add_product, conjunction_groups, conjunctions
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring import planes, tree
from private_keras.ring.kernel import BLOCK_WORDS, plane_words
from private_keras.ring.steps import Factor, Twofold, Words, cut, part

HELPER = 2
Take = Callable[[int], Words]


class Evaluator(Party):
    """See `Protocol` for the methods, docs/security.md for the simulation argument."""

    def __init__(self, party, kernel, channels, keys):
        super().__init__(party, kernel, channels, keys)
        self.other = 1 - party
        self.rounds = Rounds(self._exchange)

    # --- messages -------------------------------------------------------------------------------------------------
    def _exchange(self, mine: np.ndarray) -> np.ndarray:
        theirs = np.empty(mine.size, U)
        self._channels[self.other].exchange(self.step(self.other), mine, theirs)
        return theirs

    def _dealt(self, *counts: int) -> list[Words]:
        """This party's shares of values that the helper deals in one message, of `counts` words."""
        return cut(self._dealt_words(sum(counts)), counts)

    def _dealt_words(self, count: int) -> Words:
        if self.party == 0:
            return self.draw(HELPER, count)
        message = np.empty(count, U)
        self._channels[HELPER].receive(self.step(HELPER), message)
        return message

    def _dealing(self, words: int) -> Take:
        """One message of the helper, of which this party takes the next words when it needs them.

        All are taken before the step opens anything: another branch's message follows.
        """
        if self.party == 1 and in_pieces(words):
            channel = self._channels[HELPER]
            channel.expect(self.step(HELPER), words * U(0).nbytes)

            def fill(count: int) -> np.ndarray:
                message = np.empty(count, U)
                channel.fill(message)
                return message

            return fill
        return _Parts(self._dealt_words(words)).take

    def _by_pieces(
        self, n: int, words: Callable[[int, int], int], step: Callable[[int, int, Words], np.ndarray],
        take: Take | None = None,
    ) -> np.ndarray:
        """step(begin, end, dealt) for all pieces of n elements, flat.

        Args:
            n: elements.
            words: how many are dealt for how many elements, by party.
            step: computes a piece's elements.
            take: of the message that the words are part of, where it is not one of their own.
        """
        runs = pieces(n, words(BLOCK, 1))
        if len(runs) == 1:
            count = words(n, self.party)
            dealt = take(count) if take is not None else self._dealt_words(count)
            return step(0, n, dealt).reshape(-1)
        take = take or self._dealing(words(n, self.party))
        z = np.empty(n, U)
        for begin, end in runs:
            z[begin:end] = step(begin, end, take(words(end - begin, self.party)))
        return z

    # --- forms ----------------------------------------------------------------------------------------------------
    def masked(self, m: np.ndarray, l: np.ndarray) -> TrioShare:  # noqa: E741
        """A client's input: m = x + l0 + l1, and this party's l."""
        return TrioShare(m.shape, m=m, l=l, masked=True)

    def _additive(self, x: TrioShare) -> np.ndarray:
        if x.masked:
            return np.asarray(x.m - x.l if self.party == 0 else np.negative(x.l))
        return x.z

    def constant(self, values: np.ndarray) -> TrioShare:
        return TrioShare(values.shape, m=values, l=np.broadcast_to(U(0), values.shape), masked=True)

    def output(self, x: TrioShare) -> np.ndarray:
        blind, z = self.draw(self.other, x.size), self._additive(x)
        blinded = self.kernel.add(z, blind) if self.party == 0 else self.kernel.subtract(z, blind)
        return blinded.reshape(x.shape)

    def keep(self, *xs: TrioShare) -> list[Kept]:
        fresh = [TrioShare(x.shape, z=self._additive(x), masked=False) for x in xs]
        self.mask(*fresh)
        # Copies: `mask` leaves views of one array, which would live as long as the last of them.
        return [(x.m.copy(), x.l.copy()) for x in fresh]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        for x in xs:
            if not x.masked:
                return TrioShare(shape, z=fn(*[self._additive(x) for x in xs]), masked=False)
        return TrioShare(shape, m=fn(*[x.m for x in xs]), l=fn(*[x.l for x in xs]), masked=True)

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        if x.masked:
            return TrioShare(x.shape, m=x.m + values, l=x.l, masked=True)
        return TrioShare(x.shape, z=x.z + values if self.party == 0 else x.z, masked=False)

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        fresh, own, opened = self.draw(HELPER, total), np.empty(total, U), np.empty(total, U)
        if len(xs) == 1:
            self.kernel.mask(xs[0].z, fresh, own, opened)
        else:
            at = 0
            for x in xs:
                size = x.size
                self.kernel.mask(x.z, part(fresh, at, size), own[at : at + size], opened[at : at + size])
                at += size

        def settle(theirs: np.ndarray) -> None:
            np.add(opened, theirs, out=opened)
            at = 0
            for x in xs:
                end = at + x.size
                x.m, x.l = opened[at:end].reshape(x.shape), own[at:end].reshape(x.shape)
                x.z, x.masked, x.opening = None, True, None
                at = end

        return opened, settle

    # --- products -------------------------------------------------------------------------------------------------
    def _operand(self, x: TrioShare) -> Factor:
        return Twofold(x.m, x.l)

    def bilinear(
        self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare, twice: bool = False
    ) -> TrioShare:
        # x y = (mx - lx)(my - ly); the helper deals lx ly. [masked evaluation: ASTRA, eprint 2019/429]
        self.mask(x, y)
        size = math.prod(shape)
        if twice:
            # mx - 2 lx is x - r at evaluator 0, x + r at evaluator 1, for r = lx0 - lx1: with s of y likewise,
            # (x - r)(y - s) + (x + r)(y + s) = 2 x y + 2 r s, and the helper deals -2 r s. What it deals is added at
            # the end, so that all servers are at their products at the same time.
            z = op(self._operand(x), self._operand(y)).reshape(-1)
            g = self._dealt_words(size)
            self.charge(costs.dealt(size))
            return TrioShare(shape, z=self.kernel.add(z, g, out=z).reshape(shape), masked=False)
        g = self._dealt_words(size)
        self.charge(costs.dealt(size))
        if op is times and x.shape == y.shape:
            return TrioShare(shape, z=self.kernel.multiply((x.m, x.l), (y.m, y.l), g, self.party), masked=False)
        if self.party == 1:
            z = g.reshape(shape)
            add_product(op, z, x.m, y.l, subtract=True)
            add_product(op, z, x.l, y.m, subtract=True)
            return TrioShare(shape, z=z, masked=False)
        # mx (my - ly) - lx my = (mx - lx) my - mx ly: the difference is taken of the smaller operand.
        if x.size < y.size:
            z, factors = op(self._additive(x), y.m), (x.m, y.l)
        else:
            z, factors = op(x.m, self._additive(y)), (x.l, y.m)
        if op is times:
            z = np.ascontiguousarray(z - op(*factors))
        else:
            op(*factors, out=z, subtract=True)
        z = z.reshape(-1)
        return TrioShare(shape, z=self.kernel.add(z, g, out=z).reshape(shape), masked=False)

    # --- one opening ----------------------------------------------------------------------------------------------
    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        return self.rescale(x, 1, bits)

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        # With c = x + 2^62 + r, less 2^64 where that wraps: x f / 2^b = (c - 2^62 - r + wrap 2^64) f / 2^b. The product
        # with c is public, in 128 bits; that with r the helper deals, and r's top bit, without which nothing wraps.
        self.mask(x)
        m = x.m.reshape(-1)
        z = self._by_pieces(
            x.size, lambda n, party: n + costs.carry_words(n, bits, party),
            lambda begin, end, dealt: self.kernel.rescale(m[begin:end], dealt, factor, bits, self.party),
        )  # fmt: skip
        self.charge(costs.carry(x.size, bits))
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def _less(self, m: np.ndarray, offsets: Sequence[int], width: int, *, top: bool, low: int = 0) -> np.ndarray:
        """Masked bits [c < r] of c = m + offset, as one plane for each offset, where the helper knows r; of both count
        bits low .. low+width-1. With `top`, the next bit of both is added.

        Dealer-assisted multi-input AND over one-hot digits; see `ring.tree` for the wires.
        """
        n, count, m = m.size, len(offsets), m.reshape(-1)
        self.charge(costs.compare(n, count, width))
        (digit_words, *product_words), openings = costs.compared_deals(n, count, width), costs.openings(n, count, width)
        take = self._dealing(digit_words + sum(product_words))
        masks = cut(self.draw(HELPER, sum(openings)), openings)
        digit_planes = tree.digit_planes(width)
        wires = [
            self.kernel.digits_compare(
                m[begin:end], offsets, width, take(digit_planes * plane_words(end - begin)), self.party,
                of_elements(masks[0], n, begin, end), top=top, low=low,
            )
            for begin, end in pieces(n, digit_planes * BLOCK_WORDS)
        ]  # fmt: skip
        mine, kept = wires[0] if len(wires) == 1 else map(np.concatenate, zip(*wires, strict=True))
        products = [take(words) for words in product_words]
        for level, dealt in enumerate(products):
            theirs = self.rounds.open(mine)
            mine, kept = self.kernel.tree_combine(
                mine, theirs, kept, dealt, masks[level], width, n, level, self.party, masks[level + 1], count=count
            )
        return planes.to_rows(mine ^ self.rounds.open(mine), count, n)

    def relu_and_bits(self, x: TrioShare, bits: int = 0, width: int = OFFSET) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        # [x >= 1]: the integer 0 is kept or not, relu is the same; its slope at 0 is 0, as in Keras. Without the low
        # bits of c and r it is [x >= 2^low - r mod 2^low].
        low, count = relu_window(bits, width)
        hats = self._less(x.m, [(1 << low + count) - (1 << low)], count, top=True, low=low)
        return self._kept(hats[0], x, bits), TrioBits(planes=hats, shape=x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(gates.plane, x, bits)

    def _kept(self, hat: np.ndarray, x: TrioShare, bits: int) -> TrioShare:
        """Masked x times the secret bits whose masked form is the plane `hat`, divided by 2^bits."""
        n, m = x.size, x.m.reshape(-1)
        if bits:
            z = self._by_pieces(
                n, lambda n, party: 3 * n + 2 * costs.carry_words(n, bits, party),
                lambda begin, end, dealt: self.kernel.gate_rescaled(
                    of_elements(hat, n, begin, end), m[begin:end], dealt, bits, self.party),
            )  # fmt: skip
            self.charge(costs.carry(n, bits), costs.carry(n, bits), costs.dealt(n))
        else:
            z = self._gated(hat, m, x.l.reshape(-1), self._dealing(2 * n))
            self.charge(costs.dealt(2 * n))
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def _gated(self, hat: np.ndarray, m: np.ndarray, l: np.ndarray, take: Take) -> np.ndarray:  # noqa: E741
        """Masked values times secret bits; all flat."""
        n = m.size
        return self._by_pieces(
            n, lambda n, party: 2 * n,
            lambda begin, end, dealt: self.kernel.gate(
                of_elements(hat, n, begin, end), m[begin:end], l[begin:end], *cut(dealt, [end - begin] * 2), self.party
            ),
            take,
        )  # fmt: skip

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET, low: int = 0) -> TrioBits:
        self.mask(x)
        hats = self._less(x.m, [(1 << width) - int(t) for t in thresholds], width - low, top=True, low=low)
        return TrioBits(planes=hats, shape=(len(hats), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        hats = self._less(x.m, [0], fraction + integer_bits, top=False)
        n, m = x.size, x.m.reshape(-1)
        offset += scale - exp2_scale(integer_bits, scale)
        self.charge(costs.dealt(2 * n))
        z = self._by_pieces(
            n, lambda n, party: 2 * n,
            lambda begin, end, dealt: self.kernel.exp2_share(
                of_elements(hats[0], n, begin, end), m[begin:end], dealt, fraction, integer_bits, offset),
        )  # fmt: skip
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    # --- bits -----------------------------------------------------------------------------------------------------
    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        rows, n = len(bits.planes), bits.size // len(bits.planes)
        m, l = (np.broadcast_to(a, bits.shape).reshape(rows, n) for a in (x.m, x.l))  # noqa: E741
        take = self._dealing(2 * bits.size)
        z = [self._gated(*of_row, take) for of_row in zip(bits.planes, m, l, strict=True)]
        self.charge(costs.dealt(2 * bits.size))
        return TrioShare(bits.shape, z=_stacked(z, bits.shape), masked=False)

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        rows, n = len(bits.planes), bits.size // len(bits.planes)
        lam = self._dealt(*[n] * rows)
        z = [self.kernel.bit_share(*of_row, n, self.party) for of_row in zip(bits.planes, lam, strict=True)]
        self.charge(costs.dealt(bits.size))
        return TrioShare(bits.shape, z=_stacked(z, bits.shape), masked=False)

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        rows = coefficients.astype(U, copy=False)
        hats, m, l = bits.rows, x.m.reshape(-1), x.l.reshape(-1)  # noqa: E741
        each = costs.piece_words(rows.shape)
        self.charge(costs.dealt(x.size * each))
        z = self._by_pieces(
            x.size, lambda n, party: n * each,
            lambda begin, end, dealt: self.kernel.piecewise(
                m[begin:end], l[begin:end], hats[:, begin // 64 : -(-end // 64)], rows, dealt, self.party),
        )  # fmt: skip
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        hats = np.moveaxis(bits.word, axis, 0)
        shape, count = hats.shape[1:], hats.shape[0]
        n = math.prod(shape)
        words = plane_words(n)
        current = planes.pack_bits(hats.reshape(count, n))
        for groups in conjunction_groups(count, words):
            dealt = self._dealt(*[words * ((1 << len(g)) - 1) for g in groups if len(g) > 1])
            rows = {}
            for index, (group, message) in enumerate(zip([g for g in groups if len(g) > 1], dealt, strict=True)):
                rows[index] = self._and_group(current[group], self.kernel.words(message).reshape(-1, words))
            own = self.kernel.words(self.draw(HELPER, words * len(rows))).reshape(len(rows), words)
            mine = np.stack([rows[i] for i in range(len(rows))]) ^ own
            opened = mine ^ self.rounds.open(mine.ravel()).reshape(mine.shape)
            passed = [current[g[0]] for g in groups if len(g) == 1]
            current = np.concatenate([opened, np.stack(passed)]) if passed else opened
            self.charge(costs.dealt(sum(of_group.size for of_group in dealt)), costs.exchange(words * len(rows)))
        return TrioBits(planes.unpack_bits(current[0], n).reshape(shape))

    def _and_group(self, hats: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """Share of AND_i (hat_i xor lam_i) = XOR over subsets S of prod(hat outside S) * prod(lam in S)."""
        outside = conjunctions(hats)[::-1]
        total = np.bitwise_xor.reduce(dealt & outside[1:], axis=0)
        return total ^ outside[0] if self.party == 0 else total

    def bits_not(self, bits: TrioBits) -> TrioBits:
        return TrioBits(~bits.word)

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: TrioBits) -> TrioBits:
        return TrioBits(fn(*(b.word for b in bits)))

    def one_hot(self, x: TrioShare, depth: int) -> TrioShare:
        # The low bits of m are x + l mod 2^k: rotating the dealt one-hot vector of l by them gives that of x.
        self.mask(x)
        size = 1 << max(1, (depth - 1).bit_length())
        hot = self.kernel.words(self._dealt_words(x.size * size))
        at = (x.m.ravel()[:, None] - np.arange(depth, dtype=U)) & U(size - 1)
        z = np.take_along_axis(hot.reshape(x.size, size), at.astype(np.int64), axis=1)
        self.charge(costs.dealt(x.size * size))
        return TrioShare((*x.shape, depth), z=z.reshape(*x.shape, depth), masked=False)


class _Parts:
    """Words of a message, taken one after the other."""

    def __init__(self, words: Words):
        self._words = words
        self._at = 0

    def take(self, count: int) -> Words:
        """The next so many."""
        at, self._at = self._at, self._at + count
        return self._words if not at and count == self._words.size else part(self._words, at, count)


def _stacked(rows: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return (rows[0] if len(rows) == 1 else np.stack(rows)).reshape(shape)
