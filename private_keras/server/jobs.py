"""Jobs that are on one server now, computing or waiting for their turn: whose, how many, and how to end them early."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from private_keras.errors import ClusterError, DeadlineExceeded, HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.server.allowance import Allowance
from private_keras.server.turns import Place, Turns
from private_keras.transport.stream import StreamChannel

TOOK = "the job took longer than its deadline; give a longer one or use smaller batches"
WAITED = "the job's deadline passed while it waited for its turn; give it a longer one, or run fewer jobs at once"


class JobCancelled(ClusterError):
    """The client ended the job, or went away."""


class Job:
    """One run of a plan on this server.

    Attributes:
        id: 16 bytes, the client's choice.
        owner: identity that runs it.
        deadline: `time.monotonic()` instant.
        waiting: whether its turn is still to come, as far as this server knows.
    """

    def __init__(self, job_id: bytes, owner: str, deadline: float, wake: Callable[[], None], turns: Turns):
        self.id = job_id
        self.owner = owner
        self.deadline = deadline
        self.waiting = False
        self._wake = wake
        self._turns = turns
        self._place = Place(owner)
        self._lock = threading.Lock()
        self._cancelled = False
        self._channels: list[StreamChannel] = []

    def check(self) -> None:
        """Raises when the job is to end: called between steps and while waiting."""
        if self._cancelled:
            raise JobCancelled("the job was cancelled by the client")
        if time.monotonic() > self.deadline:
            raise DeadlineExceeded(WAITED if self.waiting else TOOK)

    def wait_turn(self, beat: Callable[[], None]) -> None:
        """Returns when it is the job's turn to compute, which it has until its end; raises as `Turns.take`."""
        self.waiting = True
        self._turns.take(self._place, self.check, beat)
        self.waiting = False

    def leave(self) -> None:
        """The job is over: another one's turn."""
        self._turns.leave(self._place)

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
        self._place.changed.set()
        self._wake()


class Jobs:
    """All jobs of a server.

    Args:
        wake: called when a job was cancelled: wakes whatever waits for other servers to join it.
        allowance: how many there may be.

    Attributes:
        turns: which of them compute.
    """

    def __init__(self, wake: Callable[[], None], allowance: Allowance):
        self._wake = wake
        self._allowance = allowance
        self.turns = Turns(allowance.jobs, allowance.jobs_each)
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._draining = False
        self._running: dict[bytes, Job] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def begin(self, job_id: bytes, owner: str, deadline: float) -> Iterator[Job]:
        """Registers a job for the length of a `with` block.

        Raises:
            SecurityError: not a job id, or one that was used before: a job never runs twice.
            ServerBusy: too many jobs are here already, or the server is about to end.
        """
        if len(job_id) != limits.ID_BYTES:
            raise SecurityError(f"expected a job id of {limits.ID_BYTES} bytes. Received: {len(job_id)}")
        job = Job(job_id, owner, deadline, self._wake, self.turns)
        with self._lock:
            if job_id in self._seen:
                raise SecurityError("this job id was used before; every job needs a fresh one")
            if self._draining:
                raise ServerBusy("this server is about to end and takes no new jobs; try again when it is back")
            own = sum(other.owner == owner for other in self._running.values())
            if len(self._running) >= self._allowance.present or own >= self._allowance.present_each:
                raise ServerBusy(
                    f"{len(self._running)} jobs are on this server, {own} of this client, of at most "
                    f"{self._allowance.present} and {self._allowance.present_each}; wait for one to end"
                )
            self._seen[job_id] = None
            while len(self._seen) > limits.REMEMBERED_JOBS:
                self._seen.popitem(last=False)
            self._running[job_id] = job
        try:
            yield job
        finally:
            job.leave()
            with self._lock:
                del self._running[job_id]
                self._drained.notify_all()

    def drain(self, seconds: float) -> bool:
        """Takes no new jobs from now; waits until those here have ended, and says whether they have in time."""
        with self._lock:
            self._draining = True
            return self._drained.wait_for(lambda: not self._running, seconds)

    @property
    def draining(self) -> bool:
        """Whether new jobs are refused because the server is about to end."""
        return self._draining

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
    """As many jobs as the server takes are there already, or it is about to end."""


class PlanNotPrepared(HandleNotFound):
    """The server does not know a plan with this digest (any more); send it again."""
