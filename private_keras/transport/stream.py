"""Channels over a connected byte stream, with a deadline on every wait: the common part of Unix sockets and TLS.

All waiting is done by the calling thread: each turn it writes what the kernel takes, reads what is there, and sleeps in
`poll` only when neither moved. So two parties can exchange messages of any size without deadlock and without threads.
"""

import math
import select
import socket
import time
from abc import abstractmethod

import numpy as np

from private_keras.errors import DeadlineExceeded, PeerLost
from private_keras.transport import frames
from private_keras.transport.channel import QUEUE_BYTES, Channel, Traffic
from private_keras.transport.halves import Incoming, Outgoing

# Between two looks whether a connection on which nothing moves is cut.
LOOK_MS = 2000


class Blocked(Exception):
    """The stream would block. `events` is what to wait for."""

    def __init__(self, events: int):
        super().__init__(events)
        self.events = events


class StreamChannel(Channel):
    """See `Channel`.

    Attributes:
        deadline: `time.monotonic()` instant after which waits fail; set by whoever runs a job.
        buffered: whether the stream may hold bytes that `poll` does not see.
    """

    buffered: bool

    def __init__(self, sock: socket.socket, peer: str, deadline: float = math.inf):
        self.peer = peer
        self.traffic = Traffic()
        self.deadline = deadline
        self._socket = sock
        self._broken = False
        self._closed = False
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._begun: int | None = None
        self._expected: int | None = None
        sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), 0)
        self._readable = select.poll()
        self._readable.register(sock.fileno(), select.POLLIN)

    @abstractmethod
    def _write(self, parts: list[memoryview]) -> int:
        """Writes some bytes of the parts in order; returns how many, or raises `Blocked`."""

    @abstractmethod
    def _read(self, parts: list[memoryview]) -> int:
        """Fills some bytes of the parts in order; returns how many (0: the peer closed), or raises `Blocked`."""

    # --- whole messages -----------------------------------------------------------------------------------------------
    def send(self, step: int, payload: np.ndarray) -> None:
        self._check(step)
        data = frames.outgoing(payload)
        self._queue(step, data)
        self._move(step, 0)

    def receive(self, step: int, out: np.ndarray) -> None:
        self._check(step)
        target = frames.incoming(out)
        self._incoming.expect(step, len(target))
        self._incoming.aim(target)
        self._move(step, math.inf)
        self.traffic.received += len(target)

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        self._check(step)
        self._incoming.check_free()
        data, target = frames.outgoing(payload), frames.incoming(out)
        self._queue(step, data)
        self._incoming.expect(step, len(target))
        self._incoming.aim(target)
        self._move(step, 0)
        self.traffic.received += len(target)
        self.traffic.rounds += 1

    def _queue(self, step: int, data: memoryview) -> None:
        self._outgoing.begin(step, len(data))
        self._outgoing.add(data)
        self.traffic.sent += len(data)
        self.traffic.messages += 1

    def _free(self) -> bool:
        """Whether the connection works and no message is under way."""
        return not (
            self._broken or self._closed or self._outgoing.kept or self._outgoing.left or self._incoming.left
            or self._incoming.header_left
        )

    def _go_on(
        self, step: int, payload: np.ndarray | None, out: np.ndarray | None, sent: int, got: int, header: bytes
    ) -> None:
        """Goes on with contiguous messages, of which so many bytes with their headers are through already."""
        if payload is not None:
            self._queue(step, frames.outgoing(payload))
            self._outgoing.wrote(sent)
        if out is not None:
            target = frames.incoming(out)
            self._incoming.expect(step, len(target))
            self._incoming.aim(target)
        self._move(step, 0, got, header)
        if out is not None:
            self.traffic.received += out.nbytes
            self.traffic.rounds += payload is not None

    # --- messages in parts --------------------------------------------------------------------------------------------
    def begin(self, step: int, nbytes: int) -> None:
        self._check(step)
        self._outgoing.begin(step, nbytes)
        self.traffic.sent += nbytes
        self.traffic.messages += 1
        self._begun = step
        self.traffic.rounds += step == self._expected
        if nbytes == 0:
            self.part(np.empty(0, np.uint8))

    def part(self, payload: np.ndarray) -> None:
        out = self._outgoing
        self._check(out.step)
        out.add(frames.outgoing(payload))
        self._move(out.step, math.inf if self._incoming.open else QUEUE_BYTES if out.left else 0)

    def expect(self, step: int, nbytes: int) -> None:
        self._check(step)
        self._incoming.expect(step, nbytes)
        self._expected = step
        self.traffic.rounds += step == self._begun

    def fill(self, out: np.ndarray) -> None:
        message = self._incoming
        self._check(message.step)
        target = frames.incoming(out)
        message.aim(target)
        self._move(message.step, math.inf if message.left else QUEUE_BYTES if self._outgoing.left else 0)
        self.traffic.received += len(target)

    # --- moving bytes -------------------------------------------------------------------------------------------------
    def _check(self, step: int | None) -> None:
        if self._broken or self._closed:
            raise PeerLost(f"the connection to {self.peer} has ended (step {step})")

    def _move(self, step: int | None, keep: float, got: int = 0, header: bytes = b"") -> None:
        """Fills what is wanted, and writes as long as it may: until then, and until at most `keep` bytes are kept.

        Args:
            got: bytes of what is wanted that are in their places already, but for those of the header.
            header: these.
        """
        incoming, outgoing = self._incoming, self._outgoing
        try:
            if got:
                incoming.came(header, got, self.peer)
            while True:
                events = 0
                free = False
                if outgoing.queue:
                    try:
                        outgoing.wrote(self._write(outgoing.queue))
                        free = bool(outgoing.queue)
                    except Blocked as blocked:
                        events |= blocked.events
                if incoming.wanted:
                    if not outgoing.queue and not self.buffered:
                        # Cheaper than to be told that nothing is there.
                        self._readable.poll(self._milliseconds())
                    try:
                        got = self._read(incoming.wanted)
                        if got == 0:
                            raise incoming.ended(step, self.peer)
                        incoming.got(got, self.peer)
                        free = free or bool(incoming.wanted)
                    except Blocked as blocked:
                        events |= blocked.events
                if not incoming.wanted and (not outgoing.queue or events and outgoing.kept <= keep):
                    return
                if events and not free:
                    self._wait(events, step)
        except OSError as error:
            self._broken = True
            raise self._lost(error, step) from None
        except BaseException:
            self._broken = True
            raise

    def _milliseconds(self) -> int:
        """To the deadline. A day at most: poll takes a C int, and a deadline may be infinite."""
        return math.ceil(max(0.0, min(self.deadline - time.monotonic(), 86_400)) * 1000)

    def _wait(self, events: int, step: int | None) -> None:
        left = self._milliseconds()
        if not left:
            raise DeadlineExceeded(f"{self.peer} did not answer in time (step {step}); it is stalled or overloaded")
        self._poll.modify(self._socket.fileno(), events)
        if not self._poll.poll(min(left, LOOK_MS)) and self._cut():
            raise PeerLost(f"the connection to {self.peer} is cut: nothing that was sent arrives there (step {step})")

    def _cut(self) -> bool:
        """Whether the system has tried in vain for a while to send what was written; a peer that is busy takes it."""
        return False

    def _lost(self, error: OSError, step: int | None) -> PeerLost:
        """The error for a connection that broke while writing; a peer that gave up said why before it closed."""
        said = self._incoming.last_words(self.peer)
        if said is not None:
            return said
        header = bytearray(frames.HEADER.size)
        for _ in range(2):
            try:
                if self._read([memoryview(header)]) == len(header):
                    frames.check(header, step, -1, self.peer)
            except PeerLost as said:
                return said
            except Exception:  # noqa: B112, S112  whatever else is in the buffer, the first error is the one to report
                continue
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return PeerLost(f"the connection to {self.peer} broke (step {step}): {reason}")

    @property
    def broken(self) -> bool:
        """Whether an error has ended the connection."""
        return self._broken

    def idle(self) -> bool:
        """Whether the connection is open with nothing to read: what a connection between jobs must be."""
        if self._broken or self._closed or self._outgoing.queue or self._outgoing.left or self._incoming.open:
            return False
        return not self._readable.poll(0)

    def wait_readable(self) -> None:
        """Waits, without a deadline, until something arrives or the connection ends."""
        self._readable.poll()

    def interrupt(self) -> None:
        """Ends the connection under a thread that waits on it: its wait raises `PeerLost`. Thread safe."""
        try:
            # The plain socket's method: an SSLSocket's would drop its state under the other thread's feet.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass

    def give_up(self, blamed: int) -> None:
        """Tells the peer, as far as the connection still works, whom this party lost; then closes.

        In the middle of a message the peer sees it as the last bytes before the end.
        """
        if not self._closed and not self._broken:
            try:
                self._write([memoryview(frames.give_up(blamed))])
            except (Blocked, OSError):
                pass
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()
