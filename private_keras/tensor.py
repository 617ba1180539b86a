"""Secret tensors: arrays that their owner has shared on a cluster, to be used as data.

    x, y = pk.share(features), pk.share(labels)
    model.fit(x[:400], y[:400], validation_data=(x[400:], y[400:]))
"""

import html
from typing import Any, NoReturn

import numpy as np

from private_keras.cluster import Cluster, Handle, Rows, current
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.errors import ClusterError, HandleNotFound, InputError, UnsupportedError
from private_keras.plan.builder import PlanBuilder
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.server import limits

# As for data that models share themselves: real numbers and integers below these powers of two in size.
REAL_BITS = 20
INTEGER_BITS = 30
OWNER = "client"
_NAME_CHARACTERS = 200
_EXTENDED_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def share(array: Any, name: str | None = None) -> "SecretTensor":
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
    stored = _Stored(name, cluster, cluster.share(values, fraction, name), largest < 2.0**REAL_BITS)
    return SecretTensor(name, values.shape, dtype, fraction, OWNER, stored)


class SecretTensor:
    """An array that is on the servers as shares: what it is, and no value. `share` makes one; it cannot be changed.

    Models take it for an array, alone or in lists and dicts with arrays of as many rows. Nothing is shared again: jobs
    take rows by public numbers.

    Attributes:
        name: what it is.
        shape: as of the array that was shared.
        dtype: as of that array: the numbers are kept in fixed point whatever it is.
        fraction: fractional bits on the servers; 0 for integers and truth values.
        owner: the party that it belongs to.
    """

    __iter__ = None
    __hash__ = object.__hash__

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, fraction: int, owner: str, stored: "_Stored",
        rows: np.ndarray | None = None,
    ):
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.fraction = fraction
        self.owner = owner
        self._stored = stored
        self._rows = rows

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self!r} has no rows")
        return self.shape[0]

    def __getitem__(self, key: Any) -> "SecretTensor":
        """Rows of it: `x[a:b]`, `x[numbers]`, `x[mask]`. Costs nothing; servers learn which when they are used.

        Raises:
            InputError: something else than rows, rows that do not exist, or none.
        """
        if isinstance(key, SecretTensor):
            raise InputError(f"{self!r}: expected public rows. Received: {key!r}")
        if isinstance(key, tuple):
            raise InputError(f"{self!r}: expected rows, all of each. Received: an index of {len(key)} axes")
        if not isinstance(key, slice):
            key = np.asarray(key)
        try:
            picked = np.arange(len(self))[key]
        except (IndexError, TypeError) as error:
            raise InputError(f"{self!r}: expected rows, as a slice or as an array of integers or truth values ({error})"
                             ) from None
        if picked.ndim != 1:
            raise InputError(f"{self!r}: expected rows, as x[5:6] or x[[5, 7]]. Received: an index of {picked.ndim} "
                             "axes")
        if not len(picked):
            raise InputError(f"{self!r}: expected at least one row. Received: an index of none")
        rows = picked if self._rows is None else self._rows[picked]
        shape = (len(rows), *self.shape[1:])
        return SecretTensor(self.name, shape, self.dtype, self.fraction, self.owner, self._stored, rows)

    def reveal(self) -> np.ndarray:
        """Opens it to this client, through a plan of kind "reveal".

        Returns:
            What the servers have, in its dtype: real numbers are multiples of 2^-18, others are exact.

        Raises:
            HandleNotFound: it was lost, because a server was started anew.
            ClusterError: its cluster is closed, or a server cannot be reached.
        """
        cluster = self._stored.home()
        handle = self._stored.handle(cluster)
        b = PlanBuilder()
        b.output(b.input("x", self.shape, self.fraction, self.owner, self.name), "value", [self.owner])
        given = handle if self._rows is None else Rows(handle, self._rows[np.newaxis])
        opened = cluster.run(b.build("reveal", "reveal"), {"x": given}, deadline=limits.MAX_SECONDS)
        return opened["value"].astype(self.dtype)

    def column(self, row: tuple[int, ...], fraction: int, where: str) -> "Column":
        """It as a plan's input takes it.

        Args:
            row: shape of a row, of as many elements as it has.
            fraction: of the plan's input.
            where: for errors.

        Raises:
            InputError: numbers that were shared in another form, which this one cannot be made of.
        """
        if self.fraction and not fraction:
            raise InputError(f"{where}: expected whole numbers. Received: {self!r}, shared as real numbers. Share it "
                             "as integers: pk.share(array.astype('int32')).")
        if fraction and not self.fraction and not self._stored.small:
            raise InputError(f"{where}: expected real numbers below 2^{REAL_BITS} in size. Received: {self!r}, with "
                             "larger integers. Scale them and share them as real numbers.")
        return Column(self._stored, tuple(row), fraction, self._all_rows())

    def _all_rows(self) -> np.ndarray:
        return np.arange(len(self)) if self._rows is None else self._rows

    def __repr__(self) -> str:
        return f"<SecretTensor {self.name!r}, shape {self.shape}, {self.dtype}, of {self.owner}>"

    def _repr_html_(self) -> str:
        facts = (
            ("secret tensor", self.name), ("shape", str(self.shape)), ("dtype", str(self.dtype)),
            ("on the servers", f"{self.fraction} fractional bits" if self.fraction else "integers"),
            ("owner", self.owner),
        )  # fmt: skip
        rows = (f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in facts)
        return f"<table>{''.join(rows)}</table>"

    def _unknown(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(
            f"{self!r}: its values are not known here. Give it to fit, evaluate or predict of a private model; "
            "reveal() opens it to its owner."
        )

    # An object without these would be true, equal to nothing, and an array of one object.
    __array__ = __array_ufunc__ = __bool__ = __float__ = __int__ = __index__ = __complex__ = _unknown
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _unknown

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(f"{self!r}: it is on the servers and cannot be copied or pickled. Share the array where "
                               "it is needed.")


class Column:
    """Rows of a secret tensor in the form of a plan's input: reshaped, integers as real numbers where it wants them.

    What has another form is made on the servers at the first use, from the whole tensor, and kept beside it.
    """

    def __init__(self, stored: "_Stored", row: tuple[int, ...], fraction: int, rows: np.ndarray):
        self._stored = stored
        self._row = row
        self._fraction = fraction
        self._rows = rows

    def live(self, cluster: Cluster) -> bool:
        """Whether it is on this cluster, whose servers have not been started anew since."""
        return self._stored.live(cluster)

    def rows(self, cluster: Cluster, indices: np.ndarray | None = None) -> Rows:
        """Rows of these rows for the steps of a job, or all of them for one step.

        Raises:
            HandleNotFound: another cluster, or a server was started anew.
        """
        handle = self._stored.handle(cluster, self._row, self._fraction)
        return Rows(handle, self._rows[np.newaxis] if indices is None else self._rows[indices])


class _Stored:
    """What a tensor and all rows of it have on the servers. Ends there with the last of them.

    Args:
        name: for errors.
        cluster, handle: where it is.
        small: whether integers are in the range of real numbers too. The sharer knows.
    """

    def __init__(self, name: str, cluster: Cluster, handle: Handle, small: bool):
        self.small = small
        self._name = name
        self._origin = Share(cluster, handle)
        self._forms: dict[tuple[tuple[int, ...], int], Share] = {}

    def live(self, cluster: Cluster) -> bool:
        return self._origin.live(cluster)

    def home(self) -> Cluster:
        """Its cluster."""
        cluster = self._origin.cluster
        if cluster is None:
            raise ClusterError(f"the cluster of secret tensor {self._name!r} is closed. {self._advice()}")
        return cluster

    def handle(self, cluster: Cluster, row: tuple[int, ...] | None = None, fraction: int = 0) -> Handle:
        """The shares; with `row` in a form of such rows and so many fractional bits."""
        if self._origin.cluster is not cluster:
            raise HandleNotFound(
                f"secret tensor {self._name!r} is not on the cluster in use, but on another one, or on one that was "
                f"closed. {self._advice()}"
            )
        if not self.live(cluster):
            raise HandleNotFound(
                f"the shares of secret tensor {self._name!r} were lost when a server was started anew. {self._advice()}"
            )
        delete_abandoned()
        origin = self._origin.handle
        if row is None or (origin.shape[1:], origin.fraction) == (row, fraction):
            return origin
        if (row, fraction) not in self._forms:
            b = PlanBuilder()
            value = b.input("x", origin.shape, origin.fraction, OWNER, self._name)
            if origin.shape[1:] != row:
                value = b.add("reshape", value, shape=[origin.shape[0], *row])
            if origin.fraction != fraction:
                value = b.add("shift", value, bits=fraction - origin.fraction)
            b.output(value, "value", [])
            kept = cluster.run(b.build("form", "compute"), {"x": origin}, deadline=limits.MAX_SECONDS)
            self._forms[row, fraction] = Share(cluster, kept["value"])
        return self._forms[row, fraction].handle

    def _advice(self) -> str:
        return f"Share the array again: pk.share(array, name={self._name!r})."


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
