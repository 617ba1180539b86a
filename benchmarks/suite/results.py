"""Results of a run: collected workload by workload, written as JSON."""

import dataclasses
import json
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import private_keras as pk
from benchmarks.networks.hosts import EMULATED, Servers, emulated
from benchmarks.suite import machine
from benchmarks.suite.bounds import speeds
from benchmarks.suite.measure import Effort, Here, Record, measure
from benchmarks.suite.work import Workload
from private_keras import forecast
from private_keras.cluster import Cluster

EMBEDDED = "embedded"
NAMES = (EMBEDDED, "tcp", *EMULATED)
# What `cost` is asked for; nothing tells of loopback.
FORECASTS = {EMBEDDED: forecast.NETWORKS["local"]} | {
    # All hosts are on this machine.
    name: dataclasses.replace(network, cores=os.cpu_count() or 1) for name, network in EMULATED.items()
}  # fmt: skip


@contextmanager
def place(network: str) -> Iterator[tuple[Cluster, Servers]]:
    """A cluster, which is the current one in the block: embedded, over Unix sockets, or with emulated links."""
    if network == EMBEDDED:
        with pk.LocalCluster() as cluster:
            yield cluster, Servers(cluster.pids, "Unix sockets", None)
    else:
        with emulated(network) as found:
            yield found


def speed() -> Here:
    """How fast this machine is and servers on it are; takes some seconds."""
    with place(EMBEDDED):
        return Here(None, forecast.measure_machine("local"), speeds())


def between(here: Here, cluster: Cluster) -> Here:
    """The same with servers as fast as they are over these links: encryption, the system's part in a message and the
    proxy's are the machine's, whose cores all of them share.
    """
    return dataclasses.replace(here, servers=forecast.measure_machine(here.network, cluster))


def groups(workloads: Sequence[Workload], network: str) -> list[list[Workload]]:
    """Which workloads are measured with the same servers.

    Embedded each has its own, so that peaks are its own; between hosts, which take longer to start, all that are
    measured there share them.
    """
    if network == EMBEDDED:
        return [[workload] for workload in workloads]
    return [[workload for workload in workloads if workload.networked]]


def collect(
    workloads: Sequence[Workload], network: str, effort: Effort, here: Here, after: Callable[[Record], None]
) -> list[Record]:
    """Measures workloads in order.

    Args:
        network: one of NAMES.
        here: of `speed`.
        after: told of each line as it is there.

    Returns:
        The lines. What failed is a line with `failed` and no figures, so that one workload does not cost the rest.
    """
    records = []
    here = dataclasses.replace(here, network=FORECASTS.get(network))
    for group in groups(workloads, network):
        if not group:
            continue
        with place(network) as (cluster, servers):
            # Embedded servers are those of `speed`, if it was not long ago.
            again = here.network is not None and (network != EMBEDDED or effort.alone)
            there = between(here, cluster) if again else here
            for workload in group:
                try:
                    record = measure(workload, cluster, servers.pids, effort, there)
                except Exception as error:
                    traceback.print_exc()
                    record = {"workload": workload.name, "title": workload.title, "failed": str(error)[:300]}
                about = {"network": network, "links": servers.kind, "round_trip": servers.round_trip}
                records.append({**about, **record})
                after(records[-1])
    return records


def write(path: Path, records: Sequence[Record], peers: Sequence[Record]) -> None:
    """Results as JSON, with what they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine.facts(), "revision": _revision(), "results": list(records), "peers": list(peers)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path) -> dict:
    """What `write` wrote."""
    return json.loads(path.read_text())


def _revision() -> str:
    """The commit that was measured; "" outside of a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
