"""Links between servers."""

import math
from dataclasses import dataclass

from private_keras.errors import InputError


@dataclass(frozen=True)
class Network:
    """Links between servers.

    Args:
        rtt: seconds for a message and its answer.
        bandwidth: bits per second, each direction of each link.
        cores: that all servers share, where they run on one machine; 0 if each has enough for itself.
    """

    rtt: float
    bandwidth: float
    cores: int = 0

    def __post_init__(self):
        if not (math.isfinite(self.rtt) and self.rtt >= 0 and self.bandwidth > 0):
            raise InputError(f"Network: expected rtt >= 0 seconds and bandwidth > 0 bits per second. Received: {self}")
        if not (isinstance(self.cores, int) and self.cores >= 0):
            raise InputError(f"Network: expected a number of cores, 0 or more. Received: {self.cores!r}")

    def sending(self, nbytes: int) -> float:
        """Seconds that a link is busy with so many bytes."""
        return 8 * nbytes / self.bandwidth


# Unix sockets of one machine with two cores; a data centre; two sites of one continent.
NETWORKS = {"local": Network(0.0, 40e9, 2), "lan": Network(100e-6, 10e9), "wan": Network(40e-3, 300e6)}


def network_of(network: str | Network) -> Network:
    """A network by its name or as it is; raises `InputError` for anything else."""
    if isinstance(network, str) and network in NETWORKS:
        return NETWORKS[network]
    if isinstance(network, Network):
        return network
    raise InputError(
        f"network: expected one of {sorted(NETWORKS)} or Network(rtt=..., bandwidth=...). Received: {network!r}"
    )
