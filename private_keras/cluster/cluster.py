"""The cluster on servers: every job is a call to each of them."""

import hashlib
import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from private_keras.cluster import display
from private_keras.cluster.audit import Head, Log, archived, broken_off
from private_keras.cluster.client import ServerClient, kind_of
from private_keras.cluster.delivery import Deliveries, Delivery
from private_keras.cluster.handle import Handle, Stats
from private_keras.cluster.interface import ACTIVE, OWNER_ONLY, RUN_SECONDS, Cluster, decoded, kept_handles
from private_keras.cluster.loop import Bound, Given, Loop, bind
from private_keras.cluster.named import Named, doubts, named, warn_of
from private_keras.cluster.putting import Column, Progress, check_columns
from private_keras.cluster.reading import as_rows, as_segments, read_logs
from private_keras.cluster.running import Inputs, OnStep, run_job
from private_keras.cluster.saving import Snapshots, check_save
from private_keras.cluster.stock import Item, Seeds, content, make_item
from private_keras.errors import (
    ClusterError,
    DeadlineExceeded,
    HandleNotFound,
    InputError,
    PeerLost,
    SecurityError,
    ServerUnavailable,
    VersionMismatch,
)
from private_keras.plan.plan import Plan
from private_keras.plan.records import PlanOutput
from private_keras.protocols.trio import EVALUATORS
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server import limits
from private_keras.server.config import ClusterConfig
from private_keras.server.material import split
from private_keras.server.plans import CLIENT
from private_keras.server.policy import Policy
from private_keras.server.storage import check_name, check_names

CONNECT_SECONDS = 5.0
ABANDON_SECONDS = 1.0
# Beyond any number of jobs that servers take, and of those that wait to be refused; made as they are needed.
MAX_JOB_THREADS = 10_000


class NetworkCluster(Cluster):
    """Servers that run already, on other hosts or on this one.

    Args:
        config: their description.
        identity: name of this client's certificate; None on Unix sockets.
    """

    def __init__(self, config: ClusterConfig, identity: str | None):
        if not config.local and identity is None:
            raise InputError(
                'a cluster over TLS needs to know who you are: pk.connect("cluster.json", identity="analyst"), or '
                "--identity analyst on the command line"
            )
        self.protocol = config.protocol
        self.stats = Stats()
        self._clients = [ServerClient(config, server, identity) for server in config.servers]
        self._pool = futures.ThreadPoolExecutor(8 * len(self._clients), thread_name_prefix="cluster")
        self._jobs = futures.ThreadPoolExecutor(MAX_JOB_THREADS, thread_name_prefix="job")
        self._kernel = default_kernel()
        self._config = config
        self._deliveries = Deliveries(self._clients, self._pool)
        self._snapshots = Snapshots(self._clients, self._pool, self._kernel)
        self._identity = identity
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

    @property
    def identity(self) -> str:
        self._ready()
        return self._identity or ""

    def connect(self, seconds: float = CONNECT_SECONDS) -> None:
        """Reaches all servers, at once; raises the first one's error that does not answer or does not fit."""
        replies = self._all(lambda client: client.connect(seconds))
        identities = {reply.identity for reply in replies}
        if len(identities) != 1:
            raise VersionMismatch(f"the servers take this client for different identities: {sorted(identities)}")
        (identity,) = identities
        if self._identity not in (None, identity):
            raise SecurityError(f"the certificate that this client has as {self._identity} is {identity}'s: put each "
                                "party's own files into the directory of keys")
        self._identity = identity
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

    def _masked(self, elements: np.ndarray, seeds: Seeds) -> list[tuple[bytes, np.ndarray]]:
        """A batch for servers that have the seeds of its masks."""
        return [(b"", words) for _, words in split(elements, self._kernel, seeds)]

    def delete(self, *handles: Handle | Item) -> None:
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
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None,
        item: Item | None = None, delivery: str = "",
    ) -> dict[str, np.ndarray | Handle]:
        bound, incarnation = self._bound(plan, bind(plan, inputs, loop), deadline)
        on_step = None if loop is None else loop.on_step
        try:
            return self._run(plan, bound, incarnation, deadline, on_step, item, delivery)
        except ClusterError as error:
            if kind_of(error) not in ("PlanNotPrepared", "ItemNotFound"):
                raise
            if kind_of(error) == "PlanNotPrepared":
                self._prepared.clear()
            return self._run(plan, bound, incarnation, deadline, on_step, None, delivery)

    def prepare(self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS) -> Item:
        bound, incarnation = self._bound(plan, bind(plan, inputs, None, ahead=True), deadline)
        make = partial(make_item, self._clients, self._jobs, plan, bound, incarnation, deadline, self._abandon)
        with self._noticed():
            self._send(plan, incarnation)
            try:
                item = make()
            except ClusterError as error:
                if kind_of(error) != "PlanNotPrepared":
                    raise
                self._prepared.clear()
                self._send(plan, incarnation)
                item = make()
        self.stats.add_ahead(item.made)
        return item

    def _bound(self, plan: Plan, bound: Bound, deadline: float) -> tuple[Bound, str]:
        """What goes into a job, checked, and the start of the servers that it is for."""
        if not 0 < deadline <= limits.MAX_SECONDS:
            raise InputError(f"expected a deadline of up to {limits.MAX_SECONDS:g} s. Received: {deadline}")
        incarnation = self.incarnation
        for given in bound.handles:
            if given.incarnation != incarnation:
                raise HandleNotFound(
                    f"the shares of {given.name!r} were lost when a server was started anew; share them again"
                )
        return bound, incarnation

    def _run(
        self, plan: Plan, bound: Bound, incarnation: str, deadline: float, on_step: OnStep | None, item: Item | None,
        delivery: str,
    ) -> dict[str, np.ndarray | Handle]:
        self._send(plan, incarnation)
        kept = kept_handles(plan, incarnation)
        seeds = {} if item is None else item.use(incarnation, content(plan, bound))
        secret = {
            name: given if isinstance(given, Handle)
            else self._masked(given, seeds[name]) if item is not None else self._split(given)
            for name, given in bound.secret.items()
        }  # fmt: skip
        used = b"" if item is None else item.id
        inputs = Inputs(secret, bound.rows, bound.public, kept, bound.steps, used, delivery=delivery)
        clients = self._clients if item is None else [self._clients[party] for party in EVALUATORS]
        job = secrets.token_bytes(limits.ID_BYTES)
        try:
            done = run_job(clients, self._jobs, plan, inputs, deadline, on_step, job)
            own = {item.name: done.opened[item.name] for item in plan.outputs if self._receives(item)}
            result = {**decoded(plan, own), **kept}
        except BaseException as error:
            self._notice(error)
            # A server that came to the end before another one failed keeps its part of the results, for this client or
            # for others; one that the job did not come to keeps what was made for it.
            left = [handle.id for handle in kept.values()] + [used] * (item is not None) + [job] * bool(delivery)
            if left:
                self._abandon(left)
            raise
        self.stats.add(done.traffic, None if item is None else item.made)
        return result

    def _receives(self, output: PlanOutput) -> bool:
        return CLIENT in output.receivers or self._identity in output.receivers

    def _send(self, plan: Plan, incarnation: str) -> None:
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

    def save(
        self, name: str, handles: Mapping[str, Handle], about: str = "", policy: Policy = OWNER_ONLY
    ) -> None:
        check_save(name, handles, about, self.incarnation)
        warn_of(policy, self._config)
        with self._noticed():
            self._snapshots.save(name, handles, about, policy)

    def put(
        self, name: str, columns: Mapping[str, Column], about: str = "", policy: Policy = OWNER_ONLY,
        progress: Progress | None = None,
    ) -> None:
        self._ready()
        total = check_columns(name, columns, about)
        warn_of(policy, self._config)
        with self._noticed():
            self._snapshots.put(name, columns, about, policy, lambda done: progress and progress(done, total))

    def load(self, name: str, owner: str | None = None) -> tuple[dict[str, Handle], str]:
        incarnation = self.incarnation
        with self._noticed():
            return self._snapshots.load(name, None if owner == self._identity else owner, incarnation)

    def saved(self) -> list[str]:
        self._ready()
        with self._noticed():
            return self._snapshots.saved()

    def forget(self, name: str) -> bool:
        self._ready()
        with self._noticed():
            return self._snapshots.forget(name)

    def forget_policies(self, name: str) -> int:
        check_names(name)
        self._ready()
        with self._noticed():
            return max(self._all(lambda client: client.forget_policies(name)))

    def names(self, others: bool = False) -> list[Named]:
        self._ready()
        with self._noticed():
            told = self._all(lambda client: client.saved("", others))
        if not others:
            for doubt in doubts(dict(zip((client.name for client in self._clients), told, strict=True)), time.time()):
                warnings.warn(doubt, stacklevel=2)
        return named(told, others)

    def set_policy(self, name: str, policy: Policy) -> None:
        self._ready()
        warn_of(policy, self._config)
        with self._noticed():
            self._all(lambda client: client.set_policy(check_name(name), policy.to_json()))

    def deliveries(self) -> list[Delivery]:
        self._ready()
        with self._noticed():
            return self._deliveries.listed()

    def fetch(self, delivery: Delivery) -> dict[str, np.ndarray]:
        self._ready()
        with self._noticed():
            return self._deliveries.fetch(delivery)

    def received(self, delivery: Delivery) -> None:
        self._ready()
        with self._noticed():
            self._deliveries.received(delivery)

    def plan_text(self, digest: str) -> str:
        self._ready()
        plain = digest.removeprefix("sha256:")
        with self._noticed():
            texts = self._all(lambda client: client.plan_text(plain))
        for client, text in zip(self._clients, texts, strict=True):
            if hashlib.sha256(text).hexdigest() != plain:
                raise SecurityError(f"{client.name} sent another plan than the one with this digest")
        return texts[0].decode("ascii")

    def audit(self, seen: Mapping[str, Head] | None = None, archives: Sequence[Path] = ()) -> list[Log]:
        given = [archived(path, self._identity) for path in archives]
        self._ready()
        with self._noticed():
            told = self._all(lambda client: client.audit(0))
        return read_logs(self._clients, told, self._config, seen or {}, given)

    def broken_logs(self, seen: Mapping[str, Head]) -> list[str]:
        known = [client for client in self._clients if client.name in seen]
        self._ready()
        with self._noticed():
            told = list(self._pool.map(lambda client: client.audit(max(0, seen[client.name].count - 1)), known))
        return [
            f"{client.name}: {fault}" for client, (entries, head, parts) in zip(known, told, strict=True)
            if (fault := broken_off(as_rows(entries), head.durable, seen[client.name], as_segments(parts)))
        ]  # fmt: skip

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
