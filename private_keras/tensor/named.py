"""Named shares: what owners keep on the servers' disks under a name and a policy, for themselves and for others."""
import json
import weakref

import numpy as np

from private_keras.cluster import Cluster, Handle, current
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.data.data import FORMAT
from private_keras.errors import ClusterError, FileError, HandleNotFound, InputError
from private_keras.server.policy import Policy
from private_keras.tensor.secret import SecretTensor
from private_keras.tensor.sources import OWNER

# What the one tensor of shared data is called there; a model's are called otherwise.
LABEL = "data"


class Named:
    """A source that is loaded when it is used, and again after a restart of the servers.

    Args:
        cluster: where it is.
        name: without the owner.
        owner: whose it is; None for this client.
        shape, dtype, small: what is known of it.
        handle: of shares that are loaded already.
    """

    def __init__(
        self, cluster: Cluster, name: str, owner: str | None, shape: tuple[int, ...], fraction: int, small: bool,
        handle: Handle | None = None,
    ):
        self.name = name if owner is None else f"{owner}/{name}"
        self.owner = OWNER if owner is None else owner
        self.shares = "" if owner is None else f"{name}#{LABEL}"
        self.fraction = fraction
        self.small = small
        self._place = name, owner
        self._shape = shape
        self._cluster = weakref.ref(cluster)
        self._share = None if handle is None else Share(cluster, handle)

    def live(self, cluster: Cluster) -> bool:
        return cluster.holds(self._cluster())

    def home(self) -> Cluster:
        cluster = self._cluster()
        if cluster is None:
            raise ClusterError(f"the cluster of secret tensor {self.name!r} is closed. pk.secret({self.name!r}) finds "
                               "it on the one in use")
        return cluster

    def handle(self, cluster: Cluster) -> Handle:
        home = self._cluster()
        if home is None or not cluster.holds(home):
            raise HandleNotFound(f"secret tensor {self.name!r} is not on the cluster in use. pk.secret({self.name!r}) "
                                 "finds it there, if it is there too")
        delete_abandoned()
        if self._share is None or not self._share.live(cluster):
            handle, _ = load(home, *self._place)
            if (handle.shape, handle.fraction) != (self._shape, self.fraction):
                raise HandleNotFound(f"{self.name!r} was shared anew, with another shape or type: "
                                     f"pk.secret({self.name!r}) gives what it is now")
            self._share = Share(home, handle)
        return self._share.handle


def resolve(cluster: Cluster, name: str) -> tuple[str, str | None]:
    """Name and owner of what a client calls "name", its own, or "owner/name"."""
    if not isinstance(name, str):
        raise InputError(f'expected a name, "patients/x" or "hospital-a/patients/x". Received: {type(name).__name__}')
    if "/" not in name or name in cluster.saved():
        return name, None
    owner, rest = name.split("/", 1)
    return rest, owner


def load(cluster: Cluster, name: str, owner: str | None) -> tuple[Handle, dict]:
    """New handle of named data, and what is said about them."""
    handles, text = cluster.load(name, owner)
    whole = name if owner is None else f"{owner}/{name}"
    if set(handles) != {LABEL}:
        cluster.delete(*handles.values())
        raise InputError(f"{whole!r} is no data that were shared: pk.models.load_shares gives a model")
    try:
        about = json.loads(text)
        columns = about["columns"]
        if about["format"] != FORMAT or not isinstance(about["small"], bool):
            raise ValueError("another format")
        if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
            raise ValueError("columns are damaged")
    except (ValueError, KeyError, TypeError, RecursionError):
        cluster.delete(*handles.values())
        raise FileError(f"{whole!r} was not shared by this release; share it again") from None
    return handles[LABEL], about


def secret(name: str) -> SecretTensor:
    """A tensor that was shared under a name, by this client, or by another one whose policy lets this one use it.

    Args:
        name: "patients/x", or "hospital-a/patients/x" for what hospital-a shared as "patients/x".

    Returns:
        Name, shape, dtype and owner, and no data. What is shared under the name later is another version: this tensor
        stays what it is until the servers are started anew.

    Raises:
        HandleNotFound: nothing is shared under the name, or its owner does not let this client use it; servers do not
            say which.
    """
    cluster = current()
    delete_abandoned()
    place, owner = resolve(cluster, name)
    handle, about = load(cluster, place, owner)
    owner = handle.owner or None
    source = Named(cluster, place, owner, handle.shape, handle.fraction, about["small"], handle)
    dtype = np.dtype(handle.dtype or ("float64" if handle.fraction else "int64"))
    return SecretTensor.of(source, handle.shape, dtype)


def forget(name: str) -> None:
    """Deletes what this client shared under a name, of all versions.

    What others have computed of it and keep stays under its policy. Tensors that are loaded stay until they are let go
    of, or a server is started anew.

    Raises:
        HandleNotFound: this client has nothing under the name.
    """
    cluster = current()
    if not cluster.forget(cluster.own_name(name)):
        raise HandleNotFound(f"you have no shares under the name {name!r}, so nothing was deleted; pk.shared() lists "
                             "yours")


def forget_policies(name: str) -> int:
    """Gives up the policies of what this client has deleted under a name: nobody can use what others have made of it
    any more. Otherwise servers keep them for ever, of each owner a limited number.

    Args:
        name: one of this client's, or the beginning of several and "*". What is shared under it now stays as it is.

    Returns:
        How many there were.
    """
    cluster = current()
    return cluster.forget_policies(cluster.own_name(name))


def set_policy(name: str, policy: Policy) -> None:
    """Changes who may use what this client shared under a name; counts from the next job on, also for what others have
    computed of it.

    Raises:
        HandleNotFound: nothing is shared under the name.
    """
    if not isinstance(policy, Policy):
        raise InputError(f"set_policy: expected pk.Policy(...). Received: {type(policy).__name__}")
    cluster = current()
    cluster.set_policy(cluster.own_name(name), policy)


def shared() -> list[str]:
    """Names of what this client has shared or saved, and as "owner/name" of what others let it use."""
    cluster = current()
    return [item.name for item in cluster.names()] + [str(item) for item in cluster.names(others=True)]
