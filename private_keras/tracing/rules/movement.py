"""Operations that only move elements, or put zeros among them. All are local on shares."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops import core, einops, nn
from keras.src.ops import image as kimage
from keras.src.ops import numpy as knp

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import Lowering, integral
from private_keras.tracing.rules.comparison import choose
from private_keras.tracing.values import Known, Secret, Value


def anyhow(lo: Lowering, op: keras.Operation, x: Value, *args: Any, **kwargs: Any) -> list[Value]:
    """Any movement of one tensor: Keras' own implementation is run on the numbers of the places.

    Places count from 1, so that what Keras fills with 0 can be told from them.
    """
    args, kwargs = tree.map_structure(public_value(lo, op), (args, kwargs))
    y = lo.as_secret(x)
    places = np.arange(1, int(np.prod(y.shape, dtype=np.int64)) + 1, dtype=np.int32).reshape(y.shape)
    results = tree.flatten(op(places, *args, **kwargs))
    return [shapes.move(lo, y, np.asarray(keras.ops.convert_to_numpy(r)).astype(np.int64) - 1) for r in results]


def public_value(lo: Lowering, op: keras.Operation) -> Any:
    def read(x: Any) -> Any:
        if isinstance(x, Known) and not x.secret:
            return x.value
        if isinstance(x, Known | Secret):
            raise lo.refuse(
                f"{type(op).__name__} at places that are secret", "places must be public; use one_hot and matmul."
            )
        return x

    return read


def reshape(lo: Lowering, op: knp.Reshape, x: Value) -> Value:
    return shapes.reshape(lo, x, [n if n is not None else -1 for n in op.newshape])


def ravel(lo: Lowering, op: knp.Ravel, x: Value) -> Value:
    return shapes.reshape(lo, x, (-1,))


def expand_dims(lo: Lowering, op: knp.ExpandDims, x: Value) -> Value:
    return shapes.reshape(lo, x, np.expand_dims(np.empty(x.shape, np.bool_), op.axis).shape)


def squeeze(lo: Lowering, op: knp.Squeeze, x: Value) -> Value:
    axis = tuple(op.axis) if isinstance(op.axis, list) else op.axis
    return shapes.reshape(lo, x, np.squeeze(np.empty(x.shape, np.bool_), axis).shape)


def transpose(lo: Lowering, op: knp.Transpose, x: Value) -> Value:
    return shapes.transpose(lo, x, list(reversed(range(len(x.shape)))) if op.axes is None else op.axes)


def swapaxes(lo: Lowering, op: knp.Swapaxes, x: Value) -> Value:
    return shapes.transpose(lo, x, np.swapaxes(_axes(x), op.axis1, op.axis2).shape)


def moveaxis(lo: Lowering, op: knp.Moveaxis, x: Value) -> Value:
    return shapes.transpose(lo, x, np.moveaxis(_axes(x), op.source, op.destination).shape)


def _axes(x: Value) -> np.ndarray:
    """An empty array whose shape is 0, 1, 2...: NumPy's reordering of its axes is the permutation."""
    return np.empty(tuple(range(len(x.shape))), np.bool_)


def concatenate(lo: Lowering, op: knp.Concatenate, xs: Sequence[Any]) -> Value:
    return shapes.concatenate(lo, [value_of(x) for x in xs], op.axis)


def append(lo: Lowering, op: knp.Append, x: Any, y: Any) -> Value:
    x, y = value_of(x), value_of(y)
    if op.axis is None:
        return shapes.concatenate(lo, [shapes.reshape(lo, x, (-1,)), shapes.reshape(lo, y, (-1,))], 0)
    return shapes.concatenate(lo, [x, y], op.axis)


def stack(lo: Lowering, op: knp.Stack, xs: Sequence[Any]) -> Value:
    return _stack(lo, [value_of(x) for x in xs], op.axis)


def _stack(lo: Lowering, xs: list[Value], axis: int) -> Value:
    rank = len(xs[0].shape) + 1
    axis %= rank
    shape = (*xs[0].shape[:axis], 1, *xs[0].shape[axis:])
    return shapes.concatenate(lo, [shapes.reshape(lo, x, shape) for x in xs], axis)


def hstack(lo: Lowering, op: knp.Hstack, xs: Sequence[Any]) -> Value:
    values = [value_of(x) for x in xs]
    return shapes.concatenate(lo, values, 0 if len(values[0].shape) == 1 else 1)


def vstack(lo: Lowering, op: knp.Vstack, xs: Sequence[Any]) -> Value:
    values = [shapes.reshape(lo, v, (1, -1)) if len(v.shape) == 1 else v for v in map(value_of, xs)]
    return shapes.concatenate(lo, values, 0)


def split(lo: Lowering, op: knp.Split, x: Value) -> list[Value]:
    axis = op.axis % len(x.shape)
    parts = np.array_split(np.arange(x.shape[axis]), op.indices_or_sections)
    return [_run(lo, x, axis, int(p[0]), int(p[-1]) + 1) for p in parts]


def unstack(lo: Lowering, op: core.Unstack, x: Value) -> list[Value]:
    axis = op.axis % len(x.shape)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [shapes.reshape(lo, _run(lo, x, axis, i, i + 1), shape) for i in range(x.shape[axis])]


def _run(lo: Lowering, x: Value, axis: int, start: int, stop: int) -> Value:
    return shapes.cut(lo, x, [slice(start, stop) if a == axis else slice(None) for a in range(len(x.shape))])


def get_item(lo: Lowering, op: knp.GetItem, x: Value, key: Any) -> Value:
    """Slices, numbers and new axes are a slice; arrays of public places go the general way."""
    key = tree.map_structure(public_value(lo, op), key)
    parts = key if isinstance(key, tuple) else (key,)
    if not all(p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts):
        return anyhow(lo, op, x, key)[0]
    missing = len(x.shape) - sum(p is not None and p is not Ellipsis for p in parts)
    if Ellipsis not in parts:
        parts = (*parts, Ellipsis)
    at = parts.index(Ellipsis)
    parts = (*parts[:at], *[slice(None)] * missing, *parts[at + 1 :])
    slices, axis = [], 0
    for part in parts:
        if part is not None:
            n = x.shape[axis]
            first = part % n if isinstance(part, int | np.integer) else 0
            slices.append(part if isinstance(part, slice) else slice(first, first + 1))
            axis += 1
    y = shapes.cut(lo, x, slices)
    sizes, shape = list(y.shape), []
    for part in parts:
        if part is None:
            shape.append(1)
        elif isinstance(part, slice):
            shape.append(sizes.pop(0))
        else:
            sizes.pop(0)
    return shapes.reshape(lo, y, shape)


def slice_(lo: Lowering, op: core.Slice, x: Value, start_indices: Any) -> Value:
    starts = [int(v) for v in np.ravel(tree.map_structure(public_value(lo, op), start_indices))]
    sizes = [n - s if k == -1 else k for n, s, k in zip(x.shape, starts, op.shape, strict=True)]
    return shapes.cut(lo, x, [slice(s, s + k) for s, k in zip(starts, sizes, strict=True)])


def slice_update(lo: Lowering, op: core.SliceUpdate, x: Any, start_indices: Any, updates: Any) -> Value:
    """x where it stays, zeros elsewhere, plus the update among zeros."""
    x, updates = value_of(x), value_of(updates)
    starts = [int(v) for v in np.ravel(tree.map_structure(public_value(lo, op), start_indices))]
    padding = [(s, n - s - k) for s, n, k in zip(starts, x.shape, updates.shape, strict=True)]
    inside = np.pad(np.ones(updates.shape), padding)
    return choose(lo, public(inside), shapes.pad(lo, updates, padding), x)


def pad(lo: Lowering, op: knp.Pad, x: Value, constant_values: Any = None) -> Value:
    widths = list(op.pad_width)
    widths = widths * len(x.shape) if len(widths) == 1 else widths
    if op.mode != "constant":
        return anyhow(lo, op, x)[0]
    y = shapes.pad(lo, x, widths)
    filled = value_of(0 if constant_values is None else constant_values)
    if isinstance(filled, Known) and not np.any(filled.value):
        return y
    border = np.pad(np.zeros(x.shape), widths, constant_values=1)
    return arithmetic.add(lo, y, arithmetic.multiply(lo, filled, public(border)))


def take(lo: Lowering, op: knp.Take, x: Any, indices: Any) -> Value:
    """At public places a gather; at secret ones a row of the one-hot matrix times the table."""
    x, indices = value_of(x), value_of(indices)
    axis = 0 if op.axis is None else op.axis % len(x.shape)
    if op.axis is None:
        x = shapes.reshape(lo, x, (-1,))
    n = x.shape[axis]
    if isinstance(indices, Known):
        if indices.secret:
            raise lo.refuse(
                "take at places that depend on weights", "places must be public; keep them out of the weights."
            )
        flat = indices.value.astype(np.int64).reshape(-1)
        y = shapes.gather(lo, x, np.where(flat < 0, flat + n, flat), axis)
    else:
        hot = lo.step("one_hot", _integers(lo, shapes.reshape(lo, indices, (-1,))), depth=n)
        rest = [a for a in range(len(x.shape)) if a != axis]
        table = shapes.reshape(lo, shapes.transpose(lo, x, [axis, *rest]), (n, -1))
        if isinstance(table, Known) and table.secret and not integral(table):
            # Held twice, and so at the working fraction: one bit less for less work, and still nothing to truncate.
            found = lo.step("matmul", hot, lo.known(table, lo.fraction - 1), twice=True)
        else:
            found = lo.step("matmul", hot, lo.operand(table))
        y = shapes.reshape(lo, found, (hot.shape[0], *(x.shape[a] for a in rest)))
        y = shapes.transpose(lo, y, [*range(1, axis + 1), 0, *range(axis + 1, len(x.shape))])
    return shapes.reshape(lo, y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def take_along_axis(lo: Lowering, op: knp.TakeAlongAxis, x: Value, indices: Any) -> Value:
    """At public places it is a movement."""
    return anyhow(lo, op, x, value_of(indices))[0]


def _integers(lo: Lowering, x: Value) -> Secret:
    y = lo.as_secret(x)
    if y.fraction:
        raise lo.refuse("indices that are no integers", "pass them as an integer input, or compute them with argmax.")
    return y


def one_hot(lo: Lowering, op: nn.OneHot, x: Value) -> Value:
    if op.sparse:
        raise lo.refuse("sparse one_hot", "use sparse=False.")
    y = lo.step("one_hot", _integers(lo, x), depth=op.num_classes)
    last = len(y.shape) - 1
    axis = op.axis % len(y.shape)
    order = [a for a in range(last)]
    order.insert(axis, last)
    return shapes.transpose(lo, y, order)


def multi_hot(lo: Lowering, op: nn.MultiHot, x: Value) -> Value:
    """Which integers occur along the second axis (the only one, for a vector)."""
    if op.sparse:
        raise lo.refuse("sparse multi_hot", "use sparse=False.")
    hot = lo.step("one_hot", _integers(lo, x), depth=op.num_classes)
    total = lo.step("reduce_sum", hot, axes=[1 if len(x.shape) > 1 else 0])
    found = lo.step("greater_equal", total, lo.known(public(np.int64(1)), 0))
    last = len(found.shape) - 1
    order = list(range(last))
    order.insert(op.axis % (last + 1), last)
    return shapes.transpose(lo, found, order)


def flip(lo: Lowering, op: knp.Flip, x: Value) -> Value:
    axes = range(len(x.shape)) if op.axis is None else [op.axis] if isinstance(op.axis, int) else op.axis
    backwards = {a % len(x.shape) for a in axes}
    return shapes.cut(lo, x, [slice(None, None, -1 if a in backwards else 1) for a in range(len(x.shape))])


def repeat(lo: Lowering, op: knp.Repeat, x: Value) -> Value:
    if op.axis is None or not isinstance(op.repeats, int | np.integer):
        return anyhow(lo, op, x)[0]
    axis = op.axis % len(x.shape)
    return shapes.gather(lo, x, np.repeat(np.arange(x.shape[axis]), op.repeats), axis)


def tile(lo: Lowering, op: knp.Tile, x: Value) -> Value:
    repeats = [op.repeats] if isinstance(op.repeats, int) else list(op.repeats)
    rank = max(len(repeats), len(x.shape))
    repeats = [1] * (rank - len(repeats)) + repeats
    y = shapes.reshape(lo, x, (*[1] * (rank - len(x.shape)), *x.shape))
    for axis, times in enumerate(repeats):
        y = shapes.gather(lo, y, np.tile(np.arange(y.shape[axis]), times), axis)
    return y


def broadcast_to(lo: Lowering, op: knp.BroadcastTo, x: Value) -> Value:
    return shapes.broadcast(lo, x, op.shape)


def full_like(lo: Lowering, op: Any, x: Value, fill_value: Any = None) -> Value:
    """zeros_like, ones_like, full_like: the shape alone is used."""
    fill = {knp.ZerosLike: 0, knp.EmptyLike: 0, knp.OnesLike: 1}.get(type(op), fill_value)
    dtype = getattr(op, "dtype", None)
    filled = value_of(fill)
    if isinstance(filled, Known):
        kind = np.int64 if dtype and str(dtype).startswith(("int", "bool")) else np.float64
        return lo.derive(f"full {x.shape}", lambda v: np.broadcast_to(v, x.shape).astype(kind), filled)
    return shapes.broadcast(lo, filled, x.shape)


MOVES = (
    knp.Rot90,
    knp.Diag,
    knp.Diagflat,
    knp.Diagonal,
    knp.Fliplr,
    knp.Flipud,
    knp.Hsplit,
    knp.Vsplit,
    knp.Dsplit,
    knp.ArraySplit,
    knp.Roll,
    knp.Tril,
    knp.Triu,
    einops.Rearrange,
    nn.DepthToSpace,
    nn.SpaceToDepth,
    nn.Unfold,
    kimage.ExtractPatches,
    kimage.CropImages,
)
RULES = {
    **dict.fromkeys(MOVES, anyhow),
    knp.Reshape: reshape,
    knp.Ravel: ravel,
    knp.ExpandDims: expand_dims,
    knp.Squeeze: squeeze,
    knp.Transpose: transpose,
    knp.Swapaxes: swapaxes,
    knp.Moveaxis: moveaxis,
    knp.Concatenate: concatenate,
    knp.Append: append,
    knp.Stack: stack,
    knp.Hstack: hstack,
    knp.Vstack: vstack,
    knp.Split: split,
    core.Unstack: unstack,
    knp.GetItem: get_item,
    core.Slice: slice_,
    core.SliceUpdate: slice_update,
    knp.Pad: pad,
    knp.Take: take,
    knp.TakeAlongAxis: take_along_axis,
    nn.OneHot: one_hot,
    nn.MultiHot: multi_hot,
    knp.Flip: flip,
    knp.Repeat: repeat,
    knp.Tile: tile,
    knp.BroadcastTo: broadcast_to,
    knp.ZerosLike: full_like,
    knp.OnesLike: full_like,
    knp.EmptyLike: full_like,
    knp.FullLike: full_like,
}
