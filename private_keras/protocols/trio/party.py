"""What evaluators and helper have in common: numbered randomness, numbered messages."""
from functools import lru_cache

import numpy as np

from private_keras.errors import SecurityError
from private_keras.protocols.protocol import Bilinear, times
from private_keras.protocols.trio.masking import Masking
from private_keras.ring.kernel import Kernel
from private_keras.ring.steps import Draw
from private_keras.transport.channel import Channel

U = np.uint64
# z + 2^62 is non-negative for every |z| < 2^62: comparisons and truncations look at c = z + 2^62 + r.
OFFSET = 62
FAN_IN = 4  # bits of an AND's group
MOST_AT_ONCE = 10  # bits that may be one group
PRODUCTS = 1 << 14  # and the most words that the products of masks of one group may take


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


@lru_cache(1 << 10)
def conjunction_groups(count: int, words: int) -> list[list[list[int]]]:
    """Levels of an AND over `count` bits, `words` long as planes: each level is a list of groups of input positions.

    Groups of four, whose products of masks are few; all bits at once where that costs less than a round.
    """
    levels = []
    while count > 1:
        fan = count if count <= MOST_AT_ONCE and words << count <= PRODUCTS else FAN_IN
        levels.append([list(range(i, min(i + fan, count))) for i in range(0, count, fan)])
        count = len(levels[-1])
    return levels


def conjunctions(rows: np.ndarray) -> np.ndarray:
    """The AND of each subset of planes, a row for each subset: bit i of its number says whether plane i is in it."""
    out = np.full((1, *rows.shape[1:]), ~U(0))
    for row in rows:
        out = np.concatenate([out, out & row])
    return out


def add_product(op: Bilinear, to: np.ndarray, a: np.ndarray, b: np.ndarray, *, subtract: bool = False) -> None:
    """Adds op(a, b) to an array, or subtracts it."""
    if op is not times:
        op(a, b, out=to, subtract=subtract)
    elif subtract:
        to -= times(a, b)
    else:
        to += times(a, b)
