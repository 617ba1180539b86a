"""The board on a cluster: named shares, with a policy for each."""

from collections.abc import Iterator, Mapping

import numpy as np

from private_keras.cluster import Cluster, current
from private_keras.cluster.client import kind_of
from private_keras.cluster.loop import PublicValue
from private_keras.cluster.putting import Column
from private_keras.errors import FileError, HandleNotFound, SecurityError
from private_keras.federated.board import Apart, Board, Listed, Tensor, Unusable
from private_keras.plan.aggregate import CLIENT, SEED
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan
from private_keras.server.policy import Policy


def board_of(where: Cluster | Board | None) -> Board:
    """The board of a party on a cluster, by default the one in use."""
    return where if isinstance(where, Board) else ClusterBoard(current() if where is None else where)


class ClusterBoard(Board):
    """What a party of a cluster shares and may use there."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster

    @property
    def identity(self) -> str:
        return self._cluster.identity

    def put(self, name: str, tensors: Mapping[str, Tensor], about: str, policy: Policy) -> None:
        self._cluster.put(name, {label: _column(tensor) for label, tensor in tensors.items()}, about, policy)

    def forget(self, name: str) -> None:
        self._cluster.forget(name)

    def listed(self) -> list[Listed]:
        return [
            Listed("" if own else each.owner, each.name, {e.label: (tuple(e.shape), e.fraction) for e in each.entries},
                   each.created)
            for own in (True, False) for each in self._cluster.names(others=not own)
        ]  # fmt: skip

    def open(self, owner: str, name: str) -> tuple[dict[str, np.ndarray], str]:
        handles, about = self._cluster.load(name, owner or None)
        try:
            b = PlanBuilder()
            for index, (label, handle) in enumerate(handles.items()):
                value = b.input(f"x{index}", handle.shape, handle.fraction, owner or CLIENT, label)
                b.output(value, f"y{index}", [CLIENT])
            given = {f"x{index}": handle for index, handle in enumerate(handles.values())}
            opened = self._cluster.run(b.build("reveal", "reveal"), given)
            return {label: opened[f"y{index}"] for index, label in enumerate(handles)}, about
        finally:
            self._cluster.delete(*handles.values())

    def mean(self, plan: Plan, updates: Mapping[str, str], seed: int) -> dict[str, np.ndarray]:
        given, held = {SEED: PublicValue(np.array(seed))}, []
        try:
            for owner, name in updates.items():
                try:
                    handles, _ = self._cluster.load(name, owner)
                except (HandleNotFound, SecurityError, FileError) as error:
                    raise Unusable(owner, f"its shares cannot be used: {error}") from error
                held += handles.values()
                given |= {f"{owner}/{label}": handle for label, handle in handles.items()}
            try:
                return self._cluster.run(plan, given)
            except SecurityError as error:
                for owner, name in updates.items():
                    if f" {owner}/{name}: its policy" in f" {error}":
                        raise Unusable(owner, f"its policy does not allow the mean: {error}", True) from error
                apart = [owner for owner in updates if f"'{owner}/" in str(error)]
                if apart and kind_of(error) == "PartsApart":
                    raise Apart(apart, str(error)) from error
                raise
        finally:
            self._cluster.delete(*held)


def _column(tensor: Tensor) -> Column:
    def blocks() -> Iterator[np.ndarray]:
        yield tensor.values

    return Column(tensor.values.shape, tensor.fraction, tensor.values.dtype.name, blocks)
