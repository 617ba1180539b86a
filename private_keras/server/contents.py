"""Where contributions to results wait for their receivers: in memory, or sealed on disk."""

import contextlib
import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from private_keras.errors import HandleNotFound
from private_keras.server import disk, limits
from private_keras.server.catalogue import Delivery
from private_keras.server.sizes import WORD
from private_keras.server.store import Room, Store
from private_keras.server.vault import Vault

FOLDER = "deliveries"


class Contents(ABC):
    """Thread safe."""

    @abstractmethod
    def check(self) -> None:
        """Raises where nothing can be kept: for a job whose results are to be."""

    @abstractmethod
    def keeping(
        self, delivery: Delivery, words: Sequence[np.ndarray], room: Room
    ) -> contextlib.AbstractContextManager[str]:
        """Keeps contributions under a name, which the `with` block is to note down; nothing is kept if that fails.

        Args:
            words: of outputs that this server contributes to, flat.
            room: in memory, for them.
        """

    @abstractmethod
    def read(self, delivery: Delivery) -> Iterator[tuple[int, bytes]]:
        """Number of output and a piece of its contribution, in order."""

    @abstractmethod
    def remove(self, delivery: Delivery) -> None:
        """Nobody wants it any more."""

    @abstractmethod
    def sweep(self, known: Callable[[str], bool]) -> None:
        """Removes what is kept under names that were never noted down."""


class InMemory(Contents):
    """Gone with the process; its room is of the store.

    Args:
        store: whose quota they share.
    """

    def __init__(self, store: Store):
        self._store = store
        self._kept: dict[str, Sequence[np.ndarray]] = {}

    def check(self) -> None:
        """There is always memory."""

    @contextlib.contextmanager
    def keeping(self, delivery: Delivery, words: Sequence[np.ndarray], room: Room) -> Iterator[str]:
        file = secrets.token_hex(16)
        self._kept[file] = words
        try:
            yield file
        except BaseException:
            del self._kept[file]
            raise
        room.nbytes -= delivery.nbytes

    def read(self, delivery: Delivery) -> Iterator[tuple[int, bytes]]:
        words = self._kept.get(delivery.file)
        if words is None:
            raise HandleNotFound("this result was received meanwhile")
        present = (index for index, item in enumerate(delivery.outputs) if item.present)
        for index, part in zip(present, words, strict=True):
            data = memoryview(part.astype(WORD, copy=False).view(np.uint8))
            for start in range(0, len(data), limits.CHUNK_BYTES):
                yield index, bytes(data[start : start + limits.CHUNK_BYTES])

    def remove(self, delivery: Delivery) -> None:
        if self._kept.pop(delivery.file, None) is not None:
            self._store.release(delivery.nbytes, delivery.sender)

    def sweep(self, known: Callable[[str], bool]) -> None:
        """A process begins with none."""


class OnDisk(Contents):
    """Survives the process: one sealed file for each delivery, bound to whose it is.

    Args:
        place: the server's, that files are bound to.
    """

    def __init__(self, vault: Vault, place: str):
        self._vault = vault
        self._place = place

    def check(self) -> None:
        self._vault.opened()
        self._vault.key(make=True)

    @contextlib.contextmanager
    def keeping(self, delivery: Delivery, words: Sequence[np.ndarray], room: Room) -> Iterator[str]:
        if not delivery.nbytes:
            yield ""
            return
        with self._vault.new(FOLDER) as file:
            writer = file.writer(self._context(delivery), delivery.nbytes)
            for part in words:
                data = memoryview(part.astype(WORD, copy=False).view(np.uint8))
                for start in range(0, len(data), limits.CHUNK_BYTES):
                    writer.feed(data[start : start + limits.CHUNK_BYTES])
            file.sync()
            yield file.name

    def read(self, delivery: Delivery) -> Iterator[tuple[int, bytes]]:
        if not delivery.nbytes:
            return
        what = f"the result {delivery.name!r} of {delivery.sender}"
        with disk.errors():
            file = self._vault.open(FOLDER, delivery.file, self._context(delivery), delivery.nbytes, what)
        at = 0
        for index, item in enumerate(delivery.outputs):
            end = at + item.nbytes
            while at < end:
                piece = file.bytes(at, min(limits.CHUNK_BYTES, end - at))
                at += len(piece)
                yield index, piece

    def remove(self, delivery: Delivery) -> None:
        if delivery.file:
            self._vault.remove(FOLDER, delivery.file)

    def sweep(self, known: Callable[[str], bool]) -> None:
        for path in self._vault.finished(FOLDER):
            if not known(path.name):
                self._vault.remove(FOLDER, path.name)

    def _context(self, delivery: Delivery) -> bytes:
        """What a file is bound to: all that is said of the delivery."""
        d = delivery
        said = ["delivery", self._place, d.id.hex(), d.sender, d.receiver, d.name, d.digest, d.servers, d.outputs_text]
        return hashlib.sha256(json.dumps(said).encode()).digest()
