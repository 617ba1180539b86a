"""What a plan's values tell of what goes into it: for each input, nothing, sums over its rows, rows of it, or itself.

`trace` follows every step and forgets nothing: a value depends on an input unless no step leads from one to the other.
How much it shows of it is judged by what a step can be made to do by whoever writes the plan and provides its other
inputs. A step on single elements shows what its operand shows, whatever the other operand is: that can be a one, a
zero, a threshold. So does whatever is linear with public coefficients, and a maximum over columns. Two things show
less: a product of secrets that adds up several terms (a layer), and what reduces over all rows (a loss, a gradient).

That is proven of dependence. Of what is shown it is a judgement about plans that were written in good faith, with the
plain forms of abuse found: who provides the weights of a layer can make them an identity, and who sums over two
batches that differ in one row has that row. Only a person who reads the plan, and pins its digest, can tell.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from private_keras.errors import PlanError
from private_keras.plan.plan import Plan
from private_keras.plan.provenance.rules import RULES, Shape, unknown
from private_keras.plan.provenance.shown import (
    NOTHING,
    REDUCED,
    ROWS_OF_OWN,
    Level,
    Place,
    Shown,
    Value,
    in_shape,
    joined,
)
from private_keras.plan.records import Step, TensorType

__all__ = ["Level", "Shown", "trace"]

Key = TypeVar("Key", bound=Hashable)
# A job is judged before it has a turn, and cannot be cancelled meanwhile; this takes some seconds.
MOST_WORK = 1 << 21


def trace(plan: Plan, held: Mapping[str, Mapping[Key, Level]], rows: Collection[str]) -> dict[str, dict[Key, Shown]]:
    """What each output shows.

    Args:
        plan: the program, also of many steps: what is carried shows what it was carried from.
        held: by input name, what the input itself shows of sources. An input that is left out shows none.
        rows: inputs whose first axis is rows, of which the job or what they come from has many. All others are the
            same for all rows, as weights are, and nothing of them is reduced by sums over their own axes.

    Returns:
        By output name, the sources that it depends on. One that is not there has no influence on it.

    Raises:
        PlanError: a plan that would take minutes to judge.

    Cost: one pass over the steps for each time that carried values show more than before; at most a few.
    """
    work = 0
    types = plan.types
    public = {item.name for item in plan.inputs if item.public}
    for step in plan.steps:
        if public.issuperset(step.inputs):
            public.add(step.output)
    values: dict[str, Value] = {
        item.name: _given(held.get(item.name, {}), types[item.name], item.name in rows)
        for item in plan.inputs if not item.public
    }  # fmt: skip
    carries = [(item.value, item.carry) for item in plan.outputs if item.carry]
    while True:
        for step in plan.steps:
            operands = [values.get(name, NOTHING) for name in step.inputs]
            work = _checked(work + 1 + sum(map(_weight, operands)))
            if any(operands):
                known, shapes = [name in public for name in step.inputs], _shapes(step, types)
                rule = RULES.get(step.op, unknown)
                values[step.output] = in_shape(rule(step, operands, known, *shapes), shapes[1])
                work = _checked(work + _weight(values[step.output]))
            else:
                values[step.output] = NOTHING
        grown = {carry: _either(values[carry], values.get(value, NOTHING)) for value, carry in carries}
        if all(values[carry] == value for carry, value in grown.items()):
            break
        values.update(grown)
        work = _checked(work + sum(1 + len(value) for value in grown.values()))
    _checked(work + sum(1 + len(values.get(item.value, NOTHING)) for item in plan.outputs))
    return {
        item.name: {k: s for k, s in values.get(item.value, NOTHING).items() if k is not ROWS_OF_OWN}
        for item in plan.outputs
    }


def _weight(value: Value) -> int:
    return sum(shown.weight for shown in value.values())


def _checked(work: int) -> int:
    if work > MOST_WORK:
        raise PlanError(
            f"what the plan shows of others' shares takes more than {MOST_WORK} looks to find out: too many steps, "
            "values that are carried on and on, or owners; use a smaller plan"
        )
    return work


def _given(held: Mapping[Any, Level], kind: TensorType, rows: bool) -> Value:
    place, single = None, False
    if rows and kind.shape:
        place, single = (Place(0, 1, kind.shape[0]), False) if kind.shape[0] > 1 else (None, True)
        held = {ROWS_OF_OWN: Level.RAW, **held}
    whole = Shown(Level.RAW, place, single, fixed=place is None and not single)
    return {
        key: REDUCED if level is Level.REDUCED else replace(whole, level=level) for key, level in held.items()
    }


def _either(x: Value, y: Value) -> Value:
    """Of a value that is the one at first and the other later."""
    return {key: joined([v[key] for v in (x, y) if key in v]) for key in x.keys() | y.keys()}


def _shapes(step: Step, types: Mapping[str, TensorType]) -> tuple[list[Shape], Shape]:
    return [types[name].shape for name in step.inputs], types[step.output].shape
