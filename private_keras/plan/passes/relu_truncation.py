"""A truncation next to a relu, a gate or another truncation becomes part of it: one opening serves both.

Gates by a value that a relu takes before its truncation are then by what the relu takes: they share its comparison.
"""
from dataclasses import replace

from private_keras.plan.passes.graph import CUT_BY, uses, with_signs, with_steps
from private_keras.plan.plan import Plan, Step

_MOST = 58


def fuse_truncations(plan: Plan) -> Plan:
    """Two of truncate and relu, or truncate and gate, become one step where nothing else uses the value between."""
    # A truncation keeps signs, a relu or a gate does not.
    count = {"truncate": uses(plan, signs=False), "relu": uses(plan), "gate": uses(plan)}
    done: dict[str, Step] = {}
    instead: dict[str, str] = {}
    for step in plan.steps:
        before = done.get(step.inputs[-1]) if step.inputs else None
        if before is not None and _pair(before, step) and count[before.op][before.output] == 1:
            bits = before.attributes[CUT_BY[before.op]] + step.attributes[CUT_BY[step.op]]
            if bits <= _MOST:
                op = next((op for op in ("relu", "gate") if op in (before.op, step.op)), "truncate")
                del done[before.output]
                if before.op == "truncate":
                    instead[before.output] = before.inputs[0]
                layer = step.layer if step.op == op else before.layer
                inputs = (*step.inputs[:-1], *before.inputs)
                # Windows are narrowed when all else is done (`narrow_windows`): here they have all bits.
                rest = next((s.attributes for s in (before, step) if s.op == op), {})
                step = replace(step, op=op, inputs=inputs, attributes={**rest, CUT_BY[op]: bits}, layer=layer)
        done[step.output] = step
    return with_steps(plan, with_signs(done.values(), instead))


def _pair(before: Step, step: Step) -> bool:
    if "gate" in (before.op, step.op):
        return "truncate" in (before.op, step.op)
    return before.op in CUT_BY and step.op in CUT_BY
