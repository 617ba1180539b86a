"""The C++ kernel. This side settles dtypes, strides and result shapes; the extension checks every length again."""
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from private_keras.errors import KernelError
from private_keras.ring import exp2_table, geometry
from private_keras.ring.kernel import plane_words
from private_keras.ring.native_steps import NativeSteps, length, packed, ring, within
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.ring.steps import Draw, Factor, Twofold, Words, made

try:
    from private_keras.ring import _native
except ImportError as error:
    raise KernelError(
        "The native ring kernel (private_keras.ring._native) is not built or does not load on this machine "
        f"({error}). Install the package with a C++ compiler present: pip install . (Debian: apt-get install g++)"
    ) from error

U = np.uint64


def isa_names() -> list[str]:
    """Instruction sets that this machine can run, best first."""
    return _native.isa_names()


def generator_names() -> list[str]:
    """AES generators that this machine can run, best first; "openssl" is always there and not listed."""
    return _native.generator_names()


class NativeKernel(NativeSteps):
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
        if self._openssl:
            self._engine = _GivenWords(self._engine, self.words)

    def __repr__(self) -> str:
        engine = self._engine
        return f"NativeKernel(threads={engine.threads}, isa={engine.isa!r}, generator={engine.generator!r})"

    def matmul(
        self, a: Factor, b: Factor, *, out: np.ndarray | None = None, subtract: bool = False
    ) -> np.ndarray:
        (a, a_less), (b, b_less) = _two(a), _two(b)
        ring(a, b)
        if out is None and not subtract and a.ndim == b.ndim == 2:
            into = np.empty((a.shape[0], b.shape[1]), U)
            self._engine.matmul(a, b, into, 0, a_less, b_less)
            return into
        lead = geometry.matmul_lead(a.shape, b.shape)
        shape = (*lead, a.shape[-2], b.shape[-1])
        into = geometry.room(out, shape, subtract, a, b)
        sign = 0 if into is None else -1 if subtract else 1
        if into is None:
            into = np.empty(shape, U)
        product = into
        if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
            # One tall product packs b once.
            product = into.reshape(-1, shape[-1])
            a, a_less = (x if x is None else x.reshape(-1, x.shape[-1]) for x in (a, a_less))
        else:
            a, a_less, b, b_less = (
                x if x is None or x.shape[:-2] == lead else np.broadcast_to(x, lead + x.shape[-2:])
                for x in (a, a_less, b, b_less)
            )
        self._engine.matmul(a, b, product, sign, a_less, b_less)
        return into

    def conv(
        self, x: Factor, w: Factor, strides: Sequence[int], padding: Sequence[tuple[int, int]],
        dilation: Sequence[int], groups: int, *, out: np.ndarray | None = None, subtract: bool = False,
    ) -> np.ndarray:
        channels, filters = x.shape[-1], w.shape[-1]
        space = geometry.conv_space(x.shape, w.shape, strides, padding, dilation, groups)
        # Words that are read again and again are better made beforehand: where windows overlap, and weights of
        # depthwise convolutions.
        if math.prod(space) * math.prod(w.shape[:-2]) > 2 * math.prod(x.shape[1:-1]):
            x = made(x)
        if groups > 1 and groups == channels:
            x, w = made(x), made(w)
        (x, x_less), (w, w_less) = _two(x), _two(w)
        ring(x, w)
        shape = (x.shape[0], *space, filters)
        into = geometry.room(out, shape, subtract, x, w)
        sign = 0 if into is None else -1 if subtract else 1
        if into is None:
            into = np.empty(shape, U)
        if 1 < groups == channels != filters:
            # Depthwise with a multiplier: repeat channels, so that each filter has a channel of its own.
            x, groups = np.repeat(x, filters // groups, axis=-1), filters
        lead = (1,) * (3 - len(space))
        ones, zeros = [1] * len(lead), [0] * len(lead)
        x, x_less = (a if a is None else a.reshape(a.shape[0], *lead, *a.shape[1:]) for a in (x, x_less))
        w, w_less = (a if a is None else packed(a).reshape(*lead, *a.shape) for a in (w, w_less))
        self._engine.conv(
            x, w, [*ones, *map(int, strides)], [*zeros, *(int(p[0]) for p in padding)], [*ones, *map(int, dilation)],
            groups, into.reshape(shape[0], *lead, *shape[1:]), sign, x_less, w_less,
        )  # fmt: skip
        return into

    def random(self, key: bytes, nonce: int, count: int, *, first_block: int = 0) -> np.ndarray:
        _seed(key, nonce)
        length(count)
        within("first_block", first_block, 0, (1 << 64) - (count + 1) // 2)
        if self._openssl:
            return self._openssl.random(key, nonce, count, first_block=first_block)
        out = np.empty(count, U)
        self._engine.random(bytes(key), nonce, first_block % (1 << 64), out)
        return out

    def to_planes(self, x: np.ndarray, bits: int, shift: int = 0) -> np.ndarray:
        _slice(bits, shift)
        out = np.empty(bits * plane_words(x.size), U)
        self._engine.to_planes(x, bits, shift, out)
        return out

    def from_planes(self, planes: np.ndarray, bits: int, n: int, shift: int = 0) -> np.ndarray:
        _slice(bits, shift)
        out = np.empty(length(n, planes), U)
        self._engine.from_planes(planes, bits, shift, out)
        return out

    def multiply_shift(self, x: np.ndarray, factor: int, bits: int) -> np.ndarray:
        within("factor", factor, 0, (1 << 63) - 1)
        within("bits", bits, 1, 63)
        out = np.empty(x.shape, U)
        self._engine.multiply_shift(x, factor, bits, out)
        return out

    def exp2_public(self, c: np.ndarray, fraction: int, offset: int, scale: int) -> np.ndarray:
        within("fraction", fraction, 0, exp2_table.FRACTION)
        within("offset + scale", offset + scale, -(1 << 30), 1 << 30)
        coarse, fine = exp2_table.tables()
        out = np.empty(c.shape, U)
        shift = offset + scale - 62
        self._engine.exp2_public(c, coarse, fine, exp2_table.FRACTION, fraction, shift, out)
        return out


class _GivenWords:
    """An engine without a generator: the words of draws are made before each call."""

    def __init__(self, engine: _native.Engine, words: Callable[[Words], np.ndarray]):
        self._engine = engine
        self._words = words

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if not callable(found):
            return found
        return lambda *given: found(*(self._words(a) if isinstance(a, Draw) else a for a in given))


def _two(factor: Factor) -> tuple[np.ndarray, np.ndarray | None]:
    """An array, and what twice is taken from it, if it lies alike: else the words are made here."""
    if not isinstance(factor, Twofold):
        return factor, None
    alike = factor.m.shape == factor.l.shape and factor.m.strides == factor.l.strides
    return factor if alike else (factor.words, None)


def _slice(bits: int, shift: int) -> None:
    within("shift", shift, 0, 63)
    within("bits", bits, 1, 64 - shift)


def _seed(key: bytes, nonce: int) -> None:
    if not isinstance(key, bytes | bytearray | memoryview) or len(key) != 16:
        received = f"{len(key)} bytes" if isinstance(key, bytes | bytearray | memoryview) else type(key).__name__
        raise KernelError(f"AES-128 needs a key of 16 bytes. Received: {received}")
    within("nonce", nonce, 0, (1 << 64) - 1)
