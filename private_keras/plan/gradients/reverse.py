"""The backward pass: from the last step to the first, each rule once."""
from collections.abc import Mapping, Sequence

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients.records import Gradient, Joint
from private_keras.plan.gradients.rules import RULES
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.gradients.unfold import UNFOLDED, unfold_step
from private_keras.plan.records import Step, place

_NO_JOINTS: Mapping[str, Joint] = {}


def gradients(
    builder: PlanBuilder,
    seeds: Mapping[str, Gradient],
    wrt: Sequence[str],
    *,
    fraction: int = 24,
    joints: Mapping[str, Joint] = _NO_JOINTS,
) -> dict[str, Gradient | None]:
    """Appends the steps that compute the gradients of values of a plan.

    Only values on a path from `wrt` to the seeds get gradients. Sums that a rule or a joint cannot hold wrap as in any
    plan: gradients (without their scales) must stay below 2^19.

    Args:
        builder: the plan, with all its forward steps.
        seeds: gradient of the objective by each of some values: `Gradient(one, 1.0)` for the objective itself, of its
            shape.
        wrt: values whose gradients are asked for: inputs, or results of steps.
        fraction: fractional bits of gradients where they are factors; products of them are longer and stay so.
        joints: by value, a gradient over several steps at once; the steps between are passed by.

    Returns:
        The gradient of each of `wrt`, of its shape and of any fraction (`Tape.plain` brings it to one, with its scale);
        None where nothing depends on it.

    Raises:
        PlanError: seeds or joints that do not fit, or a primitive that has no gradient; names layer and step.

    Cost: local steps but for products and truncations that the rules say; time in the order of the steps.
    """
    tape = Tape(builder, fraction)
    _check(builder, seeds, wrt, joints)
    return _sweep(tape, builder.steps, 0, seeds, wrt, joints)


def _sweep(
    tape: Tape, steps: Sequence[Step], first: int, seeds: Mapping[str, Gradient], wrt: Sequence[str],
    joints: Mapping[str, Joint],
) -> dict[str, Gradient | None]:
    """The backward pass over some steps of the plan, of which the first has the number `first`."""
    needed = _needed(steps, wrt, joints)
    pending: dict[str, list[Gradient]] = {name: [g] for name, g in seeds.items() if name in needed}
    asked, result = set(wrt), dict.fromkeys(wrt)
    for index in range(len(steps) - 1, -1, -1):
        step = steps[index]
        terms = pending.pop(step.output, None)
        if terms is None:
            continue
        tape.layer = step.layer
        total = tape.add(*terms)
        if not total.scale:
            continue
        if step.output in asked:
            result[step.output] = total
        for name, g in _backward(tape, step, first + index, total, needed, joints):
            pending.setdefault(name, []).append(g)
    for name, terms in pending.items():
        if name in asked:
            total = tape.add(*terms)
            result[name] = total if total.scale else None
    return result


def _backward(
    tape: Tape, step: Step, index: int, g: Gradient, needed: set[str], joints: Mapping[str, Joint]
) -> list[tuple[str, Gradient]]:
    """The gradients that a step, or the joint of its value, passes on."""
    joint = joints.get(step.output)
    inputs = joint.inputs if joint else step.inputs
    wanted = [name in needed for name in inputs]
    if not any(wanted):
        return []
    try:
        if joint:
            passed = list(joint.backward(tape, g))
        elif step.op in RULES:
            passed = list(RULES[step.op](tape, step, g, wanted))
        elif step.op in UNFOLDED:
            passed = [_unfolded(tape, step, g)]
        else:
            raise PlanError("expected a primitive that has a gradient. Received one without: add its rule to "
                            "plan/gradients/rules, or give a joint")
        if len(passed) != len(inputs):
            raise PlanError(f"gradients: expected one for each of {len(inputs)} inputs. Received: {len(passed)}")
        pairs = [(name, part) for name, part, want in zip(inputs, passed, wanted, strict=True) if want and part]
        for name, part in pairs:
            _fits(tape.builder, name, part)
    except PlanError as error:
        raise PlanError(f"gradient of {place(index, step)}: {error}") from error
    return [(name, part) for name, part in pairs if part.scale]


def _unfolded(tape: Tape, step: Step, g: Gradient) -> Gradient | None:
    """The gradient of a maximum that was not unfolded: of its unfolded form, whose comparisons are paid again."""
    first = len(tape.builder.steps)
    value = unfold_step(tape.builder, step)
    source = step.inputs[0]
    return _sweep(tape, tape.builder.steps[first:], first, {value: g}, [source], _NO_JOINTS)[source]


def _needed(steps: Sequence[Step], wrt: Sequence[str], joints: Mapping[str, Joint]) -> set[str]:
    """Values that depend on what gradients are asked for."""
    needed = set(wrt)
    for step in steps:
        joint = joints.get(step.output)
        if any(name in needed for name in (joint.inputs if joint else step.inputs)):
            needed.add(step.output)
    return needed


def _check(
    builder: PlanBuilder, seeds: Mapping[str, Gradient], wrt: Sequence[str], joints: Mapping[str, Joint]
) -> None:
    for name in wrt:
        builder.type(name)
    for name, g in seeds.items():
        _fits(builder, name, g)
    order = {step.output: index for index, step in enumerate(builder.steps)}
    for name, joint in joints.items():
        if name not in order:
            raise PlanError(f"joints: expected results of steps. Received: {limits.shown(name)}")
        for source in joint.inputs:
            builder.type(source)
            if order.get(source, -1) >= order[name]:
                raise PlanError(f"joint of {name!r}: expected inputs that are computed before it. Received: {source!r}")


def _fits(builder: PlanBuilder, name: str, g: Gradient) -> None:
    """Refuses a gradient of another shape than its value's."""
    have, shape = builder.type(g.value).shape, builder.type(name).shape
    if have != shape:
        raise PlanError(f"expected a gradient of shape {list(shape)} for {name!r}. Received: {list(have)}")
