"""Matrix products in all of Keras' spellings, brought to `matmul`."""

from typing import Any

import numpy as np
from keras.src.ops import numpy as knp

from private_keras.tracing import shapes
from private_keras.tracing.arithmetic import multiply
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.values import Known, Product, Value


def product(lo: Lowering, x: Value, w: Value) -> Value:
    """x @ w for ranks of at least 2; waits for factors to fold in where w is known and 2-dimensional."""
    if isinstance(x, Known) and isinstance(w, Known):
        return lo.derive("matmul", np.matmul, x, w)
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    shape = (*batch, x.shape[-2], w.shape[-1])
    if isinstance(w, Known) and len(w.shape) == 2:
        return lo.product("matmul", x, w, {}, shape)
    return lo.product_step("matmul", lo.operand(x), lo.operand(w))


def matmul(lo: Lowering, op: knp.Matmul, x: Value, y: Value) -> Value:
    """Vectors are matrices of one row or one column that lose it again."""
    left = x if len(x.shape) > 1 else shapes.reshape(lo, x, (1, *x.shape))
    right = y if len(y.shape) > 1 else shapes.reshape(lo, y, (*y.shape, 1))
    z = product(lo, left, right)
    shape = list(z.shape)
    if len(y.shape) == 1:
        del shape[-1]
    if len(x.shape) == 1:
        del shape[-1 if len(y.shape) == 1 else -2]
    return shapes.reshape(lo, z, tuple(shape))


def dot(lo: Lowering, op: knp.Dot, x: Value, y: Value) -> Value:
    """NumPy's dot: last axis of x with the second to last of y, and all other axes against each other."""
    if not x.shape or not y.shape:
        return multiply(lo, x, y)
    return contract(lo, x, y, [len(x.shape) - 1], [max(len(y.shape) - 2, 0)])


def tensordot(lo: Lowering, op: knp.Tensordot, x: Value, y: Value) -> Value:
    axes = op.axes
    if isinstance(axes, int):
        return contract(lo, x, y, list(range(len(x.shape) - axes, len(x.shape))), list(range(axes)))
    left, right = ([a] if isinstance(a, int) else list(a) for a in axes)
    return contract(lo, x, y, [a % len(x.shape) for a in left], [a % len(y.shape) for a in right])


def inner(lo: Lowering, op: knp.Inner, x: Value, y: Value) -> Value:
    if not x.shape or not y.shape:
        return multiply(lo, x, y)
    return contract(lo, x, y, [len(x.shape) - 1], [len(y.shape) - 1])


def vdot(lo: Lowering, op: knp.Vdot, x: Value, y: Value) -> Value:
    return contract(lo, shapes.reshape(lo, x, (-1,)), shapes.reshape(lo, y, (-1,)), [0], [0])


def outer(lo: Lowering, op: knp.Outer, x: Value, y: Value) -> Value:
    return multiply(lo, shapes.reshape(lo, x, (-1, 1)), shapes.reshape(lo, y, (1, -1)))


def contract(lo: Lowering, x: Value, y: Value, left: list[int], right: list[int]) -> Value:
    """Sums over axes `left` of x against axes `right` of y; remaining axes of x, then of y."""
    keep_x = [a for a in range(len(x.shape)) if a not in left]
    keep_y = [a for a in range(len(y.shape)) if a not in right]
    size = int(np.prod([x.shape[a] for a in left], dtype=np.int64))
    a = shapes.reshape(lo, shapes.transpose(lo, x, keep_x + left), (-1, size))
    b = shapes.reshape(lo, shapes.transpose(lo, y, right + keep_y), (size, -1))
    shape = (*(x.shape[k] for k in keep_x), *(y.shape[k] for k in keep_y))
    return shapes.reshape(lo, product(lo, a, b), shape)


def einsum(lo: Lowering, op: knp.Einsum, *operands: Value, **_: Any) -> Value:
    """One or two operands, with ellipsis; every letter once per operand."""
    terms, result = _letters(lo, op.subscripts, operands)
    if len(operands) == 1:
        return _arrange(lo, operands[0], terms[0], result)
    if len(operands) != 2:
        raise lo.refuse("einsum of more than two operands", "write it as several einsums of two operands each.")
    x, y = (
        _drop(lo, v, t, set(result) | set(other)) for v, t, other in zip(operands, terms, reversed(terms), strict=True)
    )
    tx, ty = ("".join(c for c in t if c in set(result) | set(o)) for t, o in zip(terms, reversed(terms), strict=True))
    batch = [c for c in tx if c in ty and c in result]
    summed = [c for c in tx if c in ty and c not in result]
    only_x = [c for c in tx if c not in ty]
    only_y = [c for c in ty if c not in tx]
    sizes = {**dict(zip(ty, y.shape, strict=True)), **dict(zip(tx, x.shape, strict=True))}

    def size(letters: list[str]) -> int:
        return int(np.prod([sizes[c] for c in letters], dtype=np.int64))

    a = shapes.transpose(lo, x, [tx.index(c) for c in batch + only_x + summed])
    b = shapes.transpose(lo, y, [ty.index(c) for c in batch + summed + only_y])
    lead = [sizes[c] for c in batch]
    a = shapes.reshape(lo, a, (*lead, size(only_x), size(summed)))
    b = shapes.reshape(lo, b, (*lead, size(summed), size(only_y)))
    order = batch + only_x + only_y
    natural = order == list(result)
    z = product(lo, a, b)
    if natural and not batch and isinstance(z, Product) and len(only_y) == 1:
        return shapes.reshape_product(z, tuple(sizes[c] for c in order), lo)
    z = shapes.reshape(lo, z, tuple(sizes[c] for c in order))
    return shapes.transpose(lo, z, [order.index(c) for c in result])


def _letters(lo: Lowering, subscripts: str, operands: tuple[Value, ...]) -> tuple[list[str], str]:
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in text]
    dots = (
        max(len(v.shape) - len(t.replace("...", "")) for t, v in zip(terms, operands, strict=True))
        if "..." in text
        else 0
    )
    filled = []
    for term, operand in zip(terms, operands, strict=True):
        own = len(operand.shape) - len(term.replace("...", ""))
        filled.append(term.replace("...", "".join(spare[dots - own : dots])))
    if not arrow:
        joined = "".join(filled)
        right = "..." * ("..." in text) + "".join(sorted(c for c in set(left) if c.isalpha() and joined.count(c) == 1))
    result = right.replace("...", "".join(spare[:dots]))
    if any(len(set(t)) != len(t) for t in filled):
        raise lo.refuse(f"einsum '{subscripts}'", "an index is used twice in one operand; take the diagonal first.")
    return filled, result


def _drop(lo: Lowering, x: Value, term: str, wanted: set[str]) -> Value:
    axes = tuple(i for i, c in enumerate(term) if c not in wanted)
    return shapes.reduce_sum(lo, x, axes) if axes else x


def _arrange(lo: Lowering, x: Value, term: str, result: str) -> Value:
    y = _drop(lo, x, term, set(result))
    left = [c for c in term if c in result]
    return shapes.transpose(lo, y, [left.index(c) for c in result])


RULES = {
    knp.Matmul: matmul,
    knp.Dot: dot,
    knp.Tensordot: tensordot,
    knp.Inner: inner,
    knp.Vdot: vdot,
    knp.Outer: outer,
    knp.Einsum: einsum,
}
