"""Movements of elements; each works on shares, bits and public arrays alike."""
from collections.abc import Callable

import numpy as np

from private_keras.plan.primitives.constant import decode
from private_keras.protocols.protocol import Protocol
from private_keras.server.execute.values import Movement, Operation, Truth, Value, move, public, settled


def constant(p: Protocol, at: Operation) -> Value:
    return at.attributes["values"]


def _movement(make: Callable[[Operation], Movement]) -> Callable[[Protocol, Operation, Value], Value]:
    return lambda p, at, x: move(p, make(at), at.shape, x)


def _slice(at: Operation) -> Movement:
    a = at.attributes
    index = tuple(map(slice, a["start"], a["stop"], a["step"]))
    # A view would keep all of x, for which no room was taken once x itself is forgotten.
    small = 2 * at.result.size < at.operands[0].size
    return lambda x: x[index].copy() if small else x[index]


def concatenate(p: Protocol, at: Operation, *xs: Value) -> Value:
    axis = at.attributes["axis"]

    def join(*arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays, axis)

    if public(*xs):
        return join(*xs)
    if all(isinstance(x, Truth) for x in xs):
        return Truth(p.bits_linear(join, at.shape, *(x.bits for x in xs)), at.shape)
    settled_xs = [settled(p, x) for x in xs]
    shares = [p.constant(x) if public(x) else x for x in settled_xs]
    return p.linear(join, at.shape, *shares)


def prepare_constant(attributes: dict) -> dict:
    """Decodes the values once for all runs."""
    return {"values": decode(attributes)}


def prepare_gather(attributes: dict) -> dict:
    """Makes the index array once for all runs."""
    return {"axis": attributes["axis"], "indices": np.asarray(attributes["indices"], np.int64)}


PREPARE = {"constant": prepare_constant, "gather": prepare_gather}

OPERATIONS = {
    "constant": constant,
    "reshape": _movement(lambda at: lambda x: x.reshape(at.shape)),
    "transpose": _movement(lambda at: lambda x: x.transpose(at.attributes["axes"])),
    "slice": _movement(_slice),
    "pad": _movement(lambda at: lambda x: np.pad(x, at.attributes["padding"]) if x.ndim else x),
    "gather": _movement(lambda at: lambda x: np.take(x, at.attributes["indices"], at.attributes["axis"])),
    "broadcast": _movement(lambda at: lambda x: np.broadcast_to(x, at.shape)),
    "concatenate": concatenate,
}
