"""`model.check`: what cannot run on shares, how close values come to the limits of fixed point, the error to expect."""
import dataclasses
import html
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from private_keras.errors import PrivateKerasError
from private_keras.models import inputs
from private_keras.models.execution import Execution
from private_keras.plan.plan import Plan, PlanOutput
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.fixedpoint import decode, encode
from private_keras.ring.native_kernel import NativeKernel
from private_keras.server.execute import execute
from private_keras.tracing import unsupported

# Protocols compare and truncate values below 2^62 only.
_LIMIT = 62


@dataclass(frozen=True)
class Finding:
    """Something that cannot run on shares, or that is wrong with model or sample: where, what, and what to do."""

    layer: str
    operation: str
    advice: str


@dataclass(frozen=True)
class Range:
    """Values that a layer produced on the sample, and the bits that are left before they would wrap around."""

    layer: str
    low: float
    high: float
    headroom: float


@dataclass(frozen=True)
class Check:
    """What `model.check` found; prints as text.

    Attributes:
        name: of the model.
        findings: reasons why the model cannot run; empty if it can.
        ranges: one for each layer; empty without a sample.
        error: largest difference to Keras' predictions in a simulated run on the sample; None without a sample.
    """

    name: str
    findings: tuple[Finding, ...]
    ranges: tuple[Range, ...] = ()
    error: float | None = None

    @property
    def ok(self) -> bool:
        return not self.findings

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.findings:
            lines = [f"Model {self.name!r} cannot run on shares:"]
            return "\n".join(lines + [f"  {f.layer}: {f.operation}: {f.advice}" for f in self.findings])
        lines = [f"Model {self.name!r} can run on shares."]
        for r in self.ranges:
            lines.append(f"  {r.layer}: values from {r.low:.4g} to {r.high:.4g}, {r.headroom:.0f} bits of headroom")
        if self.error is not None:
            lines.append(f"Largest difference to Keras on the sample: {self.error:.2g}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def check(model: keras.Model, execution: Execution, x_sample: Any) -> Check:
    """See `PrivateModel.check`."""
    try:
        size = 1 if x_sample is None else len(inputs.flatten(model, x_sample)[0])
        found = unsupported(model, size)
        if found:
            return Check(model.name, tuple(Finding(f.layer, f.operation, f.message) for f in found))
        if x_sample is None:
            return Check(model.name, ())
        return _measure(model, execution, x_sample)
    except PrivateKerasError as error:
        return Check(model.name, (Finding(model.name, "model and sample", str(error)),))


def _measure(model: keras.Model, execution: Execution, x_sample: Any) -> Check:
    """Runs the plan on the sample in this process, without secrecy, and looks at every value on the way."""
    arrays = inputs.flatten(model, x_sample)
    traced = execution.traced(len(arrays[0]))
    values = {**traced.weights, **inputs.check(model, traced.inputs, arrays)}
    shares = {
        item.name: SimulatedShare(encode(values[item.name], item.type.fraction, item.label))
        for item in traced.plan.inputs
    }
    seen = execute(_open_all(traced.plan), Simulate(NativeKernel()), shares)
    types = traced.plan.types
    opened = {item.name: decode(seen[item.value], types[item.value].fraction) for item in traced.plan.outputs}
    expected = model(inputs.packed(model, arrays), training=False)
    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(traced.outputs), strict=True)
    error = max(float(np.abs(keras.ops.convert_to_numpy(exact) - opened[name]).max()) for exact, name in pairs)
    return Check(model.name, (), tuple(_ranges(traced.plan, seen)), error)


def _open_all(plan: Plan) -> Plan:
    """The plan with every step's value opened, which is declared by its kind; for this process only."""
    return dataclasses.replace(
        plan, kind="reveal", outputs=tuple(PlanOutput(step.output, step.output, ("client",)) for step in plan.steps)
    )


def _ranges(plan: Plan, seen: dict[str, np.ndarray]) -> list[Range]:
    ranges: dict[str, Range] = {}
    for step in plan.steps:
        elements = seen[step.output].astype(np.int64)
        if not elements.size:
            continue
        largest = max(abs(int(elements.min())), abs(int(elements.max())), 1)
        left = _LIMIT - math.log2(largest)
        real = decode(seen[step.output], plan.types[step.output].fraction)
        before = ranges.get(step.layer)
        headroom = min(left, before.headroom) if before else left
        # The last step of a layer is what the layer gives on; headroom counts for all of them.
        ranges[step.layer] = Range(step.layer or "-", float(real.min()), float(real.max()), headroom)
    return list(ranges.values())
