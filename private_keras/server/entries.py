"""What a server's catalogue says of one tensor among named shares."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from private_keras.errors import FileError, PlanError
from private_keras.plan import limits as plan_limits
from private_keras.server import limits
from private_keras.server.terms import Terms

MAX_DTYPE = 20


@dataclass(frozen=True)
class SavedTensor:
    """One tensor.

    Attributes:
        label: its name among those that are saved with it.
        fraction: fractional bits.
        dtype: as its owner had it; empty where nobody said.
        seeded: whether its masks are on disk as seeds.
        terms: what it comes from, where that is not its owner alone.
    """

    label: str
    shape: tuple[int, ...]
    fraction: int
    dtype: str = ""
    seeded: bool = False
    terms: Terms = field(default_factory=Terms)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape[1:])


def checked(label: Any, shape: Any, fraction: Any, dtype: Any = "") -> SavedTensor:
    """A tensor as whoever describes it; raises `PlanError`."""
    plan_limits.text(label, "label of a saved tensor")
    if not isinstance(dtype, str) or len(dtype) > MAX_DTYPE or not dtype.isascii() or not dtype.isprintable():
        raise PlanError(f"dtype of a saved tensor: expected a name of at most {MAX_DTYPE} characters")
    plan_limits.integer(fraction, 0, plan_limits.MAX_FRACTION, "fraction of a saved tensor")
    what = "shape of a saved tensor"
    if not isinstance(shape, list | tuple) or len(shape) > plan_limits.MAX_RANK:
        raise PlanError(f"{what}: expected at most {plan_limits.MAX_RANK} axes. Received: {plan_limits.shown(shape)}")
    for n in shape:
        plan_limits.integer(n, 1, limits.SAVED_ELEMENTS, f"{what}: each size")
    tensor = SavedTensor(label, tuple(shape), fraction, dtype)
    if tensor.size > limits.SAVED_ELEMENTS:
        raise PlanError(f"{what}: expected at most {limits.SAVED_ELEMENTS} elements. Received: {tensor.size}")
    return tensor


def to_json(entries: Sequence[SavedTensor]) -> str:
    """Canonical text."""
    items = [[e.label, e.shape, e.fraction, e.dtype, e.seeded, e.terms.to_list()] for e in entries]
    return json.dumps(items, separators=(",", ":"))


def from_json(text: str) -> tuple[SavedTensor, ...]:
    """The tensors in a text; raises `FileError` for anything else."""
    try:
        entries = []
        for label, shape, fraction, dtype, seeded, terms in json.loads(text):
            e = checked(label, shape, fraction, dtype)
            made = SavedTensor(label, e.shape, fraction, dtype, plan_limits.flag(seeded, "seeded"),
                               Terms.from_list(terms))
            entries.append(made)
        return tuple(entries)
    except (ValueError, TypeError, RecursionError) as error:
        raise FileError(f"the catalogue is damaged ({type(error).__name__})") from None
