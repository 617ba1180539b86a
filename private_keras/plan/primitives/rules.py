"""Type rules that several families share."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan.records import TensorType


def same(_: dict[str, Any], x: TensorType) -> TensorType:
    """The type of the operand."""
    return x


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting."""
    rank = max(len(shape) for shape in shapes)
    result = [1] * rank
    for shape in shapes:
        for axis, n in enumerate(shape, start=rank - len(shape)):
            if n != 1 and result[axis] not in (1, n):
                raise PlanError(f"expected shapes that broadcast. Received: {[list(shape) for shape in shapes]}")
            result[axis] = max(result[axis], n)
    return tuple(result)


def equal_fractions(*types: TensorType) -> int:
    """The fraction that all operands have."""
    if len({t.fraction for t in types}) != 1:
        received = [t.fraction for t in types[:8]]
        raise PlanError(f"expected operands of equal fractions; shift or truncate first. Received: {received}")
    return types[0].fraction


def truth(*types: TensorType) -> None:
    """Refuses operands that are no truth values."""
    if any(t.fraction for t in types):
        raise PlanError(f"expected truth values, of fraction 0. Received: {[t.fraction for t in types]}")


def checked_axis(axis: int, x: TensorType) -> int:
    """An axis that x has."""
    if axis >= len(x.shape):
        raise PlanError(f"expected an axis below the rank {len(x.shape)}. Received: {axis}")
    return axis


def per_axis(name: str, values: list, count: int) -> None:
    """Refuses a list that has not one item for each axis."""
    if len(values) != count:
        raise PlanError(f"{name}: expected one item for each of {count} axes. Received: {len(values)}")


def reduced(x: TensorType, axes: list[int], keepdims: bool) -> tuple[int, ...]:
    """Shape after reducing over axes."""
    for axis in axes:
        checked_axis(axis, x)
    if len(set(axes)) != len(axes):
        raise PlanError(f"expected each axis once. Received: {axes}")
    if keepdims:
        return tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return tuple(n for axis, n in enumerate(x.shape) if axis not in axes)


def windows(n: int, window: int, stride: int, padding: list[int]) -> int:
    """Number of windows over an axis of n elements."""
    span = n + padding[0] + padding[1]
    if window > span:
        raise PlanError(f"expected a window of at most {span}, the padded size. Received: {window}")
    return (span - window) // stride + 1
