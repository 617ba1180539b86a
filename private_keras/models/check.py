"""`model.check`: what cannot run on shares, how close values come to the limits of fixed point, the error to expect."""
import html
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError, PrivateKerasError
from private_keras.models import inputs
from private_keras.models.execution import Execution
from private_keras.models.guard import ADVICE, problems
from private_keras.plan.shadow import Shadow, shadow
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.fixedpoint import decode, encode
from private_keras.ring.native_kernel import NativeKernel
from private_keras.server.execute import execute
from private_keras.tracing import unsupported


@dataclass(frozen=True)
class Finding:
    """Something that cannot run on shares, or that is wrong with model or sample: where, what, and what to do.

    On a sample also each layer that would wrap around, or whose functions leave their accurate domain so that it shows.
    """

    layer: str
    operation: str
    advice: str


@dataclass(frozen=True)
class Range:
    """True values of a layer on the sample, and the bits left before it would wrap around; negative if it does."""

    layer: str
    low: float
    high: float
    headroom: float


@dataclass(frozen=True)
class Check:
    """What `model.check` found; prints as text.

    Attributes:
        name: of the model.
        findings: reasons why the model cannot run, or not on the sample; empty if it can.
        ranges: one for each layer; empty without a sample.
        error: largest difference to Keras' predictions in a simulated run on the sample, which wraps around where
            servers would; None without a sample.
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
            reason = "the sample" if self.ranges else "shares"
            lines = [f"Model {self.name!r} cannot run on {reason}:"]
            lines += [f"  {f.layer}: {f.operation}: {f.advice}" for f in self.findings]
        else:
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
        if inputs.is_secret(x_sample):
            raise InputError("ranges are computed in the clear, on this machine. Give a sample as arrays.")
        size = 1 if x_sample is None else len(inputs.flatten(model, x_sample)[0])
        if execution.jobs.holdings.secret:
            return _trained(model, execution, size, x_sample is not None)
        found = unsupported(model, size)
        if found:
            return Check(model.name, tuple(Finding(f.layer, f.operation, f.message) for f in found))
        if x_sample is None:
            return Check(model.name, ())
        return _measure(model, execution, x_sample)
    except PrivateKerasError as error:
        return Check(model.name, (Finding(model.name, "model and sample", str(error)),))


def _trained(model: keras.Model, execution: Execution, size: int, sample: bool) -> Check:
    """Of a model whose weights nobody knows: whether it can run."""
    execution.jobs.steps.predict(size)
    text = "Nobody knows the weights since training: pk.convert(model.reveal()).check(x_sample) is for their owner."
    return Check(model.name, (Finding(model.name, "ranges on the sample", text),) if sample else ())


def _measure(model: keras.Model, execution: Execution, x_sample: Any) -> Check:
    """Runs the plan on the sample in this process, without secrecy: on real numbers for ranges, and as servers do."""
    arrays = inputs.flatten(model, x_sample)
    traced = execution.traced(len(arrays[0]))
    values = {**traced.weights, **inputs.check(model, traced.inputs, arrays)}
    seen = shadow(traced.plan, values)
    shares = {
        item.name: SimulatedShare(encode(values[item.name], item.type.fraction, item.label))
        for item in traced.plan.inputs
    }
    opened = execute(traced.plan, Simulate(NativeKernel()), shares)
    types = traced.plan.types
    real = {item.name: decode(opened[item.name], types[item.value].fraction) for item in traced.plan.outputs}
    expected = model(inputs.packed(model, arrays), training=False)
    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(traced.outputs), strict=True)
    error = max(float(np.abs(keras.ops.convert_to_numpy(exact) - real[name]).max()) for exact, name in pairs)
    findings = tuple(Finding(p.layer, p.operation, f"{p.message} {ADVICE}") for p in problems(seen))
    return Check(model.name, findings, tuple(_ranges(seen)), error)


def _ranges(seen: Shadow) -> list[Range]:
    ranges: dict[str, Range] = {}
    for item in seen.seen:
        layer = item.step.layer or "-"
        before = ranges.get(layer)
        headroom = min(item.headroom, before.headroom) if before else item.headroom
        # The last step of a layer is what the layer gives on; headroom counts for all of them.
        ranges[layer] = Range(layer, *item.span, headroom)
    return list(ranges.values())
