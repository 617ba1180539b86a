"""Plan to plan: each pass keeps inputs and outputs and makes the plan cheaper. One file each."""
from private_keras.plan.passes.common import merge_common
from private_keras.plan.passes.dead import remove_dead
from private_keras.plan.passes.early_order import order_early
from private_keras.plan.passes.late_truncation import delay_truncations
from private_keras.plan.passes.pool_first import pool_first
from private_keras.plan.passes.relu_truncation import fuse_truncations
from private_keras.plan.passes.scaled_truncation import fuse_factors
from private_keras.plan.passes.together import compute_together
from private_keras.plan.plan import Plan

__all__ = ["PASSES", "optimise"]

# In this order: a truncation that was delayed past a sum can be taken in by the relu behind it, and so on.
PASSES = (
    merge_common, delay_truncations, fuse_truncations, pool_first, fuse_truncations, fuse_factors, order_early,
    remove_dead, compute_together, remove_dead,
)


def optimise(plan: Plan) -> Plan:
    """The plan after all passes: the same outputs, up to the rounding of truncations."""
    for rewrite in PASSES:
        plan = rewrite(plan)
    return plan
