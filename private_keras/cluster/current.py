"""The cluster that models use when none is given: connected by hand, or embedded at first use."""

from pathlib import Path

from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.interface import ACTIVE, Cluster
from private_keras.cluster.local import LocalCluster
from private_keras.cluster.planning import planned
from private_keras.cluster.simulated import SimulatedCluster
from private_keras.errors import InputError
from private_keras.server.config import read_config

SIMULATE = "simulate"


def connect(config: str | Path | None = None, *, identity: str | None = None, protocol: str | None = None) -> Cluster:
    """Chooses where models run from now on; one that was connected before is disconnected.

    Args:
        config: path of a `cluster.json`; None: three servers on this machine, started now.
        identity: who this client is, for a cluster over TLS: the name of its certificate.
        protocol: "trio" (three servers, default) or "simulate" (same arithmetic in this process, no secrecy). With a
            `config`, which names the protocol itself, it can only be left out or be the same.

    Returns:
        The cluster, also used by everything that is not given one.

    Raises:
        InputError: arguments or a description that do not fit.
        ServerUnavailable, SecurityError, VersionMismatch: naming the server.
    """
    if config is None:
        if identity is not None:
            raise InputError(
                "an identity belongs to a cluster.json; on this machine's own servers you are the local user"
            )
        cluster: Cluster = SimulatedCluster() if protocol == SIMULATE else LocalCluster(protocol or "trio")
    elif not isinstance(config, str | Path):
        raise InputError(f"expected the path of a cluster.json, or None. Received: {type(config).__name__}")
    else:
        description = read_config(config)
        if protocol not in (None, description.protocol):
            raise InputError(f"{config} is a cluster for {description.protocol}. Received: protocol={protocol!r}")
        cluster = NetworkCluster(description, identity)
        try:
            cluster.connect()
        except BaseException:
            cluster.close()
            raise
    with ACTIVE.lock:
        disconnect()
        ACTIVE.push(cluster)
        ACTIVE.loose = cluster
    return cluster


def disconnect() -> None:
    """Ends the cluster that `connect` or the first use made; embedded servers end. The next use starts anew.

    A cluster of a `with` block ends with its block.
    """
    with ACTIVE.lock:
        if ACTIVE.loose is not None:
            ACTIVE.loose.close()


def current() -> Cluster:
    """The cluster in use; started on this machine when there is none yet."""
    standing = planned()
    if standing is not None:
        return standing
    with ACTIVE.lock:
        return ACTIVE.top() or connect()
