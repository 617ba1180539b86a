"""The parts of a plan: immutable data. See docs/plan.md."""
from dataclasses import dataclass, field
from typing import Any


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
    """One primitive. `layer` is the Keras layer it came from: for tables and errors, without meaning to servers."""

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


def place(index: int, step: Step) -> str:
    """Where an error is, in words: "layer 'dense', step 4 (matmul -> v4)"."""
    layer = f"layer {step.layer!r}, " if step.layer else ""
    return f"{layer}step {index} ({step.op} -> {step.output})"
