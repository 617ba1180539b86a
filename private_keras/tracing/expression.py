"""Recorded operations on tensors that are on the servers, as steps of a plan."""
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules import GENERAL, REFUSED, TABLE
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.values import Known, Secret
from private_keras.tracing.walk import Walk, topological


def maker(tensor: keras.KerasTensor) -> tuple[Any, int] | None:
    """The recorded operation that gives a tensor, and the tensor's place among its results; None for a root."""
    return Graph([]).producer(tensor)


def refuse_unknown(results: Iterable[keras.KerasTensor], known: Iterable[keras.KerasTensor]) -> None:
    """Raises an UnsupportedError for an operation between `known` and `results` that has no rule."""
    seen = {id(tensor) for tensor in known}
    waiting = list(results)
    while waiting:
        tensor = waiting.pop()
        made = None if id(tensor) in seen else maker(tensor)
        seen.add(id(tensor))
        if made is not None:
            kind = type(made[0].operation)
            if kind not in TABLE:
                raise UnsupportedError(f"{kind.__name__} on secret tensors: {REFUSED.get(kind, GENERAL)}")
            waiting.extend(made[0].input_tensors)


def lower(lo: Lowering, result: keras.KerasTensor, roots: Mapping[int, Secret]) -> Secret:
    """Writes the steps that lead from `roots`, by id of their tensors, to a result.

    Returns:
        Integers and truth values as they are, real numbers at the working fraction.

    Raises:
        UnsupportedError: something on the way that cannot run on shares.
    """
    graph = Graph([], outputs=result, history=dict.fromkeys(roots))
    walk = Walk(lo, graph, dict(roots), [])
    walk.run(topological(graph))
    if walk.findings:
        raise UnsupportedError("; ".join(f"{f.operation} on secret tensors: {f.message}" for f in walk.findings[:4]))
    value = walk.value(result)
    if isinstance(value, Known):
        raise UnsupportedError("the result does not depend on any secret tensor; compute it with NumPy.")
    return lo.as_secret(value) if is_whole(result.dtype) else lo.at(value)


def is_whole(dtype: str) -> bool:
    """Whether a dtype is of integers or truth values."""
    return keras.backend.standardize_dtype(dtype).startswith(("int", "uint", "bool"))
