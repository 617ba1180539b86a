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
    """An input: who provides it, and its type.

    Attributes:
        label: what people read (a weight's path, "images").
        public: known to all servers (a learning rate, weights that their owner declares public); secret if not.
        shares: which of the owner's named shares it is, as "name#tensor"; empty: any of them.
    """

    name: str
    type: TensorType
    owner: str
    label: str = ""
    public: bool = False
    shares: str = ""


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
    """A value that leaves the plan under a name.

    Attributes:
        receivers: who it is opened to, and nobody else. Empty: it is not opened at all, and the servers keep it as
            shares.
        carry: where a plan runs for several steps, the input that a kept value becomes in the next step.
    """

    value: str
    name: str
    receivers: tuple[str, ...]
    carry: str = ""


def place(index: int, step: Step) -> str:
    """Where an error is, in words: "layer 'dense', step 4 (matmul -> v4)"."""
    layer = f"layer {step.layer!r}, " if step.layer else ""
    return f"{layer}step {index} ({step.op} -> {step.output})"
