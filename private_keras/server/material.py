"""What a client sends one server to share a tensor, protocol `trio`: x is held as m = x + l0 + l1 mod 2^64.

Server 0 gets the seed of l0 and m, server 1 the seed of l1 and m, server 2 both seeds: 16 bytes each, l_i is the seed's
AES-CTR stream with nonce 0. A client draws fresh seeds for every tensor. Each server alone sees words that are
independent of x.
"""

from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import InputError
from private_keras.plan.limits import MAX_ELEMENTS
from private_keras.ring.kernel import Kernel

SEED_BYTES = 16
WORD = np.dtype("<u8")
HELPER = 2


@dataclass(frozen=True)
class Material:
    """One party's part of a shared tensor, flat and read-only.

    Attributes:
        masked: m; None at the helper, and of a batch to come.
        mask: l.
        difference: m - l where somebody needs it again and again.
    """

    masked: np.ndarray | None = field(repr=False)
    mask: np.ndarray = field(repr=False)
    difference: np.ndarray | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes + (0 if self.masked is None else self.masked.nbytes)


def seed_bytes(party: int) -> int:
    """Bytes of the seeds of one tensor's masks that a party gets."""
    return SEED_BYTES * (2 if party == HELPER else 1)


def material_bytes(party: int, elements: int) -> int:
    """Bytes on the wire for one party."""
    return seed_bytes(party) + (0 if party == HELPER else WORD.itemsize * elements)


def stored_bytes(party: int, elements: int) -> int:
    """Bytes that a server keeps for a tensor."""
    return WORD.itemsize * elements * (1 if party == HELPER else 2)


class Receiver:
    """Collects one tensor's material from pieces; memory is taken once, for the size agreed beforehand.

    Args:
        what: for errors.
        seeds: of the masks, where they came ahead, so that words alone come now.

    Raises:
        InputError: a size out of bounds.
    """

    def __init__(self, party: int, elements: int, what: str, seeds: bytes = b""):
        if not 1 <= elements <= MAX_ELEMENTS:
            raise InputError(f"{what}: expected 1 to {MAX_ELEMENTS} elements. Received: {elements}")
        self._party = party
        self._elements = elements
        self._what = what
        self._seeds = bytearray(seeds)
        self._ahead = len(seeds)
        self._wanted_seeds = seed_bytes(party)
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
                f"{self._what}: expected {self._wanted_seeds - self._ahead + target.size} bytes of material. "
                "Received: more"
            )
        target[self._filled : self._filled + len(rest)] = np.frombuffer(rest, np.uint8)
        self._filled += len(rest)

    def finish(self, kernel: Kernel) -> Material:
        """The material, masks made from their seeds; raises `InputError` when pieces are missing."""
        got = len(self._seeds) - self._ahead + self._filled
        wanted = material_bytes(self._party, self._elements) - self._ahead
        if got != wanted:
            raise InputError(f"{self._what}: expected {wanted} bytes of material. Received: {got}")
        mask = masks(kernel, bytes(self._seeds), self._elements)
        words = None if self._party == HELPER else self._words.astype(np.uint64, copy=False)
        if words is not None:
            words.flags.writeable = False
        return Material(words, mask)


def masks(kernel: Kernel, seeds: bytes, elements: int) -> np.ndarray:
    """A party's masks from its seeds, read-only; added up at the helper, which has both."""
    parts = [seeds[i : i + SEED_BYTES] for i in range(0, len(seeds), SEED_BYTES)]
    mask = kernel.random(parts[0], 0, elements)
    for seed in parts[1:]:
        mask += kernel.random(seed, 0, elements)
    mask.flags.writeable = False
    return mask


def split(elements: np.ndarray, kernel: Kernel, seeds: tuple[bytes, bytes]) -> list[tuple[bytes, np.ndarray]]:
    """Client: each party's (seeds, words) for a tensor of ring elements. Seeds must be fresh and random."""
    flat = np.ascontiguousarray(elements, np.uint64).reshape(-1)
    masked = flat + kernel.random(seeds[0], 0, flat.size)
    masked += kernel.random(seeds[1], 0, flat.size)
    words = masked.astype(WORD, copy=False)
    return [(seeds[0], words), (seeds[1], words), (seeds[0] + seeds[1], words[:0])]
