"""A product with a public number and the truncations around it become one opening.

truncate(multiply(truncate(x), c)) = rescale(x, c): the inner truncation was there to make room for the product, which
`rescale` never forms. Saves a truncation, and the product cannot wrap.
"""
from collections.abc import Mapping
from dataclasses import replace

from private_keras.plan.passes.graph import producers, uses, with_steps
from private_keras.plan.plan import Plan, Step

_MOST = 62


def fuse_factors(plan: Plan) -> Plan:
    """Truncations of products with a public number become `rescale` steps; what they took the place of is left dead."""
    public = _public(plan)
    numbers = {name for name in public if not plan.types[name].shape}
    count, makers = uses(plan), producers(plan)
    return with_steps(plan, [_fused(step, public, numbers, count, makers) for step in plan.steps])


def _public(plan: Plan) -> set[str]:
    known = {item.name for item in plan.inputs if item.public}
    for step in plan.steps:
        if known.issuperset(step.inputs):
            known.add(step.output)
    return known


def _fused(
    step: Step, public: set[str], numbers: set[str], count: Mapping[str, int], makers: Mapping[str, Step]
) -> Step:
    product = makers.get(step.inputs[0]) if step.op == "truncate" else None
    if product is None or product.op != "multiply" or count[product.output] > 1 or public.issuperset(product.inputs):
        return step
    factor = next((name for name in product.inputs if name in numbers), None)
    if factor is None:
        return step
    x = product.inputs[1] if product.inputs[0] == factor else product.inputs[0]
    bits = step.attributes["bits"]
    before = makers.get(x)
    if before is not None and before.op == "truncate" and count[x] == 1 and bits + before.attributes["bits"] <= _MOST:
        x, bits = before.inputs[0], bits + before.attributes["bits"]
    return replace(step, op="rescale", inputs=(x, factor), attributes={"bits": bits})
