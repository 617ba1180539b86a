"""Records what a Keras optimiser does in one step, by running its own `apply` on symbolic tensors.

For the length of the recording, on this optimiser alone: variables are `StateTensor`s, `assign` records, the learning
rate is a symbolic number, and what the TensorFlow backend puts in the place of Keras' own methods for the sake of its
distribution strategies is Keras' own again. `keras.ops.cond` follows both branches and chooses among what they assign.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.src.ops.core import Cond
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.optimizer import BackendOptimizer

from private_keras.errors import UnsupportedError
from private_keras.tracing.states import StateTensor, current, recording, substituted

# Methods of the backend's class that stay: they create variables, which is over when an update is recorded.
_KEPT = ("__init__", "add_variable_from_reference", "stateless_apply")


class Orthogonalise(keras.Operation):
    """Muon's Newton-Schulz iteration, as one operation: its values are bounded, which its parts do not tell."""

    def __init__(self, steps: int, coefficients: tuple[float, float, float]):
        super().__init__()
        self.steps = steps
        self.coefficients = coefficients

    def call(self, x: Any) -> Any:
        raise UnsupportedError("the orthogonalisation of a public matrix is not needed in any optimizer")

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, dtype=x.dtype)


@dataclass(frozen=True)
class Recorded:
    """What one step does.

    Attributes:
        gradients: symbolic gradient of each variable, None where there is none.
        states: by `id` of the variable: all variables that the optimiser holds, and the model's that it trains.
        rate: the symbolic learning rate.
    """

    gradients: list[keras.KerasTensor | None]
    states: dict[int, StateTensor]
    rate: keras.KerasTensor


def record(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable], given: Sequence[bool]
) -> Recorded:
    """Runs one step of `optimizer`, built on `variables`, symbolically. For the caller who holds the trace's lock.

    Args:
        optimizer: left as it was.
        variables: those it was built on, in that order.
        given: for each whether it has a gradient.

    Raises:
        UnsupportedError: if the update cannot be followed on symbolic tensors.
    """
    states: dict[int, StateTensor] = {}

    def stand_in(variable: keras.Variable) -> StateTensor:
        return states.setdefault(id(variable), StateTensor(variable))

    rate = keras.KerasTensor((), name="learning_rate")
    gradients = [
        keras.KerasTensor(v.shape, dtype=v.dtype, name=f"gradient/{v.path}") if has else None
        for v, has in zip(variables, given, strict=True)
    ]
    methods = _methods(optimizer)
    with ExitStack() as stack:
        stack.enter_context(recording())
        stack.enter_context(_plain_keras())
        stack.enter_context(substituted([optimizer], stand_in))
        stack.enter_context(_attributes(optimizer, {"_learning_rate": rate, **methods}))
        stack.enter_context(_branches(lambda: states.values()))
        try:
            optimizer.apply(list(gradients), [stand_in(v) for v in variables])
        except UnsupportedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an optimiser raises on symbolic tensors, the user learns it
            raise UnsupportedError(
                f"optimizer '{optimizer.name}': its update cannot be followed on symbolic tensors "
                f"({type(error).__name__}: {str(error).strip()[:300]}). Write `update_step` with `keras.ops` and "
                "`self.assign`, without a backend's own functions and without branches on values."
            ) from error
    return Recorded(gradients, states, rate)


def record_schedule(schedule: Callable[[Any], Any], dtype: str) -> tuple[keras.KerasTensor, keras.KerasTensor] | None:
    """The iteration and the learning rate as symbolic tensors; None if the schedule cannot be followed on them.

    For the caller who holds the trace's lock.
    """
    iteration = keras.KerasTensor((), dtype=dtype, name="iteration")
    with recording(), _plain_keras(), _branches(tuple):
        try:
            rate = schedule(iteration)
        except Exception:  # noqa: BLE001 - a schedule with branches in Python is called for each step instead
            return None
    return (iteration, rate) if isinstance(rate, keras.KerasTensor) else None


def _methods(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """What the instance does differently while it is recorded."""
    own_key, own_decays = optimizer._var_key, optimizer._use_weight_decay

    def key(variable: Any) -> Any:
        return own_key(getattr(variable, "variable", variable))

    def decays(variable: Any) -> bool:
        return own_decays(getattr(variable, "variable", variable))

    def clip_by_norm(values: Any, axes: Any = None) -> Any:
        norm = ops.sqrt(ops.sum(ops.square(values), axes, keepdims=True))
        return values * (optimizer.clipnorm * ops.minimum(1.0 / norm, 1.0 / optimizer.clipnorm))

    methods = {
        "_var_key": key,
        "_use_weight_decay": decays,
        "_clip_by_norm": clip_by_norm,
        "assign": lambda variable, value: variable.assign(value),
        "assign_add": lambda variable, value: variable.assign_add(value),
        "assign_sub": lambda variable, value: variable.assign_sub(value),
        # Gradients are those of the loss itself, so there is nothing to undo; fixed point has no use for a factor.
        "loss_scale_factor": None,
    }
    if isinstance(optimizer, keras.optimizers.Muon):
        methods["zeropower_via_newtonschulz5"] = lambda x, steps: Orthogonalise(
            steps, (optimizer.muon_a, optimizer.muon_b, optimizer.muon_c)
        ).symbolic_call(x)
    return methods


@contextmanager
def _attributes(item: Any, values: dict[str, Any]) -> Iterator[None]:
    attributes = vars(item)
    before = {k: attributes[k] for k in values if k in attributes}
    attributes.update(values)
    try:
        yield
    finally:
        for k in values:
            attributes.pop(k, None)
        attributes.update(before)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def _plain_keras() -> Iterator[None]:
    """Keras' own methods in the place of the backend's, and == with a number, which Keras does not record."""

    def equal(self: keras.KerasTensor, other: Any) -> Any:
        return ops.equal(self, other) if isinstance(other, int | float) else NotImplemented

    def not_equal(self: keras.KerasTensor, other: Any) -> Any:
        return ops.not_equal(self, other) if isinstance(other, int | float) else NotImplemented

    with ExitStack() as stack:
        stack.enter_context(_replaced(keras.KerasTensor, "__eq__", equal))
        stack.enter_context(_replaced(keras.KerasTensor, "__ne__", not_equal))
        for name in vars(BackendOptimizer):
            if name in vars(BaseOptimizer) and callable(vars(BaseOptimizer)[name]) and name not in _KEPT:
                stack.enter_context(_replaced(BackendOptimizer, name, vars(BaseOptimizer)[name]))
        yield


@contextmanager
def _branches(states: Callable[[], Any]) -> Iterator[None]:
    """`cond` on a symbolic truth value: both branches, and a choice among results and what each assigned."""
    original = Cond.__call__

    def call(self: Cond, pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
        pred = current(pred)
        if not isinstance(pred, keras.KerasTensor):
            return original(self, pred, true_fn, false_fn)
        before = {id(s): s.current for s in states()}
        yes = true_fn()
        after_yes = {id(s): s.current for s in states()}
        for s in states():
            s.current = before.get(id(s), s.initial)
        no = false_fn()
        for s in states():
            a, b = after_yes.get(id(s), s.initial), s.current
            if a is not b:
                s.current = ops.where(pred, a, b)
        return keras.tree.map_structure(lambda a, b: None if a is None else ops.where(pred, a, b), yes, no)

    with _replaced(Cond, "__call__", call):
        yield
