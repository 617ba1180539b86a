"""Secret tensors as inputs of a model's plan."""
import collections
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle, Rows
from private_keras.cluster.results import addressed
from private_keras.plan.plan import Plan
from private_keras.plan.splice import splice
from private_keras.tensor.sources import OWNER
from private_keras.tensor.symbols import Root, sources
from private_keras.tensor.writing import Written, by_rows, derived, write_rows

# Of one tensor: forms for so many batch sizes and models.
_FORMS = 32


@dataclass(frozen=True)
class Part:
    """An input of a plan that another plan computes first.

    Attributes:
        plan: of one output.
        given: its inputs.
    """

    plan: Plan
    given: Mapping[str, Any] = field(repr=False)


class Column:
    """Rows of a secret tensor in the form of a plan's input: computed, reshaped, integers as real numbers where it
    wants them. All of this is part of the model's plan, so that owners see in it what becomes of their data.

    Args:
        tensor: as recorded.
        row: shape of a row.
        fraction: of the plan's input.
        rows: numbers of rows.
    """

    def __init__(self, tensor: keras.KerasTensor, row: tuple[int, ...], fraction: int, rows: np.ndarray):
        if not by_rows(tensor):
            tensor = Root(tensor.shape, tensor.dtype, derived(tensor))
        self._tensor = tensor
        self._row = row
        self._fraction = fraction
        self._numbers = rows

    def live(self, cluster: Cluster) -> bool:
        """Whether it is on this cluster, whose servers have not been started anew since."""
        return all(source.live(cluster) for source in sources(self._tensor))

    def rows(self, cluster: Cluster, indices: np.ndarray | None = None) -> "Rows | Part":
        """Rows of these rows for the steps of a job, or all of them for one step.

        Raises:
            HandleNotFound: another cluster, or a server was started anew.
        """
        numbers = self._numbers[np.newaxis] if indices is None else self._numbers[indices]
        tensor = self._tensor
        if isinstance(tensor, Root) and tensor.source is not None:
            source = tensor.source
            if (source.fraction, source.owner, tensor.shape[1:]) == (self._fraction, OWNER, self._row):
                return Rows(source.handle(cluster), numbers if tensor.rows is None else tensor.rows[numbers])
        written = self._written(numbers)
        return Part(written.plan, written.given(cluster, numbers))

    def _written(self, numbers: np.ndarray) -> Written:
        if not hasattr(self._tensor, "forms"):
            self._tensor.forms = collections.deque(maxlen=_FORMS)
        key = numbers.shape[1], self._row, self._fraction
        for known, written in self._tensor.forms:
            if known == key and written.fits(numbers):
                return written
        written = write_rows(self._tensor, numbers, self._row, self._fraction)
        self._tensor.forms.appendleft((key, written))
        return written


def spliced(plan: Plan, given: Mapping[str, Any], to: str | None = None) -> tuple[Plan, dict[str, Any]]:
    """The plan that takes what it is given: parts are computed in it, and who owns an input stands at it.

    Args:
        given: by name of an input; with parts among them.
        to: who gets what is opened; None for the client.
    """
    parts = {name: value for name, value in given.items() if isinstance(value, Part)}
    owners = {name: provider for name, value in given.items() if any(provider := _provider(value))}
    if not parts and not owners and to is None:
        return plan, dict(given)
    key = (id(plan), to, *sorted((name, id(part.plan)) for name, part in parts.items()), *sorted(owners.items()))
    if key not in _joined:
        before = {name: part.plan for name, part in parts.items()}
        # With the plans that the ids in the key are of, so that no others get them.
        joined = splice(plan if to is None else addressed(plan, to), before, owners)
        _joined[key] = joined, plan, before
        while len(_joined) > _JOINED:
            _joined.popitem(last=False)
    result = {name: value for name, value in given.items() if name not in parts}
    for name, part in parts.items():
        result.update({f"{name}/{inner}": value for inner, value in part.given.items()})
    return _joined[key][0], result


_JOINED = 64
_joined: collections.OrderedDict[tuple, tuple[Plan, Plan, dict[str, Plan]]] = collections.OrderedDict()


def _provider(value: Any) -> tuple[str, str]:
    """Whose named shares an input is given, and which; empty for the client's own and everything else."""
    handle = value.handle if isinstance(value, Rows) else value
    return (handle.owner, handle.shares) if isinstance(handle, Handle) else ("", "")
