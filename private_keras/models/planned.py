"""`plans`: what a call would let the servers run, for owners to look at before it does."""

import html
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from private_keras.cluster import current
from private_keras.cluster.planning import Noted, planning
from private_keras.errors import FileError, InputError
from private_keras.forecast import Network
from private_keras.forecast.inspection import inspected
from private_keras.models.load import load_shares
from private_keras.models.private import PrivateModel
from private_keras.plan.plan import Plan
from private_keras.tensor import SecretTensor

_METHODS = (
    "predict", "predict_on_batch", "evaluate", "test_on_batch", "fit", "train_on_batch", "reveal", "get_weights",
)  # fmt: skip
# Arguments of these that decide what is done around jobs: what callbacks run is for calls of their own.
_AROUND = {"callbacks": None, "checkpoint": None, "checkpoint_every": None, "resume": False, "verbose": 0}
# What a call leaves on a model beside its values.
_TRACES = ("history", "stop_training", "stop_predicting", "stop_evaluating")


@dataclass(frozen=True)
class Plans(Sequence[Plan]):
    """Plans, each once, in the order in which a call would run them first. Prints as a table.

    Attributes:
        noted: plans, and how often they would run.
    """

    noted: tuple[Noted, ...]

    @property
    def digests(self) -> list[str]:
        """As policies have them: `pk.Policy(use=["analyst"], plans=plans.digests)`."""
        return [f"sha256:{plan.digest}" for plan in self]

    def __getitem__(self, index: Any) -> Any:
        found = self.noted[index]
        return [item.plan for item in found] if isinstance(index, slice) else found.plan

    def __len__(self) -> int:
        return len(self.noted)

    def __iter__(self) -> Iterator[Plan]:
        return (item.plan for item in self.noted)

    def describe(self, network: str | Network = "lan") -> str:
        """Each plan as `private-keras inspect` shows it."""
        return "\n\n\n".join(inspected(plan, network) for plan in self)

    def save(self, directory: str | PathLike) -> list[Path]:
        """Writes each plan to a file of its own, for owners: `private-keras inspect FILES`, `private-keras approve`.

        Args:
            directory: is made if it is not there.

        Returns:
            The files, named by order, kind and digest.

        Raises:
            FileError: files that are there already, or cannot be written.
        """
        paths = [
            Path(directory) / f"{number:02}-{plan.kind}-{plan.digest[:12]}.json" for number, plan in enumerate(self, 1)
        ]
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
            for path, plan in zip(paths, self, strict=True):
                with open(path, "x", encoding="ascii") as file:
                    file.write(plan.to_json())
        except OSError as error:
            raise FileError(f"cannot write a plan to {error.filename}: {error.strerror}") from None
        return paths

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for item in self.noted:
            plan = item.plan
            owners = dict.fromkeys(each.owner for each in plan.inputs if not each.public)
            receivers = dict.fromkeys(name for output in plan.outputs for name in output.receivers)
            rows.append((
                plan.name, plan.kind, str(item.jobs), str(item.steps), ", ".join(owners) or "-",
                ", ".join(receivers) or "nobody", f"sha256:{plan.digest}",
            ))  # fmt: skip
        return rows

    def __str__(self) -> str:
        rows = [_HEADER, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return "<table>" + line(_HEADER, "th") + "".join(line(row, "td") for row in self._rows()) + "</table>"


_HEADER = ("plan", "kind", "jobs", "steps", "takes shares of", "opens to", "digest")


def plans(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Plans:
    """The plans that a call would let the servers run. Nothing is run, shared or opened, and the model stays as it is.

        plans = pk.plans(model.fit, pk.secret("hospital-a/patients/x"), y, epochs=10)
        print(plans)                    # who provides what, who gets what, how often, digests
        plans.save("to-approve")        # a file for each, for the owners
        pk.Policy(use=["analyst"], plans=plans.digests, reveal_to=["analyst"])

    The call goes its usual way to where it would send a plan, so that the digests are those that the servers will see,
    as long as model, arguments and shapes stay the same; names of models and layers count too.

    Args:
        call: `predict`, `predict_on_batch`, `evaluate`, `test_on_batch`, `fit`, `train_on_batch`, `reveal` or
            `get_weights` of a private model, `reveal` of a secret tensor, or `pk.models.load_shares`.
        args, kwargs: as for the call itself. Callbacks are not called, no checkpoint is written, `fit` begins anew; a
            generator is used up.

    Raises:
        InputError: another call.
        Whatever the call raises before it sends a plan.

    Cost: tracing, and for `fit` all epochs without their jobs. Servers are asked for named shares that are not loaded.
    """
    owner, name = getattr(call, "__self__", None), getattr(call, "__name__", "")
    if isinstance(owner, SecretTensor) and name == "reveal":
        real = owner.home()
    elif call is load_shares or isinstance(owner, PrivateModel) and name in _METHODS:
        real = current()
    else:
        raise InputError(
            f"plans: expected {', '.join(_METHODS)} of a private model, reveal of a secret tensor, or "
            f"pk.models.load_shares, and its arguments: pk.plans(model.fit, x, y). Received: {ascii(call)[:100]}"
        )
    signature = inspect.signature(call)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"plans: {name}: {error}") from None
    bound.arguments |= {item: value for item, value in _AROUND.items() if item in signature.parameters}
    with planning(real) as cluster, _untouched(owner):
        try:
            call(*bound.args, **bound.kwargs)
        finally:
            for execution in cluster.copies.values():
                execution.jobs.put_back()
    return Plans(tuple(cluster.noted))


@contextmanager
def _untouched(model: Any) -> Iterator[None]:
    """A model's attributes that a call sets are afterwards what they were."""
    before = {name: vars(model)[name] for name in _TRACES if name in vars(model)} if model is not None else {}
    try:
        yield
    finally:
        for name in _TRACES:
            if name in before:
                setattr(model, name, before[name])
            elif model is not None and name in vars(model):
                delattr(model, name)
