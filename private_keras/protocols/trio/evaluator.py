"""Servers 0 and 1, from their own view: what they hold, what they open to each other, what they compute.

Server 0 draws its half of every dealt value from the key it shares with the helper; server 1 receives the helper's
correction. Everything that crosses between the evaluators is masked by a fresh draw that the other one cannot make.
"""
import math
from collections.abc import Sequence

import numpy as np

from private_keras.protocols.protocol import Bilinear, Kept, Linear
from private_keras.protocols.rounds import Opened, Rounds, Settle
from private_keras.protocols.simulate import exp2_scale
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.party import OFFSET, Party, U, compared_together, conjunction_groups, cut, subsets
from private_keras.protocols.trio.shares import TrioBits, TrioShare
from private_keras.ring import planes, tree
from private_keras.ring.kernel import plane_words

HELPER = 2
BLOCK = 4096  # elements whose pieces are computed at one time, so that they stay in a core's cache



def _word(value: int) -> np.uint64:
    """value mod 2^64."""
    return U(value & 0xFFFFFFFFFFFFFFFF)

class Evaluator(Party):
    """See `Protocol` for the methods, docs/security.md for the simulation argument."""

    def __init__(self, party, kernel, channels, keys):
        super().__init__(party, kernel, channels, keys)
        self.other = 1 - party
        self.rounds = Rounds(self._exchange)

    # --- messages -------------------------------------------------------------------------------------------------
    def _exchange(self, mine: np.ndarray) -> np.ndarray:
        theirs = np.empty_like(mine)
        self._channels[self.other].exchange(self.step(self.other), mine, theirs)
        return theirs

    def _dealt(self, *counts: int) -> list[np.ndarray]:
        """This party's shares of values that the helper deals in one message, one flat array per count."""
        if self.party == 0:
            return self.draw_parts(HELPER, counts)
        message = np.empty(sum(counts), U)
        self._channels[HELPER].receive(self.step(HELPER), message)
        return cut(message, counts)

    # --- forms ----------------------------------------------------------------------------------------------------
    def masked(self, m: np.ndarray, l: np.ndarray) -> TrioShare:  # noqa: E741
        """A client's input: m = x + l0 + l1, and this party's l."""
        return TrioShare(m.shape, m=m, l=l, masked=True)

    def _additive(self, x: TrioShare) -> np.ndarray:
        if x.masked:
            return np.asarray(x.m - x.l if self.party == 0 else U(0) - x.l)
        return x.z

    def constant(self, values: np.ndarray) -> TrioShare:
        return TrioShare(values.shape, m=values, l=np.broadcast_to(U(0), values.shape), masked=True)

    def output(self, x: TrioShare) -> np.ndarray:
        blind = self.draw(self.other, x.size).reshape(x.shape)
        z = self._additive(x)
        return np.asarray(z + blind if self.party == 0 else z - blind)

    def keep(self, *xs: TrioShare) -> list[Kept]:
        fresh = [TrioShare(x.shape, z=self._additive(x), masked=False) for x in xs]
        self.mask(*fresh)
        # Copies: `mask` leaves views of one array, which would live as long as the last of them.
        return [(x.m.copy(), x.l.copy()) for x in fresh]

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        if all(x.masked for x in xs):
            return TrioShare(shape, m=fn(*(x.m for x in xs)), l=fn(*(x.l for x in xs)), masked=True)
        return TrioShare(shape, z=fn(*(self._additive(x) for x in xs)), masked=False)

    def add_public(self, x: TrioShare, values: np.ndarray) -> TrioShare:
        if x.masked:
            return TrioShare(x.shape, m=x.m + values, l=x.l, masked=True)
        return TrioShare(x.shape, z=x.z + values if self.party == 0 else x.z, masked=False)

    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        fresh = self.draw(HELPER, total)
        mine = np.concatenate([x.z.ravel() for x in xs]) + fresh if len(xs) > 1 else xs[0].z.ravel() + fresh

        def settle(theirs: np.ndarray) -> None:
            opened = mine + theirs
            at = 0
            for x in xs:
                x.m = opened[at : at + x.size].reshape(x.shape)
                x.l = fresh[at : at + x.size].reshape(x.shape)
                x.z, x.masked, x.opening = None, True, None
                at += x.size

        return mine, settle

    # --- products -------------------------------------------------------------------------------------------------
    def bilinear(self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare) -> TrioShare:
        # x y = (mx - lx)(my - ly); the helper deals lx ly. [masked evaluation: ASTRA, eprint 2019/429]
        self.mask(x, y)
        size = math.prod(shape)
        (g,) = self._dealt(size)
        first = y.m - y.l if self.party == 0 else U(0) - y.l
        z = np.asarray(op(x.m, np.asarray(first)))
        z -= op(x.l, y.m)
        z += g.reshape(shape)
        self.charge(costs.dealt(size))
        return TrioShare(shape, z=z, masked=False)

    # --- one opening ----------------------------------------------------------------------------------------------
    def _dealt_shift(self, n: int, bits: int, word: np.ndarray, raw: np.ndarray, wrap: np.ndarray) -> np.ndarray:
        """wrap * carry - word: the dealt part of a truncation. `raw` is the share of the mask's top bit mod 2^bits,
        full words drawn by evaluator 0, planes received by evaluator 1.
        """
        carry = raw >> U(64 - bits) if self.party == 0 else self.kernel.from_planes(raw, bits, n)
        carry *= wrap
        carry -= word
        return carry

    def truncate(self, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        n = x.size
        r, top = self._dealt(n, n if self.party == 0 else plane_words(n) * bits)
        public, wrap = self.kernel.truncate_public(x.m.ravel() + U(1 << OFFSET), bits)
        z = self._dealt_shift(n, bits, r, top, wrap)
        if self.party == 0:
            z += public
        self.charge(costs.carry(n, bits))
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def rescale(self, x: TrioShare, factor: int, bits: int) -> TrioShare:
        # With c = x + 2^62 + r, less 2^64 where that wraps: x f / 2^b = (c - 2^62 - r + wrap 2^64) f / 2^b. The product
        # with c is public, in 128 bits; that with r the helper deals, as it deals r >> b for a truncation.
        self.mask(x)
        n, size = x.size, abs(factor)
        word, top = self._dealt(n, n if self.party == 0 else plane_words(n) * bits)
        c = x.m.ravel() + U(1 << OFFSET)
        wrap = (~c >> U(63)) * _word(size << (64 - bits))
        z = self._dealt_shift(n, bits, word, top, wrap)
        if self.party == 0:
            z += self.kernel.multiply_shift(c, size, bits) - _word(size << (OFFSET - bits))
        self.charge(costs.carry(n, bits))
        return TrioShare(x.shape, z=(z if factor >= 0 else np.negative(z)).reshape(x.shape), masked=False)

    def _less(self, cs: list[np.ndarray], width: int, *, top: bool) -> list[np.ndarray]:
        """Masked planes [c mod 2^width < r mod 2^width] (xor the top bits, if asked), one per public c; 3 rounds.

        Dealer-assisted multi-input AND over one-hot digits; see `ring.tree` for the wires.
        """
        self.charge(costs.compare(cs[0].size, len(cs), width))
        count, digit_words = len(cs), plane_words(cs[0].size) * tree.digit_planes(width)
        if joined := compared_together(cs[0].size, count):
            filled = np.zeros((count, plane_words(cs[0].size) * 64), U)
            filled[:, : cs[0].size] = cs
            cs = [filled.ravel()]
        n, words = cs[0].size, plane_words(cs[0].size)
        depth = len(tree.levels(width))
        product_words = [words * tree.product_planes(width, level) for level in range(depth)]
        digits, *products = self._dealt(digit_words, *product_words * len(cs))
        if joined:
            digits = planes.repeated(digits, tree.digit_planes(width), count)
        mask_words = [words * tree.opened_planes(width, level) for level in range(depth)] + [words]
        drawn = self.draw_parts(HELPER, mask_words * len(cs))
        masks = [drawn[t * len(mask_words) : (t + 1) * len(mask_words)] for t in range(len(cs))]
        state = [
            self.kernel.digits_compare(c, width, digits, self.party, masks[t][0]) for t, c in enumerate(cs)
        ]
        for level in range(depth):
            mine = [opened for opened, _ in state]
            theirs = self.rounds.open(np.concatenate(mine)).reshape(len(cs), -1)
            state = [
                self.kernel.tree_combine(
                    mine[t] ^ theirs[t], state[t][1], products[t * depth + level], masks[t][level],
                    width, n, level, self.party, masks[t][level + 1],
                )
                for t in range(len(cs))
            ]
        mine = np.stack([opened for opened, _ in state])
        if self.party == 0 and top:
            for t, c in enumerate(cs):
                mine[t] ^= self.kernel.to_planes(c, 1, width)
        return list((mine ^ self.rounds.open(mine.ravel()).reshape(mine.shape)).reshape(count, -1))

    def relu_and_bits(self, x: TrioShare, bits: int = 0) -> tuple[TrioShare, TrioBits]:
        self.mask(x)
        # [x >= 1]: the integer 0 is kept or not, relu is the same; its slope at 0 is 0, as in Keras.
        (hat,) = self._less([x.m.ravel() + U((1 << OFFSET) - 1)], OFFSET, top=True)
        return self._kept(hat, x, bits), TrioBits(planes=hat[None], shape=x.shape)

    def gate(self, gates: TrioBits, x: TrioShare, bits: int) -> TrioShare:
        self.mask(x)
        return self._kept(gates.plane, x, bits)

    def _kept(self, hat: np.ndarray, x: TrioShare, bits: int) -> TrioShare:
        """Masked x times the secret bits whose masked form is the plane `hat`, divided by 2^bits."""
        n = x.size
        if not bits:
            lam, lam_l = self._dealt(n, n)
            value = (x.m - x.l).ravel() if self.party == 0 else (U(0) - x.l).ravel()
            kept = x.m.ravel() * lam - lam_l
            self.charge(costs.dealt(2 * n))
        else:
            narrow = n if self.party == 0 else plane_words(n) * bits
            r, lam, lam_r, top, lam_top = self._dealt(n, n, n, narrow, narrow)
            public, wrap = self.kernel.truncate_public(x.m.ravel() + U(1 << OFFSET), bits)
            value = self._dealt_shift(n, bits, r, top, wrap)
            kept = self._dealt_shift(n, bits, lam_r, lam_top, wrap)
            lam *= public
            kept += lam
            if self.party == 0:
                value += public
            self.charge(costs.carry(n, bits), costs.carry(n, bits), costs.dealt(n))
        z = self.kernel.select(hat, value - kept, kept)
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def compare(self, x: TrioShare, thresholds: Sequence[int], width: int = OFFSET) -> TrioBits:
        self.mask(x)
        m = x.m.ravel()
        cs = [m + U(((1 << width) - int(t)) & 0xFFFFFFFFFFFFFFFF) for t in thresholds]
        hats = self._less(cs, width, top=True)
        return TrioBits(planes=np.stack(hats), shape=(len(hats), *x.shape))

    def exp2_masked(self, x: TrioShare, fraction: int, integer_bits: int, offset: int, scale: int) -> TrioShare:
        self.mask(x)
        n, bits = x.size, fraction + integer_bits
        c = x.m.ravel() & U((1 << bits) - 1)
        (hat,) = self._less([c], bits, top=False)
        d, lam_d = self._dealt(n, n)
        rest = scale - exp2_scale(integer_bits, scale)
        low = self.kernel.exp2_public(c, fraction, offset, rest)
        high = self.kernel.exp2_public(c, fraction, offset + (1 << integer_bits), rest)
        step = (high - low) * lam_d
        z = self.kernel.select(hat, high * d - step, low * d + step)
        self.charge(costs.dealt(2 * n))
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    # --- bits -----------------------------------------------------------------------------------------------------
    def multiply_bits(self, bits: TrioBits, x: TrioShare) -> TrioShare:
        self.mask(x)
        lam, lam_l = (a.reshape(bits.shape) for a in self._dealt(bits.size, bits.size))
        kept = x.m * lam - lam_l
        self.charge(costs.dealt(2 * bits.size))
        return TrioShare(bits.shape, z=self._chosen(bits, self._additive(x) - kept, kept), masked=False)

    def bits_to_share(self, bits: TrioBits) -> TrioShare:
        (lam,) = self._dealt(bits.size)
        one = U(1) if self.party == 0 else U(0)
        self.charge(costs.dealt(bits.size))
        return TrioShare(bits.shape, z=self._chosen(bits, one - lam, lam).reshape(bits.shape), masked=False)

    def _chosen(self, bits: TrioBits, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a where hat is 1, else b, in their shape."""
        rows = len(bits.planes)
        parts = zip(bits.planes, a.reshape(rows, -1), b.reshape(rows, -1), strict=True)
        return np.stack([self.kernel.select(plane, u, v) for plane, u, v in parts]).reshape(a.shape)

    def piecewise(self, x: TrioShare, bits: TrioBits, coefficients: np.ndarray) -> TrioShare:
        self.mask(x)
        rows = coefficients.astype(U)
        terms, n, count = rows.shape[1], x.size, len(rows) - 1
        m, l = x.m.ravel(), x.l.ravel()  # noqa: E741
        square, dealt = self._dealt(n if terms == 3 else 0, n * terms * count)
        dealt, hats = dealt.reshape(count, terms, n), bits.word.reshape(count, n)
        z = np.empty(n, U)
        for at in range(0, n, BLOCK):
            part = slice(at, at + BLOCK)
            z[part] = self._pieces(rows, m[part], l[part], square[part], hats[:, part].astype(U), dealt[:, :, part])
        self.charge(costs.dealt(n * ((terms == 3) + terms * count)))
        return TrioShare(x.shape, z=z.reshape(x.shape), masked=False)

    def _pieces(
        self, rows: np.ndarray, m: np.ndarray, l: np.ndarray, square: np.ndarray, hats: np.ndarray,  # noqa: E741
        dealt: np.ndarray,
    ) -> np.ndarray:
        """Share of q_0(x) + sum_j b_j q_j(x), for b_j = hat_j + s_j lam_j with s_j = 1 - 2 hat_j.

        q(x) = q(m) - q'(m) l + a2 l^2. What is public of b_j goes into the coefficients of one polynomial of x; `dealt`
        are shares of lam_j, lam_j l and lam_j l^2.
        """
        weights = np.ascontiguousarray(rows[1:].T)
        matmul = self.kernel.matmul
        public = matmul(weights, hats) + rows[0][:, None]
        signed = dealt * (U(1) - (hats << U(1)))[:, None]
        # Of the terms with lam_j, the coefficients of powers of m: of q(m), then less those of q'(m).
        parts = matmul(weights, signed[:, 0])
        parts[:-1] -= _derivative(matmul(weights, signed[:, 1]))
        if self.party == 0:
            parts += public
        out = _horner(parts, m)
        out -= _horner(_derivative(public), m) * l
        if len(public) == 3:
            out += public[2] * square
            out += matmul(weights[2:], signed[:, 2])[0]
        return out

    def bits_and(self, bits: TrioBits, axis: int) -> TrioBits:
        hats = np.moveaxis(bits.word, axis, 0)
        shape, count = hats.shape[1:], hats.shape[0]
        n = math.prod(shape)
        words = plane_words(n)
        current = planes.pack_bits(hats.reshape(count, n))
        for groups in conjunction_groups(count):
            dealt = self._dealt(*[words * ((1 << len(g)) - 1) for g in groups if len(g) > 1])
            rows = {}
            for index, (group, message) in enumerate(zip([g for g in groups if len(g) > 1], dealt, strict=True)):
                rows[index] = self._and_group(current[group], message.reshape(-1, words))
            own = self.draw(HELPER, words * len(rows)).reshape(len(rows), words)
            mine = np.stack([rows[i] for i in range(len(rows))]) ^ own
            opened = mine ^ self.rounds.open(mine.ravel()).reshape(mine.shape)
            passed = [current[g[0]] for g in groups if len(g) == 1]
            current = np.concatenate([opened, np.stack(passed)]) if passed else opened
            self.charge(costs.dealt(sum(map(len, dealt))), costs.exchange(words * len(rows)))
        return TrioBits(planes.unpack_bits(current[0], n).reshape(shape))

    def _and_group(self, hats: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """Share of AND_i (hat_i xor lam_i) = XOR over subsets S of prod(hat outside S) * prod(lam in S)."""
        size = len(hats)
        total = np.bitwise_and.reduce(hats) if self.party == 0 else np.zeros_like(hats[0])
        for subset, share in zip(subsets(size), dealt, strict=True):
            outside = [hats[i] for i in range(size) if i not in subset]
            total = total ^ (np.bitwise_and.reduce([share, *outside]) if outside else share)
        return total

    def bits_not(self, bits: TrioBits) -> TrioBits:
        return TrioBits(~bits.word)

    def bits_linear(self, fn: Linear, shape: tuple[int, ...], *bits: TrioBits) -> TrioBits:
        return TrioBits(fn(*(b.word for b in bits)))

    def one_hot(self, x: TrioShare, depth: int) -> TrioShare:
        # The low bits of m are x + l mod 2^k: rotating the dealt one-hot vector of l by them gives that of x.
        self.mask(x)
        size = 1 << max(1, (depth - 1).bit_length())
        (hot,) = self._dealt(x.size * size)
        at = (x.m.ravel()[:, None] - np.arange(depth, dtype=U)) & U(size - 1)
        z = np.take_along_axis(hot.reshape(x.size, size), at.astype(np.int64), axis=1)
        self.charge(costs.dealt(x.size * size))
        return TrioShare((*x.shape, depth), z=z.reshape(*x.shape, depth), masked=False)


def _horner(rows: np.ndarray, m: np.ndarray) -> np.ndarray:
    """The polynomials whose coefficients stand in the columns, lowest degree first, each at its own m."""
    total = rows[-1].copy()
    for row in rows[-2::-1]:
        total *= m
        total += row
    return total


def _derivative(rows: np.ndarray) -> np.ndarray:
    """Coefficients of the derivatives of polynomials of degree 1 or 2."""
    return np.concatenate([rows[1:2], rows[2:] << U(1)])
