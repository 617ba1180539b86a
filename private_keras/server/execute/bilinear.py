"""Products: a linear map where one operand is public, one protocol step where both are secret."""
from collections.abc import Callable
from typing import Any

import numpy as np

from private_keras.protocols.protocol import Bits, Protocol, times
from private_keras.server.execute.values import Operation, Truth, Value, elementwise, move, public, settled, spread


def both(p: Protocol, shape: tuple[int, ...], x: Truth, y: Truth) -> Bits:
    """x AND y, broadcast to shape."""
    pair = p.bits_linear(
        lambda a, b: np.stack([np.broadcast_to(a, shape), np.broadcast_to(b, shape)]), (2, *shape), x.bits, y.bits
    )
    return p.bits_and(pair, 0)


def multiply(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    if isinstance(y, Truth):
        x, y = y, x
    if isinstance(x, Truth) and isinstance(y, Truth):
        return Truth(both(p, at.shape, x, y), at.shape)
    if isinstance(x, Truth) and not public(y):
        return p.multiply_bits(spread(p, x, at.shape).bits, y)
    return product(p, times, at.shape, x, y)


def product(
    p: Protocol, op: Callable[..., np.ndarray], shape: tuple[int, ...], x: Value, y: Value, twice: bool = False
) -> Value:
    """op(x, y) for a bilinear op, or twice that."""
    x, y = settled(p, x), settled(p, y)
    if twice and public(y):
        y = y + y
    elif twice and public(x):
        x = x + x
    if public(x, y):
        return op(x, y)
    if public(y):
        return p.linear(lambda a: op(a, y), shape, x)
    if public(x):
        return p.linear(lambda b: op(x, b), shape, y)
    return p.bilinear(op, shape, x, y, twice)


def matmul(p: Protocol, at: Operation, x: Value, y: Value) -> Value:
    return product(p, p.kernel.matmul, at.shape, x, y, at.attributes["twice"])


def conv(p: Protocol, at: Operation, x: Value, w: Value) -> Value:
    a = at.attributes

    def op(x: np.ndarray, w: np.ndarray, **into: Any) -> np.ndarray:
        return p.kernel.conv(x, w, a["strides"], a["padding"], a["dilation"], a["groups"], **into)

    return product(p, op, at.shape, dilated(p, x, a["input_dilation"]), w, a["twice"])


def dilated(p: Protocol, x: Value, dilation: list[int]) -> Value:
    """Zeros between the elements of each space axis; the element distance is `dilation`."""
    if all(step == 1 for step in dilation):
        return x
    space = tuple((n - 1) * step + 1 for n, step in zip(x.shape[1:-1], dilation, strict=True))
    shape = (x.shape[0], *space, x.shape[-1])

    def insert(a: np.ndarray) -> np.ndarray:
        result = np.zeros(shape, a.dtype)
        result[(slice(None), *(slice(None, None, step) for step in dilation))] = a
        return result

    return move(p, insert, shape, x)


OPERATIONS = {"multiply": elementwise(multiply), "matmul": matmul, "conv": conv}
