"""Recorded operations to plans: of whole tensors, or of the rows that a step of a job takes.

Rows of a concatenation are taken from its parts, so that nothing is copied on the servers: side by side, each part
gives the same rows; one below the other, each gives those rows that are its own, so many in every step of a job. What
does not work on each row by itself is computed once, for all rows, and kept.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle, Rows
from private_keras.errors import InputError
from private_keras.plan.openings import shown_inputs
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.tensor.sources import OWNER, Derived, Source, run_kept
from private_keras.tensor.symbols import Root, sources
from private_keras.tracing.expression import is_whole, lower, maker
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.names import label
from private_keras.tracing.rowwise import again, is_chain, rowwise
from private_keras.tracing.values import Secret

VALUE = "value"
# Of steps from rows of a result to rows of a part of it: ("rows", their numbers), ("all", their numbers, whatever rows
# are asked for) and ("own", places in a batch, first row) of tensors one below the other.
Picks = tuple[tuple, ...]


@dataclass(frozen=True)
class Written:
    """A plan and what it takes.

    Attributes:
        plan: of one output, `VALUE`.
        slots: by name of an input, the shares, and how rows of the result lead to rows of them; None for all of them.
        mixtures: of tensors one below the other, how rows lead to rows of them, where each begins, and whose the rows
            of a batch are, place by place.
        arrays: by name of an input, what the caller gave as arrays.
    """

    plan: Plan
    slots: dict[str, tuple[Source, Picks | None]]
    mixtures: list[tuple[Picks, np.ndarray, np.ndarray]]
    arrays: dict[str, np.ndarray] = field(repr=False)

    def fits(self, indices: np.ndarray) -> bool:
        """Whether the plan is for batches whose rows belong to the same parts."""
        return all(
            np.array_equal(_whose(picks, starts, indices), whose) for picks, starts, whose in self.mixtures
        )

    def given(self, cluster: Cluster, indices: np.ndarray) -> dict[str, Any]:
        """The inputs for rows of shape (steps, rows).

        Raises:
            HandleNotFound: shares that are gone.
        """
        result: dict[str, Any] = dict(self.arrays)
        for name, (source, picks) in self.slots.items():
            handle = source.handle(cluster)
            result[name] = handle if picks is None else Rows(handle, _picked(picks, indices))
        return result


def write_whole(tensor: keras.KerasTensor, receivers: tuple[str, ...] = ()) -> Written:
    """The plan of a whole tensor; without receivers the servers keep it."""
    writer = _Writer()
    result = writer.whole(tensor)
    return writer.written(result, lambda value: value, receivers)


def write_rows(tensor: keras.KerasTensor, indices: np.ndarray, row: tuple[int, ...], fraction: int) -> Written:
    """The plan of rows like these, of shape (steps, rows), in the form of a plan's input.

    Raises:
        InputError: of tensors one below the other, steps that take different numbers of rows of each.
    """
    count = indices.shape[1]
    writer = _Writer(indices)
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

    def __init__(self, indices: np.ndarray | None = None) -> None:
        self.lo = Lowering(DEFAULT_FRACTION, "accurate", OWNER)
        self._indices = _ALL if indices is None else indices
        self._slots: dict[str, tuple[Source, Picks | None]] = {}
        self._mixtures: list[tuple[Picks, np.ndarray, np.ndarray]] = []
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
        return Written(plan, self._slots, self._mixtures, arrays)

    def whole(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """All of a tensor."""
        return self._once((id(tensor),), tensor, self._whole)

    def _whole(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        if isinstance(tensor, Root):
            if tensor.source is not None:
                rows = tensor.rows
                return self._slot(tensor.source, tensor.shape, tensor.dtype, None if rows is None else (("all", rows),))
            if by_rows(tensor.base):
                return self.rows(tensor.base, (("all", tensor.rows),), len(tensor.rows))
            return keras.ops.take(self.whole(tensor.base), tensor.rows, axis=0)
        node, place = maker(tensor)
        return again(node, self.whole)[place]

    def rows(self, tensor: keras.KerasTensor, picks: Picks, count: int) -> keras.KerasTensor:
        """So many rows of a tensor."""
        key = (id(tensor), *(id(pick[1]) for pick in picks))
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
        """Rows of tensors that are one below the other: of each those that are its own, put in order again."""
        starts = np.cumsum([0, *(part.shape[0] for part in node.input_tensors)])[:-1]
        whose = _whose(picks, starts, self._indices)
        if whose is None:
            raise InputError("rows of tensors one below the other: expected steps of a job that take as many rows of "
                             "each. Received: others")
        self._mixtures.append((picks, starts, whose))
        found, order = [], []
        for number, (part, first) in enumerate(zip(node.input_tensors, starts, strict=True)):
            places = np.flatnonzero(whose == number)
            if len(places):
                rows = self.rows(part, (*picks, ("own", places, int(first))), len(places))
                found.append(keras.ops.cast(rows, node.outputs[0].dtype))
                order.append(places)
        joined = found[0] if len(found) == 1 else keras.ops.concatenate(found, axis=0)
        back = np.argsort(np.concatenate(order))
        return joined if (back == np.arange(count)).all() else keras.ops.take(joined, back, axis=0)

    def _slot(
        self, source: Source, shape: tuple[int, ...], dtype: str, picks: Picks | None
    ) -> keras.KerasTensor:
        """Shares as an input of the plan."""
        name = f"x{len(self._slots)}"
        tensor = keras.KerasTensor(shape, dtype=dtype)
        self._slots[name] = source, picks
        self._roots[id(tensor)] = self.lo.secret(
            self.lo.builder.input(name, shape, source.fraction, source.owner, label(source.name), shares=source.shares)
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


def parts(tensor: keras.KerasTensor, rows: np.ndarray) -> np.ndarray | None:
    """For each of these rows a number that says which of tensors one below the other it is in; None if there are none.

    Batches whose rows have the same numbers, place by place, are taken by the same plan.
    """
    if isinstance(tensor, Root):
        return None if tensor.base is None else parts(tensor.base, tensor.rows[rows])
    node, _ = maker(tensor)
    if is_chain(node):
        starts = np.cumsum([0, *(part.shape[0] for part in node.input_tensors)])[:-1]
        whose = np.searchsorted(starts, rows, side="right") - 1
        inner = np.zeros(len(rows), np.int64)
        for number, (part, first) in enumerate(zip(node.input_tensors, starts, strict=True)):
            places = np.flatnonzero(whose == number)
            within = parts(part, rows[places] - first)
            if within is not None:
                inner[places] = within
        return together([whose, inner])
    taken = rowwise(node)
    if taken is None:
        return None
    return together([parts(t, rows) for t, by_row in zip(node.input_tensors, taken, strict=True) if by_row])


def together(numbers: list[np.ndarray | None]) -> np.ndarray | None:
    """One number for each row, different where any of these are."""
    known = [item for item in numbers if item is not None]
    return np.unique(np.stack(known), axis=1, return_inverse=True)[1].reshape(-1) if known else None


def _whose(picks: Picks, starts: np.ndarray, indices: np.ndarray) -> np.ndarray | None:
    """Which part each place of a batch belongs to; None if that is not the same in all steps."""
    whose = np.searchsorted(starts, _picked(picks, indices), side="right") - 1
    return whose[0] if (whose == whose[0]).all() else None


def _picked(picks: Picks, indices: np.ndarray) -> np.ndarray:
    """Rows of a part for rows of the result."""
    for kind, value, *first in picks:
        if kind == "all":
            indices = value[np.newaxis]
        elif kind == "rows":
            indices = value[indices]
        else:
            indices = indices[:, value] - first[0]
    return indices
