"""Links between the hosts 0, 1, 2 (servers) and 3 (this process): who reaches whom at which address.

`Direct` is loopback. `Proxied` puts a delaying proxy into each link. `Spaces` gives each server a network namespace of
its own and each pair of hosts a wire of its own, with `tc netem` at both ends; it needs root and a kernel with netem.
"""

import contextlib
import itertools
import os
import random
import socket
import statistics
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

from private_keras.forecast import Network

SERVERS = 3
CLIENT = 3
CONTROL, DATA = 4000, 4001
ROOT = Path(__file__).parents[2]
RELAY, RELAY_SOURCE = ROOT / "build" / "relay", Path(__file__).with_name("relay.cpp")
PINGS = 200
CALIBRATIONS = 2
END_SECONDS = 2.0
# Addresses for measurements of networks (RFC 2544); processes that emulate at once take different ones.
FIRST_ADDRESS = 198 << 24 | 18 << 16
ADDRESSES = 32
# Enough for what is on its way on a fast network.
QUEUE_PACKETS = 1_000_000


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, and that the system gives to no outgoing connection: one of those
    could take the port of a server that is to start or was stopped, or reach itself where it looks for that server.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, max(lowest, 20_000)), 200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise Unavailable("no free ports")


class Unavailable(Exception):
    """This machine cannot emulate links in that way; says why."""


class Links(ABC):
    """Where servers are, as each host sees it. A context manager.

    Attributes:
        kind: how links are made, for results.
    """

    kind: str

    @abstractmethod
    def address(self, viewer: int, server: int) -> tuple[str, int, int]:
        """Host, control port and data port of a server, for a host."""

    def command(self, host: int) -> list[str]:
        """What to put before a command, so that it runs on a host."""
        return []

    def bind(self) -> list[str]:
        """Options of `private-keras serve` for where to listen."""
        return []

    def round_trip(self) -> float | None:
        """Seconds that a byte to another host and back took on average, where that was measured."""
        return None

    def __enter__(self) -> "Links":
        return self

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


class Direct(Links):
    """Loopback as it is."""

    kind = "loopback"

    def __init__(self) -> None:
        self._ports = free_ports(2 * SERVERS)

    def address(self, viewer: int, server: int) -> tuple[str, int, int]:
        return "127.0.0.1", self._ports[server], self._ports[SERVERS + server]

    def __exit__(self, *_: object) -> None:
        return None


class Proxied(Links):
    """A delaying proxy for each link, all in one process. What the proxy itself takes is part of the delay."""

    kind = "delaying proxy"

    def __init__(self, network: Network):
        self._direct = Direct()
        # What the relay and the system take themselves, sleeping included, is part of the delay.
        delay = network.rtt / 2
        for _ in range(CALIBRATIONS):
            self._rtt = _measured(delay, network.bandwidth)
            delay = max(0.0, delay + (network.rtt - self._rtt) / 2)
        self._rtt = _measured(delay, network.bandwidth)
        # Servers dial those before them, and the client all.
        self._pairs = [(viewer, server) for server in range(SERVERS) for viewer in range(server + 1, CLIENT + 1)]
        places = [self._direct.address(viewer, server) for viewer, server in self._pairs]
        targets = [
            control if viewer == CLIENT else data
            for (viewer, _), (_, control, data) in zip(self._pairs, places, strict=True)
        ]
        self._process = ProxyProcess(delay, network.bandwidth, targets)

    def address(self, viewer: int, server: int) -> tuple[str, int, int]:
        host, control, data = self._direct.address(viewer, server)
        if viewer == server or viewer < server:
            return host, control, data
        port = self._process.ports[self._pairs.index((viewer, server))]
        return (host, port, data) if viewer == CLIENT else (host, control, port)

    def round_trip(self) -> float:
        return self._rtt

    def __exit__(self, *_: object) -> None:
        self._process.close()


class ProxyProcess:
    """A running `relay`, which ends with this process at the latest.

    Args:
        delay: seconds, each way.
        bandwidth: bits per second, each way.
        targets: ports of this machine.
    """

    def __init__(self, delay: float, bandwidth: float, targets: list[int]):
        command = [_relay(), str(delay), str(bandwidth), *map(str, targets)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.ports = [int(port) for port in self._process.stdout.readline().split()]

    def close(self) -> None:
        """Ends it."""
        self._process.stdin.close()
        end(self._process)
        self._process.stdout.close()


def _relay() -> Path:
    """The relay, compiled if it is older than its source."""
    if not RELAY.exists() or RELAY.stat().st_mtime < RELAY_SOURCE.stat().st_mtime:
        RELAY.parent.mkdir(exist_ok=True)
        made = RELAY.with_name(f"relay-{os.getpid()}")
        try:
            subprocess.run(["g++", "-std=c++17", "-O2", "-o", made, RELAY_SOURCE], check=True)
        except FileNotFoundError:
            raise Unavailable("links are emulated by a C++ program; install g++") from None
        made.replace(RELAY)
    return RELAY


def end(process: subprocess.Popen) -> None:
    """Waits a little for a process that was told to end, then forces it."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _measured(delay: float, bandwidth: float) -> float:
    """Median seconds of a byte through a proxy and back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = ProxyProcess(delay, bandwidth, [server.getsockname()[1]])
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        try:
            with socket.create_connection(("127.0.0.1", proxy.ports[0])) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                seconds = []
                for _ in range(PINGS if delay < 1e-3 else 5):
                    began = time.perf_counter()
                    client.send(b"?")
                    client.recv(1)
                    seconds.append(time.perf_counter() - began)
        finally:
            proxy.close()
    return statistics.median(seconds)


def _echo(server: socket.socket) -> None:
    with contextlib.suppress(OSError), server.accept()[0] as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(64):
            connection.send(data)


class Spaces(Links):
    """A network namespace for each server, and a wire (veth) for each pair of hosts; the client is where it was.

    Namespaces have no names: each lives as long as a process in it, and these end when this process does, however it
    ends. Wires go with their namespaces.

    Raises:
        Unavailable: no rights, or no netem in this kernel.
    """

    kind = "namespaces"

    def __init__(self, network: Network):
        self._holders: list[subprocess.Popen] = []
        base = FIRST_ADDRESS + os.getpid() % 2048 * ADDRESSES
        self._wires = list(itertools.combinations(range(CLIENT + 1), 2))
        self._base = base
        try:
            for _ in range(SERVERS):
                self._holders.append(_holder())
                if self._holders[-1].stdout.readline() != b"ready\n":
                    why = self._holders[-1].stderr.read().decode(errors="replace").strip()
                    raise Unavailable(f"no network namespaces: {why}")
            for host in range(SERVERS):
                self._do(host, "ip", "link", "set", "lo", "up")
            for index, pair in enumerate(self._wires):
                self._wire(index, pair, network)
        except FileNotFoundError as error:
            self.__exit__()
            raise Unavailable(f"{error.filename} is not there") from None
        except BaseException:
            self.__exit__()
            raise

    def _wire(self, index: int, pair: tuple[int, int], network: Network) -> None:
        names = _names(index)
        places = [[] if host == CLIENT else ["netns", str(self._holders[host].pid)] for host in pair]
        _do("ip", "link", "add", names[0], *places[0], "type", "veth", "peer", "name", names[1], *places[1])
        for side, (host, name) in enumerate(zip(pair, names, strict=True)):
            self._do(host, "ip", "addr", "add", f"{self._number(index, side)}/30", "dev", name)
            self._do(host, "tc", "qdisc", "add", "dev", name, "root", *shaping(network))
            self._do(host, "ip", "link", "set", name, "up")

    def _number(self, index: int, side: int) -> str:
        return socket.inet_ntoa((self._base + 4 * index + 1 + side).to_bytes(4, "big"))

    def address(self, viewer: int, server: int) -> tuple[str, int, int]:
        if viewer == server:
            return "127.0.0.1", CONTROL, DATA
        pair = min(viewer, server), max(viewer, server)
        return self._number(self._wires.index(pair), pair.index(server)), CONTROL, DATA

    def command(self, host: int) -> list[str]:
        return [] if host == CLIENT else ["nsenter", f"--net=/proc/{self._holders[host].pid}/ns/net"]

    def bind(self) -> list[str]:
        return ["--bind", "0.0.0.0"]

    def _do(self, host: int, *command: str) -> None:
        _do(*self.command(host), *command)

    def __exit__(self, *_: object) -> None:
        # The system takes its time to remove a namespace with its wires; those that end here would be seen meanwhile.
        for index, pair in enumerate(self._wires):
            if CLIENT in pair:
                with contextlib.suppress(Unavailable, FileNotFoundError):
                    _do("ip", "link", "del", _names(index)[pair.index(CLIENT)])
        for process in self._holders:
            process.stdin.close()
            end(process)
            process.stdout.close()
            process.stderr.close()
        self._holders = []


def _names(index: int) -> list[str]:
    """Names of a wire's ends, for this process alone."""
    return [f"pk{os.getpid() % 1000000}-{index}{side}" for side in "ab"]


def _holder() -> subprocess.Popen:
    """A process in a new namespace, which ends with its standard input."""
    return subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def shaping(network: Network) -> list[str]:
    """What `tc` puts at both ends of a wire: half of the round trip, and the bandwidth."""
    rate = f"{network.bandwidth:.0f}bit"
    if network.rtt:
        return ["netem", "delay", f"{network.rtt / 2 * 1e6:.0f}us", "rate", rate, "limit", str(QUEUE_PACKETS)]
    return ["tbf", "rate", rate, "burst", str(int(max(1 << 18, network.bandwidth / 800))), "latency", "100ms"]


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")
