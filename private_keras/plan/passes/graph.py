"""What passes need to know of a plan: who uses a value, and how to put steps together again."""
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from private_keras.plan.plan import Plan, Step, TensorType

# Passes make no sums or comparisons at higher fractions: here values up to 2^21 stay below 2^61 in ring units.
HEADROOM_FRACTION = 40


# Steps that divide by a power of two, and the attribute that says which.
SHIFTED_BY = {"truncate": "bits", "relu": "truncate"}


def fraction_before(step: Step, types: dict[str, TensorType]) -> int:
    """Fraction of what a truncate or relu takes."""
    return types[step.output].fraction + step.attributes[SHIFTED_BY[step.op]]


def uses(plan: Plan) -> Counter[str]:
    """How often each value is used, by steps and by outputs."""
    count = Counter(item.value for item in plan.outputs)
    for step in plan.steps:
        count.update(step.inputs)
    return count


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
