"""Variables that change while they are traced: symbolic tensors that record what is assigned to them.

Optimisers, metrics and layers in training read a variable again after they have assigned it, through the same object.
A `StateTensor` is that object. While `recording` lasts, every Keras operation that is given one sees its newest value
instead, so the recorded graph has no assignments in it, only values.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops, tree
from keras.src import backend
from keras.src.ops import core
from keras.src.ops import numpy as knp

from private_keras.errors import UnsupportedError

# Keras takes lists for numbers here, but not beside symbolic tensors.
_OF_TWO = (knp.Add, knp.Subtract, knp.Multiply, knp.Divide, knp.TrueDivide, knp.Maximum, knp.Minimum)
_IN_BRANCH = ContextVar("_IN_BRANCH", default=False)


class StateTensor(keras.KerasTensor):
    """Stands for a `keras.Variable` in a trace of something that changes it.

    Attributes:
        variable: the variable.
        initial: the symbolic tensor for its value before the step: a root of the recorded graph.
        current: the newest value; `initial` if nothing was assigned.
    """

    def __init__(self, variable: keras.Variable):
        super().__init__(variable.shape, dtype=variable.dtype, name=variable.path)
        self.variable = variable
        self.path = variable.path
        self.trainable = variable.trainable
        self.regularizer = getattr(variable, "regularizer", None)
        self.constraint = getattr(variable, "constraint", None)
        self.overwrite_with_gradient = getattr(variable, "overwrite_with_gradient", False)
        self.initial = keras.KerasTensor(variable.shape, dtype=variable.dtype, name=variable.path)
        self.current: keras.KerasTensor = self.initial

    @property
    def value(self) -> keras.KerasTensor:
        return self.current

    @property
    def assigned(self) -> bool:
        """Whether the step changes the variable."""
        return self.current is not self.initial

    def assign(self, value: Any) -> "StateTensor":
        """Records a new value, of the variable's shape."""
        if _IN_BRANCH.get():
            raise UnsupportedError(
                f"'{self.path}' is assigned in one branch of a condition on a secret. Assign it in any case, a value "
                "that `ops.where` chooses."
            )
        value = current(value)
        if not isinstance(value, keras.KerasTensor):
            value = ops.add(ops.multiply(self.initial, 0.0), value)  # a constant, made symbolic
        if tuple(value.shape) != tuple(self.shape):
            value = ops.broadcast_to(value, self.shape)
        self.current = value
        return self

    def assign_add(self, value: Any) -> "StateTensor":
        """Records variable + value."""
        return self.assign(ops.add(self.current, current(value)))

    def assign_sub(self, value: Any) -> "StateTensor":
        """Records variable - value."""
        return self.assign(ops.subtract(self.current, current(value)))


def current(value: Any) -> Any:
    """The newest value of a state; anything else as it is."""
    return value.current if isinstance(value, StateTensor) else value


@contextmanager
def recording() -> Iterator[None]:
    """While it lasts, Keras operations see the newest value of a state. For the caller who holds the trace's lock.

    Symbolic tensors also pass Keras' conversion to tensors of its backend, which constraints and regularisers begin
    with; `ops.cond` on a symbolic condition records both branches and a choice between their results; and `ops.size`
    and `ops.ndim` of symbolic tensors are numbers.
    """
    original, convert = keras.Operation.symbolic_call, backend.convert_to_tensor

    def symbolic_call(self: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree.map_structure(current, (args, kwargs))
        if isinstance(self, core.Cond):
            return _both(*args, **kwargs)
        if isinstance(self, knp.Size | knp.Ndim):
            shape = args[0].shape
            return math.prod(shape) if isinstance(self, knp.Size) else len(shape)
        if isinstance(self, _OF_TWO):
            args = tuple(ops.convert_to_tensor(a) if isinstance(a, list | tuple) else a for a in args)
        if isinstance(self, knp.GetItem) and isinstance(args[1], slice):
            args = (args[0], (args[1],))  # Keras infers the shape for a tuple of slices only
        return original(self, *args, **kwargs)

    def convert_to_tensor(x: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return convert(x, dtype, *args, **kwargs)
        x = current(x)
        return x if dtype is None else ops.cast(x, dtype)

    keras.Operation.symbolic_call = symbolic_call
    backend.convert_to_tensor = convert_to_tensor
    try:
        yield
    finally:
        keras.Operation.symbolic_call = original
        backend.convert_to_tensor = convert


def _both(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """Which branch is taken is secret, so both are computed."""
    token = _IN_BRANCH.set(True)
    try:
        branches = true_fn(), false_fn()
    finally:
        _IN_BRANCH.reset(token)
    return tree.map_structure(lambda x, y: None if x is y is None else ops.where(pred, x, y), *branches)


@contextmanager
def substituted(objects: Iterable[Any], replace: Callable[[keras.Variable], Any]) -> Iterator[None]:
    """For the length of a `with`, each `keras.Variable` in attributes of `objects` (also in lists, tuples and dicts
    there) is `replace(variable)`. Attributes are put back whatever happens.
    """
    undo: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for item in objects:
            attributes = vars(item)
            for key, value in list(attributes.items()):
                changed = _swapped(value, replace)
                if changed is not value:
                    undo.append((attributes, key, value))
                    attributes[key] = changed
        yield
    finally:
        for attributes, key, value in reversed(undo):
            attributes[key] = value


def _swapped(value: Any, replace: Callable[[keras.Variable], Any]) -> Any:
    if isinstance(value, keras.Variable):
        return replace(value)
    if isinstance(value, list | tuple):
        parts = [_swapped(v, replace) for v in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, dict):
        parts = {k: _swapped(v, replace) for k, v in value.items()}
        return value if all(parts[k] is value[k] for k in value) else parts
    return value
