"""Max-pooling before relu and truncation: both keep order, so they can work on the maxima alone.

max_pool(relu(x)) = relu(max_pool(x)): of four relus one is left, and its truncation with it. The pool then compares
values of the higher fraction; their differences must be below 2^62, which holds for |x| < 2^61 (`HEADROOM_FRACTION`).
"""
from dataclasses import replace

from private_keras.plan.passes.graph import (
    HEADROOM_FRACTION,
    SHIFTED_BY,
    fraction_before,
    fresh_name,
    names,
    uses,
    with_steps,
)
from private_keras.plan.plan import Plan, Step


def pool_first(plan: Plan) -> Plan:
    """Moves each max_pool before relus and truncations that only it uses, unless pooling makes the tensor larger."""
    count, taken, types = uses(plan), names(plan), plan.types
    done: dict[str, Step] = {}
    for step in plan.steps:
        if step.op != "max_pool" or types[step.output].size > types[step.inputs[0]].size:
            done[step.output] = step
            continue
        source, moved = step.inputs[0], []
        while source in done and done[source].op in SHIFTED_BY and count[source] == 1:
            if fraction_before(done[source], types) > HEADROOM_FRACTION:
                break
            moved.append(done.pop(source))
            source = moved[-1].inputs[0]
        if not moved:
            done[step.output] = step
            continue
        value = fresh_name(f"{step.output}.pool", taken)
        done[value] = replace(step, inputs=(source,), output=value)
        # The last of them takes the pool's name, which the steps after it use.
        outputs = [item.output for item in moved[1:]][::-1] + [step.output]
        for item, output in zip(reversed(moved), outputs, strict=True):
            done[output] = replace(item, inputs=(value,), output=output)
            value = output
    return with_steps(plan, done.values())
