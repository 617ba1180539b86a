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
from private_keras.transport.channel import Channel, Traffic

SOCKET_BUFFER = 4 << 20


class Blocked(Exception):
    """The stream would block. `events` is what to wait for."""

    def __init__(self, events: int):
        super().__init__(events)
        self.events = events


class StreamChannel(Channel):
    """See `Channel`.

    Attributes:
        deadline: `time.monotonic()` instant after which waits fail; set by whoever runs a job.
    """

    def __init__(self, sock: socket.socket, peer: str, deadline: float = math.inf):
        self.peer = peer
        self.traffic = Traffic()
        self.deadline = deadline
        self._socket = sock
        self._broken = False
        self._closed = False
        self._header = bytearray(frames.HEADER.size)
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), 0)

    @abstractmethod
    def _write(self, parts: list[memoryview]) -> int:
        """Writes some bytes of the parts in order; returns how many, or raises `Blocked`."""

    @abstractmethod
    def _read(self, parts: list[memoryview]) -> int:
        """Fills some bytes of the parts in order; returns how many (0: the peer closed), or raises `Blocked`."""

    def send(self, step: int, payload: np.ndarray) -> None:
        self._move(step, payload, None)

    def receive(self, step: int, out: np.ndarray) -> None:
        self._move(step, None, out)

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        self._move(step, payload, out)
        self.traffic.rounds += 1

    def _move(self, step: int, payload: np.ndarray | None, out: np.ndarray | None) -> None:
        """Sends `payload` and fills `out`, whichever are given, at once."""
        if self._broken or self._closed:
            raise PeerLost(f"the connection to {self.peer} has ended (step {step})")
        writing: list[memoryview] = []
        reading: list[memoryview] = []
        if payload is not None:
            data = frames.outgoing(payload)
            writing = [memoryview(frames.pack(step, data.size)), memoryview(data)]
        if out is not None:
            target = frames.incoming(out)
            reading = [memoryview(self._header), memoryview(target)]
            header_missing = frames.HEADER.size
        try:
            while writing or reading:
                events = 0
                free = False
                if writing:
                    try:
                        writing = _rest(writing, self._write(writing))
                        free = bool(writing)
                    except Blocked as blocked:
                        events |= blocked.events
                if reading:
                    try:
                        got = self._read(reading)
                        if got == 0:
                            raise PeerLost(f"{self.peer} closed the connection (step {step})")
                        if header_missing:
                            header_missing = max(0, header_missing - got)
                            if not header_missing:
                                frames.check(self._header, step, target.size, self.peer)
                        reading = _rest(reading, got)
                        free = free or bool(reading)
                    except Blocked as blocked:
                        events |= blocked.events
                if events and not free:
                    self._wait(events, step)
        except OSError as error:
            self._broken = True
            raise self._lost(error, step) from None
        except BaseException:
            self._broken = True
            raise
        if payload is not None:
            self.traffic.sent += data.size
            self.traffic.messages += 1
        if out is not None:
            self.traffic.received += target.size

    def _wait(self, events: int, step: int) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"{self.peer} did not answer in time (step {step}); it is stalled or overloaded")
        self._poll.modify(self._socket.fileno(), events)
        # A day at most: poll takes a C int of milliseconds, and a deadline may be infinite.
        self._poll.poll(math.ceil(min(left, 86_400) * 1000))

    def _lost(self, error: OSError, step: int) -> PeerLost:
        """The error for a connection that broke while writing; a peer that gave up said why before it closed."""
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
        if self._broken or self._closed:
            return False
        self._poll.modify(self._socket.fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def wait_readable(self) -> None:
        """Waits, without a deadline, until something arrives or the connection ends."""
        self._poll.modify(self._socket.fileno(), select.POLLIN)
        self._poll.poll()

    def interrupt(self) -> None:
        """Ends the connection under a thread that waits on it: its wait raises `PeerLost`. Thread safe."""
        try:
            # The plain socket's method: an SSLSocket's would drop its state under the other thread's feet.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass

    def give_up(self, blamed: int) -> None:
        """Tells the peer, as far as the connection still works, whom this party lost; then closes."""
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


def _rest(parts: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the parts after `done` bytes."""
    while parts and done >= len(parts[0]):
        done -= len(parts[0])
        parts = parts[1:]
    if done:
        parts = [parts[0][done:], *parts[1:]]
    return parts
