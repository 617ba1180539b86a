"""Public numbers of an update: learning rates, corrections by the iteration, and what Keras computes from them.

They are evaluated by the client, for all steps of a run at once where that is possible, with the operations that Keras
recorded; servers get the results. Equal expressions are one.
"""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops import core, math
from keras.src.ops import numpy as knp

# What can be computed on one number for each step as on one number.
ELEMENTWISE = (
    knp.Add, knp.Subtract, knp.Multiply, knp.Divide, knp.TrueDivide, knp.FloorDivide, knp.Mod, knp.Power, knp.Negative,
    knp.Square, knp.Sqrt, knp.Exp, knp.Log, knp.Abs, knp.Absolute, knp.Floor, knp.Ceil, knp.Maximum, knp.Minimum,
    knp.Clip, knp.Equal, knp.NotEqual, knp.Less, knp.LessEqual, knp.Greater, knp.GreaterEqual, knp.LogicalAnd,
    knp.LogicalOr, knp.LogicalNot, knp.Where, knp.Cos, knp.Sin, knp.Reciprocal, knp.Sign, core.Cast, math.Rsqrt,
    core.ConvertToTensor, core.StopGradient, core.SaturateCast,
)  # fmt: skip


class Public:
    """A public number, or array, of each step.

    Attributes:
        key: names the expression.
        shape: in one step.
        constant: its value where it is the same in all steps, else None.
    """

    def __init__(self, key: Hashable, shape: tuple[int, ...], compute: Callable[["Steps"], np.ndarray], constant=None):
        self.key = key
        self.shape = tuple(shape)
        self.constant: np.ndarray | None = constant
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


def root(name: Hashable, shape: tuple[int, ...], values: Callable[[Steps], np.ndarray]) -> Public:
    """A public value that changes from step to step."""
    return Public(("root", name), shape, values)


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

    return Public(key, shape, compute)


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

    def on(values: dict[Hashable, Any]) -> list[np.ndarray]:
        plain_args, plain_kwargs = tree.map_structure(
            lambda a: values[a.key] if isinstance(a, Public) else a, (args, kwargs)
        )
        results = tree.flatten(operation(*plain_args, **plain_kwargs))
        return [np.asarray(keras.ops.convert_to_numpy(r)) for r in results]

    if all(p.constant is not None for p in parts):
        return [constant(r) for r in on({p.key: p.constant for p in parts})]
    numbers = type(operation) in ELEMENTWISE and not any(p.shape for p in parts)

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

    return [
        Public((*key, i), tuple(t.shape), lambda steps, i=i: compute(steps, i)) for i, t in enumerate(outputs)
    ]


def configuration(operation: keras.Operation) -> str:
    """What an operation's instance adds to its class."""
    hidden = ("name", "arguments", "dtype_policy")
    return repr(sorted((k, repr(v)) for k, v in vars(operation).items() if not k.startswith("_") and k not in hidden))
