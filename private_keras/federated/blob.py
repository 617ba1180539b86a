"""Bytes as a tensor to share, and a model's variables as bytes: exact, and read without running anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from private_keras.errors import InputError

# Of bytes in one ring element, below the 45 bits that can be shared.
_WIDTH = 5
_HEAD = 8


def to_tensor(data: bytes) -> np.ndarray:
    """Integers of shape (1, n), five bytes each, with the length in front."""
    framed = len(data).to_bytes(_HEAD, "little") + data
    padded = np.zeros(-(-len(framed) // _WIDTH) * _WIDTH, np.uint8)
    padded[: len(framed)] = np.frombuffer(framed, np.uint8)
    words = np.zeros((len(padded) // _WIDTH, 8), np.uint8)
    words[:, :_WIDTH] = padded.reshape(-1, _WIDTH)
    return words.view("<i8").reshape(1, -1)


def from_tensor(values: np.ndarray, what: str) -> bytes:
    """The bytes; raises `InputError` for integers that are none."""
    words = np.ascontiguousarray(np.asarray(values).reshape(-1), "<i8").view(np.uint8).reshape(-1, 8)
    framed = words[:, :_WIDTH].tobytes()
    length = int.from_bytes(framed[:_HEAD], "little")
    if words[:, _WIDTH:].any() or not 0 <= length <= len(framed) - _HEAD:
        raise InputError(f"{what}: expected bytes that were shared as a tensor. Received: other numbers")
    return framed[_HEAD : _HEAD + length]


def pack(arrays: Sequence[np.ndarray]) -> bytes:
    """The numbers of arrays one after the other, without shapes."""
    return b"".join(np.ascontiguousarray(a, _stored(a.dtype)).tobytes() for a in arrays)


def unpack(data: bytes, like: Sequence[np.ndarray], what: str) -> list[np.ndarray]:
    """Arrays of the shapes and dtypes of others; raises `InputError` if that is not what was packed."""
    kinds = [np.dtype(_stored(a.dtype)) for a in like]
    if len(data) != sum(kind.itemsize * a.size for kind, a in zip(kinds, like, strict=True)):
        raise InputError(f"{what}: expected the weights of this model. Received: {len(data)} bytes, of another one")
    arrays, start = [], 0
    for kind, a in zip(kinds, like, strict=True):
        found = np.frombuffer(data, kind, a.size, start).reshape(a.shape).astype(a.dtype)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise InputError(f"{what}: expected finite weights. Received: NaN or infinity")
        arrays.append(found)
        start += kind.itemsize * a.size
    return arrays


def _stored(dtype: Any) -> str:
    """What keeps a variable's numbers exactly."""
    kind = np.dtype(dtype)
    if kind.kind in "iub":
        return "<i8"
    return "<f8" if kind.itemsize > 4 else "<f4"
