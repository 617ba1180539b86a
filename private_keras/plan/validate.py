"""What makes a plan acceptable: every name, type, attribute and opening is checked, and nothing is computed."""
from collections.abc import Sequence

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.openings import refuse_undeclared
from private_keras.plan.primitives import TABLE, Primitive
from private_keras.plan.records import PlanInput, PlanOutput, Step, TensorType, place


def check(
    name: str, kind: str, inputs: Sequence[PlanInput], steps: Sequence[Step], outputs: Sequence[PlanOutput]
) -> tuple[tuple[Step, ...], dict[str, TensorType]]:
    """Checks a whole plan.

    Values are defined once and before they are used, so a plan has no cycles.

    Returns:
        The steps with their attributes in normal form (defaults filled in), and the type of every value by name.

    Raises:
        PlanError: naming layer and step.
    """
    limits.text(name, "plan name")
    if kind not in limits.KINDS:
        raise PlanError(f"plan kind: expected one of {', '.join(limits.KINDS)}. Received: {limits.shown(kind)}")
    _count(inputs, "inputs", limits.MAX_INPUTS)
    _count(steps, "steps", limits.MAX_STEPS)
    _count(outputs, "outputs", limits.MAX_OUTPUTS)
    types: dict[str, TensorType] = {}
    for item in inputs:
        types[new_name(item.name, types, f"input {item.name}")] = checked_input(item)
    public = {item.name for item in inputs if item.public}
    normal = []
    for index, step in enumerate(steps):
        where = place(index, step)
        new_name(step.output, types, where)
        step, result = checked_step(step, types, where)
        if public.issuperset(step.inputs):
            public.add(step.output)
        for index in TABLE[step.op].public:
            if step.inputs[index] not in public:
                raise PlanError(f"{where}: expected a public value as operand {index}. Received: a secret one")
        normal.append(step)
        types[step.output] = result
    check_outputs(outputs, types)
    check_carries(inputs, outputs, types)
    refuse_undeclared(kind, inputs, normal, outputs)
    return tuple(normal), types


def checked_input(item: PlanInput) -> TensorType:
    """Type of an input whose fields are all allowed."""
    what = f"input {limits.shown(item.name)}"
    limits.identifier(item.name, what)
    limits.identifier(item.owner, f"{what}: owner")
    limits.text(item.label, f"{what}: label")
    limits.flag(item.public, f"{what}: public")
    if limits.shares(item.shares, f"{what}: shares") and item.public:
        raise PlanError(f"{what}: expected secret values as named shares. Received: a public input")
    return TensorType(
        limits.shape(item.type.shape, f"{what}: shape"),
        limits.integer(item.type.fraction, 0, limits.MAX_FRACTION, f"{what}: fraction"),
    )


def checked_step(step: Step, types: dict[str, TensorType], where: str) -> tuple[Step, TensorType]:
    """The step with normal attributes, and its result's type; `types` holds all values defined before it."""
    limits.text(step.layer, f"{where}: layer")
    primitive = find(step.op, where)
    low, high = primitive.arity
    if not low <= len(step.inputs) <= high:
        expected = f"{low}" if low == high else f"{low} to {high}"
        raise PlanError(f"{where}: expected {expected} inputs. Received: {len(step.inputs)}")
    for name in step.inputs:
        if name not in types:
            raise PlanError(f"{where}: expected values that are defined before. Received: {limits.shown(name)}")
    try:
        attributes = primitive.read_attributes(step.attributes)
        result = primitive.type_rule(attributes, *(types[name] for name in step.inputs))
        limits.shape(result.shape, "result")
        limits.integer(result.fraction, 0, limits.MAX_FRACTION, "result's fraction")
    except PlanError as error:
        operands = [types[name] for name in step.inputs[:4]]
        received = ", ".join(f"{list(kind.shape)} with {kind.fraction} fractional bits" for kind in operands)
        raise PlanError(f"{where}: {error}" + (f" (inputs: {received})" if received else "")) from None
    return Step(step.op, tuple(step.inputs), step.output, attributes, step.layer), result


def find(op: str, where: str) -> Primitive:
    """The primitive of that name."""
    if op not in TABLE:
        raise PlanError(f"{where}: expected a primitive of docs/plan.md. Received: {limits.shown(op)}")
    return TABLE[op]


def new_name(name: str, types: dict[str, TensorType], where: str) -> str:
    """A name that is not defined yet."""
    limits.identifier(name, where)
    if name in types:
        raise PlanError(f"{where}: expected a new name for each value. Received {name!r}, which is defined already")
    return name


def check_outputs(outputs: Sequence[PlanOutput], types: dict[str, TensorType]) -> None:
    """Every output is a value that exists, under a name of its own, opened to somebody or kept."""
    if not outputs:
        raise PlanError(
            "outputs: expected at least one. Received: none; a plan that neither opens nor keeps anything has no result"
        )
    names = set()
    for item in outputs:
        what = f"output {limits.shown(item.name)}"
        limits.identifier(item.name, what)
        if item.name in names:
            raise PlanError(f"{what}: expected each output name once. Received: the name twice")
        names.add(item.name)
        if item.value not in types:
            raise PlanError(f"{what}: expected a value of the plan. Received: {limits.shown(item.value)}")
        if len(set(item.receivers)) != len(item.receivers):
            received = limits.shown(item.receivers)
            raise PlanError(f"{what}: expected each receiver once. Received: {received}")
        for receiver in item.receivers:
            limits.identifier(receiver, f"{what}: receivers")


def check_carries(inputs: Sequence[PlanInput], outputs: Sequence[PlanOutput], types: dict[str, TensorType]) -> None:
    """What is carried to the next step is kept, and becomes a secret input of its type; each input at most once."""
    secret = {item.name for item in inputs if not item.public}
    carried = set()
    for item in outputs:
        if not item.carry:
            continue
        what = f"output {limits.shown(item.name)}: carry"
        if item.receivers:
            raise PlanError(f"{what}: expected a value that is kept. Received: one that is opened")
        if item.carry not in secret or item.carry in carried:
            raise PlanError(f"{what}: expected a secret input of the plan, each once. Received: "
                            f"{limits.shown(item.carry)}")
        if types[item.carry] != types[item.value]:
            raise PlanError(f"{what}: expected a value of the type of input {item.carry!r}, {types[item.carry]}. "
                            f"Received: {types[item.value]}")
        carried.add(item.carry)


def _count(items: Sequence, what: str, most: int) -> None:
    if len(items) > most:
        raise PlanError(f"{what}: expected at most {most}. Received: {len(items)}")
