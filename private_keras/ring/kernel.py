"""The boundary every ring kernel fills. `numpy_kernel` and `numpy_steps` define the meaning; `native_kernel` and
`native_steps` must agree to the bit.

Ring elements are `numpy.uint64`; arithmetic wraps mod 2^64. Bits travel in *planes*: bit `i` of plane word `w`
belongs to element `64*w + i` of the flattened tensor. A message of P planes over n elements is a flat uint64 array of
`P * plane_words(n)` words in **block-major** order: elements are cut in blocks of `BLOCK_WORDS` words (1024 elements),
the last block being shorter; a block holds its P rows one after the other. So a block of all planes is contiguous and
stays in the first-level cache. Bits beyond n in the last word are unspecified: mask them before counting.
"""
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from private_keras.ring.steps import Factor, Steps

BLOCK_WORDS = 16


def plane_words(n: int) -> int:
    """Words that one plane of n bits takes."""
    return (n + 63) // 64


class Kernel(Steps):
    """Arithmetic and bit operations on ring elements, stateless and thread safe.

    All methods accept arrays of any strides, return fresh C-contiguous arrays, and raise `errors.KernelError` for
    arrays of another dtype or of shapes that do not fit.
    """

    name: str

    @abstractmethod
    def matmul(
        self, a: Factor, b: Factor, *, out: np.ndarray | None = None, subtract: bool = False
    ) -> np.ndarray:
        """a (..., m, k) times b (..., k, n) mod 2^64; leading axes broadcast as in numpy.matmul.

        With `out`, which is contiguous and has the result's shape, the product is added to it, or subtracted from it,
        and `out` is returned: a sum of products without a pass over memory for each.
        """

    @abstractmethod
    def conv(
        self,
        x: Factor,
        w: Factor,
        strides: Sequence[int],
        padding: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int,
        *,
        out: np.ndarray | None = None,
        subtract: bool = False,
    ) -> np.ndarray:
        """Cross-correlation of x (batch, *space, channels) with w (*window, channels/groups, filters), zero padded.

        Space has 1, 2 or 3 axes. `padding` is (before, after) per space axis. Filters are cut in `groups` runs, run g
        sees channels [g*c/groups, (g+1)*c/groups). Returns (batch, *out, filters). `out` and `subtract` as in `matmul`.
        """

    @abstractmethod
    def random(self, key: bytes, nonce: int, count: int, *, first_block: int = 0) -> np.ndarray:
        """`count` words of AES-128-CTR: block j is AES(key, nonce as 64 bits big endian || j as 64 bits big endian).

        Bytes of the stream are read as little endian uint64; it starts at block `first_block`.
        Source: NIST SP 800-38A (CTR), FIPS 197 (AES).
        """

    @abstractmethod
    def to_planes(self, x: np.ndarray, bits: int, shift: int = 0) -> np.ndarray:
        """Bits shift .. shift+bits-1 of each element of x (flattened), as a message of `bits` planes."""

    @abstractmethod
    def from_planes(self, planes: np.ndarray, bits: int, n: int, shift: int = 0) -> np.ndarray:
        """n ring elements whose bits shift .. shift+bits-1 are the planes and whose other bits are 0."""

    @abstractmethod
    def exp2_public(self, c: np.ndarray, fraction: int, offset: int, scale: int) -> np.ndarray:
        """round(2^(c/2^fraction + offset + scale)) for c < 2^(fraction+5).

        Bit-exact on every machine (integer tables).
        """

    @abstractmethod
    def multiply_shift(self, x: np.ndarray, factor: int, bits: int) -> np.ndarray:
        """floor(x factor / 2^bits) mod 2^64 for words x, of the whole product; factor below 2^63, 1 to 63 bits."""
