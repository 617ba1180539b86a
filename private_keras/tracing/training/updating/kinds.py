"""What is known of an update before it is written: what depends on secrets, and which variables hold squares."""

from collections.abc import Collection, Iterable
from typing import Any

import keras
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.tracing.states import StateTensor

# What is no square whatever it is made of.
_ROOTS = (knp.Sqrt, kmath.Rsqrt, knp.Sign, knp.Equal, knp.NotEqual, knp.Greater, knp.GreaterEqual, knp.Less,
          knp.LessEqual, knp.Reciprocal, knp.Log, knp.Exp)  # fmt: skip


def producer(tensor: keras.KerasTensor) -> Any:
    """The node that made a tensor; None for a root."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return history.operation._inbound_nodes[history.node_index]


def ordered(ends: Iterable[keras.KerasTensor]) -> list[Any]:
    """The nodes that `ends` depend on, each after those it depends on."""
    order: list[Any] = []
    done: dict[int, bool] = {}
    stack = [node for t in ends if (node := producer(t)) is not None]
    while stack:
        node = stack[-1]
        if done.get(id(node)):
            stack.pop()
            continue
        waiting = [m for t in node.input_tensors if (m := producer(t)) is not None and not done.get(id(m))]
        if waiting:
            stack.extend(waiting)
        else:
            done[id(node)] = True
            order.append(stack.pop())
    return order


def secret_tensors(
    nodes: list[Any], given: Collection[keras.KerasTensor], states: Collection[StateTensor]
) -> tuple[set[int], list[StateTensor]]:
    """Ids of tensors that depend on secrets, and the secret ones among the optimiser's states.

    A state is public if only public numbers are ever assigned to it, or if it is one number and never assigned.

    Args:
        nodes: of the update, in order.
        given: gradients and weights.
        states: the optimiser's, but for the iteration.
    """
    secret = {id(t) for t in given}
    hidden = [s for s in states if not s.assigned and s.shape]
    while True:
        secret |= {id(s.initial) for s in hidden}
        for node in nodes:
            if any(id(t) in secret for t in node.input_tensors):
                secret |= {id(t) for t in node.outputs}
        more = [s for s in states if id(s.current) in secret and not any(s is h for h in hidden)]
        if not more:
            return secret, hidden
        hidden += more


def squares(nodes: list[Any], states: Collection[StateTensor]) -> set[int]:
    """Ids of the states that hold squares or averages of squares."""
    found: set[int] = set()
    for _ in range(3):
        flagged = {id(s.initial) for s in states if id(s) in found}
        for node in nodes:
            if _is_square(node, flagged):
                flagged |= {id(t) for t in node.outputs}
        found = {id(s) for s in states if id(s.current) in flagged}
    return found


def _is_square(node: Any, flagged: set[int]) -> bool:
    tensors = node.input_tensors
    marks = [id(t) in flagged for t in tensors]
    operation = node.operation
    if isinstance(operation, knp.Square):
        return True
    if isinstance(operation, knp.Power):
        exponent = node.arguments.args[1] if len(node.arguments.args) > 1 else None
        return not isinstance(exponent, keras.KerasTensor) and float(exponent) == 2
    if isinstance(operation, knp.Multiply):
        return (len(tensors) == 2 and tensors[0] is tensors[1]) or sum(marks) == 1
    if isinstance(operation, knp.Divide | knp.TrueDivide):
        args = [isinstance(a, keras.KerasTensor) and id(a) in flagged for a in node.arguments.args]
        return args == [True, False]
    return any(marks) and not isinstance(operation, _ROOTS)
