"""Shares saved on the disks of all servers at once: written everywhere, then committed everywhere.

A save that breaks off anywhere, by whoever dies, leaves what could be loaded before or what was to be saved. Loading
takes the newest generation that all servers have committed.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

from private_keras.cluster.client import ServerClient
from private_keras.cluster.handle import Handle
from private_keras.cluster.putting import Column, put
from private_keras.errors import HandleNotFound, InputError, PrivateKerasError, VersionMismatch
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.policy import Policy
from private_keras.server.saving import loaded_handle
from private_keras.server.storage import NONCE_BYTES, Generation, check_name, generation_of
from private_keras.server.terms import Source

CLEAN_SECONDS = 5.0


def check_save(name: str, handles: Mapping[str, Handle], about: str, incarnation: str) -> None:
    """Raises what is wrong with arguments of `save`, before any server is asked."""
    check_name(name)
    if not isinstance(about, str) or len(about.encode()) > limits.ABOUT_BYTES:
        raise InputError(f"about: expected text of at most {limits.ABOUT_BYTES} bytes. Received: other or more")
    if not handles or not all(isinstance(handle, Handle) for handle in handles.values()):
        raise InputError(
            f"expected handles of tensors to save, by name. Received: {len(handles)} items of "
            f"{sorted({type(handle).__name__ for handle in handles.values()})}"
        )
    for handle in handles.values():
        if handle.incarnation != incarnation:
            raise HandleNotFound(f"the shares of {handle.name!r} were lost when a server was started anew")


class Snapshots:
    """What a client has saved on its servers.

    Args:
        clients: by party.
        pool: threads for their calls.
    """

    def __init__(self, clients: list[ServerClient], pool: futures.Executor, kernel: Kernel):
        self._clients = clients
        self._pool = pool
        self._kernel = kernel

    def save(self, name: str, handles: Mapping[str, Handle], about: str, policy: Policy) -> None:
        """Saves a new generation and removes the older ones."""
        text = policy.to_json()
        with self._new(name) as generation:
            self._all(lambda client: client.save(generation, handles, about, text))

    def put(
        self, name: str, columns: Mapping[str, Column], about: str, policy: Policy, on_done: Callable[[int], None]
    ) -> None:
        """Saves data as it comes; removes older generations when all of it is there."""
        text = policy.to_json()
        with self._new(name) as generation:
            put(self._clients, self._pool, self._kernel, generation, columns, about, text, on_done)

    @contextlib.contextmanager
    def _new(self, name: str) -> Iterator[Generation]:
        """A generation, to be written on all servers in the `with` block: then it counts, and the older ones go."""
        older = {generation_of(source) for found in self._all(lambda client: client.saved(name)) for source in found}
        number = 1 + max((generation.number for generation in older), default=0)
        generation = Generation(name, number, secrets.token_bytes(NONCE_BYTES))
        try:
            yield generation
            self._all(lambda client: client.commit(generation))
        except BaseException:
            self._forget([generation])
            raise
        self._forget(sorted(older))

    def load(self, name: str, owner: str | None, incarnation: str) -> tuple[dict[str, Handle], str]:
        """New handles of the newest generation that all servers have."""
        check_name(name)
        common = self._common(name, owner)
        if not common:
            whose = "or by another identity" if owner is None else f"or {owner} does not let this identity use them"
            raise HandleNotFound(f"no shares are saved as {name!r} on all servers, {whose}")
        source, base = max(common), secrets.token_bytes(limits.ID_BYTES)
        tasks = [self._pool.submit(client.load, source, owner is None, base) for client in self._clients]
        try:
            futures.wait(tasks)
            replies = [task.result() for task in tasks]
            if any(reply != replies[0] for reply in replies):
                raise VersionMismatch(f"the servers hold different tensors as {name!r}; save them again")
        except BaseException:
            futures.wait(tasks, timeout=CLEAN_SECONDS)
            loaded = [task.result()[0] for task in tasks if task.done() and task.exception() is None]
            handles = [loaded_handle(base, index) for index in range(max(map(len, loaded), default=0))]
            self._quietly(lambda client: client.delete(handles))
            raise
        entries, about = replies[0]
        return {
            e.label: Handle(
                e.label, tuple(e.shape), e.fraction, incarnation, loaded_handle(base, index), owner or "", e.dtype,
                "" if owner is None else f"{name}#{e.label}",
            )
            for index, e in enumerate(entries)
        }, about

    def saved(self) -> list[str]:
        """Names that can be loaded, sorted."""
        return sorted({source.name for source in self._common("", None)})

    def forget(self, name: str) -> bool:
        """Removes all generations of a name; tells whether any server had one."""
        check_name(name)
        found = {generation_of(source) for each in self._all(lambda client: client.saved(name)) for source in each}
        self._all(lambda client: client.forget(sorted(found)))
        return bool(found)

    def _common(self, name: str, owner: str | None) -> set[Source]:
        """What all servers have committed, of this client or of `owner`."""
        replies = self._all(lambda client: client.saved(name, owner is not None))
        return set.intersection(*(
            {source for source, found in reply.items() if found.committed and owner in (None, source.owner)}
            for reply in replies
        ))  # fmt: skip

    def _forget(self, generations: list[Generation]) -> None:
        if generations:
            self._quietly(lambda client: client.forget(generations))

    def _all(self, call: Callable[[ServerClient], Any]) -> list[Any]:
        tasks = [self._pool.submit(call, client) for client in self._clients]
        futures.wait(tasks)
        return [task.result() for task in tasks]

    def _quietly(self, call: Callable[[ServerClient], Any]) -> None:
        """Cleans up wherever it can be done; what is left takes room until the next time, and does no harm."""

        def one(client: ServerClient) -> None:
            with contextlib.suppress(PrivateKerasError):
                call(client)

        futures.wait([self._pool.submit(one, client) for client in self._clients], timeout=CLEAN_SECONDS)
