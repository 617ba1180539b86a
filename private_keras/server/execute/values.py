"""What a step computes with: shares, public arrays, and truth values that are still bits.

Comparisons give bits, which are cheaper to multiply with and to combine than integers on shares. A `Truth` keeps them
as long as they are used as such and becomes a share, once, when a step needs one.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np

from private_keras.plan.plan import Step, TensorType
from private_keras.protocols.protocol import Bits, Protocol, Share
from private_keras.protocols.simulate import SimulatedShare

Movement = Callable[[np.ndarray], np.ndarray]


class Truth:
    """Secret truth values, as bits; `shape` may be read."""

    def __init__(self, bits: Bits, shape: tuple[int, ...]):
        self.bits = bits
        self.shape = shape
        self._share: Share | None = None

    def share(self, p: Protocol) -> Share:
        """The same as integers 0 and 1."""
        if self._share is None:
            self._share = p.bits_to_share(self.bits)
        return self._share


Value = Share | Truth | np.ndarray


@dataclass(frozen=True)
class Operation:
    """One step, ready to run.

    Attributes:
        step: as it stands in the plan.
        attributes: the step's, long lists as arrays.
        operands: types of its operands.
        result: type of its result.
        inputs: names of its operands, with that of kept bits behind them if it uses some (see `gates`).
        keeps: under which name the bits of its comparison stay, which it then gives beside its result; "" for not.
        public: whether all its operands are known to all servers, and so is its result.
        cut: bits by which it has to divide its operand first, see `cuts`.
        passes: whether it only passes its operand on.
    """

    step: Step
    attributes: Mapping[str, Any]
    operands: tuple[TensorType, ...]
    result: TensorType
    inputs: tuple[str, ...]
    keeps: str = ""
    public: bool = False
    cut: int = 0
    passes: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.result.shape


def public(*values: Value) -> bool:
    """Whether all values are public."""
    for value in values:
        if not isinstance(value, np.ndarray):
            return False
    return True


def as_share(p: Protocol, value: Value) -> Share:
    """Any value as a share: public ones as constants, truth values as integers."""
    if isinstance(value, np.ndarray):
        return p.constant(value)
    return value.share(p) if isinstance(value, Truth) else value


def as_public(value: Value) -> np.ndarray:
    """What the protocol `Public` computed, as an array."""
    if isinstance(value, Truth):
        return value.bits.value.astype(np.uint64)
    return value.value if isinstance(value, SimulatedShare) else np.asarray(value)


def settled(p: Protocol, value: Value) -> Share | np.ndarray:
    """A value that linear steps take: bits become integers, public arrays stay as they are."""
    return value.share(p) if isinstance(value, Truth) else value


def move(p: Protocol, fn: Movement, shape: tuple[int, ...], value: Value) -> Value:
    """Rearranges elements by `fn`, which computes nothing; the result is of the same kind as the value."""
    if isinstance(value, np.ndarray):
        return fn(value)
    if isinstance(value, Truth):
        return Truth(p.bits_linear(fn, shape, value.bits), shape)
    return p.linear(fn, shape, value)


def reshaped(p: Protocol, value: Value, shape: tuple[int, ...]) -> Value:
    """The same elements in another shape."""
    if tuple(value.shape) == shape:
        return value
    return move(p, lambda a: a.reshape(shape), shape, value)


def elementwise(step: Callable[..., Value]) -> Callable[..., Value]:
    """The step, with operands of rank 0 as tensors of one element, but for public ones that broadcast.

    NumPy turns arrays of rank 0 into scalars on the way, which protocols and kernels do not take.
    """

    @wraps(step)
    def run(p: Protocol, at: Operation, *xs: Value) -> Value | tuple[Value, Truth]:
        for x in xs:
            if not x.shape and not (public(x) and at.shape):
                break
        else:
            return step(p, at, *xs)
        lifted = [x if x.shape or (public(x) and at.shape) else reshaped(p, x, (1,)) for x in xs]
        inner = replace(at, result=replace(at.result, shape=at.shape or (1,)))
        result = step(p, inner, *lifted)
        if at.keeps:
            return tuple(reshaped(p, value, at.shape) for value in result)
        return reshaped(p, result, at.shape)

    return run


def spread(p: Protocol, value: Value, shape: tuple[int, ...]) -> Value:
    """Broadcast to `shape`."""
    if value.shape == shape:
        return value
    return move(p, lambda a: np.broadcast_to(a, shape), shape, value)
