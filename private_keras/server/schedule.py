"""What all servers know of a job, and must know alike: how many steps, which rows, which public values.

The plan says what is computed; this says on what. Servers compare a digest over both before their first message.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import InputError
from private_keras.server.sizes import WORD

INDEX = np.dtype("<u4")


class Table:
    """Collects a public array from pieces; memory is taken once, for the size agreed beforehand.

    Args:
        what: for errors.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, what: str):
        self._array = np.empty(shape, dtype)
        self._bytes = self._array.reshape(-1).view(np.uint8)
        self._filled = 0
        self._what = what

    def feed(self, data: bytes) -> None:
        """The next piece; raises `InputError` when it is more than agreed."""
        if self._filled + len(data) > self._bytes.size:
            raise InputError(f"{self._what}: expected {self._bytes.size} bytes. Received: more")
        self._bytes[self._filled : self._filled + len(data)] = np.frombuffer(data, np.uint8)
        self._filled += len(data)

    def finish(self) -> np.ndarray:
        """The array, read-only; raises `InputError` when pieces are missing."""
        if self._filled != self._bytes.size:
            raise InputError(f"{self._what}: expected {self._bytes.size} bytes. Received: {self._filled}")
        array = self._array.astype(self._array.dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array


@dataclass(frozen=True)
class Schedule:
    """The public side of one job.

    Attributes:
        plan: the plan's digest, in hex.
        steps: how often it runs.
        handles: by input name, the stored tensor that it is, or whose rows it takes.
        rows: by input name, indices (steps, rows).
        public: by input name, ring elements (1, *shape) or (steps, *shape).
        kept: by output name, the handle under which it is kept.
        ahead: whether the job is made ahead of its batch.
        item: id of the item of stock that the job uses up, if any.
        sources: by input name, of stored tensors that come from others: which shares these are. A handle is the
            client's to give, and it could give one for different tensors to each server.
        caller: whose job it is. Each server judges by who called it, and they must not have been called by several.
    """

    plan: str
    steps: int
    handles: Mapping[str, bytes]
    rows: Mapping[str, np.ndarray]
    public: Mapping[str, np.ndarray]
    kept: Mapping[str, bytes]
    ahead: bool = False
    item: bytes = b""
    sources: Mapping[str, bytes] = field(default_factory=dict)
    caller: str = ""

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it; 32 bytes."""
        kind = b"ahead" if self.ahead else b"item" if self.item else b"run"
        said = b"private_keras " + kind + b"\0" + self.item + self.content + self.caller.encode()
        return hashlib.sha256(said).digest()

    @property
    def content(self) -> bytes:
        """SHA-256 of what the job is about, whether it is made ahead or not. Names and shapes are the plan's, whose
        digest comes first.
        """
        total = hashlib.sha256(b"private_keras job\0" + bytes.fromhex(self.plan))
        total.update(self.steps.to_bytes(8, "little"))
        for kind, values in (
            (b"handle", self.handles), (b"rows", self.rows), (b"public", self.public), (b"kept", self.kept),
            (b"source", self.sources),
        ):  # fmt: skip
            for name in sorted(values):
                value = values[name]
                data = value if isinstance(value, bytes) else np.ascontiguousarray(value, _wire(value)).data.cast("B")
                total.update(b"%s %s %d\0" % (kind, name.encode(), len(data)))
                total.update(data)
        return total.digest()


def _wire(array: np.ndarray) -> np.dtype:
    return INDEX if array.dtype.itemsize == INDEX.itemsize else WORD
