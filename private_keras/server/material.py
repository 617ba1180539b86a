"""What a client sends one server to share a tensor, protocol `trio`: x is held as m = x + l0 + l1 mod 2^64.

Server 0 gets the seed of l0 and m, server 1 the seed of l1 and m, server 2 both seeds: 16 bytes each, l_i is the seed's
AES-CTR stream with nonce 0. A client draws fresh seeds for every tensor. Each server alone sees words that are
independent of x.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from private_keras.errors import InputError
from private_keras.plan.limits import MAX_ELEMENTS
from private_keras.ring.kernel import Kernel
from private_keras.server.sizes import HELPER, SEED_BYTES, WORD, material_bytes, seed_bytes
from private_keras.server.ties import Ties, Tying

STREAM_WORDS = 2  # words in a block of a seed's stream


class Stored(Protocol):
    """One party's part of a shared tensor, wherever it is.

    Attributes:
        size: number of elements.
        token: the same object in all forms of one tensor, and in no other.
        seeded: whether `pieces` begin with seeds instead of masks.
        ties: what peers must have in common with this party (server/ties.py).
    """

    size: int
    token: object
    seeded: bool
    ties: Ties

    def rows(self, indices: np.ndarray, row: int) -> "Material":
        """Rows of `row` elements each."""

    def whole(self) -> "Material":
        """All of it, in memory."""

    def pieces(self) -> Iterator[memoryview]:
        """All of it as it is kept on disk."""


@dataclass(frozen=True)
class Material:
    """One party's part of a shared tensor in memory, flat and read-only; see `Stored`.

    Attributes:
        words: m at an evaluator; l0 - l1 at the helper, who has both.
        mask: l_i at evaluator i; l0 + l1 at the helper.
        ties: see `Stored`; rows of a tensor have none of their own.
        operand: words - 2 mask, which products of an evaluator start from, where that is needed again and again.
    """

    words: np.ndarray = field(repr=False)
    mask: np.ndarray = field(repr=False)
    ties: Ties = field(default_factory=dict, repr=False)
    operand: np.ndarray | None = field(default=None, repr=False)
    token: object = field(default_factory=object, repr=False, compare=False)
    seeded = False

    @property
    def size(self) -> int:
        return self.mask.size

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes + self.words.nbytes

    def rows(self, indices: np.ndarray, row: int) -> "Material":
        """See `Stored`."""
        return Material(*(np.take(a.reshape(-1, row), indices, 0).reshape(-1) for a in (self.words, self.mask)))

    def whole(self) -> "Material":
        """See `Stored`."""
        return self

    def pieces(self) -> Iterator[memoryview]:
        """See `Stored`: the mask, then the words."""
        for words in (self.mask, self.words):
            yield memoryview(np.ascontiguousarray(words, WORD)).cast("B")


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
        self._tying = Tying(party, elements)
        self._tying.feed(seeds)

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
        self._tying.feed(data)

    def finish(self, kernel: Kernel) -> Material:
        """The material, masks made from their seeds; raises `InputError` when pieces are missing."""
        got = len(self._seeds) - self._ahead + self._filled
        wanted = material_bytes(self._party, self._elements) - self._ahead
        if got != wanted:
            raise InputError(f"{self._what}: expected {wanted} bytes of material. Received: {got}")
        if self._party == HELPER:
            return replace(helper_material(kernel, bytes(self._seeds), self._elements), ties=self._tying.ties())
        mask = masks(kernel, bytes(self._seeds), self._elements)
        return Material(read_only(self._words.astype(np.uint64, copy=False)), mask, self._tying.ties())


def masks(kernel: Kernel, seeds: bytes, elements: int, start: int = 0) -> np.ndarray:
    """Masks of elements `start` on from their seeds, read-only; those of several seeds added up."""
    first, *others = _streams(kernel, seeds, elements, start)
    for other in others:
        first += other
    return read_only(first)


def helper_material(kernel: Kernel, seeds: bytes, elements: int, start: int = 0) -> Material:
    """The helper's part of elements `start` on, which follows from the seeds of both evaluators' masks."""
    l0, l1 = _streams(kernel, seeds, elements, start)
    words = l0 - l1
    l0 += l1
    return Material(read_only(words), read_only(l0))


def _streams(kernel: Kernel, seeds: bytes, elements: int, start: int) -> list[np.ndarray]:
    block, skip = divmod(start, STREAM_WORDS)
    return [
        kernel.random(seeds[i : i + SEED_BYTES], 0, skip + elements, first_block=block)[skip:]
        for i in range(0, len(seeds), SEED_BYTES)
    ]


def read_only(words: np.ndarray) -> np.ndarray:
    """The same array, flat; nobody writes to it from now on."""
    words = words.reshape(-1)
    words.flags.writeable = False
    return words


def split(elements: np.ndarray, kernel: Kernel, seeds: tuple[bytes, bytes]) -> list[tuple[bytes, np.ndarray]]:
    """Client: each party's (seeds, words) for a tensor of ring elements. Seeds must be fresh and random."""
    words = masked_words(elements, kernel, b"".join(seeds))
    return [(seeds[0], words), (seeds[1], words), (seeds[0] + seeds[1], words[:0])]


def masked_words(elements: np.ndarray, kernel: Kernel, seeds: bytes, start: int = 0) -> np.ndarray:
    """Client: m of a tensor's elements `start` on."""
    flat = np.ascontiguousarray(elements, np.uint64).reshape(-1)
    return (flat + masks(kernel, seeds, flat.size, start)).astype(WORD, copy=False)
