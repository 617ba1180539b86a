"""Results for others than who ran the job: this server's contributions, until their receivers have fetched them.

In memory: a restart loses them, as it loses handles; whoever ran the job runs it again. A contribution alone is
independent of the result (docs/security.md, "output"), and a receiver needs those of all servers.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.server.store import Room, Store, StoreFull


@dataclass(frozen=True)
class Opened:
    """One output.

    Attributes:
        words: this server's contribution, flat; None where it contributes nothing.
    """

    name: str
    shape: tuple[int, ...]
    fraction: int
    words: np.ndarray | None = field(repr=False)

    @property
    def nbytes(self) -> int:
        return 0 if self.words is None else self.words.nbytes


@dataclass(frozen=True)
class Delivery:
    """What one job opened to one receiver.

    Attributes:
        id: of the job.
        name: the sender's choice.
        digest: of the plan, in hex.
        servers: how many took part in the job; the receiver needs the contributions of all.
        created: seconds since 1970, by this server's clock.
    """

    id: bytes
    sender: str
    receiver: str
    name: str
    digest: str
    servers: int
    outputs: tuple[Opened, ...]
    created: float = field(default_factory=time.time)

    @property
    def nbytes(self) -> int:
        return sum(item.nbytes for item in self.outputs)


class Outbox:
    """Thread safe.

    Args:
        store: whose quota they share.
        now: seconds since 1970.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time):
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._kept: dict[tuple[bytes, str], Delivery] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def check_free(self, job: bytes, sender: str, receivers: Sequence[str]) -> None:
        """Raises `StoreFull` where there is no place, `SecurityError` where it is taken: for a job whose results are to
        be put.
        """
        with self._lock:
            self._sweep()
            if any((job, receiver) in self._kept for receiver in receivers):
                # Servers remember ids of jobs for long, and not for ever.
                raise SecurityError("results of a job with this id wait already; every job needs a fresh one")
            own = sum(delivery.sender == sender for delivery in self._kept.values())
            if own + len(receivers) > limits.MAX_DELIVERIES_EACH or (
                len(self._kept) + len(receivers) > limits.MAX_DELIVERIES
            ):
                raise StoreFull(
                    f"{own} results of this client wait for their receivers, {len(self._kept)} of all clients, of at "
                    f"most {limits.MAX_DELIVERIES_EACH} and {limits.MAX_DELIVERIES}; let them be received first"
                )

    def put(self, deliveries: Sequence[Delivery], room: Room) -> None:
        """Keeps results for their receivers; their part of the room is theirs from now."""
        with self._lock:
            for delivery in deliveries:
                self._kept[delivery.id, delivery.receiver] = delivery
                room.nbytes -= delivery.nbytes

    def listed(self, receiver: str) -> list[Delivery]:
        """What waits for a receiver, oldest first."""
        with self._lock:
            self._sweep()
            found = [delivery for delivery in self._kept.values() if delivery.receiver == receiver]
        return sorted(found, key=lambda delivery: delivery.created)

    def get(self, job: bytes, receiver: str) -> Delivery:
        """A result for this receiver. Another's looks like one that does not exist.

        Raises:
            HandleNotFound: with advice.
        """
        with self._lock:
            self._sweep()
            found = self._kept.get((job, receiver))
        if found is None:
            raise HandleNotFound(
                "this result is not on this server: received before, older than "
                f"{limits.DELIVERY_SECONDS / 86400:g} days, lost in a restart, or for another receiver"
            )
        return found

    def forget(self, job: bytes, receiver: str) -> Delivery | None:
        """Removes a result that its receiver has; what it was."""
        with self._lock:
            return self._drop(job, receiver)

    def withdraw(self, jobs: Sequence[bytes], sender: str) -> int:
        """Removes what a sender's jobs have left for others; how many there were."""
        gone = set(jobs)
        with self._lock:
            found = [key for key, delivery in self._kept.items() if key[0] in gone and delivery.sender == sender]
            for key in found:
                self._drop(*key)
        return len(found)

    def _sweep(self) -> None:
        old = self._now() - limits.DELIVERY_SECONDS
        for key in [key for key, delivery in self._kept.items() if delivery.created < old]:
            self._drop(*key)

    def _drop(self, job: bytes, receiver: str) -> Delivery | None:
        found = self._kept.pop((job, receiver), None)
        if found is not None:
            self._store.release(found.nbytes, found.sender)
        return found
