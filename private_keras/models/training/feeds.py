"""Data as jobs take them: arrays that are shared once, or a stream of batches that are shared in pieces."""
import itertools
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.trainers.epoch_iterator import EpochIterator

from private_keras.cluster import Cluster, Rows
from private_keras.cluster.shares import Share
from private_keras.errors import InputError
from private_keras.models.inputs import is_secret
from private_keras.models.training import columns as data
from private_keras.models.training.columns import Columns
from private_keras.models.training.shuffle import Shuffle, batches, mixed
from private_keras.tensor import Column, Part
from private_keras.tracing.training.traced import TracedStep

BATCH_SIZE = 32  # Keras' default
# Of a stream, what is shared in one piece: at most so many bytes at a server, and so many batches.
PIECE_BYTES = 64 << 20
PIECE_BATCHES = 256
# Of arrays, row numbers that one job is sent.
INDICES = 1 << 24

Batch = np.ndarray | Columns  # numbers of rows, or the rows
# Of a traced step, the values of its data, checked.
Check = Callable[[TracedStep, Columns], Mapping[str, np.ndarray | Column]]


@dataclass(frozen=True)
class Segment:
    """Batches of as many rows each, for one job.

    Attributes:
        first: number of the first one in its epoch.
        batches: one for each step.
        sample: rows like these, for tracing.
    """

    first: int
    batches: list[Batch]
    sample: Columns

    @property
    def steps(self) -> int:
        return len(self.batches)

    @property
    def rows(self) -> int:
        return _rows(self.batches[0])


class Feed(ABC):
    """Batches for epochs.

    Attributes:
        num_batches: of an epoch; None where it is not known before the first.
    """

    num_batches: int | None

    @abstractmethod
    def begin_epoch(self) -> Iterator[Batch]:
        """The batches of the next epoch."""

    @abstractmethod
    def sample(self, batch: Batch) -> Columns:
        """Rows that are like those of a batch, but for their number."""

    @abstractmethod
    def given(self, cluster: Cluster, traced: TracedStep, segment: Segment) -> dict[str, Rows | Part]:
        """The plan's inputs of data for a segment; shares what is not shared yet."""

    @property
    def position(self) -> tuple[int, int]:
        """Passes over the data that are done, and batches of the present one; before an epoch begins."""
        return 0, 0

    def segments(self, stops: Callable[[int], bool], skip: int = 0) -> Iterator[Segment]:
        """The jobs of the next epoch.

        Args:
            stops: whether a job must end after so many steps of the epoch.
            skip: batches that are left out at the beginning.
        """
        limit = self._limit()
        group: list[Batch] = []
        size = 0
        step = skip
        for batch in itertools.islice(self.begin_epoch(), skip, None):
            weight = batch.nbytes if isinstance(batch, Columns) else 0
            full = len(group) >= limit or size + weight > PIECE_BYTES
            if group and (full or self._form(batch) != self._form(group[0]) or stops(step)):
                yield Segment(step - len(group), group, self.sample(group[0]))
                group, size = [], 0
            group.append(batch)
            size += weight
            step += 1
            if stops(step):
                # Not only when the next batch is there: a stream may take its time for it.
                yield Segment(step - len(group), group, self.sample(group[0]))
                group, size = [], 0
        if group:
            yield Segment(step - len(group), group, self.sample(group[0]))

    def _limit(self) -> int:
        return PIECE_BATCHES

    def _form(self, batch: Batch) -> object:
        """What batches of one job have in common."""
        return _rows(batch)


class ArrayFeed(Feed):
    """Arrays: shared once, whatever the number of epochs; steps take rows by public numbers.

    Args:
        columns: all rows.
        size: of a batch.
        steps: of an epoch; None for all batches.
        check: see `Check`.
        number: of the first pass: its order depends on it.
    """

    def __init__(
        self, columns: Columns, size: int, steps: int | None, shuffle: Shuffle, seed: int, check: Check, number: int = 0
    ):
        self._columns = columns
        self._parts = columns.parts
        self._size = size
        self._steps = steps
        self._shuffle: Shuffle = shuffle
        self._seed = seed
        self._check = check
        self._pass = number
        self._done = 0  # batches of this pass
        self._shares: dict[str, Share | Column] = {}
        self._values: Mapping[str, np.ndarray | Column] = {}
        self._per_pass = -(-columns.rows // size)
        self.num_batches = steps or self._per_pass

    @property
    def position(self) -> tuple[int, int]:
        return self._pass, self._done

    def seek(self, position: tuple[int, int]) -> None:
        """Goes on where an earlier run's epoch began."""
        self._pass, self._done = position

    @property
    def columns(self) -> Columns:
        """All rows."""
        return self._columns

    @property
    def size(self) -> int:
        """Of the largest batch."""
        return min(self._size, self._columns.rows)

    def prepare(self, traced: TracedStep) -> Mapping[str, np.ndarray | Column]:
        """Checks all rows, before anything is shared."""
        self._values = self._check(traced, self._columns)
        return self._values

    def begin_epoch(self) -> Iterator[Batch]:
        if self._parts is None:
            order = batches(self._columns.rows, self._size, self._shuffle, self._seed, self._pass)
        else:
            order = mixed(self._parts, self._size, self._shuffle, self._seed, self._pass)
        stop = self._per_pass if self._steps is None else min(self._done + self._steps, self._per_pass)
        part = order[self._done : stop]
        # As in Keras: an epoch ends with the data, and the next one begins anew.
        self._pass, self._done = (self._pass + 1, 0) if stop == self._per_pass else (self._pass, stop)
        return iter(part)

    def sample(self, batch: Batch) -> Columns:
        return self._columns

    def given(self, cluster: Cluster, traced: TracedStep, segment: Segment) -> dict[str, Rows | Part]:
        names = _names(traced)
        if not all(name in self._shares and self._shares[name].live(cluster) for name in names):
            self._shares = _share(cluster, traced, self._values or self._check(traced, self._columns))
            self._values = {}
        indices = np.stack(segment.batches)
        return {name: self._shares[name].rows(cluster, indices) for name in names}

    def _limit(self) -> int:
        return max(1, INDICES // self.size)

    def _form(self, batch: Batch) -> object:
        return _rows(batch) if self._parts is None else self._parts[batch].tobytes()


class StreamFeed(Feed):
    """`tf.data.Dataset`, `PyDataset`, generators: consecutive batches are shared together, and deleted after their job.

    Args:
        iterator: Keras', which knows all forms of data.
        read: makes columns of what it yields.
        check: see `Check`.
    """

    def __init__(self, iterator: EpochIterator, read: Callable[[Any], Columns], check: Check):
        self._iterator = iterator
        self._read = read
        self._check = check

    @property
    def num_batches(self) -> int | None:
        return self._iterator.num_batches

    def begin_epoch(self) -> Iterator[Batch]:
        for _, _, (batch,) in self._iterator:
            yield self._read(batch)

    def sample(self, batch: Batch) -> Columns:
        return batch

    def given(self, cluster: Cluster, traced: TracedStep, segment: Segment) -> dict[str, Rows | Part]:
        shares = _share(cluster, traced, self._check(traced, data.joined(segment.batches)))
        indices = np.arange(segment.steps * segment.rows).reshape(segment.steps, segment.rows)
        self._shares = shares  # until the next piece: the job needs them
        return {name: share.rows(cluster, indices) for name, share in shares.items()}


def feed(
    model: keras.Model, x: Any, y: Any, sample_weight: Any, *, batch_size: int | None, steps: int | None,
    shuffle: Shuffle, class_weight: Mapping[int, float] | None, seed: int, check: Check, number: int = 0,
) -> Feed:  # fmt: skip
    """Data in any form that Keras takes.

    Raises:
        InputError: data that do not fit the model, or arguments that do not go with such data.
    """
    if not is_stream(x):
        columns = data.read(model, x, y, sample_weight, class_weight)
        size = batch_size or (-(-columns.rows // steps) if steps else BATCH_SIZE)
        return ArrayFeed(columns, size, steps, shuffle, seed, check, number)
    for name, value in (("y", y), ("sample_weight", sample_weight), ("batch_size", batch_size)):
        if value is not None:
            raise InputError(f"model {model.name!r}: {name} is part of what {type(x).__name__} yields, or decided by "
                             f"it. Received: {name} besides")
    if isinstance(x, types.GeneratorType):
        x = tuples(model, x)
    orders = isinstance(x, keras.utils.PyDataset)
    iterator = EpochIterator(
        x=x, steps_per_epoch=steps, shuffle=bool(shuffle) if orders else False, class_weight=class_weight
    )

    def read(batch: Any) -> Columns:
        if is_secret(batch):
            raise InputError(f"model {model.name!r}: expected arrays from {type(x).__name__}. Received: secret "
                             "tensors, which are on the servers already; give them as x and y")
        inputs, targets, weight = keras.utils.unpack_x_y_sample_weight(batch)
        return data.read(model, inputs, targets, weight, None)

    return StreamFeed(iterator, read, check)


def is_stream(x: Any) -> bool:
    """Whether x produces batches as Keras knows it: a generator, PyDataset, tf.data, a PyTorch data loader."""
    if isinstance(x, types.GeneratorType | keras.utils.PyDataset):
        return True
    return hasattr(x, "element_spec") or hasattr(x, "batch_sampler")


def tuples(model: keras.Model, batches: Iterator) -> Iterator:
    """The same batches. Keras refuses what is not a tuple too, but with the data in its message."""
    for batch in batches:
        if not isinstance(batch, tuple):
            raise InputError(f"model {model.name!r}: expected a generator of tuples (inputs,) or (inputs, "
                             f"targets). Received: {type(batch).__name__}")
        yield batch


def _names(traced: TracedStep) -> list[str]:
    names = [spec.name for spec in (*traced.inputs, *traced.targets)]
    if traced.sample_weight is not None:
        names.append(traced.sample_weight)
    used = {item.name for item in traced.plan.inputs}
    return [name for name in names if name in used]


def _share(
    cluster: Cluster, traced: TracedStep, values: Mapping[str, np.ndarray | Column]
) -> dict[str, Share | Column]:
    items = {item.name: item for item in traced.plan.inputs}
    result: dict[str, Share | Column] = {}
    for name in _names(traced):
        value, item = values[name], items[name]
        if isinstance(value, Column):
            result[name] = value
        else:
            result[name] = Share(cluster, cluster.share(value, item.type.fraction, item.label or name))
    return result


def _rows(batch: Batch) -> int:
    return len(batch) if isinstance(batch, np.ndarray) else batch.rows
