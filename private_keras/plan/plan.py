"""Plan: a straight-line program over secret tensors. See docs/plan.md for the format and the table of primitives."""
import hashlib
from dataclasses import dataclass
from functools import cached_property

from private_keras.plan import encoding, table
from private_keras.plan.records import PlanInput, PlanOutput, Step, TensorType
from private_keras.plan.validate import check

__all__ = ["Plan", "PlanInput", "PlanOutput", "Step", "TensorType"]


@dataclass(frozen=True)
class Plan:
    """A straight-line program. Build with `PlanBuilder`, or read with `Plan.from_json`, which validates."""

    name: str
    kind: str
    inputs: tuple[PlanInput, ...]
    steps: tuple[Step, ...]
    outputs: tuple[PlanOutput, ...]

    @classmethod
    def from_json(cls, text: str | bytes) -> "Plan":
        """Reads and validates a plan that a stranger may have written.

        Args:
            text: JSON, at most `limits.MAX_JSON_BYTES` bytes.

        Raises:
            PlanError: whatever is wrong with it, by layer and step.
        """
        name, kind, inputs, steps, outputs = encoding.parse(text)
        steps, _ = check(name, kind, inputs, steps, outputs)
        return cls(name, kind, inputs, steps, outputs)

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no white space, ASCII, integers only."""
        return encoding.write(self.name, self.kind, self.inputs, self.steps, self.outputs)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: what servers compare and owners pin."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """Type of every value by name, recomputed from the inputs' types.

        Raises:
            PlanError: if the plan is not valid.
        """
        return check(self.name, self.kind, self.inputs, self.steps, self.outputs)[1]

    def describe(self) -> str:
        """The plan as a table that a person can read: who provides what, each step, every value opened and to whom."""
        return table.as_text(self)

    def _repr_html_(self) -> str:
        return table.as_html(self)
