"""What a server can say of its own condition: to clients, to an orchestrator, and as measurements."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from private_keras.server.jobs import Jobs
from private_keras.server.metrics import Metrics, Readings
from private_keras.server.stock import Stock
from private_keras.server.store import Store
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import Watched


class Condition:
    """See above; asks when it is asked.

    Args:
        storage: the directory for named shares, if there is one.
        problem: says what keeps that from being used.
        files: the server's certificate, if it has one.
    """

    def __init__(
        self, jobs: Jobs, store: Store, stock: Stock, storage: Path | None, problem: Callable[[], str],
        files: Watched | None,
    ):
        self._jobs = jobs
        self._store = store
        self._stock = stock
        self._storage = storage
        self._problem = problem
        self._files = files
        self._began = time.monotonic()

    def health(self) -> wire.HealthReply:
        """For clients."""
        problem, free = self._disk()
        return wire.HealthReply(
            jobs=len(self._jobs), stored_bytes=self._store.nbytes, seconds=time.monotonic() - self._began,
            waiting=self._jobs.turns.waiting, draining=self._jobs.draining, clock=time.time(), storage=problem,
            storage_free=free, certificate_ends=self._certificate_ends(),
        )  # fmt: skip

    def unready(self) -> list[str]:
        """Why no requests should be sent here now; empty when they may."""
        reasons = []
        if self._jobs.draining:
            reasons.append("about to end")
        problem, _ = self._disk()
        if self._storage is not None and problem:
            reasons.append(problem)
        if self._files is not None and self._certificate_ends() < time.time():
            reasons.append("the certificate has expired")
        return reasons

    def register(self, metrics: Metrics, **about: str) -> None:
        """Adds measurements, and what the server is."""
        gauges: dict[str, tuple[str, Callable[[], float | Readings]]] = {
            "info": ("What this server is.", lambda: [(tuple(about.items()), 1)]),
            "ready": ("Whether it should get requests.", lambda: float(not self.unready())),
            "uptime_seconds": ("Since its start.", lambda: time.monotonic() - self._began),
            "jobs": ("Jobs that are here, waiting and computing.", lambda: len(self._jobs)),
            "jobs_waiting": ("Jobs that wait for their turn; server 0 gives turns.", lambda: self._jobs.turns.waiting),
            "jobs_wait_seconds": ("Seconds that jobs have waited for turns.", lambda: self._jobs.turns.waited),
            "store_bytes": ("Memory of stored shares, and reserved for jobs.", lambda: self._store.nbytes),
            "stock_items": ("Items of stock made ahead.", lambda: len(self._stock)),
            "storage_free_bytes": ("Of the disk for named shares.", lambda: self._disk()[1]),
            "certificate_end_seconds": ("When the certificate or its authority's ends.", self._certificate_ends),
            "resident_bytes": ("Memory of the process.", _resident_bytes),
            "open_files": ("File descriptors of the process.", lambda: len(os.listdir("/proc/self/fd"))),
            "open_files_limit": ("How many it may have.", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        }
        for name, (text, read) in gauges.items():
            metrics.gauge(name, text, read)

    def _certificate_ends(self) -> float:
        return 0.0 if self._files is None else self._files.current()[1].expires[0].timestamp()

    def _disk(self) -> tuple[str, int]:
        """What is wrong with the directory for named shares, and how many bytes are free there."""
        if self._storage is None:
            return "no --storage", 0
        place = next(path for path in (self._storage, *self._storage.absolute().parents) if path.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            return f"{self._storage} cannot be written to", 0
        state = os.statvfs(place)
        free = state.f_bavail * state.f_frsize
        return self._problem() if free else f"{self._storage}: the disk is full", free


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
