"""The boundary every transport fills: ordered messages between this party and one named peer.

A message belongs to a *step*, a counter that both ends advance alike; step and length are public and checked before the
payload is used. Nothing is allocated on a peer's word: payloads land in arrays that the caller made. A mismatch is a
`FrameError` that names the peer. One channel serves one job at a time; after any error it can only be closed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

# Bytes of parts that a channel keeps before it waits for its peer to read.
QUEUE_BYTES = 8 << 20


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
    def begin(self, step: int, nbytes: int) -> None:
        """Announces a message of `nbytes` bytes whose payload follows in parts; an empty one has none.

        On the wire it is one message: the peer may take it whole or in pieces, and cut it as it likes. While it is
        unfinished nothing else can be sent.

        Raises:
            InputError: another message is unfinished.
        """

    @abstractmethod
    def part(self, payload: np.ndarray) -> None:
        """The next bytes of the message begun; written at once as far as the transport takes them.

        The rest is kept, as a reference to `payload`, which must not change any more, and is written while the channel
        is used: between parts, and while a `fill` waits. While a message is expected from this peer nothing here ever
        waits for it. Otherwise a part waits while more than `QUEUE_BYTES` are kept, and the last one until all is
        written, as `send` does. So two parties that both call `expect` before their first `part`, and alternate parts
        and fills as they like, never wait for each other's buffers, whatever the sizes.

        Raises:
            InputError: more bytes than were announced, or nothing was.
        """

    @abstractmethod
    def expect(self, step: int, nbytes: int) -> None:
        """Says which message comes next from this peer, to be taken by `fill`; never waits.

        An empty message takes one `fill` of an empty array. A message that was begun and one that is expected with the
        same step are an exchange, and count as one round.

        Raises:
            InputError: another expected message is not filled.
        """

    @abstractmethod
    def fill(self, out: np.ndarray) -> None:
        """Waits for the next `out.nbytes` bytes of the message expected, however the peer cut it.

        The last one also waits until every finished message of this party is written, as `exchange` does.

        Raises:
            InputError: more bytes than are left, or nothing is expected.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; idempotent."""
