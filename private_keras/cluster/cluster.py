"""A cluster as models use it: share, run, delete. `NetworkCluster` is the one on servers."""

import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager

import numpy as np

from private_keras.cluster import display
from private_keras.cluster.active import Active
from private_keras.cluster.client import CallFailed, ServerClient
from private_keras.cluster.handle import Handle, Stats
from private_keras.cluster.loop import Bound, Given, Loop, bind
from private_keras.cluster.running import Inputs, OnStep, run_job
from private_keras.cluster.saving import Snapshots, check_save
from private_keras.errors import (
    ClusterError,
    DeadlineExceeded,
    HandleNotFound,
    InputError,
    PeerLost,
    ServerUnavailable,
    VersionMismatch,
)
from private_keras.plan.plan import Plan
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server import limits
from private_keras.server.config import ClusterConfig
from private_keras.server.material import split

CONNECT_SECONDS = 5.0
RUN_SECONDS = 600.0
ABANDON_SECONDS = 1.0
# Beyond any number of jobs that servers take, and of those that wait to be refused; made as they are needed.
MAX_JOB_THREADS = 10_000


class Cluster(ABC):
    """Where plans run.

    Attributes:
        protocol: name of the protocol.
        stats: rounds, bytes and seconds of the last run and of all.
    """

    protocol: str
    stats: Stats

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """Changes whenever a server was started anew: handles from before are gone, and must be shared again."""

    @abstractmethod
    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        """Shares a tensor among the servers, which keep it.

        Args:
            values: real numbers, any shape without empty axes.
            fraction: fractional bits.
            name: what it is, for errors.

        Raises:
            InputError: not finite, out of range, not numbers, or empty.
            ClusterError: a server cannot be reached or has no room.
        """

    @abstractmethod
    def delete(self, *handles: Handle) -> None:
        """Lets the servers forget shares, all in one call; without effect where they are gone already."""

    @abstractmethod
    def run(
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None
    ) -> dict[str, np.ndarray | Handle]:
        """Runs a plan, once or as the steps of a loop, in one job.

        Args:
            plan: the program.
            inputs: for each secret input of the plan a stored handle, or real numbers, which are shared for this run
                alone, or `Rows` of a stored handle; for each public one a `PublicValue`. What an output carries is the
                input at the first step only.
            deadline: seconds.
            loop: how many steps; None for one.

        Returns:
            By name, outputs that are opened, float64, and new handles of those that the servers keep; both of the last
            step. They are the caller's to delete. There are none after an error.

        Raises:
            InputError: inputs that do not fit the plan.
            HandleNotFound: shares that are gone; share them again.
            PeerLost, DeadlineExceeded, ServerUnavailable: naming the server. The cluster stays usable.
        """

    @abstractmethod
    def save(self, name: str, handles: Mapping[str, Handle], about: str = "") -> None:
        """Saves shares on the servers' disks, in place of what was saved under that name; all of it or nothing.

        Each server writes what it holds, which stays as secret as it was. After a crash of a server, of all, or of this
        client in the middle, there is either what was saved before or what is saved now.

        Args:
            name: up to 80 letters, digits and _ . : / -.
            handles: tensors by name.
            about: text of up to 1 MiB that `load` gives back. Servers can read it.

        Raises:
            InputError, HandleNotFound: arguments that do not fit, shares that are gone.
            ClusterError: a server without a directory for it, or without room; says what to do.
        """

    @abstractmethod
    def load(self, name: str) -> tuple[dict[str, Handle], str]:
        """New handles of what this identity saved last under a name, and the text about it.

        Raises:
            HandleNotFound: nothing is saved under it on all servers.
            FileError: a server's file is damaged.
        """

    @abstractmethod
    def saved(self) -> list[str]:
        """Names that can be loaded, sorted."""

    @abstractmethod
    def forget(self, name: str) -> None:
        """Removes what was saved under a name; without effect when there is nothing."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; idempotent."""

    @abstractmethod
    def _facts(self) -> display.Facts:
        """What it is and in what state, without asking a server."""

    def __repr__(self) -> str:
        return display.as_text(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return display.as_html(type(self).__name__, self._facts(), self.stats)

    def __enter__(self) -> "Cluster":
        """Makes this cluster the current one for a `with` block."""
        ACTIVE.push(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ACTIVE: Active[Cluster] = Active()


def decoded(plan: Plan, opened: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ring elements of the outputs that are opened as real numbers."""
    return {
        item.name: fixedpoint.decode(opened[item.name], plan.types[item.value].fraction)
        for item in plan.outputs if item.receivers
    }  # fmt: skip


def kept_handles(plan: Plan, incarnation: str) -> dict[str, Handle]:
    """New handles for the outputs that servers keep, by name."""
    result = {}
    for item in plan.outputs:
        if not item.receivers:
            kind = plan.types[item.value]
            handle_id = secrets.token_bytes(limits.ID_BYTES)
            result[item.name] = Handle(item.name, kind.shape, kind.fraction, incarnation, handle_id)
    return result


class NetworkCluster(Cluster):
    """Servers that run already, on other hosts or on this one.

    Args:
        config: their description.
        identity: name of this client's certificate; None on Unix sockets.
    """

    def __init__(self, config: ClusterConfig, identity: str | None):
        if not config.local and identity is None:
            raise InputError(
                'a cluster over TLS needs to know who you are: pk.connect("cluster.json", identity="analyst")'
            )
        self.protocol = config.protocol
        self.stats = Stats()
        self._clients = [ServerClient(config, server, identity) for server in config.servers]
        self._pool = futures.ThreadPoolExecutor(8 * len(self._clients), thread_name_prefix="cluster")
        self._jobs = futures.ThreadPoolExecutor(MAX_JOB_THREADS, thread_name_prefix="job")
        self._snapshots = Snapshots(self._clients, self._pool)
        self._kernel = default_kernel()
        self._process = os.getpid()
        self._incarnations = [""] * len(self._clients)
        self._prepared: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._stale = False

    @property
    def incarnation(self) -> str:
        self._ready()
        return "-".join(self._incarnations)

    def connect(self, seconds: float = CONNECT_SECONDS) -> None:
        """Reaches all servers, at once; raises the first one's error that does not answer or does not fit."""
        replies = self._all(lambda client: client.connect(seconds))
        identities = {reply.identity for reply in replies}
        if len(identities) != 1:
            raise VersionMismatch(f"the servers take this client for different identities: {sorted(identities)}")
        self._incarnations = [reply.incarnation for reply in replies]

    def _ready(self) -> None:
        """Called before every use: the cluster can be used, by this process, and its servers are those it knows."""
        if self._closed:
            raise ClusterError("this cluster is closed; call pk.connect() for a new one")
        if os.getpid() != self._process:
            raise ClusterError("a cluster cannot be used in a forked process; call pk.connect() there for another one")

        with self._lock:
            self._check()

    def _check(self) -> None:
        """After a server was lost: finds out what is there now."""
        if self._stale:
            self.connect()
            self._stale = False

    def _all(self, call) -> list:
        """call(client) for every server at once; raises the error that the lowest party had."""
        tasks = [self._pool.submit(call, client) for client in self._clients]
        futures.wait(tasks)
        return [task.result() for task in tasks]

    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        incarnation = self.incarnation
        elements = fixedpoint.encode(values, fraction, name)
        if not elements.size:
            raise InputError(f"{name}: expected at least one element. Received: shape {elements.shape}")
        handle = Handle(name, elements.shape, fraction, incarnation, secrets.token_bytes(limits.ID_BYTES))
        parts = self._split(elements)
        tasks = [
            self._pool.submit(client.upload, handle.id, elements.size, *part)
            for client, part in zip(self._clients, parts, strict=True)
        ]
        try:
            futures.wait(tasks)
            for task in tasks:
                task.result()
        except BaseException as error:  # an interruption too must not leave shares behind
            self._notice(error)
            futures.wait(tasks)
            self._forget([handle.id])
            raise
        return handle

    def _notice(self, error: BaseException) -> None:
        if isinstance(error, PeerLost | ServerUnavailable | DeadlineExceeded):
            self._stale = True

    def _split(self, elements: np.ndarray) -> list[tuple[bytes, np.ndarray]]:
        return split(elements, self._kernel, (secrets.token_bytes(16), secrets.token_bytes(16)))

    def delete(self, *handles: Handle) -> None:
        here = [handle.id for handle in handles if handle.incarnation == "-".join(self._incarnations)]
        if here and not self._closed:
            self._forget(here)

    def _forget(self, handles: list[bytes]) -> None:
        """Deletes wherever it can be done; what cannot be reached has nothing to delete or ends soon."""
        futures.wait([self._pool.submit(client.delete, handles) for client in self._clients])

    def _abandon(self, handles: list[bytes]) -> None:
        """Deletes without waiting long for a server that may be the reason."""
        futures.wait([self._pool.submit(client.delete, handles) for client in self._clients], timeout=ABANDON_SECONDS)

    def run(
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None
    ) -> dict[str, np.ndarray | Handle]:
        if not 0 < deadline <= limits.MAX_SECONDS:
            raise InputError(f"expected a deadline of up to {limits.MAX_SECONDS:g} s. Received: {deadline}")
        incarnation = self.incarnation
        bound = bind(plan, inputs, loop)
        for given in bound.handles:
            if given.incarnation != incarnation:
                raise HandleNotFound(
                    f"the shares of {given.name!r} were lost when a server was started anew; share them again"
                )
        on_step = None if loop is None else loop.on_step
        try:
            return self._run(plan, bound, incarnation, deadline, on_step)
        except ClusterError as error:
            if isinstance(error.__cause__, CallFailed) and error.__cause__.kind == "PlanNotPrepared":
                self._prepared.clear()
                return self._run(plan, bound, incarnation, deadline, on_step)
            raise

    def _run(
        self, plan: Plan, bound: Bound, incarnation: str, deadline: float, on_step: OnStep | None
    ) -> dict[str, np.ndarray | Handle]:
        self._prepare(plan, incarnation)
        secret = {
            name: given if isinstance(given, Handle) else self._split(given) for name, given in bound.secret.items()
        }
        kept = kept_handles(plan, incarnation)
        inputs = Inputs(secret, bound.rows, bound.public, kept, bound.steps)
        try:
            opened, traffic = run_job(self._clients, self._jobs, plan, inputs, deadline, on_step)
            result = {**decoded(plan, opened), **kept}
        except BaseException as error:
            self._notice(error)
            # A server that came to the end before another one failed keeps its part of the results.
            if kept:
                self._abandon([handle.id for handle in kept.values()])
            raise
        self.stats.add(traffic)
        return result

    def _prepare(self, plan: Plan, incarnation: str) -> None:
        if self._prepared.get(plan.digest) == incarnation:
            return
        text = plan.to_json().encode()
        digests = self._all(lambda client: client.prepare(text))
        if set(digests) != {plan.digest}:
            wrong = next(c.name for c, digest in zip(self._clients, digests, strict=True) if digest != plan.digest)
            raise VersionMismatch(
                f"{wrong} reads plan {plan.name!r} in another way than this client; install the same release"
            )
        self._prepared[plan.digest] = incarnation

    def save(self, name: str, handles: Mapping[str, Handle], about: str = "") -> None:
        check_save(name, handles, about, self.incarnation)
        with self._noticed():
            self._snapshots.save(name, handles, about)

    def load(self, name: str) -> tuple[dict[str, Handle], str]:
        incarnation = self.incarnation
        with self._noticed():
            return self._snapshots.load(name, incarnation)

    def saved(self) -> list[str]:
        self._ready()
        with self._noticed():
            return self._snapshots.saved()

    def forget(self, name: str) -> None:
        self._ready()
        with self._noticed():
            self._snapshots.forget(name)

    def _facts(self) -> display.Facts:
        state = "closed" if self._closed else "a server was lost, to be reached again at the next use"
        if not self._closed and not self._stale:
            state = "connected" if all(self._incarnations) else "not connected yet"
        addresses = ((client.name, client.address) for client in self._clients)
        return [("protocol", self.protocol), ("state", state), *addresses]

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._notice(error)
            raise

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        ACTIVE.remove(self)
        if os.getpid() == self._process:
            for client in self._clients:
                client.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._jobs.shutdown(wait=False)
