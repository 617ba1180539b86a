"""What a primitive is: a name, how many inputs, which attributes, and the type of its result."""
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import Field

Attributes = dict[str, Any]


class Flow(Enum):
    """What a result shows of the inputs, for finding undeclared openings (see `plan.openings`)."""

    MOVE = "the result shows what its first input shows"
    SUM = "the result shows an input that all its secret operands show"
    PRODUCT = "the result shows what its only secret operand shows"
    JOIN = "the result shows what any of its operands shows"
    COMPUTE = "the result shows no input"


@dataclass(frozen=True)
class Primitive:
    """One entry of the closed table.

    Attributes:
        name: `op` of a step.
        arity: fewest and most inputs.
        type_rule: (attributes, type of each input) -> type of the result; raises PlanError for inputs that do not fit.
            Attributes are in normal form. Takes time and memory of the order of the attributes, not of the tensors.
        attributes: reader of each attribute.
        flow: what the result shows of the inputs.
        public: operands, by place, that must be public.
    """

    name: str
    arity: tuple[int, int]
    type_rule: Callable[..., Any]
    attributes: dict[str, Field] = field(default_factory=dict)
    flow: Flow = Flow.COMPUTE
    public: tuple[int, ...] = ()

    def read_attributes(self, given: dict[str, Any]) -> Attributes:
        """Attributes in normal form: all there, plain ints, lists and strings, defaults filled in."""
        for name in given:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none"
                raise PlanError(f"expected the attributes: {known}. Received: {limits.shown(name)}")
        result = {}
        for name, reader in self.attributes.items():
            if name in given:
                result[name] = reader.read(given[name], f"attribute {name!r}")
            elif reader.required:
                raise PlanError(f"the attribute {name!r} is missing")
            else:
                result[name] = reader.read(reader.default, name)
        return result
