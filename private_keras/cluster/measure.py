"""How fast connections are: small measured calls, and two small jobs."""

from dataclasses import dataclass

import numpy as np

from private_keras.cluster.client import ServerClient
from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.handle import Traffic
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan
from private_keras.server import limits
from private_keras.server.config import ClusterConfig

TIMES = 5
LARGE = 100_000
JOB_SECONDS = 60.0


@dataclass(frozen=True)
class Speed:
    """Of a connection between a client and a server.

    Attributes:
        seconds: there and back, the least of several.
        up, down: bits per second to and from the server, at least.
    """

    seconds: float
    up: float
    down: float

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:.1f} ms there and back, {_rate(self.up)} up, {_rate(self.down)} down"


def measure(client: ServerClient) -> Speed:
    """Speed of a connection that is open. Cost: 3 MiB each way."""
    empty = min(client.probe(0, 0)[0] for _ in range(TIMES))
    size = limits.CHUNK_BYTES
    up = min(client.probe(size, 0)[0] for _ in range(TIMES - 2))
    down = min(client.probe(0, size)[0] for _ in range(TIMES - 2))
    bits = 8 * size
    return Speed(empty, bits / max(1e-6, up - empty), bits / max(1e-6, down - empty))


def job_speed(config: ClusterConfig, identity: str | None) -> tuple[Traffic, Traffic, str]:
    """What a job of next to no data takes, what one of some megabytes does, and how fast these moved."""
    cluster = NetworkCluster(config, identity)
    try:
        cluster.connect()
        found = []
        for elements in (1, LARGE):
            best = None
            for _ in range(2):  # the first makes connections
                cluster.run(_plan(elements), {"x": np.zeros(elements)}, deadline=JOB_SECONDS)
                last = cluster.stats.last
                best = last if best is None or last.seconds < best.seconds else best
            found.append(best)
    finally:
        cluster.close()
    small, large = found
    taken = max(1e-6, large.computing - small.computing)
    return small, large, f"at least {_rate(8 * sum(large.sent) / taken)}"


def _plan(elements: int) -> Plan:
    builder = PlanBuilder()
    builder.input("x", (elements,), fraction=18, owner="client", label="nothing but zeros")
    builder.output(builder.add("relu", "x", layer="measured", truncate=0), "y", ["client"])
    return builder.build("measured", "predict")


def _rate(bits: float) -> str:
    return f"{bits / 1e9:.1f} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.1f} Mbit/s"
