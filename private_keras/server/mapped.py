"""A shared tensor that stays on disk: what a job takes of it is read, opened and checked when it is taken."""

from collections.abc import Iterator

import numpy as np

from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.material import HELPER, WORD, Material, masks, material_bytes, seed_bytes, stored_bytes
from private_keras.server.sealed import Sealed

# In memory: seeds, place and what Python adds.
HANDLE_BYTES = 1024


def disk_bytes(party: int, elements: int, seeded: bool) -> int:
    """Of one tensor in a file: seeds or masks, then (evaluators) the masked words."""
    if seeded:
        return material_bytes(party, elements)
    return WORD.itemsize * elements * (1 if party == HELPER else 2)


class Mapped:
    """One party's part of a tensor in a file; see `material.Stored`.

    Args:
        start: where in the file it begins.
        size: number of elements.
        seeded: whether masks are there as seeds.

    Attributes:
        memory_bytes: what `whole` takes.

    Raises:
        FileError: the file is damaged where the tensor begins.
    """

    def __init__(self, sealed: Sealed, start: int, party: int, kernel: Kernel, size: int, seeded: bool):
        self.size = size
        self.seeded = seeded
        self.token = object()
        self.memory_bytes = stored_bytes(party, size)
        self._sealed = sealed
        self._start = start
        self._party = party
        self._kernel = kernel
        self._seeds = sealed.bytes(start, seed_bytes(party)) if seeded else b""
        self._words = start + (len(self._seeds) if seeded else WORD.itemsize * size)

    def rows(self, indices: np.ndarray, row: int) -> Material:
        """Reads and opens what these rows need; those next to each other at once."""
        indices = np.asarray(indices, np.int64)
        mask = np.empty((len(indices), row), np.uint64)
        masked = None if self._party == HELPER else np.empty((len(indices), row), np.uint64)
        edges = (np.flatnonzero(np.diff(indices) != 1) + 1).tolist()
        for first, last in zip((0, *edges), (*edges, len(indices)), strict=True):
            start, count = int(indices[first]) * row, (last - first) * row
            mask[first:last] = self._mask(start, count).reshape(-1, row)
            if masked is not None:
                masked[first:last] = self._masked(start, count).reshape(-1, row)
        return _material(masked, mask)

    def whole(self) -> Material:
        """Reads all of it; the caller has taken the room."""
        part = _material(
            None if self._party == HELPER else self._masked(0, self.size), self._mask(0, self.size)
        )
        return Material(part.masked, part.mask, token=self.token)

    def pieces(self) -> Iterator[memoryview]:
        """The same bytes as in its own file, in pieces."""
        length = disk_bytes(self._party, self.size, self.seeded)
        for at in range(0, length, limits.CHUNK_BYTES):
            yield memoryview(self._sealed.bytes(self._start + at, min(limits.CHUNK_BYTES, length - at)))

    def _mask(self, start: int, count: int) -> np.ndarray:
        if self.seeded:
            return masks(self._kernel, self._seeds, count, start)
        return self._sealed.words(self._start + WORD.itemsize * start, count)

    def _masked(self, start: int, count: int) -> np.ndarray:
        return self._sealed.words(self._words + WORD.itemsize * start, count)


def _material(masked: np.ndarray | None, mask: np.ndarray) -> Material:
    parts = [None if words is None else words.reshape(-1) for words in (masked, mask)]
    for words in parts:
        if words is not None:
            words.flags.writeable = False
    return Material(*parts)
