"""The calls by which clients save shares on a server's disk and find them again."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from private_keras.errors import HandleNotFound, InputError, PlanError, SecurityError
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.catalogue import COMMITTED, Row
from private_keras.server.entries import SavedTensor, checked
from private_keras.server.mapped import HANDLE_BYTES
from private_keras.server.material import Stored
from private_keras.server.oversight import Oversight
from private_keras.server.policy import Policy
from private_keras.server.sealed import sealed_bytes
from private_keras.server.sizes import stored_bytes
from private_keras.server.storage import NONCE_BYTES, Filling, Generation, Storage, check_name, check_names
from private_keras.server.store import Kept, Store
from private_keras.server.ties import Ties
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

    def __init__(self, storage: Storage, store: Store, kernel: Kernel, oversight: Oversight):
        self._storage = storage
        self._oversight = oversight
        self._store = store
        self._kernel = kernel

    def save(self, first: wire.SaveRequest, rest: Iterator[wire.SaveRequest], identity: str) -> wire.SaveReply:
        """Writes tensors of the caller."""
        head = _Head(first, identity)
        parts: list[Stored] = []
        for request in itertools.chain((first,), rest):
            for entry in request.entries:
                item = _tensor(entry)
                part, terms = self._store.held(entry.handle, identity, repr(item.label))
                if part.size != item.size:
                    raise InputError(
                        f"{item.label!r}: expected shape {item.shape} with {item.size} elements. "
                        f"Received: shares of {part.size} elements"
                    )
                if item.row != terms.row and terms.by_rows:
                    raise InputError(
                        f"{item.label!r}: expected rows of {terms.row} elements, as these shares of others have. "
                        f"Received: shape {item.shape}"
                    )
                head.add(replace(item, seeded=part.seeded, terms=terms))
                parts.append(part)
        with head.writing(self._storage, [part.ties for part in parts]) as writer:
            for part in parts:
                for piece in part.pieces():
                    writer.feed(piece)
        self._log("save", first.snapshot, identity, policy=head.policy.to_json())
        return wire.SaveReply()

    def put(self, first: wire.PutRequest, rest: Iterator[wire.PutRequest], identity: str) -> wire.PutReply:
        """Writes what the caller sends, tensor by tensor: none of it is ever in memory as a whole."""
        head = _Head(first, identity)
        request: wire.PutRequest | None = first
        while request is not None and not request.data:
            for entry in request.entries:
                head.add(replace(_tensor(entry), seeded=True))
            request = next(rest, None)
        if request is not None:
            for entry in request.entries:
                head.add(replace(_tensor(entry), seeded=True))
        with head.writing(self._storage) as writer:
            stored = sealed_bytes(writer.left)
            while request is not None:
                if len(request.data) > writer.left:
                    raise InputError(f"expected {writer.left} bytes more of material. Received: {len(request.data)}")
                writer.feed(request.data)
                request = next(rest, None)
                if request is not None and request.entries:
                    raise InputError("expected all tensors before their material. Received: one between")
        self._log("put", first.snapshot, identity, policy=head.policy.to_json())
        return wire.PutReply(stored=stored)

    def commit(self, request: wire.CommitRequest, identity: str) -> wire.CommitReply:
        """Makes what was written loadable."""
        self._storage.commit(identity, _generation(request.snapshot))
        self._log("commit", request.snapshot, identity)
        return wire.CommitReply()

    def saved(self, request: wire.SavedRequest, identity: str) -> Iterator[wire.SavedReply]:
        """What the caller has saved, or may use of others'."""
        name = check_name(request.name) if request.name else ""
        rows = self._storage.usable(identity, name) if request.others else self._storage.saved(identity, name)
        reply = wire.SavedReply()
        for row in rows:
            for found in _found(row, identity):
                reply.found.append(found)
                if len(reply.found) >= ENTRIES or reply.ByteSize() > limits.CHUNK_BYTES:
                    yield reply
                    reply = wire.SavedReply()
        yield reply

    def load(self, request: wire.LoadRequest, identity: str) -> Iterator[wire.LoadReply]:
        """Puts saved tensors into the store, under handles that follow from the caller's `base`.

        Small ones are read now; large ones stay where they are, and take next to no room until a job takes them.
        """
        if len(request.base) != limits.ID_BYTES:
            raise InputError(f"expected {limits.ID_BYTES} random bytes for the handles. Received: {len(request.base)}")
        owner, generation = request.snapshot.owner or identity, _generation(request.snapshot)
        if not self._oversight.may_load(generation.of(owner), identity):
            # As for a name that does not exist.
            raise HandleNotFound(f"no shares are saved as {generation.name!r} on this server that {identity} may use")
        opened = self._storage.opened(owner, generation)
        entries, source = opened.row.entries, opened.row.source
        if owner != identity:
            with self._storage.catalogue.transaction():
                if not self._storage.catalogue.names.lend(source):
                    raise HandleNotFound(f"no shares are saved as {source.name!r} on this server any more")
                self._oversight.audit.write("load", [identity, owner], caller=identity, source=str(source))
        handles = [loaded_handle(request.base, index) for index in range(len(entries))]
        self._store.check_free(handles, identity)
        sizes = [_resident_bytes(entry.size) for entry in entries]
        with self._store.room(sum(sizes), identity) as room:
            items = []
            for handle, part, size, entry in zip(handles, opened.tensors(self._kernel), sizes, entries, strict=True):
                if owner == identity:
                    terms = replace(entry.terms, row=entry.row)
                else:
                    terms = entry.terms.loaded(source, entry.label, entry.row)
                items.append(Kept(handle, part if size == HANDLE_BYTES else part.whole(), size, terms))
            self._store.put(identity, items, room)
        said = [wire.Entry(label=e.label, shape=e.shape, fraction=e.fraction, dtype=e.dtype) for e in entries]
        try:
            yield from pieces(wire.LoadReply, {"about": opened.row.about}, said)
        except BaseException:  # the client is gone and will not use them
            self._store.delete(handles, identity)
            raise

    def forget(self, request: wire.ForgetRequest, identity: str) -> wire.ForgetReply:
        """Removes saved shares of the caller, and what is left of those that were removed before."""
        generations = [_generation(snapshot) for snapshot in request.snapshots]
        forgotten = 0
        for snapshot, generation in zip(request.snapshots, generations, strict=True):
            if self._storage.forget(identity, [generation]):
                forgotten += 1
                self._log("forget", snapshot, identity)
        policies = 0
        if request.policies:
            check_names(request.policies)
            with self._storage.catalogue.transaction():
                policies = self._storage.catalogue.names.forget_policies(identity, request.policies)
                if policies:
                    self._oversight.audit.write(
                        "policies", [identity], caller=identity, name=request.policies, forgotten=policies
                    )
        return wire.ForgetReply(forgotten=forgotten, policies=policies)

    def _log(self, event: str, snapshot: wire.Snapshot, identity: str, **facts: str) -> None:
        self._oversight.audit.write(
            event, [identity], caller=identity, name=snapshot.name, number=snapshot.number, **facts
        )  # fmt: skip


class _Head:
    """What a client says of shares before they are written."""

    def __init__(self, first: wire.SaveRequest | wire.PutRequest, owner: str):
        self._owner = owner
        if first.snapshot.owner not in ("", owner):
            raise SecurityError("expected shares of the caller's own. Received: a name of somebody else")
        self._generation = _generation(first.snapshot)
        if len(first.about.encode()) > limits.ABOUT_BYTES:
            raise InputError(f"expected a description of at most {limits.ABOUT_BYTES} bytes. Received: more")
        self._about = first.about
        self.policy = Policy.from_json(first.policy)
        self._entries: dict[str, SavedTensor] = {}

    def add(self, item: SavedTensor) -> None:
        """The next tensor."""
        if item.label in self._entries or len(self._entries) >= limits.MAX_HANDLES:
            raise InputError(
                f"expected at most {limits.MAX_HANDLES} tensors, each under a name of its own. "
                f"Received: {item.label!r} twice, or more"
            )
        self._entries[item.label] = item

    def writing(self, storage: Storage, ties: Sequence[Ties] | None = None) -> AbstractContextManager[Filling]:
        """The file that all of them go to; `ties` as in `Storage.writing`."""
        if not self._entries:
            raise InputError("expected at least one tensor to save. Received: none")
        return storage.writing(self._owner, self._generation, self._about, self._entries.values(), self.policy, ties)


def _resident_bytes(elements: int) -> int:
    """What a tensor takes in memory when it is loaded: all of a small one, next to nothing of a large one."""
    size = stored_bytes(elements)
    return size if size <= limits.RESIDENT_BYTES else HANDLE_BYTES


def _found(row: Row, identity: str) -> Iterator[wire.Found]:
    """A row as the caller may know it; one of many tensors in several, each with some of them."""
    source = row.source
    snapshot = wire.Snapshot(
        name=source.name, number=source.number, nonce=bytes.fromhex(source.nonce), owner=source.owner
    )
    about = {"snapshot": snapshot, "committed": row.state == COMMITTED, "bytes": row.bytes, "created": row.created}
    if source.owner == identity:
        about["policy"] = row.policy_text
    entries = [wire.Entry(label=e.label, shape=e.shape, fraction=e.fraction, dtype=e.dtype) for e in row.entries]
    for start in range(0, len(entries), ENTRIES):
        yield wire.Found(entries=entries[start : start + ENTRIES], **about)


def _generation(snapshot: wire.Snapshot) -> Generation:
    if len(snapshot.nonce) != NONCE_BYTES:
        raise InputError(f"expected a nonce of {NONCE_BYTES} bytes. Received: {len(snapshot.nonce)}")
    return Generation(check_name(snapshot.name), snapshot.number, snapshot.nonce)


def _tensor(entry: wire.Entry) -> SavedTensor:
    try:
        return checked(entry.label, list(entry.shape), entry.fraction, entry.dtype)
    except PlanError as error:
        raise InputError(str(error)) from None
