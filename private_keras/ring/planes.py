"""Block-major bit planes (see `kernel`): conversion between the wire layout and a (planes, words) matrix."""
import numpy as np

from private_keras.ring.kernel import BLOCK_WORDS, plane_words


def to_rows(message: np.ndarray, planes: int, n: int) -> np.ndarray:
    """(planes, plane_words(n)) view-like matrix of a block-major message of `planes * plane_words(n)` words."""
    words = plane_words(n)
    if planes == 1 or words <= BLOCK_WORDS:
        return message.reshape(planes, words)
    full = words // BLOCK_WORDS
    split = full * planes * BLOCK_WORDS
    head = message[:split].reshape(full, planes, BLOCK_WORDS).transpose(1, 0, 2).reshape(planes, full * BLOCK_WORDS)
    tail = message[split:].reshape(planes, words - full * BLOCK_WORDS)
    return np.concatenate([head, tail], axis=1)


def from_rows(rows: np.ndarray) -> np.ndarray:
    """The block-major message of a (planes, words) matrix."""
    planes, words = rows.shape
    if planes == 1 or words <= BLOCK_WORDS:
        return rows.reshape(-1)
    full = words // BLOCK_WORDS
    head = rows[:, : full * BLOCK_WORDS].reshape(planes, full, BLOCK_WORDS).transpose(1, 0, 2).reshape(-1)
    return np.concatenate([head, rows[:, full * BLOCK_WORDS :].reshape(-1)])


def pack_bits(bits: np.ndarray) -> np.ndarray:
    """(..., n) booleans to (..., plane_words(n)) words, bits beyond n zero."""
    n = bits.shape[-1]
    padded = np.zeros((*bits.shape[:-1], plane_words(n) * 64), np.uint8)
    padded[..., :n] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: np.ndarray, n: int) -> np.ndarray:
    """(..., words) to (..., n) booleans."""
    flat = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    return flat[..., :n].astype(bool)
