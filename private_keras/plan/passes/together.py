"""Steps that do the same to different values become one step on all of them: one round where there were many.

An optimiser does the same to each weight, a cell the same for each gate. Such steps are independent of each other and
their elements are, too. They are found from the end of the plan: steps of equal height, which is the largest number of
such steps from a value to any output, cannot depend on each other.
"""
import heapq
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from private_keras.plan.passes.graph import fresh_name, names, with_steps
from private_keras.plan.plan import Plan, Step
from private_keras.plan.records import TensorType

_UNARY = frozenset({"truncate", "exp", "reciprocal", "rsqrt", "sqrt", "log", "sign", "spline"})
# With a public number as second operand, the same for all.
_SCALED = frozenset({"rescale"})
_BINARY = frozenset({"multiply", "maximum", "minimum"})
# Larger tensors take longer than a round does, and would have to wait for each other in memory.
_MEMBER_ELEMENTS = 2**18
_GROUP_ELEMENTS = 2**20


def compute_together(plan: Plan) -> Plan:
    """The plan with one step for all steps of a kind that can be taken at the same time."""
    types = plan.types
    candidates = _candidates(plan, types)
    groups = [group for group in _groups(plan, types, candidates) if len(group) > 1]
    if not groups:
        return plan
    taken = names(plan)
    member_of = {step.output: number for number, group in enumerate(groups) for step in group}
    whole: dict[tuple[str, ...], str] = {}
    result: list[Step] = []
    for node in _ordered(plan, groups, member_of):
        result += [node] if isinstance(node, Step) else _joined(node, types, taken, whole)
    return with_steps(plan, result)


def _candidates(plan: Plan, types: dict[str, TensorType]) -> set[str]:
    """Results of steps that servers have to talk about, element by element."""
    public = {item.name for item in plan.inputs if item.public}
    found = set()
    for step in plan.steps:
        if public.issuperset(step.inputs):
            public.add(step.output)
        elif types[step.output].size <= _MEMBER_ELEMENTS and (
            step.op in _UNARY | _SCALED or step.op in _BINARY and _alike(step, types) and public.isdisjoint(step.inputs)
        ):
            found.add(step.output)
    return found


def _alike(step: Step, types: dict[str, TensorType]) -> bool:
    """Whether no operand is repeated, and none is a truth value, which is cheaper as it is."""
    kinds = [types[name] for name in step.inputs]
    return all(kind.shape == types[step.output].shape and kind.fraction for kind in kinds)


def _groups(plan: Plan, types: dict[str, TensorType], candidates: set[str]) -> Iterable[list[Step]]:
    """Candidates of equal height that do the same, in the plan's order."""
    height: dict[str, int] = defaultdict(int)
    groups: dict[tuple, list[Step]] = defaultdict(list)
    full: dict[tuple, int] = defaultdict(int)
    for step in reversed(plan.steps):
        level = height[step.output]
        if step.output in candidates:
            fractions = tuple(types[name].fraction for name in step.inputs)
            shared = step.inputs[1:] if step.op in _SCALED else ()
            key = (level, step.op, fractions, shared, json.dumps(step.attributes, sort_keys=True))
            full[key] += types[step.output].size
            groups[(*key, full[key] // _GROUP_ELEMENTS)].append(step)
            level += 1
        for name in step.inputs:
            height[name] = max(height[name], level)
    return [group[::-1] for group in groups.values()]


def _ordered(plan: Plan, groups: list[list[Step]], member_of: dict[str, int]) -> Iterable[Step | list[Step]]:
    """Steps and groups, each behind all that it needs, otherwise in the plan's order."""
    nodes: list[Step | list[Step]] = []
    number: dict[str, int] = {}
    last = {group[-1].output for group in groups}
    for step in plan.steps:
        if step.output not in member_of:
            number[step.output] = len(nodes)
            nodes.append(step)
        elif step.output in last:
            group = groups[member_of[step.output]]
            number.update((item.output, len(nodes)) for item in group)
            nodes.append(group)
    users: dict[int, list[int]] = defaultdict(list)
    waiting = []
    for index, node in enumerate(nodes):
        sources = {number[name] for step in _steps(node) for name in step.inputs if name in number}
        waiting.append(len(sources))
        for source in sources:
            users[source].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    while ready:
        index = heapq.heappop(ready)
        yield nodes[index]
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)


def _steps(node: Step | list[Step]) -> list[Step]:
    return [node] if isinstance(node, Step) else node


def _joined(
    group: list[Step], types: dict[str, TensorType], taken: set[str], whole: dict[tuple[str, ...], str]
) -> list[Step]:
    """The group as one step on vectors, and its parts under the members' names.

    `whole`: vectors that there are, by the names of their parts.
    """
    steps: list[Step] = []
    layers = {step.layer for step in group}
    layer = group[0].layer if len(layers) == 1 else ""

    def add(op: str, inputs: tuple[str, ...], output: str, **attributes: object) -> str:
        steps.append(Step(op, inputs, output, attributes, layer))
        return output

    operands = []
    for parts in zip(*(step.inputs for step in group), strict=True):
        if group[0].op in _SCALED and operands:
            operands.append(parts[0])
            continue
        if parts not in whole:
            flat = [
                name if len(types[name].shape) == 1
                else add("reshape", (name,), fresh_name(f"{name}.flat", taken), shape=[types[name].size])
                for name in parts
            ]
            whole[parts] = add("concatenate", tuple(flat), fresh_name(f"{parts[0]}.all", taken), axis=0)
        operands.append(whole[parts])
    outputs = tuple(step.output for step in group)
    together = fresh_name(f"{outputs[0]}.all", taken)
    steps.append(replace(group[0], inputs=tuple(operands), output=together, layer=layer))
    whole[outputs] = together
    start = 0
    for step in group:
        kind = types[step.output]
        flat = step.output if len(kind.shape) == 1 else fresh_name(f"{step.output}.flat", taken)
        add("slice", (together,), flat, start=[start], stop=[start + kind.size], step=[1])
        if flat != step.output:
            add("reshape", (flat,), step.output, shape=list(kind.shape))
        start += kind.size
    return steps
