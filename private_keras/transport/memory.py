"""Channels inside one process: for tests and for the reference run of a protocol, one thread per party."""

import queue
import threading
from typing import Any

import numpy as np

from private_keras.errors import DeadlineExceeded, FrameError, InputError, PeerLost
from private_keras.transport.channel import Channel, Traffic

_END = object()


class MemoryChannel(Channel):
    """See `Channel`. `log` keeps every received payload when `record` is set: transcript tests read it."""

    def __init__(self, peer: str, inbox: queue.Queue, outbox: queue.Queue, timeout: float, record: bool):
        self.peer = peer
        self.traffic = Traffic()
        self.log: list[tuple[int, np.ndarray]] = []
        self._inbox, self._outbox, self._timeout, self._record = inbox, outbox, timeout, record
        self._begun: int | None = None
        self._expected: int | None = None
        self._to_send = self._to_take = self._waited = 0
        self._headed = True
        self._pieces: list[np.ndarray] = []
        self._rest = np.empty(0, np.uint8)

    def send(self, step: int, payload: np.ndarray) -> None:
        self._announce(step, payload.nbytes)
        self._hand_over(payload)

    def receive(self, step: int, out: np.ndarray) -> None:
        self._await(step, out.nbytes)
        self._take(out)

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        self.send(step, payload)
        self.receive(step, out)
        self.traffic.rounds += 1

    def begin(self, step: int, nbytes: int) -> None:
        self._announce(step, nbytes)
        self._begun = step
        self.traffic.rounds += step == self._expected
        if nbytes == 0:
            self._hand_over(np.empty(0, np.uint8))

    def part(self, payload: np.ndarray) -> None:
        if payload.nbytes > self._to_send:
            raise InputError(f"{self._to_send} bytes are to come. Received: {payload.nbytes}")
        if payload.nbytes:
            self._hand_over(payload)

    def expect(self, step: int, nbytes: int) -> None:
        self._await(step, nbytes)
        self._expected = step
        self.traffic.rounds += step == self._begun

    def fill(self, out: np.ndarray) -> None:
        if out.nbytes > self._to_take:
            raise InputError(f"{self._to_take} bytes are to be taken. Received: room for {out.nbytes}")
        if out.nbytes or not self._headed:
            self._take(out)

    def close(self) -> None:
        self._outbox.put(_END)

    # The queues carry headers, (step, bytes), each followed by the payload's pieces: at least one, empty if need be.
    def _announce(self, step: int, nbytes: int) -> None:
        if self._to_send:
            raise InputError(f"{self._to_send} bytes are to come before another message")
        self._outbox.put((step, nbytes))
        self._to_send = nbytes
        self.traffic.sent += nbytes
        self.traffic.messages += 1

    def _hand_over(self, payload: np.ndarray) -> None:
        self._outbox.put(payload.copy())
        self._to_send -= payload.nbytes

    def _await(self, step: int, nbytes: int) -> None:
        if self._to_take or not self._headed:
            raise InputError(f"{self._to_take} bytes are to be taken before another message")
        self._waited, self._to_take, self._headed, self._pieces = step, nbytes, False, []

    def _take(self, out: np.ndarray) -> None:
        target = out.reshape(-1).view(np.uint8)
        if not self._headed:
            got, nbytes = self._next()
            if got != self._waited or nbytes != self._to_take:
                raise FrameError(
                    f"{self.peer}: expected step {self._waited} with {self._to_take} bytes. "
                    f"Received: step {got} with {nbytes} bytes"
                )
            self._headed = True
        at = 0
        while at < target.size or not (self._pieces or self._to_take):
            if not self._rest.size:
                self._pieces.append(self._next())
                self._rest = self._pieces[-1].reshape(-1).view(np.uint8)
            now = min(self._rest.size, target.size - at)
            target[at : at + now] = self._rest[:now]
            self._rest = self._rest[now:]
            at += now
        self._to_take -= target.size
        self.traffic.received += target.size
        if self._record and not self._to_take:
            first, *more = self._pieces
            if more:
                first = np.concatenate([p.reshape(-1).view(np.uint8) for p in self._pieces]).view(first.dtype)
            self.log.append((self._waited, first))

    def _next(self) -> Any:
        try:
            item = self._inbox.get(timeout=self._timeout)
        except queue.Empty:
            raise DeadlineExceeded(
                f"nothing from {self.peer} within {self._timeout} s (step {self._waited})"
            ) from None
        if item is _END:
            self._inbox.put(_END)
            raise PeerLost(f"{self.peer} closed its channel before step {self._waited}")
        return item


def memory_network(parties: int, timeout: float = 60.0, record: bool = False) -> list[dict[int, MemoryChannel]]:
    """Channels between all pairs: element i maps peer index to party i's channel to that peer."""
    queues = {(i, j): queue.Queue() for i in range(parties) for j in range(parties) if i != j}
    return [
        {j: MemoryChannel(f"server{j}", queues[j, i], queues[i, j], timeout, record) for j in range(parties) if j != i}
        for i in range(parties)
    ]


def run_parties(programs: list) -> list:
    """Runs one callable per party in threads; returns their results or raises the first party's error."""
    results: list = [None] * len(programs)
    errors: list = [None] * len(programs)

    def run(i: int) -> None:
        try:
            results[i] = programs[i]()
        except BaseException as error:  # noqa: B036  re-raised below, in the caller's thread
            errors[i] = error

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(programs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    real = [e for e in errors if e is not None]
    for error in real:
        if not isinstance(error, (PeerLost, DeadlineExceeded)):
            raise error
    if real:
        raise real[0]
    return results
