"""Data that goes to the disks of all servers as it comes: encoded, masked and sent block by block."""

import contextlib
import queue
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass

import numpy as np

from private_keras.cluster.client import ServerClient
from private_keras.errors import InputError, PlanError
from private_keras.protocols.trio import EVALUATORS
from private_keras.ring import fixedpoint
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.entries import checked
from private_keras.server.material import masked_words
from private_keras.server.sizes import SEED_BYTES, WORD
from private_keras.server.storage import Generation, check_name
from private_keras.server.wire import messages_pb2 as wire

Progress = Callable[[int, int], None]
# Elements that are encoded and masked at once; as many words fill a message.
BLOCK = limits.CHUNK_BYTES // WORD.itemsize
AHEAD = 8  # messages that wait for a server that is slower than this client
LOOK_SECONDS = 0.1  # for a server that has given up
END_SECONDS = 5.0


@dataclass(frozen=True)
class Column:
    """A tensor that is read in blocks.

    Attributes:
        shape: of all of it.
        fraction: fractional bits.
        dtype: of the array it comes from.
        blocks: gives blocks of whole rows, real numbers or integers, in order.
    """

    shape: tuple[int, ...]
    fraction: int
    dtype: str
    blocks: Callable[[], Iterator[np.ndarray]]

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= int(n)
        return size


def check_columns(name: str, columns: Mapping[str, Column], about: str) -> int:
    """Raises what is wrong with arguments of `put`, before any server is asked; the number of elements of all."""
    check_name(name)
    if not isinstance(about, str) or len(about.encode()) > limits.ABOUT_BYTES:
        raise InputError(f"about: expected text of at most {limits.ABOUT_BYTES} bytes. Received: other or more")
    if not columns or not all(isinstance(column, Column) for column in columns.values()):
        raise InputError(f"expected columns by name. Received: {len(columns)} items of other types, or none")
    for label, column in columns.items():
        try:
            checked(label, list(column.shape), column.fraction, column.dtype)
        except PlanError as error:
            raise InputError(str(error)) from None
    return sum(column.size for column in columns.values())


def encoded(label: str, column: Column) -> Iterator[np.ndarray]:
    """A column's elements, flat, in pieces of up to `BLOCK`.

    Raises:
        InputError: blocks of another shape, more or fewer rows, values out of range.
    """
    done = 0
    for block in column.blocks():
        block = np.asarray(block)
        if block.shape[1:] != column.shape[1:] or block.ndim != len(column.shape):
            raise InputError(
                f"{label}: expected blocks of rows of shape {column.shape[1:]}. Received: a block of shape "
                f"{block.shape}"
            )
        if done + block.size > column.size:
            raise InputError(f"{label}: expected shape {column.shape}. Received: more rows")
        rows = block.reshape(-1)
        for start in range(0, rows.size, BLOCK):
            yield fixedpoint.encode(rows[start : start + BLOCK], column.fraction, label)
        done += block.size
    if done != column.size:
        raise InputError(f"{label}: expected shape {column.shape}. Received: {done} of {column.size} elements")


class _Stream:
    """Pieces on their way to one server; the thread that sends them waits for the next."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[bytes | None] = queue.Queue(AHEAD)
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        # An end before its time is an upload that the server refuses.
        while not self._over and (piece := self._waiting.get()) is not None:
            yield piece

    def put(self, piece: bytes | None, task: futures.Future) -> None:
        """The next piece, None at the end; raises what `task`, which sends them, was ended by."""
        while True:
            if task.done():
                task.result()
                raise InputError("a server ended the upload before its end")
            try:
                return self._waiting.put(piece, timeout=LOOK_SECONDS)
            except queue.Full:
                continue

    def end(self) -> None:
        """Nothing more is sent."""
        self._over = True
        with contextlib.suppress(queue.Empty):
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)


def put(
    clients: list[ServerClient], pool: futures.Executor, kernel: Kernel, generation: Generation,
    columns: Mapping[str, Column], about: str, policy: str, on_done: Callable[[int], None],
) -> None:
    """Writes a generation on all servers at once; they have all of it when this returns.

    Args:
        clients: by party.
        on_done: called in this thread with the number of elements that are on their way.
    """
    # Fresh for every tensor of every upload, one that is tried again included.
    seeds = {label: (secrets.token_bytes(SEED_BYTES), secrets.token_bytes(SEED_BYTES)) for label in columns}
    entries = [
        wire.Entry(label=label, shape=column.shape, fraction=column.fraction, dtype=column.dtype)
        for label, column in columns.items()
    ]
    streams = [_Stream() for _ in EVALUATORS]
    helper = (b"".join(pair) for pair in seeds.values())
    tasks = [
        pool.submit(client.put, generation, entries, about, policy, iter(source))
        for client, source in zip(clients, (*streams, helper), strict=True)
    ]
    try:
        done = 0
        for label, column in columns.items():
            for party, stream in enumerate(streams):
                stream.put(seeds[label][party], tasks[party])
            start = 0
            for elements in encoded(label, column):
                piece = masked_words(elements, kernel, b"".join(seeds[label]), start).tobytes()
                for party, stream in enumerate(streams):
                    stream.put(piece, tasks[party])
                start += elements.size
                on_done(done + start)
            done += start
        for party, stream in enumerate(streams):
            stream.put(None, tasks[party])
        futures.wait(tasks)
        for task in tasks:
            task.result()
    except BaseException:
        for stream in streams:
            stream.end()
        futures.wait(tasks, timeout=END_SECONDS)
        raise
