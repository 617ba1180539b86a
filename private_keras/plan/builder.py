"""PlanBuilder: writes a plan step by step and checks each step as it is added."""
from typing import Any

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.plan import Plan
from private_keras.plan.primitives.constant import encode
from private_keras.plan.records import PlanInput, PlanOutput, Step, TensorType, place
from private_keras.plan.validate import checked_input, checked_step, new_name


class PlanBuilder:
    """Collects inputs, steps and outputs; `build` gives the plan.

        b = PlanBuilder()
        b.input("x", (32, 64), fraction=18, owner="client", label="images")
        b.input("w", (64, 10), fraction=18, owner="model-owner", label="dense/kernel")
        y = b.add("truncate", b.add("matmul", "x", "w", layer="dense"), layer="dense", bits=18)
        b.output(y, "dense", ["client"])
        plan = b.build("digits", "predict")
    """

    def __init__(self) -> None:
        self._inputs: list[PlanInput] = []
        self._steps: list[Step] = []
        self._outputs: list[PlanOutput] = []
        self._types: dict[str, TensorType] = {}
        self._makers: dict[str, Step] = {}
        self._constants: dict[tuple[bytes, tuple[int, ...], int], str] = {}

    def input(
        self, name: str, shape: tuple[int, ...], fraction: int, owner: str, label: str = "", public: bool = False,
        shares: str = "",
    ) -> str:
        """Declares an input and returns its name.

        Args:
            name: name of the value, new in this plan.
            shape: sizes of at least 1.
            fraction: fractional bits; 0 for integers.
            owner: the party that provides it.
            label: what people read in tables.
            public: known to all servers; secret if not.
            shares: which named shares of the owner, as "name#tensor".
        """
        item = PlanInput(name, TensorType(tuple(int(n) for n in shape), int(fraction)), owner, label, public, shares)
        new_name(name, self._types, f"input {limits.shown(name)}")
        self._types[name] = checked_input(item)
        self._inputs.append(item)
        return name

    def constant(self, values: np.ndarray, fraction: int, layer: str = "") -> str:
        """A public tensor of ring elements (int64 or uint64); equal constants are one value."""
        values = np.asarray(values)
        key = (values.astype(np.uint64).tobytes(), values.shape, int(fraction))
        if key not in self._constants:
            self._constants[key] = self.add("constant", layer=layer, **encode(values, fraction))
        return self._constants[key]

    def add(self, op: str, *inputs: str, layer: str = "", **attributes: Any) -> str:
        """Appends a step and returns the name of its value.

        Args:
            op: a primitive of docs/plan.md.
            *inputs: names of values.
            layer: the Keras layer it belongs to.
            **attributes: the primitive's attributes; axes count from 0, tuples and NumPy integers are taken for lists.

        Raises:
            PlanError: naming layer and step, if operands or attributes do not fit.
        """
        index = len(self._steps)
        name = f"v{index}"
        while name in self._types:
            name += "_"
        step = Step(op, tuple(inputs), name, attributes, layer)
        where = place(index, step)
        if index >= limits.MAX_STEPS:
            raise PlanError(f"{where}: expected at most {limits.MAX_STEPS} steps. Received: more; use a smaller model")
        step, self._types[name] = checked_step(step, self._types, where)
        self._steps.append(step)
        self._makers[name] = step
        return name

    def type(self, name: str) -> TensorType:
        """Type of a value."""
        if name not in self._types:
            raise PlanError(f"expected the name of a value of this plan. Received: {limits.shown(name)}")
        return self._types[name]

    def maker(self, name: str) -> Step | None:
        """The step that computes a value; None for inputs."""
        self.type(name)
        return self._makers.get(name)

    @property
    def inputs(self) -> tuple[PlanInput, ...]:
        """The inputs so far, in order."""
        return tuple(self._inputs)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far, in order."""
        return tuple(self._steps)

    def output(self, value: str, name: str, receivers: list[str] | tuple[str, ...], carry: str = "") -> None:
        """Opens a value, under a name, to the receivers; without receivers the servers keep it as shares.

        `carry`: the input that a kept value becomes in the next step of a run of several.
        """
        self.type(value)
        self._outputs.append(PlanOutput(value, name, tuple(receivers), carry))

    def build(self, name: str, kind: str) -> Plan:
        """The plan, checked as a server checks it.

        Args:
            name: what people read.
            kind: one of `limits.KINDS`; "reveal" declares that inputs may be opened.
        """
        plan = Plan(name, kind, tuple(self._inputs), tuple(self._steps), tuple(self._outputs))
        plan.types  # noqa: B018 - computing the types is the check
        return plan
