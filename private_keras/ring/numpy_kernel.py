"""The reference kernel: NumPy, slow, and the definition of what every other kernel computes."""
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from private_keras.errors import KernelError
from private_keras.ring import exp2_table, geometry, planes, tree
from private_keras.ring.kernel import plane_words
from private_keras.ring.numpy_steps import NumpySteps, ring
from private_keras.ring.steps import Factor, Words, made

U = np.uint64


class NumpyKernel(NumpySteps):
    """See `kernel.Kernel`."""

    name = "numpy"

    def matmul(
        self, a: Factor, b: Factor, *, out: np.ndarray | None = None, subtract: bool = False
    ) -> np.ndarray:
        a, b = made(a), made(b)
        ring(a, b)
        lead = geometry.matmul_lead(a.shape, b.shape)
        out = geometry.room(out, (*lead, a.shape[-2], b.shape[-1]), subtract, a, b)
        return _onto(np.matmul(a, b), out, subtract)

    def conv(
        self, x: Factor, w: Factor, strides: Sequence[int], padding: Sequence[tuple[int, int]],
        dilation: Sequence[int], groups: int, *, out: np.ndarray | None = None, subtract: bool = False,
    ) -> np.ndarray:
        x, w = made(x), made(w)
        ring(x, w)
        out_space = geometry.conv_space(x.shape, w.shape, strides, padding, dilation, groups)
        out = geometry.room(out, (x.shape[0], *out_space, w.shape[-1]), subtract, x, w)
        space, channels, filters = x.ndim - 2, x.shape[-1], w.shape[-1]
        x = np.pad(x, [(0, 0), *[tuple(p) for p in padding], (0, 0)])
        y = np.zeros((x.shape[0], *out_space, filters), U)
        per, fper = channels // groups, filters // groups
        for tap in np.ndindex(*w.shape[:space]):
            window = tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, dilation, out_space, strides, strict=True)
            )
            seen = x[(slice(None), *window)]
            for g in range(groups):
                filters_of = slice(g * fper, (g + 1) * fper)
                y[..., filters_of] += seen[..., g * per : (g + 1) * per] @ w[tap][:, filters_of]
        return _onto(y, out, subtract)

    def random(self, key: bytes, nonce: int, count: int, *, first_block: int = 0) -> np.ndarray:
        if len(key) != 16:
            raise KernelError(f"AES-128 needs a key of 16 bytes. Received: {len(key)} bytes")
        if not 0 <= nonce < 1 << 64 or count < 0:
            raise KernelError("nonce must be a 64-bit word and count must not be negative")
        if not 0 <= first_block <= (1 << 64) - (count + 1) // 2:
            raise KernelError("the stream of a nonce has 2^64 blocks")
        start = nonce.to_bytes(8, "big") + (first_block % (1 << 64)).to_bytes(8, "big")
        encryptor = Cipher(algorithms.AES(key), modes.CTR(start)).encryptor()
        return np.frombuffer(encryptor.update(bytes(8 * count)), "<u8").astype(U)

    def to_planes(self, x: np.ndarray, bits: int, shift: int = 0) -> np.ndarray:
        ring(x)
        return planes.from_rows(_slice(x.ravel(), bits, shift))

    def from_planes(self, planes_: np.ndarray, bits: int, n: int, shift: int = 0) -> np.ndarray:
        rows = planes.unpack_bits(planes.to_rows(planes_, bits, n), n)
        out = np.zeros(n, U)
        for i in range(bits):
            out |= rows[i].astype(U) << U(i + shift)
        return out

    def digits_deal(self, r: np.ndarray, width: int, share0: Words, *, low: int = 0) -> np.ndarray:
        ring(r)
        bits = _slice(r.ravel(), width, low)
        rows = []
        for i, size in enumerate(tree.digit_bits(width)):
            digit = bits[4 * i : 4 * i + size]
            rows += [_digit_is(digit, v) for v in range(1, 1 << size)]
        return planes.from_rows(np.stack(rows)) ^ self.words(share0)

    def digits_compare(
        self, m: np.ndarray, offsets: Sequence[int], width: int, digits: Words, party: int, masks: Words, *, top: bool,
        low: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        ring(m)
        n, each = m.size, tree.opened_planes(width, 0) if tree.levels(width) else 1
        hot = planes.to_rows(self.words(digits), tree.digit_planes(width), n)
        mask_rows = planes.to_rows(self.words(masks), len(offsets) * each, n)
        results = [
            _open_level(
                _compare_digits(m.ravel() + U(offset & 0xFFFFFFFFFFFFFFFF), hot, width, low, party, top), width, 0,
                mask_rows[t * each : (t + 1) * each],
            )
            for t, offset in enumerate(offsets)
        ]
        return _joined(results)

    def tree_deal(
        self, masks0: Words, masks1: Words, width: int, n: int, level: int, share0: Words, *, count: int = 1
    ) -> np.ndarray:
        both = self.words(masks0) ^ self.words(masks1)
        rows = planes.to_rows(both, count * tree.opened_planes(width, level), n)
        made, at = [], 0
        for _ in range(count):
            for group in tree.levels(width)[level]:
                if group.size == 1:
                    continue
                mask = dict(zip(group.wires, rows[at : at + len(group.wires)], strict=True))
                at += len(group.wires)
                made += [np.bitwise_and.reduce([mask[w] for w in subset]) for subset in group.products]
        return planes.from_rows(np.stack(made)) ^ self.words(share0)

    def tree_combine(
        self, mine: np.ndarray, theirs: np.ndarray, kept: np.ndarray, products: Words, own_masks: Words,
        width: int, n: int, level: int, party: int, next_masks: Words, *, count: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        ring(mine, theirs, kept)
        groups, depth = tree.levels(width)[level], len(tree.levels(width))
        following = tree.opened_planes(width, level + 1) if level + 1 < depth else 1

        def rows(message: np.ndarray, each: int) -> np.ndarray:
            return planes.to_rows(message, count * each, n).reshape(count, each, plane_words(n))

        hats = rows(mine ^ theirs, tree.opened_planes(width, level))
        lams = rows(self.words(own_masks), tree.opened_planes(width, level))
        dealt = rows(self.words(products), tree.product_planes(width, level))
        keep = rows(kept, sum(_kept(g) for g in groups))
        masks = rows(self.words(next_masks), following)
        results = [
            _open_level(_combine(groups, party, *parts), width, level + 1, mask)
            for *parts, mask in zip(hats, lams, dealt, keep, masks, strict=True)
        ]
        return _joined(results)

    def exp2_public(self, c: np.ndarray, fraction: int, offset: int, scale: int) -> np.ndarray:
        ring(c)
        if fraction > exp2_table.FRACTION or fraction < 0:
            raise KernelError(f"exp2 takes at most {exp2_table.FRACTION} fractional bits. Received: {fraction}")
        coarse, fine = exp2_table.tables()
        c = c << U(exp2_table.FRACTION - fraction)
        low = c & U((1 << exp2_table.HALF) - 1)
        high = (c >> U(exp2_table.HALF)) & U((1 << exp2_table.HALF) - 1)
        # Mantissa 2^62 * 2^frac in [2^62, 2^63): the upper half of a 64 x 64 bit product, shifted back.
        a, b = coarse[high], fine[low]
        mantissa = _multiply_shift(a, b, 62)
        shift = (c >> U(exp2_table.FRACTION)).astype(np.int64) + (offset + scale - 62)
        right = np.clip(-shift, 0, 63).astype(U)
        half = np.where(right > 0, U(1) << (np.maximum(right, 1) - U(1)), U(0))
        shrunk = np.where(-shift > 63, U(0), (mantissa + half) >> right)
        return np.where(shift > 0, mantissa << np.clip(shift, 0, 63).astype(U), shrunk)

    def multiply_shift(self, x: np.ndarray, factor: int, bits: int) -> np.ndarray:
        ring(x)
        if not (0 <= factor < 1 << 63 and 1 <= bits <= 63):
            raise KernelError("expected a factor from 0 to below 2^63 and 1 to 63 bits")
        return _multiply_shift(x, np.full(x.shape, factor, U), bits)


def _multiply_shift(a: np.ndarray, b: np.ndarray, shift: int) -> np.ndarray:
    """floor(a * b / 2^shift) mod 2^64 of 64-bit words, by 32-bit halves."""
    m = U(0xFFFFFFFF)
    a0, a1, b0, b1 = a & m, a >> U(32), b & m, b >> U(32)
    low = a0 * b0
    mid = a1 * b0 + (low >> U(32))
    mid2 = a0 * b1 + (mid & m)
    high = a1 * b1 + (mid >> U(32)) + (mid2 >> U(32))
    bottom = (mid2 << U(32)) | (low & m)
    return (high << U(64 - shift)) | (bottom >> U(shift))


def _slice(x: np.ndarray, bits: int, shift: int) -> np.ndarray:
    """(bits, words) planes of a flat array."""
    if not (bits >= 1 and shift >= 0 and bits + shift <= 64):
        raise KernelError(f"bits {shift} .. {shift + bits - 1} are not bits of a 64-bit word")
    return np.stack([planes.pack_bits(((x >> U(i + shift)) & U(1)).astype(bool)) for i in range(bits)])


def _digit_is(digit: np.ndarray, value: int) -> np.ndarray:
    return np.bitwise_and.reduce([digit[i] if value >> i & 1 else ~digit[i] for i in range(len(digit))])


def _digit_below(digit: np.ndarray, value: int) -> np.ndarray:
    return np.bitwise_or.reduce([_digit_is(digit, u) for u in range(value)])


def _kept(group: tree.Group) -> int:
    return 2 if group.size == 1 and group.need_equal else 1


Members = list[tuple[np.ndarray, np.ndarray | None]]  # shares of `less` and `equal` of the members of a level


def _compare_digits(c: np.ndarray, hot: np.ndarray, width: int, low: int, party: int, top: bool) -> Members:
    bits = _slice(c, width, low)
    members, at = [], 0
    for i, size in enumerate(tree.digit_bits(width)):
        digit = bits[4 * i : 4 * i + size]
        zero = _digit_is(digit, 0)
        less = np.zeros_like(zero)
        # [c_i == r_i] = [c_i == 0] xor XOR_v hot_v ([c_i == v] xor [c_i == 0]), since hot_0 = 1 xor XOR_v hot_v.
        equal = zero.copy() if party == 0 else np.zeros_like(zero)
        for v in range(1, 1 << size):
            h = hot[at]
            less ^= h & _digit_below(digit, v)
            equal ^= h & (_digit_is(digit, v) ^ zero)
            at += 1
        members.append((less, equal))
    if top and party == 0:
        # The last `less` enters the result as it is, and the public bit with it.
        members[-1] = (members[-1][0] ^ _slice(c, 1, low + width)[0], members[-1][1])
    return members


def _combine(
    groups: tuple[tree.Group, ...], party: int, hats: np.ndarray, lams: np.ndarray, products: np.ndarray,
    keep: np.ndarray,
) -> Members:
    members, at, at_product, at_kept = [], 0, 0, 0
    for group in groups:
        g_top = keep[at_kept]
        if group.size == 1:
            members.append((g_top, keep[at_kept + 1] if group.need_equal else None))
            at_kept += _kept(group)
            continue
        at_kept += 1
        count = len(group.wires)
        hat = dict(zip(group.wires, hats[at : at + count], strict=True))
        dealt = {(w,): lam for w, lam in zip(group.wires, lams[at : at + count], strict=True)}
        at += count
        count = len(group.products)
        dealt |= dict(zip(group.products, products[at_product : at_product + count], strict=True))
        at_product += count
        less = g_top.copy()
        for term in group.terms:
            less ^= _conjunction(term, hat, dealt, party)
        members.append((less, _conjunction(group.equal, hat, dealt, party) if group.need_equal else None))
    return members


def _open_level(members: Members, width: int, level: int, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are opened, and rows that are kept."""
    if len(members) == 1:
        return members[0][0][None] ^ masks, masks[:0]
    wires, kept, at = [], [], 0
    for group in tree.levels(width)[level]:
        inside = members[at : at + group.size]
        at += group.size
        kept.append(inside[-1][0])
        if group.size == 1:
            if group.need_equal:
                kept.append(inside[0][1])
            continue
        share = {f"g{i}": less for i, (less, _) in enumerate(inside)}
        share |= {f"e{i}": equal for i, (_, equal) in enumerate(inside)}
        wires += [share[w] for w in group.wires]
    return np.stack(wires) ^ masks, np.stack(kept)


def _joined(results: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Messages of several comparisons' rows."""
    opened, kept = (planes.from_rows(np.concatenate(rows)) for rows in zip(*results, strict=True))
    return opened, kept


def _conjunction(term: tuple[str, ...], hat: dict, dealt: dict, party: int) -> np.ndarray:
    """Share of the AND of wires w = hat_w xor mask_w: XOR over subsets of prod(hat outside) * prod(mask inside)."""
    # Expand with the first wire's subsets in term order; the empty subset is public and added by evaluator 0.
    total = np.bitwise_and.reduce([hat[w] for w in term]) if party == 0 else np.zeros_like(hat[term[0]])
    for subset, share in dealt.items():
        if set(subset) <= set(term):
            outside = [hat[w] for w in term if w not in subset]
            total = total ^ (np.bitwise_and.reduce([share, *outside]) if outside else share)
    return total


def _onto(product: np.ndarray, out: np.ndarray | None, subtract: bool) -> np.ndarray:
    if out is None:
        return product
    return np.subtract(out, product, out=out) if subtract else np.add(out, product, out=out)
