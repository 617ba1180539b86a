"""Comparisons that look at fewer bits where bounds on their operands prove that the others say nothing.

A comparison costs about a byte for each bit that it looks at, and of 62 most are always equal. What the plan then says
of a step, servers know: `width` is rounded up to whole digits of 4 bits, so it tells a bound on values within a factor
of 16.
"""
import math
from collections.abc import Mapping
from dataclasses import replace

from private_keras.plan.passes.graph import with_steps
from private_keras.plan.plan import Plan
from private_keras.plan.records import Step
from private_keras.plan.spans import Span, compared

# For the rounding of truncations, and the errors of functions, on the way to a value.
_MARGIN = 2.0
_DIGIT = 4


def narrow_windows(plan: Plan, spans: Mapping[str, Span]) -> Plan:
    """The plan with comparisons as narrow as the spans allow; none is wider than before.

    Args:
        plan: after all other passes.
        spans: of all values, proven (`plan.ranges`).
    """
    return with_steps(plan, [_narrowed(plan, step, spans) for step in plan.steps])


def _narrowed(plan: Plan, step: Step, spans: Mapping[str, Span]) -> Step:
    before = step.attributes.get("width")
    if before is None:
        return step
    name = step.inputs[0]
    largest = compared(step, spans[name], plan.types[name].fraction) * _MARGIN
    if not largest < 2.0**before:
        return step
    digits = math.ceil(math.log2(max(largest, 1.0)) / _DIGIT)
    return replace(step, attributes={**step.attributes, "width": min(before, max(digits, 1) * _DIGIT)})
