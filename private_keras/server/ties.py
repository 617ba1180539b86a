"""Whether the parts of a tensor that a client gave three servers belong together.

x is held as m = x + l0 + l1: m at both evaluators, the seed of l0 at server 0 and the helper, that of l1 at server 1
and the helper. So each pair of servers has one thing in common. A server keeps, for each peer, SHA-256 of what that
peer has to have too: a tie. Servers compare ties before they compute (`pairing.Hello`), since products of parts that do
not belong together would open what depends on masks of other owners' data (docs/security.md, "Clients").

A hash tells the peer nothing: whoever has the same thing knows it, and who was given another one learns a hash of 128
or more random bits of the client that gave different things. Source: FIPS 180-4 (SHA-256).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from private_keras.protocols.trio import EVALUATORS
from private_keras.server.sizes import HELPER, SEED_BYTES, material_bytes, seed_bytes

TIE_BYTES = 32
NO_TIE = bytes(TIE_BYTES)

# By peer.
Ties = Mapping[int, bytes]


class Sized(Protocol):
    """A tensor of so many elements."""

    size: int


def seed_ties(party: int, seeds: bytes, elements: int) -> dict[int, bytes]:
    """Of the seeds of a tensor's masks that a party has."""
    peers = EVALUATORS if party == HELPER else (HELPER,)
    parts = [seeds[at : at + SEED_BYTES] for at in range(0, len(seeds), SEED_BYTES)]
    return {
        peer: hashlib.sha256(b"private_keras seed\0" + elements.to_bytes(8, "little") + seed).digest()
        for peer, seed in zip(peers, parts, strict=True)
    }


def computed_ties(pairs: Mapping[int, bytes], index: int) -> dict[int, bytes]:
    """Of a result that stays on the servers.

    Args:
        pairs: by peer, what names this job and this pair of servers alone (`pairing.Agreed`).
        index: among all results of the job.
    """
    name = b"private_keras result\0" + index.to_bytes(8, "little")
    return {peer: hashlib.sha256(name + pair).digest() for peer, pair in pairs.items()}


class Tying:
    """Ties of one tensor from its material as it comes: seeds, then words."""

    def __init__(self, party: int, elements: int):
        self._party = party
        self._elements = elements
        self._seeds = bytearray()
        self._wanted = seed_bytes(party)
        self._words = hashlib.sha256(b"private_keras words\0" + elements.to_bytes(8, "little"))

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes, in pieces of any size."""
        head = self._wanted - len(self._seeds)
        if head > 0:
            self._seeds += data[:head]
            data = memoryview(data)[head:]
        self._words.update(data)

    def ties(self) -> dict[int, bytes]:
        """All of the material has come."""
        found = seed_ties(self._party, bytes(self._seeds), self._elements)
        if self._party != HELPER:
            found[1 - self._party] = self._words.digest()
        return found


class TyingMany:
    """Ties of tensors whose materials come one after the other, without gaps."""

    def __init__(self, party: int, tensors: Iterable[Sized]):
        self._left = [(Tying(party, tensor.size), material_bytes(party, tensor.size)) for tensor in tensors][::-1]
        self._at = 0
        self._found: list[dict[int, bytes]] = []

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes, no more than are left."""
        data = memoryview(data)
        while data:
            tying, length = self._left[-1]
            piece = data[: length - self._at]
            tying.feed(piece)
            self._at += len(piece)
            data = data[len(piece) :]
            if self._at == length:
                self._found.append(tying.ties())
                self._left.pop()
                self._at = 0

    def ties(self) -> list[dict[int, bytes]]:
        """All of the materials have come."""
        return self._found


def packed(ties: Sequence[Ties]) -> bytes:
    """Ties of several tensors as they are stored: each tensor's in the order of its peers."""
    return b"".join(of[peer] for of in ties for peer in sorted(of))


def unpacked(party: int, data: bytes) -> list[dict[int, bytes]]:
    """What `packed` made."""
    peers = [peer for peer in (*EVALUATORS, HELPER) if peer != party]
    step = TIE_BYTES * len(peers)
    return [
        {peer: data[at + TIE_BYTES * i : at + TIE_BYTES * (i + 1)] for i, peer in enumerate(peers)}
        for at in range(0, len(data), step)
    ]


@dataclass(frozen=True)
class Common:
    """What a peer has to have in common with this server of a job's inputs.

    Attributes:
        names: of secret inputs, in the plan's order; first of all, where there is one, what was made ahead.
        ties: of each; zeros for one whose words are still to come.
    """

    names: tuple[str, ...]
    ties: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of all ties; 32 bytes."""
        return hashlib.sha256(b"private_keras parts\0" + self.ties).digest()

    def apart(self, theirs: bytes) -> list[str]:
        """Names of what the peer, which has these ties, has something else of."""
        steps = range(0, len(self.ties), TIE_BYTES)
        differ = (self.ties[at : at + TIE_BYTES] != theirs[at : at + TIE_BYTES] for at in steps)
        return [name for name, other in zip(self.names, differ, strict=True) if other]


def common(ties: Mapping[str, Ties], peer: int, made: bytes = b"") -> Common:
    """What a job has in common with a peer.

    Args:
        ties: of each secret input, in the plan's order.
        made: names the job that made ahead what this one uses (`pairing.Agreed`).
    """
    found = [of[peer] for of in ties.values()]
    return Common((*["what was made ahead"] * bool(made), *ties), b"".join([made, *found]))
