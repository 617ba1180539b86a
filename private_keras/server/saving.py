"""The calls by which clients save shares on a server's disk and find them again."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from private_keras.errors import InputError, PlanError
from private_keras.server import limits
from private_keras.server.snapshot import SavedTensor, checked
from private_keras.server.storage import NONCE_BYTES, Generation, Storage, check_name
from private_keras.server.store import Kept, Store
from private_keras.server.wire import messages_pb2 as wire

Message = TypeVar("Message")
# A message of entries holds at most this many; each is small.
ENTRIES = 4096


def loaded_handle(base: bytes, index: int) -> bytes:
    """The handle under which the entry with that index comes back."""
    return hashlib.sha256(base + index.to_bytes(8, "little")).digest()[: limits.ID_BYTES]


def pieces(make: Callable[..., Message], first: dict[str, Any], entries: list[wire.Entry]) -> Iterator[Message]:
    """Messages with all entries; `first` goes with the first one."""
    for start in range(0, max(1, len(entries)), ENTRIES):
        yield make(entries=entries[start : start + ENTRIES], **(first if start == 0 else {}))


class Saving:
    """Answers clients; `identity` is who calls."""

    def __init__(self, storage: Storage, store: Store):
        self._storage = storage
        self._store = store

    def save(self, first: wire.SaveRequest, rest: Iterator[wire.SaveRequest], identity: str) -> wire.SaveReply:
        """Writes tensors of the caller."""
        generation = _generation(first.snapshot)
        if len(first.about.encode()) > limits.ABOUT_BYTES:
            raise InputError(f"expected a description of at most {limits.ABOUT_BYTES} bytes. Received: more")
        items, labels = [], set()
        request: wire.SaveRequest | None = first
        while request is not None:
            for entry in request.entries:
                item = _tensor(entry)
                if item.label in labels or len(items) >= limits.MAX_HANDLES:
                    raise InputError(
                        f"expected at most {limits.MAX_HANDLES} tensors, each under a name of its own. "
                        f"Received: {item.label!r} twice, or more"
                    )
                labels.add(item.label)
                material = self._store.get(entry.handle, identity, repr(item.label))
                if material.mask.size != item.size:
                    raise InputError(
                        f"{item.label!r}: expected shape {item.shape} with {item.size} elements. "
                        f"Received: shares of {material.mask.size} elements"
                    )
                items.append((item, material))
            request = next(rest, None)
        if not items:
            raise InputError("expected at least one tensor to save. Received: none")
        self._storage.save(identity, generation, first.about, items)
        return wire.SaveReply()

    def commit(self, request: wire.CommitRequest, identity: str) -> wire.CommitReply:
        """Makes what was written loadable."""
        self._storage.commit(identity, _generation(request.snapshot))
        return wire.CommitReply()

    def saved(self, request: wire.SavedRequest, identity: str) -> Iterator[wire.SavedReply]:
        """What the caller has saved."""
        name = check_name(request.name) if request.name else ""
        found = [
            wire.Found(snapshot=wire.Snapshot(name=g.name, number=g.number, nonce=g.nonce), committed=committed)
            for g, committed in self._storage.saved(identity, name)
        ]
        for start in range(0, max(1, len(found)), ENTRIES):
            yield wire.SavedReply(found=found[start : start + ENTRIES])

    def load(self, request: wire.LoadRequest, identity: str) -> Iterator[wire.LoadReply]:
        """Puts saved tensors into the store, under handles that follow from the caller's `base`."""
        if len(request.base) != limits.ID_BYTES:
            raise InputError(f"expected {limits.ID_BYTES} random bytes for the handles. Received: {len(request.base)}")
        with self._storage.opened(identity, _generation(request.snapshot)) as opened:
            head = opened.head
            handles = [loaded_handle(request.base, index) for index in range(len(head.entries))]
            self._store.check_free(handles)
            with self._store.room(8 * head.words, identity) as room:
                parts = opened.read()
                items = [Kept(handle, part, part.nbytes) for handle, part in zip(handles, parts, strict=True)]
                self._store.put(identity, items, room)
        entries = [wire.Entry(label=e.label, shape=e.shape, fraction=e.fraction) for e in head.entries]
        try:
            yield from pieces(wire.LoadReply, {"about": head.about}, entries)
        except BaseException:  # the client is gone and will not use them
            self._store.delete(handles, identity)
            raise

    def forget(self, request: wire.ForgetRequest, identity: str) -> wire.ForgetReply:
        """Removes saved shares of the caller."""
        generations = [_generation(snapshot) for snapshot in request.snapshots]
        return wire.ForgetReply(forgotten=self._storage.forget(identity, generations))


def _generation(snapshot: wire.Snapshot) -> Generation:
    if len(snapshot.nonce) != NONCE_BYTES:
        raise InputError(f"expected a nonce of {NONCE_BYTES} bytes. Received: {len(snapshot.nonce)}")
    return Generation(check_name(snapshot.name), snapshot.number, snapshot.nonce)


def _tensor(entry: wire.Entry) -> SavedTensor:
    try:
        return SavedTensor(*checked(entry.label, list(entry.shape), entry.fraction))
    except PlanError as error:
        raise InputError(str(error)) from None
