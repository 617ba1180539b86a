"""Checks that a person asks for: ports, certificates, clocks, releases, storage, and how fast connections are.

Each finding is a line: ok, warn (works, and needs care soon) or FAIL, and below the last two what to do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from private_keras.cluster.client import ServerClient
from private_keras.cluster.cluster import CONNECT_SECONDS
from private_keras.cluster.measure import job_speed, measure
from private_keras.errors import (
    DeadlineExceeded,
    InputError,
    PrivateKerasError,
    SecurityError,
    ServerUnavailable,
    VersionMismatch,
)
from private_keras.server import roles
from private_keras.server.config import ClusterConfig, ServerAddress, read_config
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.credentials import WARN_DAYS, days_left, pin_of, read_certificate

CLOCK_SECONDS = 5.0  # a difference between hosts' clocks that is worth a word
SLOW_SECONDS = 0.005  # a round trip between servers that makes predictions slow
FREE_BYTES = 1 << 30
ADVICE: tuple[tuple[type[PrivateKerasError], str], ...] = (
    (VersionMismatch, "install the same release of private_keras on all hosts"),
    (SecurityError, "compare certificates and pins: `private-keras keys --show` on both hosts, and both cluster.json"),
    (ServerUnavailable, "is the server running, is the address right, does a firewall let this port through?"),
    (DeadlineExceeded, "the host answers slowly or not at all: is it overloaded, or does a firewall drop packets?"),
)


@dataclass
class Report:
    """Findings, in order."""

    lines: list[str] = field(default_factory=list)
    healthy: bool = True

    def ok(self, text: str) -> None:
        """All is well."""
        self.lines.append(f"ok    {text}")

    def warn(self, text: str, advice: str) -> None:
        """It works, and needs care."""
        self.lines += [f"warn  {text}", f"      -> {advice}"]

    def fail(self, text: str, advice: str) -> None:
        """It does not work."""
        self.healthy = False
        self.lines += [f"FAIL  {text}", f"      -> {advice}"]

    def error(self, what: str, error: PrivateKerasError) -> None:
        """An exception, with advice by its kind."""
        advice = next((text for kind, text in ADVICE if isinstance(error, kind)), "see the server's log")
        self.fail(f"{what}{type(error).__name__}: {error}", advice)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def examine(config: Path, identity: str | None) -> tuple[str, bool]:
    """A report, a line or two for each check, and whether all is well.

    Raises:
        InputError: the description cannot be read, or an identity is missing.

    Cost: some megabytes to and from each server, one connection from each server to each other, two small jobs.
    """
    description = read_config(config)
    if not description.local and identity is None:
        raise InputError("a cluster over TLS needs to know who you are: --identity NAME")
    report = Report([f"cluster {config}: protocol {description.protocol}, {len(description.servers)} servers"])
    if identity is not None and not description.local:
        _certificates(report, description, identity)
    clients = [ServerClient(description, server, identity) for server in description.servers]
    try:
        reached = [_server(report, server, client) for server, client in zip(description.servers, clients, strict=True)]
        _between(report, description, [client for client, there in zip(clients, reached, strict=True) if there])
    finally:
        for client in clients:
            client.close()
    if not all(reached):
        report.warn("no job was run", "mend what fails above, and look again")
    elif identity is not None and roles.ANALYST not in description.roles_of(identity):
        report.ok(f"{identity} runs no jobs: its roles are {', '.join(sorted(description.roles_of(identity)))}")
    else:
        _attempt(report, "a job: ", lambda: _job(report, description, identity))
    return str(report), report.healthy


def _attempt(report: Report, what: str, check: Callable[[], None]) -> bool:
    try:
        check()
        return True
    except PrivateKerasError as error:
        report.error(what, error)
        return False


def _certificates(report: Report, description: ClusterConfig, identity: str) -> None:
    """Those that lie here: the authority's, the client's, and others' that happen to."""
    own = description.credentials(identity)
    try:
        own.read()
    except SecurityError as error:
        report.error("", error)
    if own.key.is_file() and own.key.stat().st_mode & 0o077:
        report.warn(f"{own.key.name}: others on this machine may read it", f"chmod 600 {own.key}")
    others = [own.certificate.with_name(f"{name}.pem") for name in description.names]
    for path in dict.fromkeys([*own.trusted, own.certificate, *others]):
        if not path.is_file():
            continue
        try:
            certificate = read_certificate(path)
        except SecurityError as error:
            report.error("", error)
            continue
        end = certificate.not_valid_after_utc
        days = days_left(end)
        text = f"{path.name}: valid until {end:%Y-%m-%d} ({days} days)"
        pinned = description.pins.get(path.stem)
        if pinned is not None and pinned != pin_of(certificate):
            report.fail(f"{path.name}: its key is not the one pinned in the description", "change the pin, or the file")
        elif days < 0:
            report.fail(text, f"private-keras keys --renew {path.stem}")
        elif days < WARN_DAYS:
            report.warn(text, f"private-keras keys --renew {path.stem}")
        else:
            report.ok(text)


def _server(report: Report, server: ServerAddress, client: ServerClient) -> bool:
    """Whether a server can be reached; and what it says of itself."""

    def check() -> None:
        reply = client.connect(CONNECT_SECONDS)
        began = time.time()
        state = client.health()
        _state(report, server, reply, state, state.clock - (began + time.time()) / 2)
        speed = measure(client)
        report.ok(f"{server.name}: {speed} from here")

    return _attempt(report, "", check)


def _state(
    report: Report, server: ServerAddress, reply: wire.HelloReply, state: wire.HealthReply, ahead: float
) -> None:
    operator = f", operated by {server.operator}" if server.operator else ""
    text = (
        f"{server.name} at {server.control}{operator}: release {reply.version}, kernel {reply.kernel}, "
        f"up {state.seconds:.0f} s, {state.jobs} jobs ({state.waiting} waiting), {state.stored_bytes:,} bytes stored"
    )
    if state.draining:
        report.warn(f"{text}, about to end", "wait until it is back")
    else:
        report.ok(text)
    if abs(ahead) > CLOCK_SECONDS:
        report.warn(
            f"{server.name}: its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this one",
            "run NTP on both hosts: certificates begin and end by the clock",
        )
    if state.certificate_ends:
        days = int((state.certificate_ends - time.time()) // 86_400)
        if days < WARN_DAYS:
            advice = f"private-keras keys --renew {server.name}, and copy it there; no new start is needed"
            report.warn(f"{server.name}: its certificate or authority ends in {days} days", advice)
    if state.storage and state.storage_free == 0 and "no --storage" in state.storage:
        report.ok(f"{server.name}: keeps nothing on disk (no --storage)")
    elif state.storage:
        report.fail(f"{server.name}: {state.storage}", "free the disk, or give the server's user the directory")
    elif state.storage_free < FREE_BYTES:
        report.warn(f"{server.name}: {state.storage_free:,} bytes free for named shares", "free the disk")


def _between(report: Report, description: ClusterConfig, clients: list[ServerClient]) -> None:
    """Data ports: every server dials those of lower index."""
    names = [server.name for server in description.servers]
    for client in clients:
        for peer in names[: names.index(client.name)]:

            def check(client: ServerClient = client, peer: str = peer) -> None:
                seconds = min(client.probe(0, 0, peer)[1] for _ in range(3))
                text = f"{client.name} to {peer}: data port open, {seconds * 1e3:.1f} ms there and back"
                if seconds > SLOW_SECONDS:
                    report.warn(text, "a prediction takes this for each round (model.cost): put servers 0 and 1 close")
                else:
                    report.ok(text)

            _attempt(report, f"{client.name} to {peer}, data port: ", check)


def _job(report: Report, description: ClusterConfig, identity: str | None) -> None:
    small, large, speed = job_speed(description, identity)
    report.ok(f"a job of {small.rounds} rounds took {small.seconds * 1e3:.1f} ms")
    moved = sum(large.sent)
    report.ok(f"a job that moves {moved / 1e6:.1f} MB between servers took {large.seconds:.2f} s: {speed}")
