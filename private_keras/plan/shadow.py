"""Runs a plan in the clear on real numbers, beside the arithmetic of the servers: true values, and what they need.

For the client, who holds data and weights: it tells before anything is shared which layer would wrap around, and which
function would be computed outside its accurate domain with a difference that reaches the result.
"""
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from private_keras.plan.domains import FUNCTIONS, LIMIT_BITS, depth_domain, domain
from private_keras.plan.plan import Plan
from private_keras.plan.records import Step, TensorType
from private_keras.plan.reference import MEANINGS, At
from private_keras.plan.spans import Span, inside, limit

# Rounding and the errors of functions move values by less than this part.
_MARGIN = 1 / 128
# A difference in the outputs, absolute or of the value, that is more than rounding may be.
_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Seen:
    """The values of one step.

    Attributes:
        step: which.
        span: least and largest true value.
        headroom: bits left before a number in the step wraps; negative where one does.
        limit: real size that values must stay below there.
    """

    step: Step
    span: Span
    headroom: float
    limit: float


@dataclass(frozen=True)
class Exit:
    """A function whose operand left its accurate domain, from low to high."""

    step: Step
    low: float
    high: float


@dataclass(frozen=True)
class Shadow:
    """What running a plan on real numbers showed.

    Attributes:
        seen: every step, in order.
        overflows: the steps that would wrap.
        exits: the steps outside their function's domain.
        matters: whether the outputs differ from the exact ones because of `exits`.
    """

    seen: tuple[Seen, ...]
    overflows: tuple[Seen, ...]
    exits: tuple[Exit, ...]
    matters: bool


def shadow(plan: Plan, values: Mapping[str, np.ndarray], spans: Mapping[str, Span] | None = None) -> Shadow:
    """Runs a plan on real numbers.

    Args:
        plan: a valid plan.
        values: real values of every input, by name, in the plan's shapes.
        spans: least and largest value of inputs for which they are known.

    Cost: a prediction in float64; a second one where an operand leaves a domain. Values are freed after their last use.
    """
    seen: list[Seen] = []
    exits: list[Exit] = []
    outputs = _run(plan, values, True, seen, exits, spans)
    overflows = tuple(s for s in seen if not s.headroom > -math.log2(1 - _MARGIN))
    matters = bool(exits) and _differ(outputs, _run(plan, values, False, [], []))
    return Shadow(tuple(seen), overflows, tuple(exits), matters)


def outputs_of(plan: Plan, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a plan's outputs are on real numbers, with exact functions; arguments as for `shadow`."""
    return _run(plan, values, False, [], [])


def _run(
    plan: Plan, values: Mapping[str, np.ndarray], saturating: bool, seen: list[Seen], exits: list[Exit],
    known: Mapping[str, Span] | None = None,
) -> list[np.ndarray]:
    """The outputs; with functions that saturate as the servers' do, also what was seen on the way."""
    last = {name: index for index, step in enumerate(plan.steps) for name in step.inputs}
    kept = {item.value for item in plan.outputs}
    alive = {item.name: np.asarray(values[item.name], np.float64).reshape(item.type.shape) for item in plan.inputs}
    known = known or {}
    spans = {name: known[name] if name in known else span_of(array) for name, array in alive.items()}
    makers: dict[str, str] = {}
    for index, step in enumerate(plan.steps):
        types = [plan.types[name] for name in step.inputs]
        sources = tuple(makers.get(name, "input") for name in step.inputs)
        makers[step.output] = step.op
        fraction = types[0].fraction if types else 0
        at = At(step.op, step.attributes, fraction, sources, plan.types[step.output], saturating)
        # What servers cannot hold may overflow here too; the exact run has infinities where functions have no value.
        with np.errstate(all="ignore"):
            result = np.asarray(MEANINGS[step.op](at, *(alive[name] for name in step.inputs)), np.float64)
        alive[step.output] = result
        if saturating:
            spans[step.output] = span_of(result)
            _look(step, [spans[name] for name in step.inputs], types, spans[step.output], at.result, seen, exits)
        for name in (*step.inputs, step.output):
            if last.get(name, index) == index and name not in kept:
                alive.pop(name, None)
    return [alive[item.value] for item in plan.outputs]


def _look(
    step: Step, operands: list[Span], types: list[TensorType], result: Span, kind: TensorType, seen: list[Seen],
    exits: list[Exit],
) -> None:
    needed = inside(step, operands, types)
    own = result.size * 2.0**kind.fraction
    largest = max(own, needed, 1.0)
    headroom = -math.inf if math.isnan(own + needed) or math.isinf(largest) else LIMIT_BITS - math.log2(largest)
    seen.append(Seen(step, result, headroom, limit(step, types, kind, needed > own)))
    if step.op in FUNCTIONS:
        low, high = domain(step.op, types[0].fraction, step.attributes)
    elif step.op == "one_hot":
        low, high = depth_domain(step.attributes["depth"])
    else:
        return
    if not (low <= operands[0].low and operands[0].high <= high):
        exits.append(Exit(step, low, high))


def span_of(array: np.ndarray) -> Span:
    """The least and largest value."""
    return Span(float(array.min()), float(array.max()))


def _differ(saturating: list[np.ndarray], exact: list[np.ndarray]) -> bool:
    with np.errstate(invalid="ignore"):
        return any(_apart(y, true) for y, true in zip(saturating, exact, strict=True))


def _apart(y: np.ndarray, true: np.ndarray) -> bool:
    # Infinity is no bound to be within, and servers never have it; NaN fails as well.
    near = np.abs(y - true) <= _DIFFERENCE * np.maximum(np.abs(true), 1)
    return not (near & np.isfinite(true)).all()
