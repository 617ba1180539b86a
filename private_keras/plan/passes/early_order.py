"""Softmax, argmax and argmin of a truncated value take it as it is before: they need no truncation and no round of it.

A truncation keeps the order, and softmax changes the base of its operand anyway, by a factor that may as well divide.
"""
from dataclasses import replace

from private_keras.plan.passes.graph import HEADROOM_FRACTION, producers, with_steps
from private_keras.plan.plan import Plan, Step

# Softmax needs a bit more than comparisons: twice the differences.
_MOST = HEADROOM_FRACTION - 2


def order_early(plan: Plan) -> Plan:
    """What the steps took the place of is left: others may use it, else it is dead."""
    makers = producers(plan)
    return with_steps(plan, [_before(plan, step, makers) for step in plan.steps])


def _before(plan: Plan, step: Step, makers: dict[str, Step]) -> Step:
    if step.op not in ("softmax", "argmax", "argmin"):
        return step
    x, bits = step.inputs[0], step.attributes.get("truncate", 0)
    while (maker := makers.get(x)) is not None and maker.op == "truncate":
        if plan.types[maker.inputs[0]].fraction > _MOST:
            break
        x, bits = maker.inputs[0], bits + maker.attributes["bits"]
    attributes = {**step.attributes, "truncate": bits} if step.op == "softmax" and bits else step.attributes
    return replace(step, inputs=(x,), attributes=attributes)
