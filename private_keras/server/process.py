"""A server's process: from its description to a control plane and lanes, and an orderly end."""

import contextlib
import os
import resource
import secrets
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc

from private_keras import TLS_FLOOR
from private_keras.errors import ClusterError, InputError, PrivateKerasError, SecurityError
from private_keras.ring import array_memory, default_kernel
from private_keras.server import limits
from private_keras.server.collect import Collector
from private_keras.server.condition import Condition
from private_keras.server.config import ClusterConfig, read_config
from private_keras.server.contents import InMemory, OnDisk
from private_keras.server.entrance import Entrance
from private_keras.server.identity import Identities
from private_keras.server.jobs import Jobs
from private_keras.server.lanes import Lanes
from private_keras.server.log import Log
from private_keras.server.metrics import Metrics
from private_keras.server.monitor import Monitor
from private_keras.server.outbox import Outbox
from private_keras.server.oversight import Oversight
from private_keras.server.pace import Pace
from private_keras.server.run import Runner
from private_keras.server.saving import Saving
from private_keras.server.service import Service
from private_keras.server.stock import Stock
from private_keras.server.storage import Storage
from private_keras.server.store import Store
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import WARN_DAYS, Pem, Watched, days_left
from private_keras.transport.tls import TlsEndpoint, split_address
from private_keras.transport.unix import UnixEndpoint
from private_keras.version import VERSION

# Calls beyond the jobs: uploads, plans, cancellations, questions.
OTHER_CALLS = 16
# Calls that wait until one of all these has ended; beyond them gRPC refuses.
WAITING_CALLS = 240
READY = b"ready\n"
TEND_SECONDS = 0.5
AUDIT_SECONDS = 5.0
AUDIT_RETRY_SECONDS = 60.0
WARN_SECONDS = 24 * 3600.0
DRAIN_LOOK_SECONDS = 0.2
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    # Clients ask every few seconds whether a server still lives while a job runs.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    # A client that is cut off without a word while its call runs is known to be gone after this.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@dataclass(frozen=True)
class Options:
    """How one server runs on its host.

    Attributes:
        bind: host to listen on instead of the one that the others dial; None for the same.
        log_level: error, warning or info.
        storage: directory for what clients save; None: they cannot.
        metrics: "host:port" or port for health, readiness and metrics over HTTP; None: nowhere.
        metrics_by_client: whether requests are counted by who makes them.
    """

    bind: str | None = None
    log_level: str = "info"
    storage: Path | None = None
    metrics: str | None = None
    metrics_by_client: bool = False


class ServerProcess:
    """One server of a cluster, listening from construction until `stop`.

    Args:
        config: the cluster.
        party: which of its servers this is.
        threads: that one step of a job may use.

    Raises:
        InputError: no such party.
        ClusterError: an address that cannot be listened on.
        SecurityError: missing or unfit certificates.
    """

    def __init__(self, config: ClusterConfig, party: int, threads: int, options: Options):
        if not 0 <= party < len(config.servers):
            raise InputError(f"expected a party from 0 to {len(config.servers) - 1}. Received: {party}")
        self._config = config
        self._own = config.servers[party]
        self.log = Log(self._own.name, options.log_level)
        kernel = default_kernel(threads)
        self._memory = array_memory()
        self._warn_at = self._audit_at = 0.0
        self._files = None if config.local else Watched(config.credentials(self._own.name), self._keep_files)
        endpoint = UnixEndpoint() if self._files is None else TlsEndpoint(self._files)
        names = [server.name for server in config.servers]
        allowance = config.allowance
        self._lanes = Lanes(
            party, names, [_plain(s.data) for s in config.servers], endpoint, config.protocol, self.log,
            2 * allowance.present + limits.CALLERS_BESIDE,
        )  # fmt: skip
        self._jobs = Jobs(self._lanes.wake, allowance)
        store = Store(share=allowance.stored_share)
        stock = Stock(store)
        runner = Runner(config.protocol, party, len(names), kernel, self._lanes, store, stock)
        about = wire.HelloReply(
            version=VERSION, protocol=config.protocol, name=self._own.name, party=party,
            incarnation=secrets.token_hex(8), kernel=kernel.name,
        )  # fmt: skip
        collector = Collector(party, kernel, store)
        files = Storage(options.storage, config.protocol, party, config.keys)
        if files.vault.problem():
            self.log.write("warning", "named shares cannot be used", message=files.vault.problem())
        pem = None if self._files is None else lambda: self._files.current()[1]
        # Results for others wait on disk where there is one.
        contents = InMemory(store) if options.storage is None else OnDisk(files.vault, files.place)
        outbox = Outbox(files.catalogue, contents)
        oversight = Oversight(self._own.name, files.catalogue, store, outbox, config, pem)
        self._audit = oversight.audit
        saving = Saving(files, store, kernel, oversight)
        metrics = Metrics(options.metrics_by_client)
        condition = Condition(self._jobs, store, stock, options.storage, files.vault.problem, self._files)
        condition.register(
            metrics, server=self._own.name, version=VERSION, protocol=config.protocol, kernel=kernel.name
        )
        identities = Identities(config)
        service = Service(
            about, store, stock, self._jobs, collector, runner, saving, oversight, kernel, self.log, metrics,
            condition.health, self._lanes, identities.require,
        )  # fmt: skip
        # What is left of the threads below is for others.
        pace = Pace(allowance.requests_a_minute, allowance.present + OTHER_CALLS // 2)
        entrance = Entrance(self._own.name, identities, pace, self._memory.use, metrics, self.log, oversight)
        workers = allowance.present + OTHER_CALLS
        pool = futures.ThreadPoolExecutor(workers, thread_name_prefix="call")
        self._server = grpc.server(
            pool, handlers=(entrance.handler(service),), options=OPTIONS,
            maximum_concurrent_rpcs=workers + WAITING_CALLS,
        )  # fmt: skip
        try:
            self._lanes.listen(_bound(self._own.data, options.bind))
            self._listen(_bound(self._own.control, options.bind))
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                f"{self._own.name} cannot listen on {self._own.control} and {self._own.data}: {error}"
            ) from None
        self._server.start()
        self._monitor = None if options.metrics is None else Monitor(options.metrics, metrics.text, condition.unready)
        self.log.write(
            "info", "server started", party=party, protocol=config.protocol, kernel=kernel.name, version=VERSION,
            **({"metrics": self._monitor.port} if self._monitor else {}),
        )  # fmt: skip

    def _listen(self, address: str) -> None:
        if self._config.local:
            self._server.add_insecure_port(f"unix:{address}")
            return
        if os.environ.get(TLS_FLOOR[0]) != TLS_FLOOR[1]:
            raise SecurityError(
                "a server over TLS must be started by `private-keras serve`, which rules out TLS below 1.3"
            )
        first, pem = self._files.current()
        given = [first]

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            version, pem = self._files.current()
            if version == given[0]:
                return None
            given[0] = version
            self.log.write("info", "certificate renewed", expires=f"{pem.expires[0]:%Y-%m-%d}")
            return _certificates(pem)

        # gRPC asks before each handshake, so that a renewed certificate is shown without a new start.
        self._server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(_certificates(pem), renewed, True))

    def _keep_files(self, reason: str) -> None:
        self.log.write("warning", "renewed certificate not used", reason=reason)

    def tend(self) -> None:
        """To be called about every `TEND_SECONDS`: gives back memory that has not been used since the last call, and
        closes parts of the audit log, and warns once a day before a certificate ends.
        """
        self._memory.tend()
        if time.monotonic() >= self._audit_at:
            self._audit_at = time.monotonic() + AUDIT_SECONDS
            try:
                self._audit.tend()
            except PrivateKerasError as error:
                self.log.write("warning", "audit log stays in the catalogue", message=str(error))
                self._audit_at += AUDIT_RETRY_SECONDS
        if self._files is not None and time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + WARN_SECONDS
            end, name = self._files.current()[1].expires
            if days_left(end) < WARN_DAYS:
                self.log.write("warning", "certificate ends soon", file=name, days=days_left(end))

    def drain(self, hurry: Callable[[], bool]) -> None:
        """Takes no new jobs, says that it is not ready, and waits for those that are here, as long as the description
        grants or until `hurry`.
        """
        began, granted = time.monotonic(), self._config.allowance.drain_seconds
        self.log.write("info", "server drains", jobs=len(self._jobs), seconds=granted)
        while not self._jobs.drain(DRAIN_LOOK_SECONDS) and not hurry() and time.monotonic() - began < granted:
            self.tend()

    def stop(self) -> None:
        """Ends all jobs and connections and removes the sockets."""
        if self._monitor is not None:
            self._monitor.close()
        self._jobs.cancel_all()
        self._server.stop(grace=0.2).wait(2)
        self._lanes.close()
        if self._config.local:
            for address in (self._own.control, self._own.data):
                with contextlib.suppress(OSError):
                    os.unlink(_plain(address))
        self.log.write("info", "server stopped")


def serve(config: Path, party: int, lifeline: int | None, options: Options) -> NoReturn:
    """Runs a server until SIGTERM, SIGINT, or the end of its lifeline; then ends the process, with exit code 0.

    After a first signal jobs that are here may end (`drain_seconds` of the description); a second one ends them.

    Args:
        lifeline: a socket's file descriptor, for embedded servers: gets a line when the server listens, and the server
            ends at once when the other end is closed, as it is when the client dies in whatever way.
    """
    os.umask(0o077)
    # Clients, peers and each file of named shares that somebody has loaded take a descriptor.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ended, hurried = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: (hurried if ended.is_set() else ended).set())
    description = read_config(config)
    # A host of its own is used wholly; on one machine the servers divide it.
    cores = len(os.sched_getaffinity(0))
    threads = cores if lifeline is None else max(1, cores // len(description.servers))
    process = ServerProcess(description, party, threads, options)
    if lifeline is None:
        while not ended.wait(TEND_SECONDS):
            process.tend()
    else:
        _hold(socket.socket(fileno=lifeline), ended.is_set, process.tend)
    if ended.is_set():
        process.drain(hurried.is_set)
    process.stop()
    if lifeline is not None:
        _remove(config)
    sys.stderr.flush()
    # Not `return`: a job deep in one step would hold the interpreter's end until the step is over.
    os._exit(0)


def _hold(line: socket.socket, ended: Callable[[], bool], tend: Callable[[], None]) -> None:
    """Says that the server is ready; returns when the client is gone.

    A forked child of the client may keep the line open, so the parent is watched as well.
    """
    parent = os.getppid()
    with contextlib.suppress(OSError):
        line.sendall(READY)
        poll = select.poll()
        poll.register(line.fileno(), select.POLLIN)
        while not ended() and os.getppid() == parent:
            if poll.poll(TEND_SECONDS * 1000) and not line.recv(64):
                return
            tend()


def _remove(config: Path) -> None:
    """The embedded cluster's directory goes with its last server; sockets of servers that were killed go as well."""
    directory = config.parent
    with contextlib.suppress(OSError):
        alive = [s for s in directory.glob("*.control") if _answers(s)]
        if not alive:
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True


def _certificates(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.trusted)


def _plain(address: str) -> str:
    return address.removeprefix("unix:")


def _bound(address: str, bind: str | None) -> str:
    if bind is None or address.startswith("unix:"):
        return _plain(address)
    return f"{bind}:{split_address(address)[1]}"
