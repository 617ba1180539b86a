"""Steps that compute the same are merged: same primitive, operands and attributes.

Truncations are merged too: two of the same value differ by rounding alone, and one of them is as good as the other.
"""
import json
from dataclasses import replace

from private_keras.plan.passes.graph import with_steps
from private_keras.plan.plan import Plan


def merge_common(plan: Plan) -> Plan:
    """The plan with each distinct step once; the first one's name and layer stay."""
    first: dict[tuple, str] = {}
    renamed: dict[str, str] = {}
    steps = []
    for step in plan.steps:
        inputs = tuple(renamed.get(name, name) for name in step.inputs)
        key = (step.op, inputs, json.dumps(step.attributes, sort_keys=True))
        if key in first:
            renamed[step.output] = first[key]
        else:
            first[key] = step.output
            steps.append(replace(step, inputs=inputs))
    outputs = tuple(replace(item, value=renamed.get(item.value, item.value)) for item in plan.outputs)
    return replace(with_steps(plan, steps), outputs=outputs)
