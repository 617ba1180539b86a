"""Jobs that run on one server now: how many, whose, and how to end them early."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from private_keras.errors import ClusterError, DeadlineExceeded, HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.transport.stream import StreamChannel


class JobCancelled(ClusterError):
    """The client ended the job, or went away."""


class Job:
    """One run of a plan on this server.

    Attributes:
        id: 16 bytes, the client's choice.
        owner: identity that runs it.
        deadline: `time.monotonic()` instant.
    """

    def __init__(self, job_id: bytes, owner: str, deadline: float, wake: Callable[[], None]):
        self.id = job_id
        self.owner = owner
        self.deadline = deadline
        self._wake = wake
        self._lock = threading.Lock()
        self._cancelled = False
        self._channels: list[StreamChannel] = []

    def check(self) -> None:
        """Raises when the job is to end: called between steps and while waiting."""
        if self._cancelled:
            raise JobCancelled("the job was cancelled by the client")
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded("the job took longer than its deadline; give a longer one or use smaller batches")

    def attach(self, channel: StreamChannel) -> None:
        """A channel that the job waits on from now, so that `cancel` can end the wait."""
        with self._lock:
            self._channels.append(channel)
            if self._cancelled:
                channel.interrupt()

    def detach(self) -> None:
        """The job's channels are its no longer."""
        with self._lock:
            self._channels = []

    def cancel(self) -> None:
        """Ends the job at its next step or wait. Thread safe; without effect on a job that has ended."""
        with self._lock:
            self._cancelled = True
            for channel in self._channels:
                channel.interrupt()
        self._wake()


class Jobs:
    """All jobs of a server.

    Args:
        wake: called when a job was cancelled: wakes whatever waits for other servers to join it.
        limit: how many may run at once.
    """

    def __init__(self, wake: Callable[[], None], limit: int = limits.MAX_JOBS):
        self._wake = wake
        self._limit = limit
        self._lock = threading.Lock()
        self._running: dict[bytes, Job] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def begin(self, job_id: bytes, owner: str, deadline: float) -> Iterator[Job]:
        """Registers a job for the length of a `with` block.

        Raises:
            SecurityError: not a job id, or one that was used before: a job never runs twice.
            ClusterError: too many jobs run already.
        """
        if len(job_id) != limits.ID_BYTES:
            raise SecurityError(f"expected a job id of {limits.ID_BYTES} bytes. Received: {len(job_id)}")
        job = Job(job_id, owner, deadline, self._wake)
        with self._lock:
            if job_id in self._seen:
                raise SecurityError("this job id was used before; every job needs a fresh one")
            if len(self._running) >= self._limit:
                raise ServerBusy(
                    f"{self._limit} jobs run on this server already; wait for one to end, or run one after the other"
                )
            self._seen[job_id] = None
            while len(self._seen) > limits.REMEMBERED_JOBS:
                self._seen.popitem(last=False)
            self._running[job_id] = job
        try:
            yield job
        finally:
            with self._lock:
                del self._running[job_id]

    def cancel(self, job_id: bytes, owner: str) -> bool:
        """Cancels a running job of this owner; False when there is none (it may have ended)."""
        with self._lock:
            job = self._running.get(job_id)
        if job is None or job.owner != owner:
            return False
        job.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancels every job: the server ends."""
        with self._lock:
            jobs = list(self._running.values())
        for job in jobs:
            job.cancel()


class ServerBusy(ClusterError):
    """As many jobs as the server takes run already."""


class PlanNotPrepared(HandleNotFound):
    """The server does not know a plan with this digest (any more); send it again."""
