"""What all servers know, computed by each of them for itself: no secrets, no messages, no randomness.

The same arithmetic as on shares, but every server rounds alike, so that all come to the same ring elements.
"""
import numpy as np

from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.kernel import Kernel

U = np.uint64


class Public(Simulate):
    """See `Protocol`; a value that is public stays public, to the bit the same at every server."""

    name = "public"

    def __init__(self, kernel: Kernel):
        super().__init__(kernel)
        self._key = bytes(16)

    def _random(self, shape: tuple[int, ...]) -> np.ndarray:
        """No mask: there is nothing to hide."""
        return np.zeros(shape, U)

    def truncate(self, x: SimulatedShare, bits: int) -> SimulatedShare:
        """x / 2^bits to the nearest, halves up: as good as the best of the servers' random roundings."""
        half = np.int64(1 << (bits - 1))
        # As functions, not operators: NumPy takes rank 0 for a scalar there and warns when it wraps.
        return SimulatedShare(np.right_shift(np.add(x.value.astype(np.int64), half), np.int64(bits)).astype(U))
