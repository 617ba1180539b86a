"""Operations on secret tensors: `keras.ops`, recorded on symbols. Nothing is computed before the result is used."""
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError, PrivateKerasError, UnsupportedError
from private_keras.tracing.expression import refuse_unknown

_UFUNCS = {
    "add": "add", "subtract": "subtract", "multiply": "multiply", "true_divide": "true_divide", "divide": "true_divide",
    "matmul": "matmul", "maximum": "maximum", "minimum": "minimum", "power": "power", "less": "less",
    "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal",
}  # fmt: skip


def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of `keras.ops` gives on secret tensors among its arguments.

    Returns:
        Secret tensors, in the structure of the function's results.

    Raises:
        InputError: shapes or arguments that do not fit; as Keras says it.
        UnsupportedError: an operation that cannot run on shares.
    """
    operands = secrets_in((args, kwargs))
    name = getattr(function, "__name__", "operation")
    args, kwargs = keras.tree.map_structure(lambda a: a.symbol if isinstance(a, Operators) else a, (args, kwargs))
    try:
        results = function(*args, **kwargs)
    except PrivateKerasError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{name} of {', '.join(map(repr, operands[:4]))}: {lines[0][:300]}") from None
    except Exception as error:  # noqa: BLE001 - a function that computes at once raises whatever its backend raises
        raise UnsupportedError(
            f"{name} cannot be recorded on secret tensors ({type(error).__name__}). Write it with other operations of "
            "private_keras.ops."
        ) from None
    leaves = keras.tree.flatten(results)
    if not all(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
        return results  # what shapes alone say
    refuse_unknown(leaves, [operand.symbol for operand in operands])
    for leaf in leaves:
        if any(n is None for n in leaf.shape):
            raise UnsupportedError(f"{name}: the shape of its result depends on values, which are not known here.")
    return keras.tree.map_structure(lambda leaf: type(operands[0]).computed(leaf, name, operands), results)


def secrets_in(structure: Any) -> list[Any]:
    """The secret tensors in a structure of arguments."""
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Operators)]


def _binary(name: str) -> tuple[Callable, Callable]:
    def forward(self: Any, other: Any) -> Any:
        return apply(getattr(keras.ops, name), self, _operand(other))

    def backward(self: Any, other: Any) -> Any:
        return apply(getattr(keras.ops, name), _operand(other), self)

    return forward, backward


def _operand(value: Any) -> Any:
    """Numbers, arrays, tensors: what can be an operand of an operator."""
    return np.asarray(value) if isinstance(value, list | tuple) else value


def _unary(name: str) -> Callable:
    return lambda self: apply(getattr(keras.ops, name), self)


class Operators:
    """Python's and NumPy's operators, as `keras.ops` has them."""

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("true_divide")
    __pow__, __rpow__ = _binary("power")
    __matmul__, __rmatmul__ = _binary("matmul")
    __lt__, _ = _binary("less")
    __le__, _ = _binary("less_equal")
    __gt__, _ = _binary("greater")
    __ge__, _ = _binary("greater_equal")
    __and__, __rand__ = _binary("logical_and")
    __or__, __ror__ = _binary("logical_or")
    __invert__ = _unary("logical_not")
    __neg__ = _unary("negative")
    __abs__ = _unary("absolute")
    del _

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """array + tensor; other functions of NumPy would need values."""
        name = _UFUNCS.get(ufunc.__name__)
        if name is None or method != "__call__" or kwargs:
            self._unknown()
        return apply(getattr(keras.ops, name), *inputs)

    def reshape(self, *shape: Any) -> Any:
        """As `numpy.ndarray.reshape`."""
        return apply(keras.ops.reshape, self, shape[0] if len(shape) == 1 else shape)

    def astype(self, dtype: Any) -> Any:
        """As `numpy.ndarray.astype`."""
        return apply(keras.ops.cast, self, keras.backend.standardize_dtype(np.dtype(dtype).name))

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """As `numpy.ndarray.T`."""
        return apply(keras.ops.transpose, self)
