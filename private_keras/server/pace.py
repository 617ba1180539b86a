"""How often a client may ask, and how much at once: calls of one client must not keep all others out.

So many requests a minute, with as many in one go as it has not used before; so many calls that are not over.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from private_keras.errors import ClusterError

# Calls that cost a server something and are the client's to repeat or not.
COUNTED = frozenset({
    "Run", "RunShort", "Prepare", "Probe", "Upload", "Put", "Save", "Load", "SetPolicy", "PlanText", "Receive", "Audit",
})  # fmt: skip


class Pace:
    """Thread safe.

    Args:
        a_minute: requests of one identity; 0 for any number.
        at_once: calls of one identity, of whatever kind.
    """

    def __init__(self, a_minute: int, at_once: int):
        self._a_minute = a_minute
        self._at_once = at_once
        self._present: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}  # by identity: requests, and when there were so many

    def count(self, identity: str, call: str) -> None:
        """Raises `TooManyRequests` for a call that comes too soon."""
        if not self._a_minute or call not in COUNTED:
            return
        now = time.monotonic()
        with self._lock:
            left, then = self._left.get(identity, (float(self._a_minute), now))
            left = min(float(self._a_minute), left + (now - then) * self._a_minute / 60)
            if left < 1:
                raise TooManyRequests(
                    f"{identity} may make {self._a_minute} requests a minute; wait "
                    f"{(1 - left) * 60 / self._a_minute:.1f} s"
                )
            self._left[identity] = left - 1, now


    @contextmanager
    def present(self, identity: str) -> Iterator[None]:
        """A call, for the length of a `with` block; raises `TooManyRequests` where the client has too many already."""
        with self._lock:
            if self._present[identity] >= self._at_once:
                raise TooManyRequests(
                    f"{identity} has {self._at_once} calls on this server that are not over; wait for one to end"
                )
            self._present[identity] += 1
        try:
            yield
        finally:
            with self._lock:
                self._present[identity] -= 1
                if not self._present[identity]:
                    del self._present[identity]


class TooManyRequests(ClusterError):
    """A client asks more often than the server's operator allows."""
