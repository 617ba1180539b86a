"""Whose turn it is to compute: some jobs at once, the others wait, and identities take turns.

Server 0 alone gives turns, and only to jobs that all their servers have come to (`lanes.py`). The others compute what
server 0 has given a turn, and hold none themselves. So no job that computes waits for one that does not, whatever order
jobs come in at each server.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

# Between two words to the servers that wait for a job's turn; below `limits.JOIN_SECONDS` by far.
BEAT_SECONDS = 5.0
# Between two looks at a waiting job's deadline.
LOOK_SECONDS = 0.1


class Place:
    """A job's place in the queue, from its arrival to its end.

    Attributes:
        owner: identity that runs the job.
        changed: set when it is the job's turn, and when the job is to look whether it has to end.
    """

    def __init__(self, owner: str):
        self.owner = owner
        self.changed = threading.Event()


class Turns:
    """Thread safe.

    Args:
        limit: of jobs that compute at once.
        each: of one identity.
    """

    def __init__(self, limit: int, each: int):
        self._limit, self._each = limit, each
        self._lock = threading.Lock()
        self._computing: set[Place] = set()
        self._waiting: OrderedDict[str, deque[Place]] = OrderedDict()  # whose turn is next stands first
        self.waited = 0.0  # seconds, of all jobs together

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        with self._lock:
            return sum(len(places) for places in self._waiting.values())

    def take(self, place: Place, check: Callable[[], None], beat: Callable[[], None]) -> None:
        """Returns when it is the job's turn. Raises what these two raise.

        Args:
            check: raises when the job has to end, as it has at its deadline.
            beat: called when the job has to wait, and now and then while it does.
        """
        began = time.monotonic()
        with self._lock:
            self._waiting.setdefault(place.owner, deque()).append(place)
            self._give()
            if place in self._computing:
                return
        while True:
            beat()
            if self._wait(place, check, time.monotonic() + BEAT_SECONDS):
                with self._lock:
                    self.waited += time.monotonic() - began
                return

    def _wait(self, place: Place, check: Callable[[], None], until: float) -> bool:
        """Whether it has become the job's turn by then."""
        while (left := until - time.monotonic()) > 0:
            place.changed.wait(min(left, LOOK_SECONDS))
            place.changed.clear()
            with self._lock:
                if place in self._computing:
                    return True
            check()
        return False

    def leave(self, place: Place) -> None:
        """The job has ended, whether it had its turn or not."""
        with self._lock:
            self._computing.discard(place)
            places = self._waiting.get(place.owner)
            if places is not None and place in places:
                places.remove(place)
                if not places:
                    del self._waiting[place.owner]
            self._give()

    def _give(self) -> None:
        while len(self._computing) < self._limit:
            owner = next((owner for owner in self._waiting if self._count(owner) < self._each), None)
            if owner is None:
                return
            place = self._waiting[owner].popleft()
            if self._waiting[owner]:
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
            self._computing.add(place)
            place.changed.set()

    def _count(self, owner: str) -> int:
        return sum(place.owner == owner for place in self._computing)
