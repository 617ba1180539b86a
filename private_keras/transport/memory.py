"""Channels inside one process: for tests and for the reference run of a protocol, one thread per party."""

import queue
import threading

import numpy as np

from private_keras.errors import DeadlineExceeded, FrameError, PeerLost
from private_keras.transport.channel import Channel, Traffic

_END = object()


class MemoryChannel(Channel):
    """See `Channel`. `log` keeps every received payload when `record` is set: transcript tests read it."""

    def __init__(self, peer: str, inbox: queue.Queue, outbox: queue.Queue, timeout: float, record: bool):
        self.peer = peer
        self.traffic = Traffic()
        self.log: list[tuple[int, np.ndarray]] = []
        self._inbox, self._outbox, self._timeout, self._record = inbox, outbox, timeout, record

    def send(self, step: int, payload: np.ndarray) -> None:
        self._outbox.put((step, payload.copy()))
        self.traffic.sent += payload.nbytes
        self.traffic.messages += 1

    def receive(self, step: int, out: np.ndarray) -> None:
        try:
            item = self._inbox.get(timeout=self._timeout)
        except queue.Empty:
            raise DeadlineExceeded(f"nothing from {self.peer} within {self._timeout} s (step {step})") from None
        if item is _END:
            self._inbox.put(_END)
            raise PeerLost(f"{self.peer} closed its channel before step {step}")
        got, payload = item
        if got != step or payload.nbytes != out.nbytes:
            raise FrameError(
                f"{self.peer}: expected step {step} with {out.nbytes} bytes. "
                f"Received: step {got} with {payload.nbytes} bytes"
            )
        if self._record:
            self.log.append((step, payload))
        out.reshape(-1).view(np.uint8)[:] = payload.reshape(-1).view(np.uint8)
        self.traffic.received += out.nbytes

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        self.send(step, payload)
        self.receive(step, out)
        self.traffic.rounds += 1

    def close(self) -> None:
        self._outbox.put(_END)


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
