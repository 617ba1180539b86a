"""`share`: an owner's data to secret tensors."""
from collections.abc import Mapping, Sequence
from typing import Any

from private_keras.cluster import current
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.data import Data, read
from private_keras.errors import InputError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.tensor.secret import SecretTensor
from private_keras.tensor.sources import Stored

_NAME_CHARACTERS = 200


def share(
    array: Any, name: str | None = None, *, columns: str | Sequence[str] | None = None, dtype: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
    categories: Mapping[str, Sequence[str] | None] | Sequence[str] | None = None,
    fill: Mapping[str, float] | None = None, delimiter: str = ",",
) -> SecretTensor:
    """Shares data among the servers of the cluster in use, which keep them as long as something refers to the result.

    Args:
        array: NumPy array, or what `numpy.asarray` makes one of: lists of numbers, tensors. Or a `.npy`, `.csv` or
            `.parquet` file, a pandas frame or series, a dict of columns, a batched `tf.data.Dataset`. Real numbers are
            kept at 18 fractional bits, integers and truth values exactly; the dtype decides. Share labels of classes
            and indices of an `Embedding` as integers, what a `Dense` multiplies as real numbers.
        name: what it is, for people and errors; servers can read it.
        columns, dtype, ranges, categories, fill, delimiter: of files, frames and dicts of columns: what to take, and
            what is checked at its owner: see docs/data.md.

    Returns:
        A tensor that `fit`, `evaluate` and `predict` take for an array.

    Raises:
        InputError: not numbers, empty, NaN or infinite, from 2^20 (integers 2^30) in size; before it is shared. Names
            column and row, and never a value.
        FileError: a file that cannot be read.
        ClusterError: a server cannot be reached or has no room.

    Leakage: servers learn name, shape and whether it holds integers. Cost: 16 bytes for an element, once.
    """
    name = "tensor" if name is None else name
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS or not name.isprintable():
        raise InputError(f"share: expected a name of 1 to {_NAME_CHARACTERS} printable characters. Received: "
                         f"{type(name).__name__}{f' of {len(name)} characters' if isinstance(name, str) else ''}")
    if isinstance(array, SecretTensor):
        raise InputError(f"share {name!r}: expected an array. Received: {array!r}, which is shared already")
    data = read(
        array, columns=columns, dtype=dtype, ranges=ranges, categories=categories, fill=fill, delimiter=delimiter,
        where=f"share {name!r}",
    )  # fmt: skip
    delete_abandoned()
    return _in_memory(data, name)


def _in_memory(data: Data, name: str) -> SecretTensor:
    cluster = current()
    handle = cluster.share(data.array(), DEFAULT_FRACTION if data.real else 0, name)
    return SecretTensor.of(Stored(name, Share(cluster, handle), data.small), data.shape, data.dtype)
