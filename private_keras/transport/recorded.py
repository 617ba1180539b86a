"""A channel that replays what a peer sent earlier: the words lie in one block, a job reads them as if they came now."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from private_keras.errors import FrameError, InputError, PeerLost
from private_keras.transport import frames
from private_keras.transport.channel import Channel, Traffic


class Recorded(Channel):
    """See `Channel`; messages are numbered from 1 and read once, in order. Nothing can be sent on it.

    Args:
        peer: who sent them.
        block: all payloads, one after the other; one-dimensional.
        ends: where each message ends in the block, in elements.
    """

    def __init__(self, peer: str, block: np.ndarray, ends: Sequence[int]):
        self.peer = peer
        self.traffic = Traffic()
        self._bytes = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
        self._ends = [end * block.itemsize for end in ends]
        self._read = 0
        self._at = self._end = 0
        self._empty = False
        self._closed = False

    @property
    def left(self) -> int:
        """How many messages are still to be read."""
        return len(self._ends) - self._read

    def receive(self, step: int, out: np.ndarray) -> None:
        self.expect(step, out.nbytes)
        self.fill(out)

    def expect(self, step: int, nbytes: int) -> None:
        if self._at < self._end or self._empty:
            raise InputError(f"{self._end - self._at} bytes are to be taken before another message")
        if self._closed or not self.left:
            raise PeerLost(f"{self.peer}: nothing more was recorded (step {step})")
        end = self._ends[self._read]
        frames.check(frames.pack(self._read + 1, end - self._end), step, nbytes, self.peer)
        self._read += 1
        self._end, self._empty = end, end == self._at

    def fill(self, out: np.ndarray) -> None:
        target = frames.incoming(out)
        target[:] = self.taken(len(target)).data

    def taken(self, nbytes: int) -> np.ndarray:
        """What `fill` would fill an array of `nbytes` bytes with, where it lies; nobody else gets it."""
        if nbytes > self._end - self._at or not (nbytes or self._empty):
            raise InputError(f"{self._end - self._at} bytes are to be taken. Received: room for {nbytes}")
        self._at += nbytes
        self._empty = False
        self.traffic.received += nbytes
        return self._bytes[self._at - nbytes : self._at]

    def send(self, step: int, payload: np.ndarray) -> None:
        self._refuse()

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        self._refuse()

    def begin(self, step: int, nbytes: int) -> None:
        self._refuse()

    def part(self, payload: np.ndarray) -> None:
        self._refuse()

    def close(self) -> None:
        self._closed = True

    def _refuse(self) -> NoReturn:
        raise FrameError(f"{self.peer}: expected to be read from. Received: a message, which nobody would get")
