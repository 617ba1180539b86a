"""What a client sends one server to share a tensor, protocol `trio`: x is held as m = x + l0 + l1 mod 2^64.

Server 0 gets the seed of l0 and m, server 1 the seed of l1 and m, server 2 both seeds: 16 bytes each, l_i is the seed's
AES-CTR stream with nonce 0. A client draws fresh seeds for every tensor. Each server alone sees words that are
independent of x.
"""

from dataclasses import dataclass

import numpy as np

from private_keras.errors import InputError
from private_keras.plan.limits import MAX_ELEMENTS
from private_keras.ring.kernel import Kernel

SEED_BYTES = 16
WORD = np.dtype("<u8")
HELPER = 2


@dataclass(frozen=True)
class Material:
    """One party's part of a shared tensor, flat and read-only: masked values (None at the helper) and its masks."""

    masked: np.ndarray | None
    mask: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes + (0 if self.masked is None else self.masked.nbytes)


def material_bytes(party: int, elements: int) -> int:
    """Bytes on the wire for one party."""
    return 2 * SEED_BYTES if party == HELPER else SEED_BYTES + WORD.itemsize * elements


def stored_bytes(party: int, elements: int) -> int:
    """Bytes that a server keeps for a tensor."""
    return WORD.itemsize * elements * (1 if party == HELPER else 2)


class Receiver:
    """Collects one tensor's material from pieces; memory is taken once, for the size agreed beforehand.

    Args:
        what: for errors.

    Raises:
        InputError: a size out of bounds.
    """

    def __init__(self, party: int, elements: int, what: str):
        if not 1 <= elements <= MAX_ELEMENTS:
            raise InputError(f"{what}: expected 1 to {MAX_ELEMENTS} elements. Received: {elements}")
        self._party = party
        self._elements = elements
        self._what = what
        self._seeds = bytearray()
        self._wanted_seeds = SEED_BYTES * (2 if party == HELPER else 1)
        self._words = np.empty(0 if party == HELPER else elements, WORD)
        self._filled = 0

    def feed(self, data: bytes) -> None:
        """The next piece; raises `InputError` when it is more than agreed."""
        head = self._wanted_seeds - len(self._seeds)
        self._seeds += data[:head]
        rest = memoryview(data)[head:]
        target = self._words.view(np.uint8)
        if self._filled + len(rest) > target.size:
            raise InputError(
                f"{self._what}: expected {self._wanted_seeds + target.size} bytes of material. Received: more"
            )
        target[self._filled : self._filled + len(rest)] = np.frombuffer(rest, np.uint8)
        self._filled += len(rest)

    def finish(self, kernel: Kernel) -> Material:
        """The material, masks made from their seeds; raises `InputError` when pieces are missing."""
        got = len(self._seeds) + self._filled
        if got != material_bytes(self._party, self._elements):
            wanted = material_bytes(self._party, self._elements)
            raise InputError(f"{self._what}: expected {wanted} bytes of material. Received: {got}")
        seeds = [bytes(self._seeds[i : i + SEED_BYTES]) for i in range(0, len(self._seeds), SEED_BYTES)]
        mask = kernel.random(seeds[0], 0, self._elements)
        for seed in seeds[1:]:
            mask = mask + kernel.random(seed, 0, self._elements)
        words = None if self._party == HELPER else self._words.astype(np.uint64, copy=False)
        for array in (mask, words):
            if array is not None:
                array.flags.writeable = False
        return Material(words, mask)


def split(elements: np.ndarray, kernel: Kernel, seeds: tuple[bytes, bytes]) -> list[tuple[bytes, np.ndarray]]:
    """Client: each party's (seeds, words) for a tensor of ring elements. Seeds must be fresh and random."""
    flat = np.ascontiguousarray(elements, np.uint64).reshape(-1)
    masked = flat + kernel.random(seeds[0], 0, flat.size)
    masked += kernel.random(seeds[1], 0, flat.size)
    words = masked.astype(WORD, copy=False)
    return [(seeds[0], words), (seeds[1], words), (seeds[0] + seeds[1], words[:0])]
