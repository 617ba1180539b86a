"""Public numbers of an update: learning rates, corrections by the iteration, and what Keras computes from them.

They are evaluated by the client, for all steps of a run at once where that is possible, by the operations that Keras
recorded; servers get the results. Equal expressions are one.
"""

from collections.abc import Callable, Container, Hashable, Iterable
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops import core, math
from keras.src.ops import numpy as knp


def _cast(operation: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(x) if operation.dtype is None else np.asarray(x).astype(operation.dtype)


def _plain(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda operation, *args: function(*args)


# What Keras' operations do with one number for each step.
ELEMENTWISE: dict[type, Callable[..., np.ndarray]] = {
    **{
        kind: _plain(function)
        for kind, function in {
            knp.Add: np.add, knp.Subtract: np.subtract, knp.Multiply: np.multiply, knp.Divide: np.divide,
            knp.TrueDivide: np.divide, knp.FloorDivide: np.floor_divide, knp.Mod: np.mod, knp.Power: np.power,
            knp.Negative: np.negative, knp.Square: np.square, knp.Sqrt: np.sqrt, knp.Exp: np.exp, knp.Log: np.log,
            knp.Abs: np.abs, knp.Absolute: np.abs, knp.Floor: np.floor, knp.Ceil: np.ceil, knp.Cos: np.cos,
            knp.Sin: np.sin, knp.Sign: np.sign, knp.Reciprocal: np.reciprocal, knp.Maximum: np.maximum,
            knp.Minimum: np.minimum, knp.Equal: np.equal, knp.NotEqual: np.not_equal, knp.Less: np.less,
            knp.LessEqual: np.less_equal, knp.Greater: np.greater, knp.GreaterEqual: np.greater_equal,
            knp.LogicalAnd: np.logical_and, knp.LogicalOr: np.logical_or, knp.LogicalNot: np.logical_not,
            knp.Where: np.where, math.Rsqrt: lambda x: 1 / np.sqrt(x), core.StopGradient: np.asarray,
        }.items()
    },
    core.Cast: _cast,
    core.SaturateCast: _cast,
    core.ConvertToTensor: _cast,
}  # fmt: skip


class Public:
    """A public number, or array, of each step.

    Attributes:
        key: names the expression.
        shape: in one step.
        constant: its value where it is the same in all steps, else None.
        margin: it may grow to 2^margin times what is known of it when the plan is written.
    """

    def __init__(
        self,
        key: Hashable,
        shape: tuple[int, ...],
        compute: Callable[["Steps"], np.ndarray],
        constant: np.ndarray | None = None,
        margin: int = 0,
    ):
        self.key = key
        self.shape = tuple(shape)
        self.constant = constant
        self.margin = margin
        self._compute = compute

    def over(self, steps: "Steps") -> np.ndarray:
        """Values of shape (steps, *shape)."""
        if self.key not in steps.known:
            steps.known[self.key] = self._compute(steps)
        return steps.known[self.key]


class Steps:
    """What is known about the steps of one evaluation: values by key of the expression."""

    def __init__(self, iterations: np.ndarray):
        self.iterations = iterations
        self.known: dict[Hashable, np.ndarray] = {}

    @property
    def count(self) -> int:
        return len(self.iterations)


def constant(value: Any) -> Public:
    """A public value that never changes."""
    value = np.asarray(value)
    key = ("constant", str(value.dtype), value.shape, value.tobytes())
    return Public(key, value.shape, lambda steps: np.broadcast_to(value, (steps.count, *value.shape)), value)


ONE = constant(np.float64(1))


def root(name: Hashable, shape: tuple[int, ...], values: Callable[[Steps], np.ndarray], margin: int = 1) -> Public:
    """A public value that changes from step to step."""
    return Public(("root", name), shape, values, margin=margin)


def fold(name: str, function: Callable[..., np.ndarray], *parts: Public) -> Public:
    """An elementwise NumPy function of public values, in float64."""
    key = ("fold", name, *(p.key for p in parts))
    shape = np.broadcast_shapes(*(p.shape for p in parts))
    if all(p.constant is not None for p in parts):
        with np.errstate(all="ignore"):
            return constant(np.asarray(function(*(np.asarray(p.constant, np.float64) for p in parts))))

    def compute(steps: Steps) -> np.ndarray:
        arrays = (np.asarray(p.over(steps), np.float64) for p in parts)
        aligned = [a.reshape(a.shape[:1] + (1,) * (len(shape) - a.ndim + 1) + a.shape[1:]) for a in arrays]
        with np.errstate(all="ignore"):
            return function(*aligned)

    return Public(key, shape, compute, margin=max(p.margin for p in parts))


def product(x: Public, y: Public) -> Public:
    if x.key == ONE.key or y.key == ONE.key:
        return y if x.key == ONE.key else x
    return fold("multiply", np.multiply, x, y)


def quotient(x: Public, y: Public) -> Public:
    return x if y.key == ONE.key else fold("divide", np.divide, x, y)


def applied(operation: keras.Operation, args: Any, kwargs: Any, outputs: list[keras.KerasTensor]) -> list[Public]:
    """What an operation that Keras recorded gives on public values; `args` and `kwargs` hold `Public`s as leaves."""
    described = tree.map_structure(lambda a: a.key if isinstance(a, Public) else repr(a), (args, kwargs))
    key = ("operation", type(operation).__name__, configuration(operation), repr(described))
    parts = [a for a in tree.flatten((args, kwargs)) if isinstance(a, Public)]
    simple = None if kwargs else ELEMENTWISE.get(type(operation))
    numbers = simple is not None and not any(p.shape for p in parts)

    def on(values: dict[Hashable, Any]) -> list[np.ndarray]:
        plain_args, plain_kwargs = tree.map_structure(
            lambda a: values[a.key] if isinstance(a, Public) else a, (args, kwargs)
        )
        if simple is not None:
            with np.errstate(all="ignore"):
                return [np.asarray(simple(operation, *plain_args))]
        results = tree.flatten(operation(*plain_args, **plain_kwargs))
        return [np.asarray(keras.ops.convert_to_numpy(r)) for r in results]

    if all(p.constant is not None for p in parts):
        return [constant(r) for r in on({p.key: p.constant for p in parts})]
    def compute(steps: Steps, index: int) -> np.ndarray:
        if (key, index) not in steps.known:
            if numbers:
                rows = {p.key: p.constant if p.constant is not None else p.over(steps) for p in parts}
                results = on(rows)
            else:
                rows = {p.key: p.over(steps) for p in parts}
                each = [on({k: v[i] for k, v in rows.items()}) for i in range(steps.count)]
                results = [np.stack(column) for column in zip(*each, strict=True)]
            steps.known.update({(key, i): r for i, r in enumerate(results)})
        return steps.known[key, index]

    margin = max(p.margin for p in parts)
    return [
        Public((*key, i), tuple(t.shape), lambda steps, i=i: compute(steps, i), margin=margin)
        for i, t in enumerate(outputs)
    ]


def evaluate(nodes: Iterable[Any], values: dict[int, Any], secret: Container[int] = ()) -> None:
    """Adds what public nodes give to `values`, by `id` of the symbolic tensor, but for nodes on `secret` tensors."""
    for node in nodes:
        if not any(id(t) in secret for t in node.input_tensors):
            args, kwargs = node.arguments.convert(lambda a: argument(a, values))
            results = applied(node.operation, args, kwargs, node.outputs)
            values.update({id(t): r for t, r in zip(node.outputs, results, strict=True)})


def argument(item: Any, values: dict[int, Any]) -> Any:
    """An argument of a recorded operation: what is known of a symbolic tensor, or a constant."""
    if isinstance(item, keras.KerasTensor):
        return values[id(item)]
    if isinstance(item, keras.Variable | np.ndarray) or keras.ops.is_tensor(item):
        return constant(np.asarray(keras.ops.convert_to_numpy(item)))
    return item


def configuration(operation: keras.Operation) -> str:
    """What an operation's instance adds to its class."""
    hidden = ("name", "arguments", "dtype_policy")
    return repr(sorted((k, repr(v)) for k, v in vars(operation).items() if not k.startswith("_") and k not in hidden))
