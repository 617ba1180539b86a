"""`SecretTensor`: what it is and no value; rows, columns and operations on it are recorded, and run when it is used."""

import html
from typing import Any, NoReturn

import keras
import numpy as np

from private_keras.cluster.planning import planned
from private_keras.cluster.results import Address, Delivery
from private_keras.data.data import REAL_BITS
from private_keras.errors import InputError, UnsupportedError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.server import limits
from private_keras.tensor.column import Column, spliced
from private_keras.tensor.operators import Operators, apply
from private_keras.tensor.sources import OWNER, Source
from private_keras.tensor.symbols import Root, sources
from private_keras.tensor.writing import VALUE, parts, write_whole
from private_keras.tracing.expression import is_whole

_PARTS = (slice, int, np.integer)


class SecretTensor(Operators):
    """An array that is on the servers as shares, or what is to be computed of such: what it is, and no value. `share`
    makes one, and so do `private_keras.ops` and Python's operators on others; it cannot be changed.

    Models take it for an array, alone or in lists and dicts with arrays of as many rows. Nothing is shared again: jobs
    take rows by public numbers. What operations compute becomes a part of the plan that uses it. Servers see the plan.

    Attributes:
        name: what it is.
        shape: as of the array that was shared.
        dtype: as of that array: the numbers are kept in fixed point whatever it is.
        fraction: fractional bits on the servers; 0 for integers and truth values.
        owner: the party that it belongs to; of what is computed from the data of several, all of them.
    """

    __iter__ = None
    __hash__ = object.__hash__

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, symbol: keras.KerasTensor,
        rows: np.ndarray | None = None,
    ):
        self.name = name
        self.shape = tuple(shape)
        self.dtype = dtype
        self.fraction = 0 if is_whole(symbol.dtype) else DEFAULT_FRACTION
        self.owner = ", ".join(sorted({source.owner for source in sources(symbol)})) or OWNER
        self._base = symbol
        self._rows = rows
        self._picked: keras.KerasTensor | None = None

    @classmethod
    def of(cls, source: Source, shape: tuple[int, ...], dtype: np.dtype) -> "SecretTensor":
        """The tensor that has these shares."""
        return cls(source.name, shape, dtype, Root(shape, _standard(dtype), source))

    @classmethod
    def computed(cls, symbol: keras.KerasTensor, what: str, operands: list["SecretTensor"]) -> "SecretTensor":
        """What an operation gives, called `what`, on these."""
        names = list(dict.fromkeys(operand.name for operand in operands))
        name = f"{what}({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        dtype = np.dtype(keras.backend.standardize_dtype(symbol.dtype))
        return cls(name[:200], tuple(symbol.shape), dtype, symbol)

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
        """Rows, `x[a:b]`, `x[numbers]`, `x[mask]`, or an index of several axes, `x[:, 1:3]`. Costs nothing; servers
        learn which when they are used.

        Raises:
            InputError: an index that is none, of what does not exist, or of nothing.
        """
        if isinstance(key, SecretTensor) or (isinstance(key, tuple) and any(isinstance(k, SecretTensor) for k in key)):
            raise InputError(f"{self!r}: expected public rows. Received: {key!r}")
        if isinstance(key, tuple):
            return self._columns(key)
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
        return SecretTensor(self.name, (len(rows), *self.shape[1:]), self.dtype, self._base, rows)

    def _columns(self, key: tuple) -> "SecretTensor":
        if not all(part is None or part is Ellipsis or isinstance(part, _PARTS) for part in key):
            raise InputError(f"{self!r}: expected slices and numbers in an index of several axes. Received: others. "
                             "Rows by numbers: x[[5, 7]]; columns by numbers: pk.ops.take(x, [0, 2], axis=1)")
        try:
            shape = np.empty(self.shape, bool)[key].shape
        except (IndexError, TypeError) as error:
            raise InputError(f"{self!r}: expected an index of its axes ({error})") from None
        if 0 in shape:
            raise InputError(f"{self!r}: expected at least one element. Received: an index of none")
        return apply(keras.ops.get_item, self, key)

    @property
    def symbol(self) -> keras.KerasTensor:
        """It as Keras records operations on it."""
        if self._rows is None:
            return self._base
        if self._picked is None:
            base = self._base
            if isinstance(base, Root):
                rows = self._rows if base.rows is None else base.rows[self._rows]
                self._picked = Root(self.shape, base.dtype, base.source, base.base, rows)
            else:
                self._picked = Root(self.shape, base.dtype, base=base, rows=self._rows)
        return self._picked

    def reveal(self, to: str | None = None, name: str | None = None) -> "np.ndarray | Delivery":
        """Opens it, through a plan of kind "reveal", or "compute" where it was computed of data with others.

        Args:
            to: the party that it is opened to, instead of this client, who learns nothing then. It calls
                `pk.receive("this-client/name")`.
            name: what it is called there.

        Returns:
            What the servers have, in its dtype: real numbers are multiples of 2^-18, others are exact. With `to`,
            a `Delivery`.

        Raises:
            UnsupportedError: an operation that cannot run on shares.
            SecurityError: the policy of an owner does not allow it.
            HandleNotFound: it was lost, because a server was started anew.
            ClusterError: its cluster is closed, or a server cannot be reached.
        """
        address = None if to is None else Address(to, name)
        if name is not None and to is None:
            raise InputError("reveal: name goes with to, for somebody else to receive it under")
        cluster = self.home()
        written = write_whole(self.symbol, (OWNER if to is None else to,))
        given = written.given(cluster, np.zeros((1, 1), np.int64))
        plan, given = spliced(written.plan, given)
        delivery = {} if address is None else {"delivery": address.part(0)}
        opened = cluster.run(plan, given, deadline=limits.MAX_SECONDS, **delivery)
        return opened[VALUE].astype(self.dtype) if address is None else Delivery(address.to, address.name, self.shape)

    def home(self) -> Any:
        """The cluster that it is on.

        Raises:
            InputError: it is of tensors on several.
        """
        homes = [source.home() for source in sources(self._base)]
        if any(home is not homes[0] for home in homes):
            raise InputError(f"{self!r}: expected tensors on one cluster. Received: tensors on several")
        standing = planned()
        return standing if standing is not None and standing.holds(homes[0]) else homes[0]

    def column(self, row: tuple[int, ...], fraction: int, where: str) -> Column:
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
        if fraction and not self.fraction and not all(source.small for source in sources(self._base)):
            raise InputError(f"{where}: expected real numbers below 2^{REAL_BITS} in size. Received: {self!r}, with "
                             "larger integers. Scale them and share them as real numbers.")
        return Column(self._base, tuple(row), fraction, self._all_rows())

    def parts(self) -> np.ndarray | None:
        """Of tensors one below the other, a number for each row that says which it is in; None of others."""
        return parts(self._base, self._all_rows())

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
            f"{self!r}: its values are not known here. Give it to fit, evaluate or predict of a private model, or to "
            "private_keras.ops, which compute on shares; reveal() opens it to its owner."
        )

    # An object without these would be true, equal to nothing, and an array of one object.
    __array__ = __bool__ = __float__ = __int__ = __index__ = __complex__ = _unknown
    __eq__ = __ne__ = __contains__ = _unknown

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(f"{self!r}: it is on the servers and cannot be copied or pickled. Share the array where "
                               "it is needed.")


def _standard(dtype: np.dtype) -> str:
    """The dtype that Keras computes in for one of NumPy's: it knows none of those that are rarer."""
    try:
        return keras.backend.standardize_dtype(dtype.name)
    except (ValueError, TypeError):
        return "float32" if dtype.kind in "fV" else "int32"
