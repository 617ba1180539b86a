"""The largest few of many, without sorting."""

from typing import Any

from keras.src.ops import math as kmath

from private_keras.tracing import shapes
from private_keras.tracing.arithmetic import value_of
from private_keras.tracing.lowering import HEADROOM, Lowering
from private_keras.tracing.values import Secret, Value

MOST = 32


def in_top_k(lo: Lowering, op: kmath.InTopK, targets: Any, predictions: Any) -> Value:
    """Whether fewer than k predictions are larger than the target's own.

    Cost: one comparison per prediction and one per row.
    """
    x, places = lo.at(value_of(predictions)), lo.as_secret(value_of(targets))
    if places.fraction:
        raise lo.refuse("in_top_k with targets that are no integers", "pass labels as integers.")
    axis = len(x.shape) - 1
    hot = lo.step("one_hot", places, depth=x.shape[-1])
    own = lo.step("reduce_sum", lo.step("multiply", hot, x), axes=[axis], keepdims=True)
    larger = lo.step("reduce_sum", lo.step("less", own, x), axes=[axis])
    return lo.step("less", larger, lo.known(value_of(op.k), 0))


def top_k(lo: Lowering, op: kmath.TopK, x: Value) -> list[Value]:
    """k times the largest, which is then put out of the way; of equals the first comes first.

    Cost: k times that of argmax, one after another.
    """
    if op.k > MOST:
        raise lo.refuse(f"top_k with k = {op.k}", f"the largest are found one after another; use at most {MOST}.")
    y = lo.as_secret(x)
    if y.fraction > lo.fraction:
        y = lo.at(y)
    axis, rest = len(y.shape) - 1, y
    values: list[Value] = []
    places: list[Value] = []
    for _ in range(op.k):
        place = lo.step("argmax", rest, axis=axis)
        hot: Secret = lo.step("one_hot", place, depth=y.shape[-1])
        values.append(lo.step("reduce_sum", lo.step("multiply", hot, y), axes=[axis], keepdims=True))
        places.append(shapes.reshape(lo, place, (*place.shape, 1)))
        away = lo.step("multiply", hot, lo.known(value_of(-(2.0 ** (HEADROOM + 2))), 0))
        rest = lo.step("add", rest, lo.at(away, rest.fraction))
    return [shapes.concatenate(lo, values, -1), shapes.concatenate(lo, places, -1)]


RULES = {kmath.InTopK: in_top_k, kmath.TopK: top_k}
