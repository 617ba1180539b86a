"""Server processes on emulated hosts, with certificates, and a client that is connected to them."""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.networks.links import CLIENT, ROOT, SERVERS, Direct, Links, Proxied, Spaces, Unavailable, end
from private_keras.cluster import Cluster, NetworkCluster
from private_keras.cluster.keys import make_keys
from private_keras.forecast import Network
from private_keras.server.config import read_config
from private_keras.server.process import READY

IDENTITY = "analyst"
START_SECONDS = 60.0
# A data centre, and two sites of one continent. "tcp" is loopback as it is.
EMULATED = {"lan": Network(rtt=1e-4, bandwidth=10e9), "wan": Network(rtt=40e-3, bandwidth=300e6)}


@dataclass(frozen=True)
class Servers:
    """What runs.

    Attributes:
        pids: of the servers, by party.
        kind: how links are made.
        round_trip: seconds, where it was measured.
    """

    pids: Sequence[int]
    kind: str
    round_trip: float | None


def links_for(network: Network | None) -> Links:
    """Namespaces where the machine allows them, otherwise proxies; loopback for None."""
    if network is None:
        return Direct()
    try:
        return Spaces(network)
    except Unavailable:
        return Proxied(network)


@contextmanager
def emulated(
    network: str | Network, make: Callable[[Network | None], Links] = links_for
) -> Iterator[tuple[Cluster, Servers]]:
    """Three servers over TLS 1.3 and the client that is connected to them, which is the current cluster in the block.

    Args:
        network: "tcp", "lan", "wan" or a `Network` for each link: between servers, and from each to the client.
        make: how links are made.
    """
    if isinstance(network, str):
        network = None if network == "tcp" else EMULATED[network]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="private_keras_hosts_")))
        links = stack.enter_context(make(network))
        configs = _descriptions(directory, links)
        processes = [stack.enter_context(_Server(links, configs[party], party)) for party in range(SERVERS)]
        deadline = time.monotonic() + START_SECONDS
        for process in processes:
            process.wait_ready(deadline)
        cluster = stack.enter_context(NetworkCluster(read_config(configs[CLIENT]), IDENTITY))
        cluster.connect()
        yield cluster, Servers([process.pid for process in processes], links.kind, links.round_trip())


def _descriptions(directory: Path, links: Links) -> list[Path]:
    """A `cluster.json` for each host, the client's last, and keys beside them."""
    names = [f"server{party}" for party in range(SERVERS)]
    pins = make_keys(directory / "keys", [*names, IDENTITY])
    paths = []
    for viewer in range(CLIENT + 1):
        servers = []
        for party, name in enumerate(names):
            host, control, data = links.address(viewer, party)
            addresses = {"control": f"{host}:{control}", "data": f"{host}:{data}"}
            servers.append({"name": name, "certificate": pins[name], **addresses})
        content = {"protocol": "trio", "servers": servers, "clients": {IDENTITY: {"certificate": pins[IDENTITY]}}}
        paths.append(directory / f"host{viewer}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


class _Server:
    """One `private-keras serve`; ends with the block, and at the latest with this process."""

    def __init__(self, links: Links, config: Path, party: int):
        self._line, theirs = socket.socketpair()
        self._log = config.with_suffix(".log")
        command = [sys.executable, "-m", "private_keras", "serve", "--config", str(config), "--party", str(party)]
        options = ["--log", "warning", "--lifeline", str(theirs.fileno()), *links.bind()]
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*links.command(party), *command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline: float) -> None:
        """Returns when it listens."""
        poll = select.poll()
        poll.register(self._line.fileno(), select.POLLIN)
        said = b""
        while said != READY:
            piece = self._line.recv(64) if poll.poll(max(0.0, deadline - time.monotonic()) * 1000) else b""
            if not piece:
                raise RuntimeError(f"a server does not start: {self._log.read_text(errors='replace')[-1500:]}")
            said += piece

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        end(self._process)
