"""A shared tensor that stays on disk: what a job takes of it is read, opened and checked when it is taken."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.material import Material, helper_material, masks, read_only
from private_keras.server.sealed import Sealed
from private_keras.server.sizes import HELPER, WORD, material_bytes, seed_bytes, stored_bytes
from private_keras.server.ties import Ties

# In memory: seeds, place and what Python adds.
HANDLE_BYTES = 1024


def disk_bytes(party: int, elements: int, seeded: bool) -> int:
    """Of one tensor in a file: seeds or masks, then the words, which at the helper follow from the seeds."""
    return material_bytes(party, elements) if seeded else stored_bytes(elements)


class Mapped:
    """One party's part of a tensor in a file; see `material.Stored`.

    Args:
        start: where in the file it begins.
        size: number of elements.
        seeded: whether masks are there as seeds.
        ties: as when it was written.

    Attributes:
        memory_bytes: what `whole` takes.

    Raises:
        FileError: the file is damaged where the tensor begins.
    """

    def __init__(self, sealed: Sealed, start: int, party: int, kernel: Kernel, size: int, seeded: bool, ties: Ties):
        self.size = size
        self.seeded = seeded
        self.ties = ties
        self.token = object()
        self.memory_bytes = stored_bytes(size)
        self._sealed = sealed
        self._start = start
        self._party = party
        self._kernel = kernel
        self._seeds = sealed.bytes(start, seed_bytes(party)) if seeded else b""
        self._words = start + (len(self._seeds) if seeded else WORD.itemsize * size)

    def rows(self, indices: np.ndarray, row: int) -> Material:
        """Reads and opens what these rows need; those next to each other at once."""
        indices = np.asarray(indices, np.int64)
        words, mask = (np.empty((len(indices), row), np.uint64) for _ in range(2))
        edges = (np.flatnonzero(np.diff(indices) != 1) + 1).tolist()
        for first, last in zip((0, *edges), (*edges, len(indices)), strict=True):
            part = self._part(int(indices[first]) * row, (last - first) * row)
            words[first:last], mask[first:last] = part.words.reshape(-1, row), part.mask.reshape(-1, row)
        return Material(read_only(words), read_only(mask))

    def whole(self) -> Material:
        """Reads all of it; the caller has taken the room."""
        return replace(self._part(0, self.size), token=self.token, ties=self.ties)

    def pieces(self) -> Iterator[memoryview]:
        """The same bytes as in its own file, in pieces."""
        length = disk_bytes(self._party, self.size, self.seeded)
        for at in range(0, length, limits.CHUNK_BYTES):
            yield memoryview(self._sealed.bytes(self._start + at, min(limits.CHUNK_BYTES, length - at)))

    def _part(self, start: int, count: int) -> Material:
        if self.seeded and self._party == HELPER:
            return helper_material(self._kernel, self._seeds, count, start)
        mask = masks(self._kernel, self._seeds, count, start) if self.seeded else self._read(self._start, start, count)
        return Material(self._read(self._words, start, count), mask)

    def _read(self, place: int, start: int, count: int) -> np.ndarray:
        return read_only(self._sealed.words(place + WORD.itemsize * start, count))
