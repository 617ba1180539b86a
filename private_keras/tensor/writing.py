"""Recorded operations to plans: of whole tensors, or of the rows that a step of a job takes.

Rows of a concatenation are taken from its parts, so that nothing is copied on the servers: side by side, each part
gives the same rows; one below the other, each part gives as many rows as a step takes, and public zeros and ones say
which of them count. What does not work on each row by itself is computed once, for all rows, and kept.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle, PublicValue, Rows
from private_keras.plan.openings import shown_inputs
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.tensor.sources import OWNER, Derived, Source, run_kept
from private_keras.tensor.symbols import Root, sources
from private_keras.tracing.expression import is_whole, lower, maker
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rowwise import again, is_chain, rowwise
from private_keras.tracing.values import Secret

VALUE = "value"
Picks = tuple  # of steps from rows of a result to rows of a part: arrays of row numbers, or (first, count) of a part


@dataclass(frozen=True)
class Written:
    """A plan and what it takes.

    Attributes:
        plan: of one output, `VALUE`.
        slots: by name of an input, the shares, and how rows of the result lead to rows of them; None for all of them.
        masks: by name of a public input, how rows lead to which of them count.
        arrays: by name of an input, what the caller gave as arrays.
    """

    plan: Plan
    slots: dict[str, tuple[Source, Picks | None]]
    masks: dict[str, Picks]
    arrays: dict[str, np.ndarray] = field(repr=False)

    def given(self, cluster: Cluster, indices: np.ndarray) -> dict[str, Any]:
        """The inputs for rows of shape (steps, rows).

        Raises:
            HandleNotFound: shares that are gone.
        """
        result: dict[str, Any] = dict(self.arrays)
        for name, (source, picks) in self.slots.items():
            handle = source.handle(cluster)
            result[name] = handle if picks is None else Rows(handle, _picked(picks, indices)[0])
        types = {item.name: item.type for item in self.plan.inputs}
        for name, picks in self.masks.items():
            counts = _picked(picks, indices)[1]
            result[name] = PublicValue(counts.reshape(len(indices), *types[name].shape).astype(np.float64))
        return result


def write_whole(tensor: keras.KerasTensor, receivers: tuple[str, ...] = ()) -> Written:
    """The plan of a whole tensor; without receivers the servers keep it."""
    writer = _Writer()
    result = writer.whole(tensor)
    return writer.written(result, lambda value: value, receivers)


def write_rows(tensor: keras.KerasTensor, count: int, row: tuple[int, ...], fraction: int) -> Written:
    """The plan of so many rows, in the form of a plan's input."""
    writer = _Writer()
    result = writer.rows(tensor, (), count)

    def formed(value: Secret) -> Secret:
        if value.shape != (count, *row):
            value = writer.lo.step("reshape", value, shape=[count, *row])
        return writer.lo.at(value, fraction)

    return writer.written(result, formed, ())


def derived(tensor: keras.KerasTensor) -> Derived:
    """The source that a recorded tensor is once servers have computed it; always the same."""
    if not hasattr(tensor, "derived"):

        def compute(cluster: Cluster) -> Handle:
            written = write_whole(tensor)
            return run_kept(cluster, written.plan, written.given(cluster, _ALL))

        small = all(source.small for source in sources(tensor))
        tensor.derived = Derived(tensor, 0 if is_whole(tensor.dtype) else DEFAULT_FRACTION, small, compute)
    return tensor.derived


_ALL = np.zeros((1, 1), np.int64)  # what takes no rows needs none


class _Writer:
    """One plan in the making."""

    def __init__(self) -> None:
        self.lo = Lowering(DEFAULT_FRACTION, "accurate", OWNER)
        self._slots: dict[str, tuple[Source, Picks | None]] = {}
        self._masks: dict[str, Picks] = {}
        self._roots: dict[int, Secret] = {}
        self._done: dict[tuple, keras.KerasTensor] = {}
        self._keep: list[Any] = []  # so that ids stay unique

    def written(
        self, result: keras.KerasTensor, formed: Callable[[Secret], Secret], receivers: tuple[str, ...]
    ) -> Written:
        value = formed(lower(self.lo, result, self._roots))
        builder = self.lo.builder
        builder.output(value.name, VALUE, receivers)
        kind = "compute"
        if receivers:
            kind = "reveal" if shown_inputs(builder.inputs, builder.steps)[value.name] else "compute"
        plan = builder.build(kind, kind)
        plan = optimise(plan) if plan.steps else plan
        used = {item.name for item in plan.inputs}
        arrays = {name: array for name, array in self.lo.weights.items() if name in used}
        return Written(plan, self._slots, self._masks, arrays)

    def whole(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """All of a tensor."""
        return self._once((id(tensor),), tensor, self._whole)

    def _whole(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        if isinstance(tensor, Root):
            if tensor.source is not None:
                rows = tensor.rows
                return self._slot(tensor.source, tensor.shape, tensor.dtype, None if rows is None else (("all", rows),))
            # Of tensors one below the other, the rows themselves: sums with zeros would hide that data show.
            if by_rows(tensor.base) and not _chained(tensor.base):
                return self.rows(tensor.base, (("all", tensor.rows),), len(tensor.rows))
            return keras.ops.take(self.whole(tensor.base), tensor.rows, axis=0)
        node, place = maker(tensor)
        return again(node, self.whole)[place]

    def rows(self, tensor: keras.KerasTensor, picks: Picks, count: int) -> keras.KerasTensor:
        """So many rows of a tensor."""
        key = (id(tensor), *((kind, id(value) if kind != "part" else value) for kind, value in picks))
        return self._once(key, tensor, lambda each: self._rows(each, picks, count))

    def _rows(self, tensor: keras.KerasTensor, picks: Picks, count: int) -> keras.KerasTensor:
        shape = (count, *tensor.shape[1:])
        if isinstance(tensor, Root):
            inner = picks if tensor.rows is None else (*picks, ("rows", tensor.rows))
            if tensor.source is not None:
                return self._slot(tensor.source, shape, tensor.dtype, inner)
            return self.rows(tensor.base, inner, count)
        node, place = maker(tensor)
        if is_chain(node):
            return self._chained(node, picks, count)
        taken = rowwise(node)
        if taken is None:
            return self._slot(derived(tensor), shape, tensor.dtype, picks)
        by = {id(t): flag for t, flag in zip(node.input_tensors, taken, strict=True)}
        return again(node, lambda t: self.rows(t, picks, count) if by[id(t)] else self._fixed(t), count)[place]

    def _fixed(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """All of a tensor that rows of another are computed with, in each step: not computed in each step."""
        if isinstance(tensor, Root) and tensor.source is not None and tensor.rows is None:
            return self._slot(tensor.source, tensor.shape, tensor.dtype, None)
        return self._slot(derived(tensor), tensor.shape, tensor.dtype, None)

    def _chained(self, node: Any, picks: Picks, count: int) -> keras.KerasTensor:
        """Rows of tensors that are one below the other: of each, times one where it is this one's turn, else zero."""
        result, first = None, 0
        dtype = node.outputs[0].dtype
        for part in node.input_tensors:
            size = part.shape[0]
            inner = (*picks, ("part", (first, size)))
            first += size
            rows = keras.ops.cast(self.rows(part, inner, count), dtype)
            counts = self._mask(inner, (count, *[1] * (len(part.shape) - 1)))
            term = keras.ops.multiply(rows, counts)
            result = term if result is None else keras.ops.add(result, term)
        return result

    def _mask(self, picks: Picks, shape: tuple[int, ...]) -> keras.KerasTensor:
        tensor = keras.KerasTensor(shape, dtype="bool")
        name = f"counts{len(self._masks)}"
        self._masks[name] = picks
        self._roots[id(tensor)] = self.lo.secret(
            self.lo.builder.input(name, shape, 0, OWNER, "rows that count", public=True)
        )
        self._keep.append(tensor)
        return tensor

    def _slot(
        self, source: Source, shape: tuple[int, ...], dtype: str, picks: Picks | None
    ) -> keras.KerasTensor:
        """Shares as an input of the plan."""
        name = f"x{len(self._slots)}"
        tensor = keras.KerasTensor(shape, dtype=dtype)
        self._slots[name] = source, picks
        label = "".join(c for c in source.name if c.isprintable())[:200]
        self._roots[id(tensor)] = self.lo.secret(
            self.lo.builder.input(name, shape, source.fraction, source.owner, label)
        )
        self._keep.append(tensor)
        return tensor

    def _once(
        self, key: tuple, tensor: keras.KerasTensor, make: Callable[[keras.KerasTensor], keras.KerasTensor]
    ) -> keras.KerasTensor:
        if key not in self._done:
            self._done[key] = make(tensor)
            self._keep.append(tensor)
        return self._done[key]


def by_rows(tensor: keras.KerasTensor) -> bool:
    """Whether rows of a tensor can be had without all of them."""
    if isinstance(tensor, Root):
        return True
    node, _ = maker(tensor)
    return is_chain(node) or rowwise(node) is not None


def _chained(tensor: keras.KerasTensor) -> bool:
    """Whether tensors that are one below the other are among what a tensor is computed of."""
    waiting, seen = [tensor], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or each is None:
            continue
        seen.add(id(each))
        made = None if isinstance(each, Root) else maker(each)
        if made is not None and is_chain(made[0]):
            return True
        waiting.extend([each.base] if isinstance(each, Root) else made[0].input_tensors if made else [])
    return False


def _picked(picks: Picks, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a part for rows of the result, and which of them count; those that do not are rows 0."""
    counts = np.ones(indices.shape, bool)
    for kind, value in picks:
        if kind == "all":
            indices, counts = value[np.newaxis], np.ones((1, len(value)), bool)
        elif kind == "rows":
            indices = value[indices]
        else:
            first, size = value
            inside = (indices >= first) & (indices < first + size)
            counts = counts & inside
            indices = np.where(inside, indices - first, 0)
    return indices, counts
