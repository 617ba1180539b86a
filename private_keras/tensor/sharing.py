"""`share`: an owner's data to secret tensors."""
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from private_keras.cluster import Column, current
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.data import Data, read
from private_keras.errors import InputError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.server.policy import Policy
from private_keras.server.storage import check_name
from private_keras.tensor.named import LABEL, Named
from private_keras.tensor.secret import SecretTensor
from private_keras.tensor.sources import Stored

_NAME_CHARACTERS = 200
_BAR_ELEMENTS = 1 << 21


def share(
    array: Any, name: str | None = None, policy: Policy | None = None, *,
    columns: str | Sequence[str] | None = None, dtype: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
    categories: Mapping[str, Sequence[str] | None] | Sequence[str] | None = None,
    fill: Mapping[str, float] | None = None, delimiter: str = ",", verbose: str | int = "auto",
) -> SecretTensor:
    """Shares data among the servers of the cluster in use.

    Without a policy they keep them in memory, for this client, as long as something refers to the result. With one they
    keep them on their disks under a name, for this client and those whom the policy names, until `pk.forget`; data that
    were shared under the name before are replaced for whoever loads them from now on.

    Args:
        array: NumPy array, or what `numpy.asarray` makes one of: lists of numbers, tensors. Or a `.npy`, `.csv` or
            `.parquet` file, a pandas frame or series, a dict of columns, a batched `tf.data.Dataset`. Real numbers are
            kept at 18 fractional bits, integers and truth values exactly; the dtype decides. Share labels of classes
            and indices of an `Embedding` as integers, what a `Dense` multiplies as real numbers.
        name: what it is; servers can read it. With a policy, what it is kept under: up to 80 letters, digits and
            _ . : / -; needed then.
        policy: `pk.Policy(use=["analyst"], plans=["fit"], reveal_to=["analyst"])`; `pk.Policy()` keeps data for this
            client alone.
        columns, dtype, ranges, categories, fill, delimiter: of files, frames and dicts of columns: what to take, and
            what is checked at its owner: see docs/data.md.
        verbose: 1 for a progress bar, 0 for none; "auto" shows one for more than 16 MB that are kept under a name.

    Returns:
        A tensor that `fit`, `evaluate` and `predict` take for an array.

    Raises:
        InputError: not numbers, empty, NaN or infinite, from 2^20 (integers 2^30) in size; before it is shared. Names
            column and row, and never a value.
        FileError: a file that cannot be read.
        ClusterError: a server cannot be reached, has no room, or no directory to keep it in.

    Leakage: servers learn name, shape, whether it holds integers, and with a policy the policy and names of columns.
    Cost: 16 bytes for an element, once. Data that are kept under a name are read in blocks and never whole.
    """
    if policy is not None and not isinstance(policy, Policy):
        raise InputError(f"share: policy: expected pk.Policy(...). Received: {type(policy).__name__}")
    if policy is not None and name is None:
        raise InputError('share: what has a policy is kept under a name. Received: none; give name="patients/x"')
    name = "tensor" if name is None else check_name(name) if policy is not None else name
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
    return _in_memory(data, name) if policy is None else _kept(data, name, policy, verbose)


def _in_memory(data: Data, name: str) -> SecretTensor:
    cluster = current()
    handle = cluster.share(data.array(), DEFAULT_FRACTION if data.real else 0, name)
    return SecretTensor.of(Stored(name, Share(cluster, handle), data.small), data.shape, data.dtype)


def _kept(data: Data, name: str, policy: Policy, verbose: str | int) -> SecretTensor:
    cluster = current()
    fraction = DEFAULT_FRACTION if data.real else 0
    bar = verbose if verbose != "auto" else int(data.size > _BAR_ELEMENTS)
    shown = keras.utils.Progbar(data.size, verbose=bar, unit_name="number") if bar else None
    column = Column(data.shape, fraction, data.dtype.name, data.blocks)
    cluster.put(
        name, {LABEL: column}, data.about(), policy, None if shown is None else lambda done, total: shown.update(done)
    )
    return SecretTensor.of(Named(cluster, name, None, data.shape, fraction, data.small), data.shape, data.dtype)
