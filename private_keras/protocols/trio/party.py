"""What evaluators and helper have in common: numbered randomness, numbered messages."""
from functools import cache

import numpy as np

from private_keras.errors import SecurityError
from private_keras.protocols.trio.masking import Masking
from private_keras.ring.kernel import Kernel
from private_keras.ring.steps import Draw
from private_keras.transport.channel import Channel

U = np.uint64
# z + 2^62 is non-negative for every |z| < 2^62: comparisons and truncations look at c = z + 2^62 + r.
OFFSET = 62


class Party(Masking):
    """One server of `trio` in one job.

    Randomness: draw number d from the key shared with a peer is the AES-CTR stream with nonce d. Both ends draw in the
    order of the plan, so numbers agree, and no (key, number) is ever used twice because a key lives for one job.
    """

    def __init__(self, party: int, kernel: Kernel, channels: dict[int, Channel], keys: dict[int, bytes]):
        peers = {0, 1, 2} - {party}
        if set(keys) != peers or any(len(k) != 16 for k in keys.values()) or len(set(keys.values())) != 2:
            raise SecurityError("trio needs one fresh 16-byte key per peer, and different ones")
        super().__init__(kernel)
        self.party = party
        self._channels = channels
        self._keys = keys
        self._draws = dict.fromkeys(peers, 0)
        self._steps = dict.fromkeys(peers, 0)

    @property
    def draws(self) -> dict[int, int]:
        """How often this party drew from the key shared with each peer; the peer must have drawn as often."""
        return dict(self._draws)

    def draw(self, peer: int, words: int) -> Draw:
        """`words` fresh ring elements that only this party and `peer` know; made where they are used."""
        self._draws[peer] += 1
        return Draw(self._keys[peer], self._draws[peer], 0, words)

    def step(self, peer: int) -> int:
        """Number of the next message on the channel to `peer`."""
        self._steps[peer] += 1
        return self._steps[peer]


@cache
def conjunction_groups(count: int) -> list[list[list[int]]]:
    """Levels of a 4-ary AND over `count` bits: each level is a list of groups of input positions."""
    levels = []
    while count > 1:
        levels.append([list(range(i, min(i + 4, count))) for i in range(0, count, 4)])
        count = len(levels[-1])
    return levels


@cache
def subsets(size: int) -> list[tuple[int, ...]]:
    """Non-empty subsets of range(size) as tuples, in the order in which their mask products are dealt."""
    return [tuple(i for i in range(size) if code >> i & 1) for code in range(1, 1 << size)]
