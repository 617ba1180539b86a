"""Shares that somebody has on a cluster, deleted there some time after nothing refers to them any more."""
import collections
import weakref

import numpy as np

from private_keras.cluster.handle import Handle
from private_keras.cluster.interface import Cluster
from private_keras.cluster.loop import Rows

# Deleting is a call over the network, which a garbage collector must not make: the next share or job does it.
_abandoned: collections.deque[tuple[weakref.ref, dict[str, Handle]]] = collections.deque()


class Shares:
    """Tensors on one cluster by name, as long as its servers live."""

    def __init__(self, cluster: Cluster):
        self._cluster = weakref.ref(cluster)
        self._incarnation = cluster.incarnation
        self._handles: dict[str, Handle] = {}
        weakref.finalize(self, _abandoned.append, (self._cluster, self._handles)).atexit = False

    def live(self, cluster: Cluster) -> bool:
        """Whether these are shares on this cluster, whose servers have not been started anew since."""
        return cluster.holds(self._cluster()) and self._incarnation == cluster.incarnation

    def handle(self, name: str, values: np.ndarray, fraction: int, label: str) -> Handle:
        """The handle of a tensor, shared now if it was not before."""
        if name not in self._handles:
            self._handles[name] = self._cluster().share(values, fraction, label or name)
        return self._handles[name]


class Share:
    """One tensor on one cluster."""

    def __init__(self, cluster: Cluster, handle: Handle):
        self.handle = handle
        self._cluster = weakref.ref(cluster)
        weakref.finalize(self, _abandoned.append, (self._cluster, {"": handle})).atexit = False

    def live(self, cluster: Cluster) -> bool:
        """Whether it is on this cluster, whose servers have not been started anew since."""
        return cluster.holds(self.cluster) and self.handle.incarnation == cluster.incarnation

    @property
    def cluster(self) -> Cluster | None:
        """Where it was put; a server may have been started anew since. None if nothing refers to the cluster."""
        return self._cluster()

    def rows(self, cluster: Cluster, indices: np.ndarray) -> Rows:
        """Rows of it for the steps of a job on this cluster."""
        return Rows(self.handle, indices)


def delete_abandoned() -> None:
    """Deletes what nothing refers to any more."""
    found: dict[Cluster, list[Handle]] = {}
    while _abandoned:
        cluster, handles = _abandoned.popleft()
        place = cluster()
        if place is not None:
            found.setdefault(place, []).extend(handles.values())
    for place, abandoned in found.items():
        place.delete(*abandoned)
