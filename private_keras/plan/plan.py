"""Plan, steps, inputs and outputs: immutable data. See docs/plan.md for the format and the table of primitives."""
from dataclasses import dataclass, field
from typing import Any

FORMAT = "private_keras.plan/1"


@dataclass(frozen=True)
class TensorType:
    """Shape and scale of a value: real value = signed ring element / 2^fraction."""

    shape: tuple[int, ...]
    fraction: int

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class PlanInput:
    """A secret input: who provides it, and its type. `label` is what people read (a weight's path, "images")."""

    name: str
    type: TensorType
    owner: str
    label: str = ""


@dataclass(frozen=True)
class Step:
    """One primitive. `layer` is the Keras layer it came from: for cost tables and errors, without meaning to servers."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True)
class PlanOutput:
    """A value that is opened, under a name, to the named receivers and nobody else."""

    value: str
    name: str
    receivers: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A straight-line program. Build with `PlanBuilder`, or read with `Plan.from_json`, which validates."""

    name: str
    kind: str
    inputs: tuple[PlanInput, ...]
    steps: tuple[Step, ...]
    outputs: tuple[PlanOutput, ...]
