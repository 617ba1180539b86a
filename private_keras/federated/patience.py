"""Waiting for others: longer and longer pauses up to a limit, and servers that are away for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from private_keras.errors import DeadlineExceeded, HandleNotFound, PeerLost, ServerUnavailable

Result = TypeVar("Result")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
# A lost server is looked for this often at first.
GROWTH = 1.5


class Patience:
    """How long something may take to come.

    Args:
        seconds: without `reset`.
        what: for the error.
    """

    def __init__(self, seconds: float, what: str):
        self._seconds = seconds
        self._what = what
        self.reset()

    def reset(self) -> None:
        """Something came."""
        self._since = time.monotonic()
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return self._since + self._seconds - time.monotonic()

    def pause(self) -> None:
        """Waits a little; raises `DeadlineExceeded` at the end of the patience."""
        if self.left <= 0:
            raise DeadlineExceeded(f"{self._what} within {self._seconds:g} s")
        time.sleep(max(0.0, min(self._pause, self.left)))
        self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)

    def call(self, action: Callable[[], Result]) -> Result:
        """What an action gives, tried again while servers cannot be reached."""
        while True:
            try:
                return action()
            except HandleNotFound:
                raise
            except (ServerUnavailable, PeerLost, DeadlineExceeded):
                if self.left <= 0:
                    raise
                self.pause()
