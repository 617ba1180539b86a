"""Truncations that a spline takes in: it finds the piece from what is truncated, while the quotient is masked.

So a product and the activation behind it take a round less. The truncation itself then only passes its operand on.
"""
from collections import Counter
from collections.abc import Collection

from private_keras.plan.plan import Plan


def taken_in(plan: Plan, public: Collection[str]) -> dict[str, int]:
    """By name, values that nothing but a spline uses and by how many bits it has to divide them.

    Args:
        plan: any.
        public: names of values that all servers know; each server truncates these for itself.
    """
    users = Counter(item.value for item in plan.outputs)
    by_splines: Counter[str] = Counter()
    for step in plan.steps:
        users.update(step.inputs)
        by_splines.update(step.inputs if step.op == "spline" else ())
    return {
        step.output: step.attributes["bits"]
        for step in plan.steps
        if step.op == "truncate" and step.output not in public and users[step.output] == by_splines[step.output] == 1
    }
