"""Where the shares of secret tensors are: tensors that were shared, and what servers have computed of them."""
from collections.abc import Callable
from typing import Protocol

import keras

from private_keras.cluster import Cluster, Handle
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.errors import ClusterError, HandleNotFound
from private_keras.plan.plan import Plan
from private_keras.server import limits

# What a plan calls the party that runs it.
OWNER = "client"


class Source(Protocol):
    """Something with shares on the servers.

    Attributes:
        name: for people.
        owner: whose it is, as plans name parties.
        shares: which of its owner's named shares, as plans say it; empty: the client's own.
        fraction: fractional bits on the servers.
        small: whether integers are in the range of real numbers too.
    """

    name: str
    owner: str
    shares: str
    fraction: int
    small: bool

    def handle(self, cluster: Cluster) -> Handle:
        """The shares on this cluster."""

    def live(self, cluster: Cluster) -> bool:
        """Whether the shares are there as they were."""

    def home(self) -> Cluster:
        """The cluster that it is on."""


class Stored:
    """A tensor that this client has shared. The shares end with the last that refers to it.

    Args:
        name: for errors.
        share: where it is.
        small: see `Source`. The sharer knows.
    """

    owner = OWNER
    shares = ""

    def __init__(self, name: str, share: Share, small: bool):
        self.name = name
        self.small = small
        self.fraction = share.handle.fraction
        self._share = share

    def live(self, cluster: Cluster) -> bool:
        return self._share.live(cluster)

    def home(self) -> Cluster:
        cluster = self._share.cluster
        if cluster is None:
            raise ClusterError(f"the cluster of secret tensor {self.name!r} is closed. {self._advice()}")
        return cluster

    def handle(self, cluster: Cluster) -> Handle:
        if not cluster.holds(self._share.cluster):
            raise HandleNotFound(
                f"secret tensor {self.name!r} is not on the cluster in use, but on another one, or on one that was "
                f"closed. {self._advice()}"
            )
        if not self.live(cluster):
            raise HandleNotFound(
                f"the shares of secret tensor {self.name!r} were lost when a server was started anew. {self._advice()}"
            )
        delete_abandoned()
        return self._share.handle

    def _advice(self) -> str:
        return f"Share the array again: pk.share(array, name={self.name!r})."


class Derived:
    """What servers compute of secret tensors at the first use, for all rows, and keep.

    Args:
        tensor: what was recorded.
        fraction: of the result.
        small: see `Source`.
        compute: runs it on a cluster and gives the handle of what is kept.
    """

    owner = OWNER
    shares = ""

    def __init__(self, tensor: keras.KerasTensor, fraction: int, small: bool, compute: Callable[[Cluster], Handle]):
        self.name = tensor.name
        self.fraction = fraction
        self.small = small
        self._compute = compute
        self._share: Share | None = None

    def live(self, cluster: Cluster) -> bool:
        return self._share is None or self._share.live(cluster)

    def handle(self, cluster: Cluster) -> Handle:
        if self._share is None or not self._share.live(cluster):
            self._share = Share(cluster, self._compute(cluster))
        return self._share.handle


def run_kept(cluster: Cluster, plan: Plan, given: dict) -> Handle:
    """Runs a plan of one kept output and gives its handle."""
    return cluster.run(plan, given, deadline=limits.MAX_SECONDS)[plan.outputs[0].name]
