"""The plan at the end of an epoch: opens metrics, and one bit that says whether values left the range.

    opened to the client    every result of a metric; "diverged": whether any weight or optimiser slot is 2^20 or more
                            in size (a wrapped value is, but for one in 2^24), or an average of squares 2^16 or more, or
                            negative (seven of eight that have wrapped are)
"""
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan
from private_keras.tracing.names import path_of
from private_keras.tracing.training.traced import State
from private_keras.tracing.training.updating.scaled import SIZE, SQUARE

DIVERGED = "diverged"
LIMIT_BITS = 20
# Averages of squares are long: see `tracing/training/updating/scaled.py`. Rounding may take them a little below 0.
SQUARE_LIMIT_BITS, _BELOW_BITS = SIZE, -20
_PREFIX = "check."


def guarded(plan: Plan, states: Sequence[State]) -> Plan:
    """A plan that opens the bit about these states too. Their names must be new to the plan."""
    guard = guard_plan(plan.name, states)
    renamed = {step.output: _PREFIX + step.output for step in guard.steps}
    steps = tuple(
        dataclasses.replace(
            step, output=renamed[step.output], inputs=tuple(renamed.get(name, name) for name in step.inputs)
        )
        for step in guard.steps
    )
    outputs = tuple(dataclasses.replace(item, value=renamed[item.value]) for item in guard.outputs)
    return Plan(plan.name, plan.kind, plan.inputs + guard.inputs, plan.steps + steps, plan.outputs + outputs)


def guard_plan(name: str, states: Sequence[State]) -> Plan:
    """Opens one bit: whether any element of the states is too large, or has wrapped.

    Cost: two comparisons of each element, all at once, and one more.
    """
    b = PlanBuilder()
    counts = []
    for state in states:
        if state.fraction == 0:
            continue
        x = b.input(state.name, state.shape, state.fraction, "model-owner", path_of(state.variable.path))
        above, below = (SQUARE_LIMIT_BITS, _BELOW_BITS) if _squares(state) else (LIMIT_BITS, LIMIT_BITS)
        for side, bits in ((x, above), (b.add("negate", x), below)):
            limit = b.constant(np.full((), 1 << (bits + state.fraction), np.int64), state.fraction)
            large = b.add("greater_equal", side, limit)
            rank = len(state.shape)
            counts.append(b.add("reduce_sum", large, axes=list(range(rank))) if rank else large)
    total = counts[0]
    for count in counts[1:]:
        total = b.add("add", total, count)
    one = b.constant(np.ones((), np.int64), 0)
    b.output(b.add("greater_equal", total, one), DIVERGED, ["client"])
    return b.build(name, "evaluate")


def guarded_states(states: Mapping[str, State]) -> list[State]:
    """Those that a diverging run shows in: real numbers with room for the limit beside their fraction."""
    return [
        s for s in states.values() if s.kind != "metric" and (0 < s.fraction <= 61 - LIMIT_BITS or _squares(s))
    ]


def _squares(state: State) -> bool:
    return state.kind == "optimizer" and state.fraction == SQUARE
