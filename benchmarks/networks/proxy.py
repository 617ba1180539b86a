"""A TCP proxy that delays what passes, and lets it pass no faster than a link would. Needs no rights.

    python -m benchmarks.networks.proxy --delay 0.02 --bandwidth 300e6 127.0.0.1:4000 127.0.0.1:4001 ...

Listens on a port of its own for each address, prints the ports as JSON, and ends when its standard input does. Each
direction of each address is one link: what comes in waits until what came before has been sent at the link's speed, and
arrives `delay` seconds after that. Connections are as fast as the link from their first byte: TCP's slow start, which a
real connection over a long way has after a pause, is not emulated.
"""

import argparse
import ctypes
import json
import select
import socket
import sys
import time
from collections import deque

PR_SET_TIMERSLACK = 29
# A piece takes 0.2 ms on the link, so that the first byte of a message does not wait for the last of a long one.
PIECE_SECONDS = 2e-4
PIECE_BYTES = 16 << 10, 256 << 10
HELD_BYTES = 64 << 20  # of one direction: beyond it, the sender waits
LAST = b""


class Line:
    """One direction of a link, which connections share."""

    def __init__(self, delay: float, bandwidth: float):
        self._delay = delay
        self._seconds_per_byte = 8 / bandwidth
        self._free = 0.0

    def arrival(self, count: int) -> float:
        """When the last of so many bytes arrives that are given to the link now."""
        self._free = max(self._free, time.monotonic()) + count * self._seconds_per_byte
        return self._free + self._delay


class Stream:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: Line, piece: int):
        self.source = source
        self.sink = sink
        self.held = 0
        self.open = True
        self._line = line
        self._piece = piece
        self._waiting: deque[tuple[float, memoryview]] = deque()

    @property
    def reads(self) -> bool:
        """Whether it takes more."""
        return self.open and self.held < HELD_BYTES

    @property
    def ended(self) -> bool:
        """Whether all has arrived that ever will."""
        return not self.open and not self._waiting

    @property
    def due(self) -> float | None:
        """When the next bytes arrive."""
        return self._waiting[0][0] if self._waiting else None

    def take(self) -> None:
        """Reads what is there."""
        data = self.source.recv(self._piece)
        self.open = data != LAST
        self.held += len(data)
        self._waiting.append((self._line.arrival(len(data)), memoryview(data)))

    def give(self, now: float) -> None:
        """Writes what has arrived, as far as the receiver takes it."""
        while self._waiting and self._waiting[0][0] <= now:
            at, data = self._waiting.popleft()
            if not len(data):
                self.sink.shutdown(socket.SHUT_WR)
                continue
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.held -= sent
            if sent < len(data):
                self._waiting.appendleft((at, data[sent:]))
                return


class Proxy:
    """Links to addresses, all in one thread.

    Args:
        targets: host and port of each.
        delay: seconds from end to end, each way.
        bandwidth: bits per second, each way.
    """

    def __init__(self, targets: list[tuple[str, int]], delay: float, bandwidth: float):
        least, most = PIECE_BYTES
        self._piece = int(min(max(bandwidth / 8 * PIECE_SECONDS, least), most))
        self._listeners = {socket.create_server(("127.0.0.1", 0)): target for target in targets}
        self._lines = {listener: (Line(delay, bandwidth), Line(delay, bandwidth)) for listener in self._listeners}
        self._pairs: list[tuple[Stream, Stream]] = []
        self.ports = [listener.getsockname()[1] for listener in self._listeners]

    def run(self, until: int) -> None:
        """Serves until the file descriptor `until` can be read."""
        while True:
            streams = [stream for pair in self._pairs for stream in pair]
            now = time.monotonic()
            due = [stream.due for stream in streams if stream.due is not None]
            # Who has bytes that have arrived already waits for its receiver, not for the clock.
            blocked = [stream for stream in streams if stream.due is not None and stream.due <= now]
            later = [at for at in due if at > now]
            readable, writable, _ = select.select(
                [until, *self._listeners, *(stream.source for stream in streams if stream.reads)],
                [stream.sink for stream in blocked], [], max(0.0, min(later) - now) if later else None,
            )  # fmt: skip
            if until in readable:
                return
            ready = set(readable)
            now = time.monotonic()
            for pair in list(self._pairs):
                try:
                    for stream in pair:
                        if stream.source in ready and stream.reads:
                            stream.take()
                        if stream.due is not None and (stream.due <= now or stream.sink in writable):
                            stream.give(now)
                except OSError:
                    self._drop(pair)
                    continue
                if all(stream.ended for stream in pair):
                    self._drop(pair)
            for listener in ready & set(self._listeners):
                self._connect(listener)

    def _connect(self, listener: socket.socket) -> None:
        ours, _ = listener.accept()
        try:
            theirs = socket.create_connection(self._listeners[listener], timeout=1)
        except OSError:
            ours.close()  # who dials tries again, as where nobody listens
            return
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = self._lines[listener]
        self._pairs.append((Stream(ours, theirs, there, self._piece), Stream(theirs, ours, back, self._piece)))

    def _drop(self, pair: tuple[Stream, Stream]) -> None:
        self._pairs.remove(pair)
        for stream in pair:
            stream.source.close()


def main() -> None:
    """Runs a proxy until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    parser.add_argument("--bandwidth", type=float, required=True, help="bits per second, each way")
    parser.add_argument("targets", nargs="+", help="host:port")
    given = parser.parse_args()
    # Timers of 50 microseconds are of the size of the delays of a fast network.
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    targets = [(host, int(port)) for host, port in (target.rsplit(":", 1) for target in given.targets)]
    proxy = Proxy(targets, given.delay, given.bandwidth)
    print(json.dumps(proxy.ports), flush=True)
    proxy.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
