"""Puts what computes an input of a plan in front of it: the plan then takes that computation's inputs instead."""
from collections.abc import Mapping
from dataclasses import replace

from private_keras.errors import PlanError
from private_keras.plan.plan import Plan


def splice(plan: Plan, before: Mapping[str, Plan], owners: Mapping[str, tuple[str, str]] | None = None) -> Plan:
    """The plan in which other plans compute some of its inputs.

    Args:
        plan: that is to run.
        before: by name of its input, a plan with one output of the input's type. Their inputs are called
            "input/name" from then on, their steps likewise.
        owners: by name of an input that stays, who provides it, and which named shares it is.

    Raises:
        PlanError: types that do not fit, inputs that `plan` does not have.
    """
    unknown = sorted({*before, *(owners or {})} - {item.name for item in plan.inputs})
    if unknown:
        raise PlanError(f"expected inputs of plan {plan.name!r}. Received: {', '.join(unknown)[:200]}")
    inputs, steps, made = [], [], {}
    for item in plan.inputs:
        if item.name not in before:
            owner, shares = (owners or {}).get(item.name, (item.owner, item.shares))
            inputs.append(replace(item, owner=owner, shares=shares))
            continue
        part = before[item.name]
        (output,) = part.outputs
        if part.types[output.value] != item.type:
            raise PlanError(f"input {item.name!r}: expected {item.type}. Received: {part.types[output.value]}")
        names = {value: f"{item.name}/{value}" for value in part.types}
        inputs.extend(replace(each, name=names[each.name]) for each in part.inputs)
        steps.extend(
            replace(step, inputs=tuple(names[name] for name in step.inputs), output=names[step.output])
            for step in part.steps
        )
        made[item.name] = names[output.value]
    steps.extend(replace(step, inputs=tuple(made.get(name, name) for name in step.inputs)) for step in plan.steps)
    outputs = tuple(replace(item, value=made.get(item.value, item.value)) for item in plan.outputs)
    result = Plan(plan.name, plan.kind, tuple(inputs), tuple(steps), outputs)
    result.types  # noqa: B018 - computing the types is the check
    return result
