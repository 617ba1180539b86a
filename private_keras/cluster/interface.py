"""A cluster as models use it: share, run, delete."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from private_keras.cluster import display
from private_keras.cluster.active import Active
from private_keras.cluster.audit import Head, Log
from private_keras.cluster.delivery import Delivery
from private_keras.cluster.handle import Handle, Stats
from private_keras.cluster.loop import Given, Loop
from private_keras.cluster.named import Named
from private_keras.cluster.putting import Column, Progress
from private_keras.cluster.stock import Item
from private_keras.plan.plan import Plan
from private_keras.ring import fixedpoint
from private_keras.server import limits
from private_keras.server.policy import Policy

RUN_SECONDS = 600.0
OWNER_ONLY = Policy()


class Cluster(ABC):
    """Where plans run.

    Attributes:
        protocol: name of the protocol.
        stats: rounds, bytes and seconds of the last run and of all.
    """

    protocol: str
    stats: Stats

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """Changes whenever a server was started anew: handles from before are gone, and must be shared again."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Who the servers take this client for: the name in its certificate; on Unix sockets the local user."""

    def holds(self, cluster: "Cluster | None") -> bool:
        """Whether what was shared on that cluster is here."""
        return cluster is self

    @abstractmethod
    def share(self, values: np.ndarray, fraction: int, name: str) -> Handle:
        """Shares a tensor among the servers, which keep it.

        Args:
            values: real numbers, any shape without empty axes.
            fraction: fractional bits.
            name: what it is, for errors.

        Raises:
            InputError: not finite, out of range, not numbers, or empty.
            ClusterError: a server cannot be reached or has no room.
        """

    @abstractmethod
    def delete(self, *handles: Handle | Item) -> None:
        """Lets the servers forget shares, with all that was prepared for them, and items that were prepared; all in one
        call, without effect where they are gone already.
        """

    @abstractmethod
    def run(
        self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS, loop: Loop | None = None,
        item: Item | None = None, delivery: str = "",
    ) -> dict[str, np.ndarray | Handle]:
        """Runs a plan, once or as the steps of a loop, in one job.

        Args:
            plan: the program.
            inputs: for each secret input of the plan a stored handle, or real numbers, which are shared for this run
                alone, or `Rows` of a stored handle; for each public one a `PublicValue`. What an output carries is the
                input at the first step only.
            deadline: seconds.
            loop: how many steps; None for one.
            item: what `prepare` made for this run, which it uses up. Where servers have it no more, the run does all
                itself.
            delivery: name under which receivers other than this client find what the plan opens to them
                (`deliveries`); for such plans, and no others.

        Returns:
            By name, outputs that are opened to this client, float64, and new handles of those that the servers keep;
            both of the last step. They are the caller's to delete. There are none after an error.

        Raises:
            InputError: inputs that do not fit the plan.
            HandleNotFound: shares that are gone; share them again.
            SecurityError: an owner's policy does not allow it; says what it allows, and what to do.
            PeerLost, DeadlineExceeded, ServerUnavailable: naming the server. The cluster stays usable.
        """

    @abstractmethod
    def prepare(self, plan: Plan, inputs: Mapping[str, Given], deadline: float = RUN_SECONDS) -> Item:
        """Lets the servers do, ahead, all of one run of a plan that needs no batch. See docs/security.md, "Made ahead".

        Args:
            plan: opens all its outputs.
            inputs: as for `run`, without those that the batch is: real numbers that are given with the run.
            deadline: seconds.

        Returns:
            What `run` takes once. Servers keep it as long as they keep all stored tensors in it, or until `delete`.

        Raises: as `run` does.
        """

    @abstractmethod
    def save(
        self, name: str, handles: Mapping[str, Handle], about: str = "", policy: Policy = OWNER_ONLY
    ) -> None:
        """Saves shares on the servers' disks, in place of what was saved under that name; all of it or nothing.

        Each server writes what it holds, which stays as secret as it was. After a crash of a server, of all, or of this
        client in the middle, there is either what was saved before or what is saved now.

        Args:
            name: up to 80 letters, digits and _ . : / -.
            handles: tensors by name.
            about: text of up to 1 MiB that `load` gives back. Servers can read it.
            policy: who else may use them, and how.

        Raises:
            InputError, HandleNotFound: arguments that do not fit, shares that are gone.
            ClusterError: a server without a directory for it, or without room; says what to do.
        """

    @abstractmethod
    def put(
        self, name: str, columns: Mapping[str, Column], about: str = "", policy: Policy = OWNER_ONLY,
        progress: Progress | None = None,
    ) -> None:
        """Shares data and saves it under a name in one go, block by block; see `save` for what a crash leaves.

        Neither this client nor a server holds more of it in memory than some blocks.

        Args:
            name, about, policy: as for `save`.
            columns: tensors by name.
            progress: called in this thread, now and then, with the elements that are on their way and those in all.

        Raises:
            InputError: arguments or values that do not fit; nothing is saved then.
            ClusterError: a server without a directory for it, or without room; says what to do.

        Cost: 8 bytes an element to each evaluator, 32 bytes a tensor to the helper; the same on their disks.
        """

    @abstractmethod
    def load(self, name: str, owner: str | None = None) -> tuple[dict[str, Handle], str]:
        """New handles of what was saved last under a name, and the text about it.

        Small tensors are read into the servers' memory. Large ones stay on their disks: jobs that take rows read these
        rows, and the first job that takes all of one reads all of it.

        Args:
            owner: who saved it, and lets this identity use it; None for this identity itself.

        Raises:
            HandleNotFound: nothing is saved under it on all servers, or this identity may not use it.
            FileError: a server's file is damaged. Of a large tensor, only a job may find that out.
        """

    @abstractmethod
    def saved(self) -> list[str]:
        """Names that can be loaded, sorted."""

    @abstractmethod
    def forget(self, name: str) -> bool:
        """Removes what was saved under a name, of all versions; tells whether any server had anything."""

    @abstractmethod
    def forget_policies(self, name: str) -> int:
        """Gives up the policies that servers keep of what was forgotten under a name, so that nobody uses what others
        have made of it any more; tells how many there were, on the server that had most.

        Args:
            name: one, or the beginning of several and "*". What is shared under it now stays as it is.
        """

    def own_name(self, name: str) -> str:
        """The name of this client's own shares, from that or from "owner/name", as lists have it."""
        return name if name in self.saved() else name.removeprefix(f"{self.identity}/")

    @abstractmethod
    def names(self, others: bool = False) -> list[Named]:
        """What this client has saved under names; with `others`, what others have saved and let it use."""

    @abstractmethod
    def set_policy(self, name: str, policy: Policy) -> None:
        """Puts another policy on what this client saved under a name, for jobs from now on, on all that was made of it.

        Raises:
            HandleNotFound: nothing was ever saved under it.
        """

    @abstractmethod
    def deliveries(self) -> list[Delivery]:
        """What others' jobs have opened to this client, oldest first. Servers keep it for a week, on disk where they
        have a directory.
        """

    @abstractmethod
    def fetch(self, delivery: Delivery) -> dict[str, np.ndarray]:
        """One of these, by output name, float64; the servers keep it until it is `received`.

        Raises:
            HandleNotFound: received before, or lost.
        """

    @abstractmethod
    def received(self, delivery: Delivery) -> None:
        """Lets the servers forget what was fetched; warns of one that cannot do that now."""

    def receive(self, delivery: Delivery) -> dict[str, np.ndarray]:
        """Fetches a delivery, and lets the servers forget it."""
        result = self.fetch(delivery)
        self.received(delivery)
        return result

    @abstractmethod
    def plan_text(self, digest: str) -> str:
        """The text of a plan that somebody has prepared on the servers, the same on all.

        Raises:
            HandleNotFound: no plan with this digest is prepared.
        """

    @abstractmethod
    def audit(self, seen: Mapping[str, Head] | None = None, archives: Sequence[Path] = ()) -> list[Log]:
        """The servers' audit logs, verified.

        Args:
            seen: their ends as they were before, by server.
            archives: files with closed parts that servers do not have any more.
        """

    @abstractmethod
    def broken_logs(self, seen: Mapping[str, Head]) -> list[str]:
        """What is wrong with audit logs that do not go on from where they ended when they were read; reads what was
        written since.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; idempotent."""

    @abstractmethod
    def _facts(self) -> display.Facts:
        """What it is and in what state, without asking a server."""

    def __repr__(self) -> str:
        return display.as_text(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return display.as_html(type(self).__name__, self._facts(), self.stats)

    def __enter__(self) -> "Cluster":
        """Makes this cluster the current one for a `with` block."""
        ACTIVE.push(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ACTIVE: Active[Cluster] = Active()


def decoded(plan: Plan, opened: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ring elements of the outputs that are opened to this client as real numbers."""
    return {
        item.name: fixedpoint.decode(opened[item.name], plan.types[item.value].fraction)
        for item in plan.outputs if item.name in opened
    }  # fmt: skip


def kept_handles(plan: Plan, incarnation: str) -> dict[str, Handle]:
    """New handles for the outputs that servers keep, by name."""
    result = {}
    for item in plan.outputs:
        if not item.receivers:
            kind = plan.types[item.value]
            handle_id = secrets.token_bytes(limits.ID_BYTES)
            result[item.name] = Handle(item.name, kind.shape, kind.fraction, incarnation, handle_id)
    return result
