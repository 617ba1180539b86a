"""A truncation next to a relu or another truncation becomes part of it: one opening serves both."""
from dataclasses import replace

from private_keras.plan.passes.graph import SHIFTED_BY, uses, with_steps
from private_keras.plan.plan import Plan, Step

_MOST = 58


def fuse_truncations(plan: Plan) -> Plan:
    """truncate-truncate, truncate-relu and relu-truncate become one step where nothing else uses the value between."""
    count = uses(plan)
    done: dict[str, Step] = {}
    for step in plan.steps:
        before = done.get(step.inputs[0]) if step.inputs else None
        if before is not None and count[before.output] == 1 and _pair(before, step):
            bits = before.attributes[SHIFTED_BY[before.op]] + step.attributes[SHIFTED_BY[step.op]]
            if bits <= _MOST:
                op = "relu" if "relu" in (before.op, step.op) else "truncate"
                del done[before.output]
                layer = step.layer if step.op == op else before.layer
                step = replace(step, op=op, inputs=before.inputs, attributes={SHIFTED_BY[op]: bits}, layer=layer)
        done[step.output] = step
    return with_steps(plan, done.values())


def _pair(before: Step, step: Step) -> bool:
    return before.op in SHIFTED_BY and step.op in SHIFTED_BY
