"""The protocol's steps on ring elements in NumPy: the definition of what every other kernel computes."""

import numpy as np

from private_keras.errors import KernelError
from private_keras.ring import planes
from private_keras.ring.kernel import Kernel, plane_words
from private_keras.ring.steps import Draw, Words, cut

U = np.uint64


class NumpySteps(Kernel):
    """See `steps.Steps`."""

    def words(self, words: Words) -> np.ndarray:
        if not isinstance(words, Draw):
            return words
        odd = words.first % 2
        return self.random(words.key, words.nonce, words.size + odd, first_block=words.first // 2)[odd:]

    def add(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        return np.add(_flat(self.words(x)), _of(self.words(y), x.size), out=out)

    def subtract(self, x: Words, y: Words, out: np.ndarray | None = None) -> np.ndarray:
        return np.subtract(_flat(self.words(x)), _of(self.words(y), x.size), out=out)

    def mask(self, z: np.ndarray, words: Words, own: np.ndarray, message: np.ndarray) -> None:
        own[:] = _of(self.words(words), z.size)
        message[:] = _flat(z) + own

    def multiply(
        self, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], g: Words, party: int
    ) -> np.ndarray:
        (mx, lx), (my, ly) = x, y
        ring(mx, lx, my, ly)
        if not mx.shape == lx.shape == my.shape == ly.shape:
            raise KernelError(f"expected factors of one shape. Received: {mx.shape} and {my.shape}")
        first = my - ly if party == 0 else U(0) - ly
        return mx * first - lx * my + _of(self.words(g), mx.size).reshape(mx.shape)

    def multiply_deal(self, x: np.ndarray, y: np.ndarray, g0: Words) -> np.ndarray:
        ring(x, y)
        return _flat(x) * _of(_flat(y), x.size) - _of(self.words(g0), x.size)

    def rescale(self, m: np.ndarray, dealt: Words, factor: int, bits: int, party: int) -> np.ndarray:
        n, size = m.size, _factor(factor, bits, party)
        word, top = cut(self.words(dealt), [n, _carry_words(n, bits, party)])
        c = _flat(m) + U(1 << 62)
        z = self._carry(c, top, size, bits, party) - _of(word, n)
        if party == 0:
            z += self.multiply_shift(c, size, bits) - _word(size << (62 - bits))
        return (z if factor >= 0 else U(0) - z).reshape(m.shape)

    def _carry(self, c: np.ndarray, top: np.ndarray, factor: int, bits: int, party: int) -> np.ndarray:
        """[c < 2^63] factor 2^(64-bits) t, for a share t of a bit mod 2^bits."""
        _of(top, _carry_words(c.size, bits, party))
        share = top >> U(64 - bits) if party == 0 else self.from_planes(top, bits, c.size)
        return (~c >> U(63)) * _word(factor << (64 - bits)) * share

    def rescale_deal(self, r: np.ndarray, dealt0: Words, factor: int, bits: int) -> np.ndarray:
        r, size = _flat(r), _factor(factor, bits, 0)
        word, top = cut(_of(self.words(dealt0), 2 * r.size), [r.size] * 2)
        return np.concatenate([self.multiply_shift(r, size, bits) - word, self._carry_deal(r >> U(63), top, bits)])

    def _carry_deal(self, bit: np.ndarray, top: np.ndarray, bits: int) -> np.ndarray:
        return self.to_planes(bit - (top >> U(64 - bits)), bits)

    def gate(
        self, hat: np.ndarray, m: np.ndarray, l: np.ndarray, lam: Words, lam_l: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        n = m.size
        kept = _flat(m) * _of(self.words(lam), n) - _of(self.words(lam_l), n)
        value = _flat(m) - _flat(l) if party == 0 else U(0) - _flat(l)
        return np.where(_bits(hat, n), value - kept, kept).reshape(m.shape)

    def gate_deal(
        self, lam: np.ndarray, r: np.ndarray, lam0: Words, lam_l0: Words, bits: np.ndarray, products: np.ndarray
    ) -> None:
        word = _bits(lam, r.size).astype(U)
        bits[:] = word - _of(self.words(lam0), r.size)
        products[:] = word * _flat(r) - _of(self.words(lam_l0), r.size)

    def gate_rescaled(self, hat: np.ndarray, m: np.ndarray, dealt: Words, bits: int, party: int) -> np.ndarray:
        n = m.size
        _factor(1, bits, party)
        narrow = _carry_words(n, bits, party)
        r, lam, lam_r, top, lam_top = cut(_of(self.words(dealt), 3 * n + 2 * narrow), [n, n, n, narrow, narrow])
        c = _flat(m) + U(1 << 62)
        public = (c >> U(bits)) - U(1 << (62 - bits))
        value = self._carry(c, top, 1, bits, party) - r
        if party == 0:
            value += public
        kept = self._carry(c, lam_top, 1, bits, party) - lam_r + public * lam
        return np.where(_bits(hat, n), value - kept, kept).reshape(m.shape)

    def gate_rescaled_deal(self, lam: np.ndarray, r: np.ndarray, dealt0: Words, bits: int) -> np.ndarray:
        r, word = _flat(r), _bits(lam, r.size).astype(U)
        _factor(1, bits, 0)
        share0 = cut(_of(self.words(dealt0), 5 * r.size), [r.size] * 5)
        high, top = r >> U(bits), r >> U(63)
        words = [value - share for value, share in zip((high, word, word * high), share0[:3], strict=True)]
        carries = [self._carry_deal(bit, share, bits) for bit, share in zip((top, word * top), share0[3:], strict=True)]
        return np.concatenate([*words, *carries])

    def bit_share(self, hat: np.ndarray, lam: Words, n: int, party: int) -> np.ndarray:
        share = _of(self.words(lam), n)
        return np.where(_bits(hat, n), U(1 - party) - share, share)

    def bit_deal(self, lam: np.ndarray, lam0: Words, n: int) -> np.ndarray:
        return _bits(lam, n).astype(U) - _of(self.words(lam0), n)

    def piecewise(
        self, m: np.ndarray, l: np.ndarray, hats: np.ndarray, rows: np.ndarray, dealt: Words, party: int,  # noqa: E741
    ) -> np.ndarray:
        n, count, terms = m.size, len(rows) - 1, _terms(rows)
        words = _of(self.words(dealt), n * ((terms == 3) + terms * count))
        square, products = cut(words, [n * (terms == 3), n * terms * count])
        bits = _rows_of_bits(hats, count, n)
        # What is public of the bits goes into the coefficients of one polynomial of x.
        public = rows[0][:, None] + rows[1:].T @ bits
        products = products.reshape(count, terms, n) * (U(1) - (bits << U(1)))[:, None]
        lam, lam_l = rows[1:].T @ products[:, 0], rows[1:].T @ products[:, 1]
        lam[:-1] -= _derivative(lam_l)
        flat_m = _flat(m)
        z = _horner(lam, flat_m) - _horner(_derivative(public), flat_m) * _of(l, n)
        if party == 0:
            z += _horner(public, flat_m)
        if terms == 3:
            z += public[2] * square + rows[1:, 2] @ products[:, 2]
        return z.reshape(m.shape)

    def piecewise_deal(self, r: np.ndarray, lams: np.ndarray, rows: np.ndarray, dealt0: Words) -> np.ndarray:
        r, terms = _flat(r), _terms(rows)
        powers = [np.ones_like(r), r, r * r][:terms]
        bits = _rows_of_bits(lams, len(rows) - 1, r.size)
        words = np.concatenate([r[:0], *powers[2:], *(bit * power for bit in bits for power in powers)])
        return words - _of(self.words(dealt0), words.size)

    def exp2_share(
        self, hat: np.ndarray, m: np.ndarray, dealt: Words, fraction: int, integer_bits: int, offset: int,
    ) -> np.ndarray:
        n = m.size
        d, lam_d = cut(_of(self.words(dealt), 2 * n), [n, n])
        c = _flat(m) & U((1 << _power_bits(fraction, integer_bits)) - 1)
        low = self.exp2_public(c, fraction, offset, 0)
        step = self.exp2_public(c, fraction, offset + (1 << integer_bits), 0) - low
        return (low * d + step * np.where(_bits(hat, n), d - lam_d, lam_d)).reshape(m.shape)

    def exp2_deal(
        self, lam: np.ndarray, r: np.ndarray, dealt0: Words, fraction: int, integer_bits: int, scale: int
    ) -> np.ndarray:
        size = U(1 << _power_bits(fraction, integer_bits))
        d = self.exp2_public(size - (_flat(r) & (size - U(1))), fraction, scale - (1 << integer_bits), 0)
        return np.concatenate([d, _bits(lam, r.size).astype(U) * d]) - _of(self.words(dealt0), 2 * r.size)


def ring(*arrays: np.ndarray) -> None:
    """Refuses what are no arrays of ring elements."""
    for a in arrays:
        if not isinstance(a, np.ndarray) or a.dtype != np.uint64:
            received = getattr(a, "dtype", type(a).__name__)
            raise KernelError(f"Expected uint64 arrays of ring elements. Received: {received}")


def _flat(x: np.ndarray) -> np.ndarray:
    ring(x)
    return x.ravel()


def _of(words: np.ndarray, count: int) -> np.ndarray:
    """The words, flat, if there are `count` of them."""
    if words.size != count:
        raise KernelError(f"expected {count} words. Received: {words.size}")
    return _flat(words)


def _word(value: int) -> np.uint64:
    """value mod 2^64."""
    return U(value & 0xFFFFFFFFFFFFFFFF)


def _factor(factor: int, bits: int, party: int) -> int:
    if not (1 <= bits <= 62 and abs(factor) < 1 << 63 and party in (0, 1)):
        raise KernelError("expected a factor below 2^63, 1 to 62 bits, and an evaluator")
    return abs(factor)


def _carry_words(n: int, bits: int, party: int) -> int:
    """Words that a share of n bits mod 2^bits takes."""
    return n if party == 0 else plane_words(n) * bits


def _bits(plane: np.ndarray, n: int) -> np.ndarray:
    return planes.unpack_bits(_of(plane, plane_words(n)), n)


def _rows_of_bits(rows: np.ndarray, count: int, n: int) -> np.ndarray:
    return planes.unpack_bits(_of(rows, count * plane_words(n)).reshape(count, plane_words(n)), n).astype(U)


def _terms(rows: np.ndarray) -> int:
    ring(rows)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] not in (2, 3):
        raise KernelError(f"expected rows of two or three coefficients. Received: {rows.shape}")
    return rows.shape[1]


def _power_bits(fraction: int, integer_bits: int) -> int:
    if not 1 <= fraction + integer_bits <= 62 or not 0 <= integer_bits <= 30:
        raise KernelError("expected a power of 1 to 62 bits, at most 30 of them before the point")
    return fraction + integer_bits


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
