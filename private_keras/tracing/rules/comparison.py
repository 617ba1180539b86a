"""Comparisons, truth values and choices. Comparisons are exact on the fixed-point values, which are rounded.

Public numbers in a comparison are not rounded: x > 0.7 asks whether x is at least the next multiple of a unit.
"""

from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import HEADROOM, LONGEST, Lowering, integral
from private_keras.tracing.values import Known, Secret, Value

INFINITE = 2.0 ** (HEADROOM - 1)
# Limits beyond it are never met, or always: differences stay below 2^62 units.
FARTHEST = 2.0**61


def greater(lo: Lowering, op: knp.Greater, x: Any, y: Any) -> Value:
    return less(lo, op, y, x)


def greater_equal(lo: Lowering, op: knp.GreaterEqual, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    if _public(y):
        return _at_least(lo, x, y, np.ceil)
    if _public(x):  # x >= y: not y > x
        return lo.step("logical_not", _at_least(lo, y, x, _above))
    return lo.step("greater_equal", *lo.common(x, y))


def less(lo: Lowering, op: knp.Less, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    if _public(y):
        return lo.step("logical_not", _at_least(lo, x, y, np.ceil))
    if _public(x):
        return _at_least(lo, y, x, _above)
    return lo.step("less", *lo.common(x, y))


def less_equal(lo: Lowering, op: knp.LessEqual, x: Any, y: Any) -> Value:
    return greater_equal(lo, op, y, x)


def _public(x: Value) -> bool:
    return isinstance(x, Known) and not x.secret


def _above(units: np.ndarray) -> np.ndarray:
    return np.floor(units) + 1


def _at_least(lo: Lowering, x: Value, limit: Known, first: Any) -> Secret:
    """x >= first(limit in units of x). Operands that are the same all along an axis are compared once for it."""
    y = lo.as_secret(x)
    shape = np.broadcast_shapes(y.shape, limit.shape)
    if y.fraction > LONGEST:
        y = lo.at(y)
    y, value = _narrowed(lo, y), limit.value
    for axis in range(value.ndim):
        if value.shape[axis] > 1 and np.all(value == np.take(value, [0], axis)):
            value = np.take(value, [0], axis)
    units = np.clip(first(value.astype(np.float64) * 2.0**y.fraction), -FARTHEST, FARTHEST).astype(np.int64)
    z = lo.step("greater_equal", y, lo.secret(lo.builder.constant(units, y.fraction, layer=lo.layer)))
    return z if z.shape == shape else lo.step("broadcast", z, shape=list(shape))


def _narrowed(lo: Lowering, x: Secret) -> Secret:
    """x before it was repeated along axes of size 1."""
    step = lo.builder.maker(x.name)
    while step is not None and step.op == "gather" and lo.secret(step.inputs[0]).shape[step.attributes["axis"]] == 1:
        x = lo.secret(step.inputs[0])
        step = lo.builder.maker(x.name)
    return x


def equal(lo: Lowering, op: knp.Equal, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    return _same_class(lo, x, y) or lo.step("equal", *lo.common(x, y))


def _same_class(lo: Lowering, x: Value, y: Value) -> Secret | None:
    """Whether two classes are the same, where both were made one-hot vectors before, as losses do: one product."""
    if not isinstance(x, Secret) or not isinstance(y, Secret) or x.shape != y.shape or "argmax" not in (
        _made(lo, x)[0],
        _made(lo, y)[0],
    ):
        return None
    first, second = _one_hot(lo, x), _one_hot(lo, y)
    if first is None or second is None or first.shape[-1] != second.shape[-1]:
        return None
    both = lo.step("multiply", first, lo.secret(shapes.reshape(lo, second, first.shape).name))
    found = lo.step("reduce_sum", both, axes=[len(both.shape) - 1])
    return lo.secret(shapes.reshape(lo, found, x.shape).name)


def _one_hot(lo: Lowering, x: Secret) -> Secret | None:
    made = _made(lo, x)
    for step in lo.builder.steps:
        if step.op == "one_hot" and _made(lo, lo.secret(step.inputs[0])) == made:
            return lo.secret(step.output)
    return None


def _made(lo: Lowering, x: Secret) -> tuple[Any, ...]:
    """What x is, whatever its shape and its step's name."""
    step = lo.builder.maker(x.name)
    while step is not None and step.op == "reshape":
        x = lo.secret(step.inputs[0])
        step = lo.builder.maker(x.name)
    if step is None or step.op != "argmax":
        return "", x.name
    return step.op, step.inputs, tuple(step.attributes.items())


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
    x, y = _finite(lo, x), _finite(lo, y)
    if all(isinstance(v, Known) and not v.secret and integral(v) for v in (x, y)):
        return lo.step("select", truth(lo, condition), lo.known(x, 0), lo.known(y, 0))
    return lo.step("select", truth(lo, condition), *lo.common(x, y))


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
