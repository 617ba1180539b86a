"""`share`: arrays to secret tensors."""
from typing import Any

import numpy as np

from private_keras.cluster import current
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.errors import InputError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.tensor.secret import INTEGER_BITS, REAL_BITS, SecretTensor
from private_keras.tensor.sources import Stored

_NAME_CHARACTERS = 200
_EXTENDED_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def share(array: Any, name: str | None = None) -> SecretTensor:
    """Shares an array among the servers of the cluster in use, which keep it as long as something refers to the result.

    Args:
        array: NumPy array, or what `numpy.asarray` makes one of: lists of numbers, tensors, columns of a data frame.
            Real numbers are kept at 18 fractional bits, integers and truth values exactly; its dtype decides. Share
            labels of classes and indices of an `Embedding` as integers, what a `Dense` multiplies as real numbers.
        name: what it is, for people and errors; servers can read it.

    Returns:
        A tensor that `fit`, `evaluate` and `predict` take for an array.

    Raises:
        InputError: not numbers, empty, NaN or infinite, from 2^20 (integers 2^30) in size; before it is shared.
        ClusterError: a server cannot be reached or has no room.

    Leakage: servers learn name, shape and whether it holds integers. Cost: 16 bytes for an element, once.
    """
    name = "tensor" if name is None else name
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS or not name.isprintable():
        raise InputError(f"share: expected a name of 1 to {_NAME_CHARACTERS} printable characters. Received: "
                         f"{type(name).__name__}{f' of {len(name)} characters' if isinstance(name, str) else ''}")
    values, dtype = _numbers(array, name)
    fraction = DEFAULT_FRACTION if values.dtype.kind == "f" else 0
    largest = max(-float(values.min()), float(values.max()))
    bits = REAL_BITS if fraction else INTEGER_BITS
    if largest >= 2.0**bits:
        kind = "real numbers" if fraction else "integers"
        raise InputError(f"share {name!r}: expected {kind} below 2^{bits} in size. Received: {dtype} of shape "
                         f"{values.shape} with larger ones. Scale the data, as for training.")
    delete_abandoned()
    cluster = current()
    shared = Share(cluster, cluster.share(values, fraction, name))
    return SecretTensor.of(Stored(name, shared, largest < 2.0**REAL_BITS), values.shape, dtype)


def _numbers(array: Any, name: str) -> tuple[np.ndarray, np.dtype]:
    """The numbers as NumPy computes with them, and the dtype that they had."""
    if isinstance(array, SecretTensor):
        raise InputError(f"share {name!r}: expected an array. Received: {array!r}, which is shared already")
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise InputError(f"share {name!r}: expected an array without masked elements. Fill them before: "
                         "array.filled(value)")
    try:
        values = np.asarray(array)
    except (TypeError, ValueError):
        # What NumPy says may quote the data.
        raise InputError(f"share {name!r}: expected an array of numbers. Received: {type(array).__name__}") from None
    dtype = values.dtype
    if dtype.name in _EXTENDED_FLOATS:
        values = values.astype(np.float32)
    if values.dtype.kind not in "fiub":
        raise InputError(f"share {name!r}: expected an array of numbers. Received: {type(array).__name__} of dtype "
                         f"{dtype}. Encode text and categories as numbers first.")
    if not values.size:
        raise InputError(f"share {name!r}: expected at least one element. Received: shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise InputError(f"share {name!r}: expected finite numbers. Received: NaN or infinity in {bad} of "
                         f"{values.size} elements. Replace them before.")
    return values, dtype
