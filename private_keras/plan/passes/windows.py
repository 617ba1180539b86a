"""Comparisons that look at fewer bits where bounds on their operands prove that the others say nothing.

A comparison costs about a byte for each bit that it looks at, and of 62 most are always equal. What the plan then says
of a step, servers know: `width` is rounded up to whole digits of 4 bits, so it tells a bound on values within a factor
of 16.
"""
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from private_keras.plan.passes.graph import with_steps
from private_keras.plan.plan import Plan
from private_keras.plan.ranges import ranges
from private_keras.plan.records import Step
from private_keras.plan.spans import Span, compared

# What functions err by in proportion to their values.
_MARGIN = 2.0
# Units that a step which rounds may err by besides: one for a truncation, nine for functions (`docs/functions.md`), in
# the spans from where they arise on, so that sums and weights enlarge them as they do values, however small these are.
_ROUNDING = 16.0
_DIGIT = 4


def narrow_windows(plan: Plan, inputs: Mapping[str, Span], weights: Mapping[str, np.ndarray]) -> Plan:
    """The plan with comparisons as narrow as bounds on its values allow; none is wider than before.

    Args:
        plan: after all other passes.
        inputs: span of each input, in real numbers, but for those in `weights`.
        weights: real values of inputs that are known, by name.
    """
    units = {item.name: 2.0**-item.type.fraction for item in plan.inputs}
    # Inputs and weights are rounded when they are shared.
    shared = {name: np.rint(np.asarray(w, np.float64) / units[name]) * units[name] for name, w in weights.items()}
    rounded = {name: Span(x.low - units[name], x.high + units[name]) for name, x in inputs.items()}
    spans = ranges(plan, rounded, shared, _ROUNDING).spans
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
