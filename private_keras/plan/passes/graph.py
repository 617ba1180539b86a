"""What passes need to know of a plan: who uses a value, and how to put steps together again."""
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from private_keras.plan.plan import Plan, Step, TensorType

# Passes make no sums or comparisons at higher fractions: here values up to 2^21 stay below 2^61 in ring units.
HEADROOM_FRACTION = 40


# Steps that divide by a power of two, and the attribute that says which.
SHIFTED_BY = {"truncate": "bits", "relu": "truncate"}
# The same, with those that divide their last operand alone.
CUT_BY = {**SHIFTED_BY, "gate": "truncate"}


def fraction_before(step: Step, types: dict[str, TensorType]) -> int:
    """Fraction of what a truncate, relu or gate takes."""
    return types[step.output].fraction + step.attributes[CUT_BY[step.op]]


def uses(plan: Plan, signs: bool = True) -> Counter[str]:
    """How often each value is used, by steps and by outputs.

    Args:
        plan: any.
        signs: whether a gate's use of a value counts, which is one of its sign alone: such a use can be of the value
            before a truncation as well, and `with_signs` makes it one.
    """
    count = Counter(item.value for item in plan.outputs)
    for step in plan.steps:
        count.update(step.inputs if signs or step.op != "gate" else step.inputs[1:])
    return count


def with_signs(steps: Iterable[Step], instead: Mapping[str, str]) -> list[Step]:
    """The steps, with gates by values of the same sign where their own are gone: `instead`, by name, maybe in turn."""
    result = []
    for step in steps:
        if step.op == "gate" and step.inputs[0] in instead:
            name = step.inputs[0]
            while name in instead:
                name = instead[name]
            step = replace(step, inputs=(name, *step.inputs[1:]))
        result.append(step)
    return result


def producers(plan: Plan) -> dict[str, Step]:
    """The step that computes each value."""
    return {step.output: step for step in plan.steps}


def with_steps(plan: Plan, steps: Iterable[Step]) -> Plan:
    """The plan with other steps."""
    return replace(plan, steps=tuple(steps))


def fresh_name(base: str, taken: set[str]) -> str:
    """A name that no value has, reserved in `taken`."""
    number = 0
    name = base
    while name in taken:
        number += 1
        name = f"{base[:180]}.{number}"
    taken.add(name)
    return name


def names(plan: Plan) -> set[str]:
    """Names of all values."""
    return {item.name for item in plan.inputs} | {step.output for step in plan.steps}
