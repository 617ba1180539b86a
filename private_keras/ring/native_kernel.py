"""The C++ kernel. This side settles dtypes, strides and result shapes; the extension checks every length again."""
from collections.abc import Sequence
from functools import cache

import numpy as np

from private_keras.errors import KernelError
from private_keras.ring import exp2_table, geometry, tree
from private_keras.ring.kernel import Kernel, plane_words
from private_keras.ring.numpy_kernel import NumpyKernel

try:
    from private_keras.ring import _native
except ImportError as error:
    raise KernelError(
        "The native ring kernel (private_keras.ring._native) is not built or does not load on this machine "
        f"({error}). Install the package with a C++ compiler present: pip install . (Debian: apt-get install g++)"
    ) from error

U = np.uint64
_INTEGERS = (int, np.integer)
MAX_WIDTH = 62
# More elements than any machine holds, small enough that planes * words never wraps in 64 bits.
MAX_ELEMENTS = 1 << 48

# Counting a level's products anew would take longer than a small step.
_product_planes = cache(tree.product_planes)
_opened_planes = cache(tree.opened_planes)


def isa_names() -> list[str]:
    """Instruction sets that this machine can run, best first."""
    return _native.isa_names()


def generator_names() -> list[str]:
    """AES generators that this machine can run, best first; "openssl" is always there and not listed."""
    return _native.generator_names()


class NativeKernel(Kernel):
    """See `kernel.Kernel`. Calls let go of the GIL and may run side by side.

    Args:
        threads: threads that one call may use. The default is 1, because several servers often share a machine.
        isa: instruction set, see `isa_names`; empty for the best. For tests.
        generator: AES generator, see `generator_names`, or "openssl"; empty for the best. For tests.
    """

    name = "native"

    def __init__(self, threads: int = 1, isa: str = "", generator: str = "") -> None:
        self._engine = _native.Engine(isa, generator, threads)
        self._openssl = NumpyKernel() if self._engine.generator == "openssl" else None

    def __repr__(self) -> str:
        engine = self._engine
        return f"NativeKernel(threads={engine.threads}, isa={engine.isa!r}, generator={engine.generator!r})"

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        _ring(a, b)
        lead = geometry.matmul_lead(a.shape, b.shape)
        if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
            # One tall product packs b once.
            return self.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        if a.shape[:-2] != lead:
            a = np.broadcast_to(a, lead + a.shape[-2:])
        if b.shape[:-2] != lead:
            b = np.broadcast_to(b, lead + b.shape[-2:])
        out = np.empty((*lead, a.shape[-2], b.shape[-1]), U)
        self._engine.matmul(_strided(a), _strided(b), out)
        return out

    def conv(
        self, x: np.ndarray, w: np.ndarray, strides: Sequence[int], padding: Sequence[tuple[int, int]],
        dilation: Sequence[int], groups: int,
    ) -> np.ndarray:
        _ring(x, w)
        out_space = geometry.conv_space(x.shape, w.shape, strides, padding, dilation, groups)
        filters = w.shape[-1]
        if 1 < groups == x.shape[-1] != filters:
            # Depthwise with a multiplier: repeat channels, so that each filter has a channel of its own.
            x, groups = np.repeat(x, filters // groups, axis=-1), filters
        out = np.empty((x.shape[0], *out_space, filters), U)
        lead = (1,) * (3 - len(out_space))
        ones, zeros = [1] * len(lead), [0] * len(lead)
        self._engine.conv(
            _strided(x.reshape(x.shape[0], *lead, *x.shape[1:])),
            _packed(w).reshape(*lead, *w.shape),
            [*ones, *map(int, strides)], [*zeros, *(int(p[0]) for p in padding)], [*ones, *map(int, dilation)],
            groups, out.reshape(out.shape[0], *lead, *out.shape[1:]),
        )  # fmt: skip
        return out

    def random(self, key: bytes, nonce: int, count: int, *, first_block: int = 0) -> np.ndarray:
        _seed(key, nonce)
        _length(count)
        _in("first_block", first_block, 0, (1 << 64) - (count + 1) // 2)
        if self._openssl:
            return self._openssl.random(key, nonce, count, first_block=first_block)
        out = np.empty(count, U)
        self._engine.random(bytes(key), nonce, first_block % (1 << 64), out)
        return out

    def add_random(self, x: np.ndarray, key: bytes, nonce: int) -> np.ndarray:
        return self._mask(x, key, nonce, True)

    def sub_random(self, x: np.ndarray, key: bytes, nonce: int) -> np.ndarray:
        return self._mask(x, key, nonce, False)

    def _mask(self, x: np.ndarray, key: bytes, nonce: int, add: bool) -> np.ndarray:
        _ring(x)
        _seed(key, nonce)
        if self._openssl:
            return self._openssl.add_random(x, key, nonce) if add else self._openssl.sub_random(x, key, nonce)
        out = np.empty(x.shape, U)
        self._engine.mask(bytes(key), nonce, add, _flat(x), out.reshape(-1))
        return out

    def to_planes(self, x: np.ndarray, bits: int, shift: int = 0) -> np.ndarray:
        _ring(x)
        _slice(bits, shift)
        out = np.empty(bits * plane_words(x.size), U)
        self._engine.to_planes(_flat(x), bits, shift, out)
        return out

    def from_planes(self, planes: np.ndarray, bits: int, n: int, shift: int = 0) -> np.ndarray:
        _ring(planes)
        _slice(bits, shift)
        out = np.empty(_length(n, planes), U)
        self._engine.from_planes(_flat(planes), bits, shift, out)
        return out

    def bit_words(self, plane: np.ndarray, n: int) -> np.ndarray:
        return self.from_planes(plane, 1, n)

    def digits_deal(self, r: np.ndarray, width: int, share0: np.ndarray) -> np.ndarray:
        _ring(r, share0)
        _width(width)
        out = np.empty(tree.digit_planes(width) * plane_words(r.size), U)
        self._engine.digits_deal(_flat(r), width, _flat(share0), out)
        return out

    def digits_compare(
        self, c: np.ndarray, width: int, share: np.ndarray, party: int, masks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        _ring(c, share, masks)
        opened, kept = _level_results(width, 0, c.size)
        self._engine.digits_compare(_flat(c), width, _flat(share), party, _flat(masks), opened, kept)
        return opened, kept

    def tree_deal(self, masks: np.ndarray, width: int, n: int, level: int, share0: np.ndarray) -> np.ndarray:
        _ring(masks, share0)
        _level(width, level)
        out = np.empty(_product_planes(width, level) * plane_words(_length(n, masks)), U)
        self._engine.tree_deal(_flat(masks), width, n, level, _flat(share0), out)
        return out

    def tree_combine(
        self, opened: np.ndarray, kept: np.ndarray, products: np.ndarray, own_masks: np.ndarray,
        width: int, n: int, level: int, party: int, next_masks: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        _ring(opened, kept, products, own_masks, next_masks)
        _level(width, level)
        results = _level_results(width, level + 1, _length(n, opened))
        self._engine.tree_combine(
            _flat(opened), _flat(kept), _flat(products), _flat(own_masks), width, n, level, party, _flat(next_masks),
            *results,
        )  # fmt: skip
        return results

    def select(self, plane: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        _ring(plane, a, b)
        if a.shape != b.shape:
            raise KernelError(f"select needs two arrays of one shape. Received: {a.shape} and {b.shape}")
        out = np.empty(a.shape, U)
        self._engine.select(_flat(plane), _flat(a), _flat(b), out.reshape(-1))
        return out

    def truncate_public(self, c: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        _ring(c)
        _in("bits", bits, 1, 62)
        shifted, correction = np.empty(c.shape, U), np.empty(c.shape, U)
        self._engine.truncate_public(_flat(c), bits, shifted.reshape(-1), correction.reshape(-1))
        return shifted, correction

    def multiply_shift(self, x: np.ndarray, factor: int, bits: int) -> np.ndarray:
        _ring(x)
        _in("factor", factor, 0, (1 << 63) - 1)
        _in("bits", bits, 1, 63)
        out = np.empty(x.shape, U)
        self._engine.multiply_shift(_flat(x), factor, bits, out.reshape(-1))
        return out

    def exp2_public(self, c: np.ndarray, fraction: int, offset: int, scale: int) -> np.ndarray:
        _ring(c)
        _in("fraction", fraction, 0, exp2_table.FRACTION)
        _in("offset + scale", offset + scale, -(1 << 30), 1 << 30)
        coarse, fine = exp2_table.tables()
        out = np.empty(c.shape, U)
        shift = offset + scale - 62
        self._engine.exp2_public(_flat(c), coarse, fine, exp2_table.FRACTION, fraction, shift, out.reshape(-1))
        return out


def _ring(*arrays: np.ndarray) -> None:
    for a in arrays:
        if not isinstance(a, np.ndarray) or a.dtype != np.uint64:
            received = getattr(a, "dtype", type(a).__name__)
            raise KernelError(f"Expected uint64 arrays of ring elements. Received: {received}")


def _packed(x: np.ndarray) -> np.ndarray:
    """Contiguous and aligned; a copy only where it has to be."""
    flags = x.flags
    return x if flags.c_contiguous and flags.aligned else np.require(x, U, ["C", "A"])


def _flat(x: np.ndarray) -> np.ndarray:
    """One axis, contiguous and aligned; a copy only where it has to be."""
    x = _packed(x)
    return x if x.ndim == 1 else x.reshape(-1)


def _strided(x: np.ndarray) -> np.ndarray:
    """Any strides, as long as they count whole, aligned words."""
    if x.flags.aligned and all(s % 8 == 0 for s in x.strides):
        return x
    return np.require(x, U, ["C", "A"])


def _in(what: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, _INTEGERS) or not low <= value <= high:
        raise KernelError(f"{what} must be {low} .. {high}. Received: {value!r}")


def _slice(bits: int, shift: int) -> None:
    _in("shift", shift, 0, 63)
    _in("bits", bits, 1, 64 - shift)


def _width(width: int) -> None:
    _in("width", width, 1, MAX_WIDTH)


def _level(width: int, level: int) -> None:
    _width(width)
    _in("level", level, 0, len(tree.levels(width)) - 1)


def _length(n: int, of: np.ndarray | None = None) -> int:
    """n, if an array of that many bits or words can be meant: a short message must not make a huge result."""
    _in("number of elements", n, 0, MAX_ELEMENTS)
    if of is not None and plane_words(n) > of.size:
        raise KernelError(f"a message of {of.size} words holds no {n} elements")
    return n


def _seed(key: bytes, nonce: int) -> None:
    if not isinstance(key, bytes | bytearray | memoryview) or len(key) != 16:
        received = f"{len(key)} bytes" if isinstance(key, bytes | bytearray | memoryview) else type(key).__name__
        raise KernelError(f"AES-128 needs a key of 16 bytes. Received: {received}")
    _in("nonce", nonce, 0, (1 << 64) - 1)


def _level_results(width: int, level: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for what a step hands to level `level`: opened and kept wires, or one plane after the last level."""
    _width(width)
    groups = tree.levels(width)
    if level == len(groups):
        return np.empty(plane_words(n), U), np.zeros(0, U)
    kept = sum(2 if g.size == 1 and g.need_equal else 1 for g in groups[level])
    return np.empty(_opened_planes(width, level) * plane_words(n), U), np.empty(kept * plane_words(n), U)
