"""Variables that change while they are traced: symbolic tensors that record what is assigned to them.

Optimisers, metrics and layers in training read a variable again after they have assigned it, through the same object.
A `StateTensor` is that object. While `recording` lasts, every Keras operation that is given one sees its newest value
instead, so the recorded graph has no assignments in it, only values.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops, tree


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
    """While it lasts, Keras operations see the newest value of a state. For the caller who holds the trace's lock."""
    original = keras.Operation.symbolic_call

    def symbolic_call(self: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree.map_structure(current, (args, kwargs))
        return original(self, *args, **kwargs)

    keras.Operation.symbolic_call = symbolic_call
    try:
        yield
    finally:
        keras.Operation.symbolic_call = original


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
