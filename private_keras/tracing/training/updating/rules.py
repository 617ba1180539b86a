"""What each Keras operation in an update becomes. Operations that are not here run by the rules of `tracing.rules`."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras.src.ops import core
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.tracing.rules import GENERAL, REFUSED, TABLE
from private_keras.tracing.training.updating import movement, orthogonal
from private_keras.tracing.training.updating.public import ONE, Public, constant, fold, product, quotient
from private_keras.tracing.training.updating.record import Orthogonalise
from private_keras.tracing.training.updating.roots import Clipped, Lazy, Root, Square, bound, divide, force, root
from private_keras.tracing.training.updating.scaled import BUDGET, SIZE, Scaled, Writer
from private_keras.tracing.values import Known, Secret

Value = Lazy | Public
ZERO = constant(np.float64(0))


def lifted(x: Any) -> Value:
    """A plain number as a public value."""
    return x if isinstance(x, Scaled | Square | Root | Clipped | Public) else constant(np.float64(x))


def _number(x: Public) -> Public | None:
    """x if it is one number; None for an array."""
    if x.shape == ():
        return x
    if math.prod(x.shape) == 1 and x.constant is not None:
        return constant(np.asarray(x.constant).reshape(()))
    return None


def _zero(x: Value) -> bool:
    return isinstance(x, Public) and x.constant is not None and not np.any(x.constant)


def add(w: Writer, op: Any, x: Any, y: Any) -> Value:
    return _sum(w, lifted(x), lifted(y), 1)


def subtract(w: Writer, op: Any, x: Any, y: Any) -> Value:
    if x is y:
        return ZERO
    return _sum(w, lifted(x), lifted(y), -1)


def _sum(w: Writer, x: Value, y: Value, sign: int) -> Value:
    if _zero(y):
        return x
    if _zero(x):
        return y if sign > 0 else _times_number(w, y, constant(np.float64(-1)))
    if isinstance(x, Public) and sign > 0:
        x, y = y, x
    if isinstance(y, Public):
        y = fold("negative", np.negative, y) if sign < 0 else y
        if isinstance(x, Root) and x.epsilon == 0 and y.constant is not None and not y.shape and y.constant > 0:
            return replace(x, epsilon=float(y.constant))
        return w.offset(force(w, x), y)
    if isinstance(x, Public):
        return w.offset(force(w, _times_number(w, y, constant(np.float64(-1)))), x)
    if isinstance(x, Clipped | Root) and isinstance(y, Clipped | Root):
        combined = _combined(x, y, sign)
        if combined is not None:
            return combined
    return w.add(force(w, x), force(w, y), sign)


def _combined(x: Clipped | Root, y: Clipped | Root, sign: int) -> Clipped | None:
    """The sum of a clipped norm and the norm itself."""
    if isinstance(x, Root) and isinstance(y, Clipped) and sign > 0:
        x, y = y, x
    if not (isinstance(x, Clipped) and isinstance(y, Root) and x.root.base == y.base and y.epsilon == 0):
        return None
    return None if y.factor.constant is None else replace(x, rest=x.rest + sign * float(y.factor.constant))


def multiply(w: Writer, op: Any, x: Any, y: Any) -> Value:
    x, y = lifted(x), lifted(y)
    if isinstance(x, Public):
        x, y = y, x
    if not isinstance(y, Public):
        a, b = force(w, x), force(w, y)
        return Square(a) if a == b else w.times(a, b)
    number = _number(y)
    return _times_array(w, force(w, x), y) if number is None else _times_number(w, x, number)


def _times_number(w: Writer, x: Lazy, factor: Public) -> Value:
    if _zero(factor):
        return ZERO
    if isinstance(x, Clipped) and factor.constant is not None:
        c = float(factor.constant)
        return replace(x, clipped=x.clipped * c, rest=x.rest * c)
    if isinstance(x, Root) and x.epsilon == 0:
        return replace(x, factor=product(x.factor, factor))
    x = force(w, x)
    return replace(x, factor=product(x.factor, factor))


def _times_array(w: Writer, x: Scaled, factor: Public) -> Scaled:
    x = w.settle(x)
    whole = factor.constant is not None and np.array_equal(factor.constant, np.rint(factor.constant))
    magnitude = w.magnitude(factor)
    places = 0 if whole else max(min(14 - magnitude, 34), 0)
    y = w.lo.at(x.secret, min(x.secret.fraction, BUDGET - x.size - places - max(magnitude, 0)))
    z = w.lo.step("multiply", y, w.number(factor, places))
    positive = x.positive and factor.constant is not None and bool(np.all(factor.constant >= 0))
    return Scaled(z, min(x.size + magnitude, SIZE), square=x.square, positive=positive)


def quotient_(w: Writer, op: Any, x: Any, y: Any) -> Value:
    x, y = lifted(x), lifted(y)
    if not isinstance(y, Public):
        return divide(w, x, y)
    number = _number(y)
    if number is None:
        return multiply(w, op, x, fold("reciprocal", np.reciprocal, y))
    return _times_number(w, x, quotient(ONE, number))


def negative(w: Writer, op: Any, x: Lazy) -> Value:
    return _times_number(w, x, constant(np.float64(-1)))


def square(w: Writer, op: Any, x: Lazy) -> Value:
    return Square(force(w, x))


def sqrt(w: Writer, op: Any, x: Lazy) -> Value:
    if isinstance(x, Square):
        return absolute(w, op, x.base)
    return root(w, force(w, x))


def rsqrt(w: Writer, op: Any, x: Lazy) -> Value:
    return divide(w, ONE, root(w, force(w, x)))


def reciprocal(w: Writer, op: Any, x: Lazy) -> Value:
    return divide(w, ONE, x)


def power(w: Writer, op: Any, x: Any, y: Any) -> Value:
    y = lifted(y)
    exponent = float(y.constant) if isinstance(y, Public) and y.constant is not None and not y.shape else None
    known = {1.0: lambda: x, 2.0: lambda: square(w, op, x), 0.5: lambda: sqrt(w, op, x), -0.5: lambda: rsqrt(w, op, x)}
    if isinstance(x, Scaled | Square | Root | Clipped) and exponent in known:
        return known[exponent]()
    return general(w, op, x, y)


def absolute(w: Writer, op: Any, x: Lazy) -> Value:
    x = w.settle(force(w, x))
    return x if x.positive else replace(x, secret=w.lo.step("abs", x.secret), positive=True)


def sign(w: Writer, op: Any, x: Lazy) -> Value:
    x = force(w, x)
    if not (x.factor.constant is not None and x.factor.constant > 0 and x.scale > 0):
        x = w.settle(x)
    return Scaled(w.lo.step("sign", x.secret), 1)


def maximum(w: Writer, op: Any, x: Any, y: Any) -> Value:
    return _extreme(w, lifted(x), lifted(y), "maximum")


def minimum(w: Writer, op: Any, x: Any, y: Any) -> Value:
    return _extreme(w, lifted(x), lifted(y), "minimum")


def _extreme(w: Writer, x: Value, y: Value, op: str) -> Value:
    if isinstance(x, Public):
        x, y = y, x
    x = w.settle(force(w, x))
    if isinstance(y, Public):
        if y.constant is not None and not y.shape:
            return bound(w, x, float(y.constant), op)
        other = Scaled(w.number(y, x.secret.fraction), min(w.magnitude(y), SIZE))
    else:
        other = w.settle(force(w, y))
        common = max(x.secret.fraction, other.secret.fraction)
        x, other = (replace(v, secret=w.lo.at(v.secret, common)) for v in (x, other))
    z = w.lo.step(op, x.secret, other.secret)
    either = x.positive or other.positive if op == "maximum" else x.positive and other.positive
    return Scaled(z, max(x.size, other.size), square=x.square or other.square, positive=either)


def clip(w: Writer, op: Any, x: Lazy, low: Any = None, high: Any = None) -> Value:
    low, high = (lifted(v) for v in (op.x_min if low is None else low, op.x_max if high is None else high))
    if isinstance(x, Root) and x.epsilon == 0 and x.factor.key == ONE.key and not (low.shape or high.shape):
        if low.constant is not None and high.constant is not None:
            return Clipped(x, float(low.constant), float(high.constant))
    return _extreme(w, _extreme(w, x, low, "maximum"), high, "minimum")


def where(w: Writer, op: Any, condition: Any, x: Any = None, y: Any = None) -> Value:
    """A public condition, one for the step, costs nothing: y + condition * (x - y)."""
    x, y = lifted(x), lifted(y)
    condition = lifted(condition)
    if not isinstance(condition, Public) or condition.shape:
        return general(w, op, condition, x, y)
    if condition.constant is not None:
        return x if bool(condition.constant) else y
    holds = fold("truth", lambda c: (c != 0).astype(np.float64), condition)
    secret = [w.settle(force(w, v)) for v in (x, y) if not isinstance(v, Public)]
    common = max(v.secret.fraction for v in secret)
    shape = np.broadcast_shapes(*(v.shape for v in secret))
    a, b = (_at(w, v, common, shape) for v in (x, y))
    change = w.lo.step("multiply", w.lo.step("subtract", a, b), w.number(holds, 0))
    z = w.lo.step("add", b, change)
    positive = all(v.positive for v in secret) and (len(secret) == 2 or _zero(x) or _zero(y))
    return Scaled(z, max(v.size for v in secret), square=any(v.square for v in secret), positive=positive)


def _at(w: Writer, x: Value, fraction: int, shape: tuple[int, ...]) -> Secret:
    if isinstance(x, Public):
        x = constant(np.broadcast_to(x.constant, shape).copy()) if x.constant is not None else x
        return w.number(x, fraction)
    return w.write(force(w, x), fraction)


def cast(w: Writer, op: Any, x: Lazy, dtype: Any = None) -> Value:
    kind = keras.backend.standardize_dtype(op.dtype) if getattr(op, "dtype", None) else "float32"
    return x if kind.startswith(("float", "bfloat")) else general(w, op, x)


def same(w: Writer, op: Any, x: Lazy, *_: Any) -> Value:
    return x


def filled(w: Writer, op: Any, x: Lazy, *_: Any, **__: Any) -> Value:
    return constant(np.full(force(w, x).shape, 1.0 if isinstance(op, knp.OnesLike) else 0.0))


def general(w: Writer, op: keras.Operation, *args: Any, **kwargs: Any) -> Value:
    """By the rule that models have for the operation, at the working fraction."""
    rule = TABLE.get(type(op))
    if rule is None:
        raise w.lo.refuse(f"{type(op).__name__} in an optimizer's update", REFUSED.get(type(op), GENERAL))

    def plain(x: Any) -> Any:
        if isinstance(x, Public):
            if x.constant is None:
                return w.number(x, w.lo.fraction)
            value = np.asarray(x.constant)
            return Known(value, False, f"public:{value.dtype}:{value.shape}:{value.tobytes().hex()}")
        return w.settle(force(w, x)).secret if isinstance(x, Scaled | Square | Root | Clipped) else x

    results = rule(w.lo, op, *keras.tree.map_structure(plain, args), **keras.tree.map_structure(plain, kwargs))
    if isinstance(results, list | tuple):
        raise w.lo.refuse(f"{type(op).__name__} in an optimizer's update", "it has several results.")
    secret = w.lo.as_secret(results)
    return Scaled(secret, min(SIZE, BUDGET - secret.fraction), positive=w.lo.is_positive(secret))


RULES: dict[type, Callable[..., Value]] = {
    knp.Add: add,
    knp.Subtract: subtract,
    knp.Multiply: multiply,
    knp.Divide: quotient_,
    knp.TrueDivide: quotient_,
    knp.Negative: negative,
    knp.Square: square,
    knp.Sqrt: sqrt,
    kmath.Rsqrt: rsqrt,
    knp.Reciprocal: reciprocal,
    knp.Power: power,
    knp.Abs: absolute,
    knp.Absolute: absolute,
    knp.Sign: sign,
    knp.Maximum: maximum,
    knp.Minimum: minimum,
    knp.Clip: clip,
    knp.Where: where,
    knp.ZerosLike: filled,
    knp.OnesLike: filled,
    core.Cast: cast,
    core.ConvertToTensor: same,
    core.StopGradient: same,
    **movement.RULES,
    Orthogonalise: orthogonal.orthogonalise,
}
