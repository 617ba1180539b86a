"""Sums by category, for categories that are secret: how often, how much of what. Nothing is moved to a secret place.

A number's place among limits is the vector of truth values [x >= limit]; differences of neighbours say which interval
it is in, and a matrix product with them adds up what falls into each.
"""

from typing import Any

import numpy as np
from keras.src.ops import core
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.plan.primitives.constant import decode
from private_keras.plan.records import Step
from private_keras.tracing import shapes
from private_keras.tracing.arithmetic import value_of
from private_keras.tracing.entropy import origin
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.values import Known, Secret, Value

MOST_LIMITS = 1024


def ceil(lo: Lowering, op: knp.Ceil, x: Value) -> Value:
    """How many integers from the lower end of its range on lie below x, which must have been clipped to a range.

    Cost: a comparison with as many limits as the range has integers.
    """
    y = lo.as_secret(x)
    found = bounds(lo, y)
    if found is None or found[1] - found[0] > MOST_LIMITS:
        raise lo.refuse(
            "ceil",
            f"rounding compares with every integer in the number's range; clip it first, to at most {MOST_LIMITS}.",
        )
    low, high = int(np.ceil(found[0])), int(np.ceil(found[1]))
    above = at_least(lo, y, [(k << y.fraction) + 1 for k in range(low, high)])
    z = lo.step("reduce_sum", above, axes=[len(above.shape) - 1])
    return lo.step("add", z, lo.secret(lo.builder.constant(np.int64(low), 0, layer=lo.layer))) if low else z


def at_least(lo: Lowering, x: Secret, limits: list[int]) -> Secret:
    """[x >= limit] on a new last axis; limits in units of x."""
    table = lo.secret(lo.builder.constant(np.array(limits, np.int64), x.fraction, layer=lo.layer))
    return lo.step("greater_equal", lo.secret(shapes.reshape(lo, x, (*x.shape, 1)).name), table)


def bounds(lo: Lowering, x: Secret) -> tuple[float, float] | None:
    """Limits of x, where it was clipped or is a probability, and then at most scaled and moved."""
    found = origin(lo, x)
    if found is not None and found[0] != "exp":
        return 0.0, 1.0
    step = lo.builder.maker(x.name)
    if step is None:
        return None
    if step.op == "spline" and step.attributes["label"] == "clip":
        unit = 2.0 ** lo.builder.type(step.inputs[0]).fraction
        low, high = step.attributes["knots"]
        return low / unit, high / unit
    if step.op in ("truncate", "shift", "reshape", "transpose"):
        return bounds(lo, lo.secret(step.inputs[0]))
    if step.op == "multiply":
        for one, other in (step.inputs, step.inputs[::-1]):
            factor, found = _number(lo, other), bounds(lo, lo.secret(one))
            if factor is not None and found is not None:
                ends = sorted(factor * end for end in found)
                return ends[0], ends[1]
    return None


def _number(lo: Lowering, name: str) -> float | None:
    step = lo.builder.maker(name)
    if step is None or step.op != "constant" or lo.builder.type(name).size != 1:
        return None
    return float(decode(step.attributes).astype(np.int64).reshape(()) / 2.0 ** lo.builder.type(name).fraction)


def segment_sum(lo: Lowering, op: kmath.SegmentSum, data: Any, segment_ids: Any) -> Value:
    """Rows of the data added up by segment; numbers below 0 or from `num_segments` on are in none.

    Cost: a comparison of each number with all limits, which `ceil` may have made already, and a matrix product.
    """
    x, ids = lo.operand(value_of(data)), lo.as_secret(value_of(segment_ids))
    if op.num_segments is None:
        raise lo.refuse("segment_sum without num_segments", "the result's shape must be public; give num_segments.")
    if ids.fraction or len(ids.shape) != 1:
        raise lo.refuse("segment_sum", "expected a vector of integers for segment_ids.")
    above, rows_of = _places(lo, ids, op.num_segments)
    rows = lo.secret(shapes.reshape(lo, x, (x.shape[0], -1)).name)
    beyond = lo.step("matmul", lo.step("transpose", above, axes=[1, 0]), rows)
    everything = lo.step("reduce_sum", rows, axes=[0], keepdims=True)
    nothing = lo.secret(lo.builder.constant(np.zeros(everything.shape, np.int64), rows.fraction, layer=lo.layer))
    table = lo.step("concatenate", everything, beyond, nothing, axis=0)
    first, last = (shapes.gather(lo, table, places, 0) for places in (rows_of[:-1], rows_of[1:]))
    return shapes.reshape(lo, lo.step("subtract", first, last), (op.num_segments, *x.shape[1:]))


def _places(lo: Lowering, ids: Secret, n: int) -> tuple[Secret, list[int]]:
    """Truth values, and which of them is [id >= limit] for limits 0 to n: 0 for always, i for column i - 1, or never.

    Those of a `ceil`, moved and perhaps cut at 0, are there already.
    """
    step, offset, cut = lo.builder.maker(ids.name), 0, False
    if step is not None and step.op == "relu":
        step, cut = lo.builder.maker(step.inputs[0]), True
    while step is not None and step.op in ("add", "subtract"):
        number = _number(lo, step.inputs[1])
        if number is None:
            break
        offset += int(number) if step.op == "add" else -int(number)
        step = lo.builder.maker(step.inputs[0])
    if not _counts(lo, step):
        return at_least(lo, ids, list(range(n + 1))), list(range(1, n + 2))
    above = lo.secret(step.inputs[0])  # column j: id >= j + 1 + offset
    columns = [0 if cut and limit == 0 else min(max(limit - offset, 0), above.shape[1] + 1) for limit in range(n + 1)]
    return above, columns


def _counts(lo: Lowering, step: Step | None) -> bool:
    """Whether a step adds up truth values that fall along the last of two axes."""
    if step is None or step.op != "reduce_sum" or step.attributes["axes"] != [1] or step.attributes["keepdims"]:
        return False
    made = lo.builder.maker(step.inputs[0])
    return made is not None and made.op == "greater_equal" and len(lo.builder.type(step.inputs[0]).shape) == 2


def scatter(lo: Lowering, op: core.Scatter, indices: Any, values: Any) -> Value:
    """Values added up in a vector or matrix, at secret places that are inside it: a product of one-hot vectors."""
    places, x = value_of(indices), value_of(values)
    if isinstance(places, Known) or len(places.shape) != 2 or places.shape[1] not in (1, 2) or len(op.shape) > 2:
        raise lo.refuse("scatter", "expected secret places, (n, 1) or (n, 2), in a vector or matrix.")
    found = lo.as_secret(places)
    if found.fraction:
        raise lo.refuse("scatter at places that are no integers", "compute them with argmax, or declare them as int.")
    rows, depth = found.shape
    hot = []
    for column in range(depth):
        place = shapes.cut(lo, found, [slice(None), slice(column, column + 1)])
        hot.append(lo.step("one_hot", lo.secret(shapes.reshape(lo, place, (rows,)).name), depth=op.shape[column]))
    given = lo.operand(shapes.reshape(lo, x, (rows, 1)))
    known_ones = isinstance(x, Known) and not x.secret and bool(np.all(x.value == 1))
    weighted = hot[0] if known_ones else lo.step("multiply", hot[0], given)
    if depth == 1:
        return lo.step("reduce_sum", weighted, axes=[0])
    return lo.step("matmul", lo.step("transpose", weighted, axes=[1, 0]), hot[1])


RULES = {knp.Ceil: ceil, kmath.SegmentSum: segment_sum, core.Scatter: scatter}
