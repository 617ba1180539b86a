"""The boundary every transport fills: ordered messages between this party and one named peer.

A message belongs to a *step*, a counter that both ends advance alike; step and length are public and checked before the
payload is used. Nothing is allocated on a peer's word: payloads land in arrays that the caller made. A mismatch is a
`FrameError` that names the peer. One channel serves one job at a time; after any error it can only be closed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass
class Traffic:
    """What went through a channel; payload bytes only (frame headers are 16 bytes a message more)."""

    sent: int = 0
    received: int = 0
    messages: int = 0
    rounds: int = 0


class Channel(ABC):
    """One peer, as seen from this party. Not thread safe.

    Payloads are contiguous arrays of any dtype; the receiver knows shape and dtype beforehand.
    Every method raises `errors.PeerLost` (naming the peer) when the connection ends, `errors.DeadlineExceeded` when
    nothing moves until the deadline, `errors.FrameError` for a wrong step or length.
    """

    peer: str
    traffic: Traffic

    @abstractmethod
    def send(self, step: int, payload: np.ndarray) -> None:
        """Hands over the payload; returns before the peer has read it wherever the transport can buffer it."""

    @abstractmethod
    def receive(self, step: int, out: np.ndarray) -> None:
        """Fills `out` with the peer's payload of this step; exactly `out.nbytes` bytes or an error."""

    @abstractmethod
    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        """Sends and receives at once, without deadlock for any size. One round."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; idempotent."""
