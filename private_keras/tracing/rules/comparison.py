"""Comparisons, truth values and choices. Comparisons are exact on the fixed-point values, which are rounded."""

from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.values import Known, Secret, Value

INFINITE = 2.0 ** (HEADROOM - 1)


def greater(lo: Lowering, op: knp.Greater, x: Any, y: Any) -> Value:
    return less(lo, op, y, x)


def greater_equal(lo: Lowering, op: knp.GreaterEqual, x: Any, y: Any) -> Value:
    return lo.step("greater_equal", *lo.common(value_of(x), value_of(y)))


def less(lo: Lowering, op: knp.Less, x: Any, y: Any) -> Value:
    return lo.step("less", *lo.common(value_of(x), value_of(y)))


def less_equal(lo: Lowering, op: knp.LessEqual, x: Any, y: Any) -> Value:
    return greater_equal(lo, op, y, x)


def equal(lo: Lowering, op: knp.Equal, x: Any, y: Any) -> Value:
    return lo.step("equal", *lo.common(value_of(x), value_of(y)))


def not_equal(lo: Lowering, op: knp.NotEqual, x: Any, y: Any) -> Value:
    return lo.step("logical_not", equal(lo, op, x, y))


def truth(lo: Lowering, x: Any) -> Secret:
    """x as 0 or 1: as it is if it has no fraction, else whether it is not 0."""
    x = value_of(x)
    if isinstance(x, Known):
        return lo.known(lo.derive("truth", lambda v: (v != 0).astype(np.float64), x), 0)
    y = lo.as_secret(x)
    return (
        y
        if y.fraction == 0
        else lo.step("logical_not", lo.step("equal", y, lo.known(public(np.float64(0)), y.fraction)))
    )


def logical_and(lo: Lowering, op: knp.LogicalAnd, x: Any, y: Any) -> Value:
    return lo.step("logical_and", truth(lo, x), truth(lo, y))


def logical_or(lo: Lowering, op: knp.LogicalOr, x: Any, y: Any) -> Value:
    return lo.step("logical_or", truth(lo, x), truth(lo, y))


def logical_xor(lo: Lowering, op: knp.LogicalXor, x: Any, y: Any) -> Value:
    return lo.step("logical_not", lo.step("equal", truth(lo, x), truth(lo, y)))


def logical_not(lo: Lowering, op: knp.LogicalNot, x: Any) -> Value:
    return lo.step("logical_not", truth(lo, x))


def where(lo: Lowering, op: knp.Where, condition: Any, x: Any = None, y: Any = None) -> Value:
    """x where the condition holds, else y; a public condition is two masks."""
    if x is None or y is None:
        raise lo.refuse("where without values", "how many elements match depends on secrets; give both values.")
    return choose(lo, value_of(condition), value_of(x), value_of(y))


def choose(lo: Lowering, condition: Value, x: Value, y: Value) -> Value:
    if isinstance(condition, Known) and not condition.secret:
        mask = (condition.value != 0).astype(np.float64)
        return arithmetic.add(lo, _masked(lo, x, mask), _masked(lo, y, 1 - mask))
    return lo.step("select", truth(lo, condition), *lo.common(_finite(lo, x), _finite(lo, y)))


def _finite(lo: Lowering, x: Value) -> Value:
    """Infinity marks what a maximum or a sum of exponentials shall pass over: so does a number that large."""
    if isinstance(x, Known) and np.any(np.isinf(x.value)):
        return lo.derive("finite", lambda v: np.clip(v, -INFINITE, INFINITE), x)
    return x


def _masked(lo: Lowering, x: Value, mask: np.ndarray) -> Value:
    if isinstance(x, Known):
        return lo.derive("masked", np.multiply, x, public(mask))
    return arithmetic.scale(lo, lo.as_secret(x), mask)


RULES = {
    knp.Greater: greater,
    knp.GreaterEqual: greater_equal,
    knp.Less: less,
    knp.LessEqual: less_equal,
    knp.Equal: equal,
    knp.NotEqual: not_equal,
    knp.LogicalAnd: logical_and,
    knp.LogicalOr: logical_or,
    knp.LogicalXor: logical_xor,
    knp.LogicalNot: logical_not,
    knp.Where: where,
}
