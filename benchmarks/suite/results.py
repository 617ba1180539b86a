"""Results of a run: collected workload by workload, written as JSON."""

import json
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import private_keras as pk
from benchmarks.suite import machine
from benchmarks.suite.measure import Effort, Record, measure
from benchmarks.suite.work import Workload
from private_keras.cluster import Cluster

EMBEDDED = "embedded"
# What opens a cluster, which becomes the current one, and gives it with the servers' process ids.
Place = Callable[[], AbstractContextManager[tuple[Cluster, Sequence[int]]]]


@contextmanager
def embedded() -> Iterator[tuple[Cluster, Sequence[int]]]:
    """Three servers on this machine over Unix sockets."""
    with pk.LocalCluster() as cluster:
        yield cluster, cluster.pids


def collect(
    groups: Sequence[Sequence[Workload]], network: str, place: Place, effort: Effort, after: Callable[[Record], None]
) -> list[Record]:
    """Measures workloads in order; each group has servers of its own.

    Args:
        network: name of the links between servers.
        after: told of each line as it is there.

    Returns:
        The lines. What failed is a line with `failed` and no figures, so that one workload does not cost the rest.
    """
    records = []
    for group in groups:
        with place() as (cluster, pids):
            for workload in group:
                try:
                    record = measure(workload, cluster, pids, effort)
                except Exception as error:
                    traceback.print_exc()
                    record = {"workload": workload.name, "title": workload.title, "failed": str(error)[:300]}
                records.append({"network": network, **record})
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
