"""Which clusters are open, the one in use last: what everything that is not given a cluster runs on."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Active(Generic[T]):
    """A stack, thread safe.

    Attributes:
        lock: held for several steps in one.
        loose: the item that no `with` block will end.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loose: T | None = None
        self._stack: list[T] = []

    def push(self, item: T) -> None:
        """`item` is in use until it is removed; one that is here already comes to the top."""
        with self.lock:
            self.remove(item)
            self._stack.append(item)

    def remove(self, item: T) -> None:
        """What was in use before is in use again; without effect for an item that is not here."""
        with self.lock:
            if item in self._stack:
                self._stack.remove(item)
            if item is self.loose:
                self.loose = None

    def top(self) -> T | None:
        """The item in use."""
        with self.lock:
            return self._stack[-1] if self._stack else None
