"""Public random numbers, the same on every server to the last bit: AES-CTR under a key that a public seed gives.

For dropout and noise layers. Nothing is hidden by them, and no float is computed, since two machines' floats differ.
"""
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from private_keras.ring.kernel import Kernel

U = np.uint64
CHANCE_BITS = 32  # a chance is a whole number of 2^-32
NORMAL_BITS = 24  # fractional bits at which normal numbers are made

_DOMAIN = b"private_keras public randomness 1"
# A normal number is the count of ones in 256 random bits plus two uniform numbers in [0, 1), less 129: its variance is
# 64 + 1/6.
_COUNTED = 4
_MEAN = 129
# round(2^38 / sqrt(64 + 1/6)); and its fourth cumulant, -(32 + 1/60), as a part of its variance squared, over 24: the
# part of z^3 - 3 z that is added to make it that of a normal number. round(2^38 * (32 + 1/60) / (64 + 1/6)^2 / 24).
_INVERSE_DEVIATION = 34315086317
_CORRECTION = 89060627


def words(kernel: Kernel, seed: int, stream: int, count: int) -> np.ndarray:
    """`count` uniform 64-bit words that anybody who knows `seed` and `stream` can compute."""
    name = _DOMAIN + seed.to_bytes(8, "little") + stream.to_bytes(8, "little")
    return kernel.random(hashlib.sha256(name).digest()[:16], 0, count)


def bernoulli(kernel: Kernel, seed: int, stream: int, shape: tuple[int, ...], probability: int) -> np.ndarray:
    """1 with a chance of exactly probability / 2^32, else 0."""
    drawn = words(kernel, seed, stream, math.prod(shape)) >> U(64 - CHANCE_BITS)
    return (drawn < U(probability)).astype(U).reshape(shape)


def uniform(kernel: Kernel, seed: int, stream: int, shape: tuple[int, ...], fraction: int) -> np.ndarray:
    """Every multiple of 2^-fraction in [0, 1) with the same chance, exactly; ring elements."""
    return (words(kernel, seed, stream, math.prod(shape)) >> U(64 - fraction)).reshape(shape)


def normal(kernel: Kernel, seed: int, stream: int, shape: tuple[int, ...], fraction: int) -> np.ndarray:
    """Mean 0, variance 1, at most 24 fractional bits; ring elements.

    The distribution function is within 2e-5 of the normal one; no number is beyond 18.
    """
    count = math.prod(shape)
    drawn = words(kernel, seed, stream, (_COUNTED + 1) * count).reshape(_COUNTED + 1, count)
    ones = np.bitwise_count(drawn[:_COUNTED]).sum(0, dtype=np.int64)
    low = (drawn[_COUNTED] & U(0xFFFFFFFF)).astype(np.int64)
    high = (drawn[_COUNTED] >> U(32)).astype(np.int64)
    # In units of 2^-24: below 2^32 in size, so that its product with 2^35 does not fit and is taken in two parts.
    total = ((ones - _MEAN) << NORMAL_BITS) + ((low + high) >> (32 - NORMAL_BITS))
    z = _scaled(total, _INVERSE_DEVIATION)
    cube = (((z * z) >> NORMAL_BITS) * z) >> NORMAL_BITS
    z += _scaled(cube - 3 * z, _CORRECTION)
    cut = NORMAL_BITS - fraction
    z = (z + (1 << (cut - 1))) >> cut if cut else z
    return z.astype(U).reshape(shape)


def drawn(kernel: Kernel, seed: int, attributes: Mapping[str, Any]) -> np.ndarray:
    """What a `random` step of a plan with these attributes gives: ring elements.

    Args:
        kernel: whose generator draws them; all kernels draw the same.
        seed: 0 to 2^64 - 1.
        attributes: `distribution`, `stream`, `shape`, `fraction` and, for bernoulli, `probability`.
    """
    shape, stream = tuple(attributes["shape"]), attributes["stream"]
    if attributes["distribution"] == "bernoulli":
        return bernoulli(kernel, seed, stream, shape, attributes["probability"])
    draw = {"uniform": uniform, "normal": normal}[attributes["distribution"]]
    return draw(kernel, seed, stream, shape, attributes["fraction"])


def _scaled(x: np.ndarray, factor: int) -> np.ndarray:
    """x * factor / 2^38 for |x| < 2^37 and 0 <= factor < 2^36, rounded down twice."""
    high, low = x >> 19, x & ((1 << 19) - 1)
    return (high * factor + ((low * factor) >> 19)) >> 19
