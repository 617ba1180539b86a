"""Results for others than who ran the job: this server's contributions, until their receivers have fetched them.

The catalogue says what waits; the contributions are beside it, on disk where the server has a directory. What is noted
down there is whole, and what is not is removed at the next start: a contribution is on disk before its row is, and its
row is gone before it is. A contribution alone is independent of the result (docs/security.md, "output"), and a receiver
needs those of all servers.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from private_keras.errors import ClusterError, HandleNotFound, PrivateKerasError, SecurityError
from private_keras.server import limits
from private_keras.server.catalogue import Catalogue, Delivery
from private_keras.server.contents import Contents
from private_keras.server.store import Room, StoreFull


class Outbox:
    """Thread safe.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, catalogue: Catalogue, contents: Contents, now: Callable[[], float] = time.time):
        self._catalogue = catalogue
        self._waiting = catalogue.deliveries
        self._contents = contents
        self._now = now
        # What is wrong with the directory is said when it is used.
        with contextlib.suppress(PrivateKerasError, OSError):
            contents.sweep(self._waiting.has)

    def check_free(self, job: bytes, sender: str, receivers: Sequence[str], nbytes: int) -> None:
        """For a job whose results are to be put.

        Args:
            nbytes: of contributions to all receivers, at most.

        Raises:
            StoreFull: there is no place.
            SecurityError: it is taken.
            ClusterError: the disk or its key cannot be used.
        """
        self._sweep()
        self._contents.check()
        if any(self._waiting.find(job, receiver) is not None for receiver in receivers):
            # Servers remember ids of jobs for long, and not for ever.
            raise SecurityError("results of a job with this id wait already; every job needs a fresh one")
        self._check_room(sender, len(receivers), nbytes)

    def _check_room(self, sender: str, count: int, nbytes: int) -> None:
        used = self._waiting.usage(sender)
        if used.own + count > limits.MAX_DELIVERIES_EACH or used.all + count > limits.MAX_DELIVERIES:
            raise StoreFull(
                f"{used.own} results of this client wait for their receivers, {used.all} of all clients, of at most "
                f"{limits.MAX_DELIVERIES_EACH} and {limits.MAX_DELIVERIES}; let them be received first"
            )
        if used.own_bytes + nbytes > limits.DELIVERY_BYTES_EACH or used.all_bytes + nbytes > limits.DELIVERY_BYTES:
            raise StoreFull(
                f"results of this client that wait for their receivers take {used.own_bytes} bytes, of all clients "
                f"{used.all_bytes}, of at most {limits.DELIVERY_BYTES_EACH} and {limits.DELIVERY_BYTES}: no room for "
                f"{nbytes} more; let them be received first"
            )

    def put(
        self, deliveries: Sequence[tuple[Delivery, Sequence[np.ndarray]]], room: Room, note: Callable[[], None]
    ) -> None:
        """Keeps results for their receivers, all or none, on disk when this returns.

        Args:
            deliveries: each with the words of outputs that this server contributes to.
            room: in memory, for them.
            note: called when they are kept, in one transaction with that.
        """
        with contextlib.ExitStack() as held:
            kept = [
                replace(delivery, file=held.enter_context(self._contents.keeping(delivery, words, room)))
                for delivery, words in deliveries
            ]
            with self._catalogue.transaction():
                for delivery in kept:
                    if self._waiting.find(delivery.id, delivery.receiver) is not None:
                        raise SecurityError("results of a job with this id wait already")
                    self._check_room(delivery.sender, 1, delivery.stored_bytes)
                    self._waiting.add(delivery)
                note()

    def listed(self, receiver: str) -> Iterator[Delivery]:
        """What waits for a receiver, oldest first."""
        self._sweep()
        return (found for found in self._waiting.of(receiver) if found.created >= self._oldest)

    def get(self, job: bytes, receiver: str) -> Delivery:
        """A result for this receiver. Another's looks like one that does not exist.

        Raises:
            HandleNotFound: with advice.
        """
        self._sweep()
        found = self._waiting.find(job, receiver)
        if found is None or found.created < self._oldest:
            lost = "" if self._catalogue.durable else "lost in a restart, "
            raise HandleNotFound(
                "this result is not on this server: received before, older than "
                f"{limits.DELIVERY_SECONDS / 86400:g} days, {lost}or for another receiver"
            )
        return found

    def read(self, delivery: Delivery) -> Iterator[tuple[int, bytes]]:
        """Pieces of the contributions: number of output and bytes.

        Raises:
            FileError: damaged, or not sealed by this server's key.
        """
        return self._contents.read(delivery)

    def forget(self, job: bytes, receiver: str, note: Callable[[Delivery], None]) -> None:
        """Removes a result that its receiver has; without effect where there is none.

        Args:
            note: told what it was, in one transaction with its removal.
        """
        found = self._waiting.find(job, receiver)
        if found is not None:
            self._drop(found, note)

    def withdraw(self, jobs: Sequence[bytes], sender: str) -> int:
        """Removes what a sender's jobs have left for others; how many there were."""
        return sum(self._drop(found) for found in self._waiting.sent(frozenset(jobs), sender))

    def _sweep(self) -> None:
        # Where the disk refuses, what is too old is passed over until it can go.
        with contextlib.suppress(ClusterError):
            for found in self._waiting.older(self._oldest):
                self._drop(found)

    @property
    def _oldest(self) -> float:
        return self._now() - limits.DELIVERY_SECONDS

    def _drop(self, delivery: Delivery, note: Callable[[Delivery], None] | None = None) -> bool:
        """Removes a result; whether it was still there."""
        try:
            removed = self._struck(delivery, note)
        except ClusterError:
            # A disk without room even for that has some when the file is gone.
            self._contents.remove(delivery)
            return self._struck(delivery, note)
        self._contents.remove(delivery)
        return removed

    def _struck(self, delivery: Delivery, note: Callable[[Delivery], None] | None) -> bool:
        with self._catalogue.transaction():
            removed = self._waiting.remove(delivery.id, delivery.receiver)
            if removed and note is not None:
                note(delivery)
            return removed
