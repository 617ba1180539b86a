"""Sums before truncations: one truncation where two stood, and none where a relu behind the sum takes it in.

truncate(a) + truncate(b) = truncate(a + b), and truncate(a) + y = truncate(a + y shifted up), up to rounding. The sum
is then taken at the higher fraction, where y must stay below 2^61 in ring units (`HEADROOM_FRACTION`).
"""
from dataclasses import replace

from private_keras.plan.passes.graph import (
    CUT_BY,
    HEADROOM_FRACTION,
    fraction_before,
    fresh_name,
    names,
    uses,
    with_signs,
    with_steps,
)
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import TensorType

_SUMS = ("add", "subtract")


def delay_truncations(plan: Plan) -> Plan:
    """Moves truncations behind sums where that leaves fewer elements to truncate."""
    count, taken, types = uses(plan, signs=False), names(plan), plan.types
    absorbed = _absorbed(plan, count)
    done: dict[str, Step] = {}
    instead: dict[str, str] = {}
    for step in plan.steps:
        cut = [_truncation(done, name, count) for name in step.inputs] if step.op in _SUMS else []
        if not any(cut) or not _saves(step, cut, types, step.output in absorbed):
            done[step.output] = step
            continue
        bits = max(item.attributes["bits"] for item in cut if item)
        operands = []
        for name, item in zip(step.inputs, cut, strict=True):
            value, lift = (item.inputs[0], bits - item.attributes["bits"]) if item else (name, bits)
            if item:
                del done[name]
                instead[name] = item.inputs[0]
            if lift:
                shifted = fresh_name(f"{step.output}.shift", taken)
                done[shifted] = Step("shift", (value,), shifted, {"bits": lift}, step.layer)
                value = shifted
            operands.append(value)
        total = fresh_name(f"{step.output}.sum", taken)
        done[total] = replace(step, inputs=tuple(operands), output=total)
        done[step.output] = Step("truncate", (total,), step.output, {"bits": bits}, step.layer)
    return with_steps(plan, with_signs(done.values(), instead))


def _truncation(done: dict[str, Step], name: str, count) -> Step | None:
    """The truncation that computes a value which has no other use."""
    step = done.get(name)
    return step if step is not None and step.op == "truncate" and count[name] == 1 else None


def _saves(step: Step, cut: list[Step | None], types: dict[str, TensorType], absorbed: bool) -> bool:
    truncations = [item for item in cut if item]
    if max(fraction_before(item, types) for item in truncations) > HEADROOM_FRACTION:
        return False
    return absorbed or types[step.output].size < sum(types[item.output].size for item in truncations)


def _absorbed(plan: Plan, count) -> set[str]:
    """Values with one use, a relu, gate or truncation, at once or behind further sums of the same size."""
    result: set[str] = set()
    types = plan.types
    for step in reversed(plan.steps):
        for name in step.inputs[-1:] if step.op == "gate" else step.inputs:
            behind = step.op in CUT_BY or (
                step.op in _SUMS and step.output in result and types[name].size == types[step.output].size
            )
            if behind and count[name] == 1:
                result.add(name)
    return result
