"""Steps whose result nobody uses are left out; inputs stay, since they are what the client shares."""
from private_keras.plan.passes.graph import with_steps
from private_keras.plan.plan import Plan


def remove_dead(plan: Plan) -> Plan:
    """The plan without steps that no output depends on."""
    needed = {item.value for item in plan.outputs}
    kept = []
    for step in reversed(plan.steps):
        if step.output in needed:
            needed.update(step.inputs)
            kept.append(step)
    return with_steps(plan, reversed(kept))
