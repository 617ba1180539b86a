"""Passes: fewer or cheaper steps, the same outputs up to rounding."""
import numpy as np
import pytest

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes import optimise
from private_keras.plan.passes.common import merge_common
from private_keras.plan.passes.dead import remove_dead
from private_keras.plan.passes.late_truncation import delay_truncations
from private_keras.plan.passes.pool_first import pool_first
from private_keras.plan.passes.relu_truncation import fuse_truncations
from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Cost
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import execute
from private_keras.server.execute.account import account
from tests.plan_zoo import CASES, UNIT, F, decode, encode

POOL = {"window": [2, 2], "strides": [2, 2], "padding": [[0, 0], [0, 0]]}


def ops(plan: Plan) -> list[str]:
    return [step.op for step in plan.steps]


def run(plan: Plan) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    p = Simulate(NumpyKernel())
    shares = {}
    for item in plan.inputs:
        value = generator.integers(-2000, 2000, item.type.shape) / 1024
        shares[item.name] = p.constant(encode(value, item.type.fraction))
    opened = execute(plan, p, shares)
    return {item.name: decode(opened[item.name], plan.types[item.value].fraction) for item in plan.outputs}


def same(before: Plan, after: Plan, tolerance: float) -> None:
    """Same inputs and outputs, values within the tolerance."""
    assert after.inputs == before.inputs
    assert [(o.name, o.receivers) for o in after.outputs] == [(o.name, o.receivers) for o in before.outputs]
    assert Plan.from_json(after.to_json()) == after
    for name, value in run(before).items():
        assert np.abs(run(after)[name] - value).max() <= tolerance


def builder() -> PlanBuilder:
    b = PlanBuilder()
    b.input("x", (2, 4, 4, 3), F, "client")
    b.input("y", (2, 4, 4, 3), F, "client")
    return b


def product(b: PlanBuilder, layer="") -> str:
    return b.add("multiply", "x", "y", layer=layer)


def test_dead_steps_go():
    b = builder()
    b.add("exp", b.add("negate", "x"))
    b.output(b.add("relu", "x"), "y", ["client"])
    b.add("negate", "y")
    plan = b.build("p", "predict")
    after = remove_dead(plan)
    assert ops(after) == ["relu"]
    same(plan, after, 0)


def test_equal_steps_merge_and_different_ones_stay():
    b = builder()
    first = b.add("relu", b.add("shift", "x", bits=2), layer="one")
    second = b.add("relu", b.add("shift", "x", bits=2), layer="two")
    third = b.add("relu", b.add("shift", "x", bits=3))
    swapped = [b.add("subtract", "x", "y"), b.add("subtract", "y", "x")]
    b.output(b.add("add", first, second), "sum", ["client"])
    b.output(second, "second", ["client"])
    for i, name in enumerate([third, *swapped]):
        b.output(name, f"z{i}", ["client"])
    plan = b.build("p", "predict")
    after = merge_common(plan)
    assert ops(after) == ["shift", "relu", "shift", "relu", "subtract", "subtract", "add"]
    same(plan, after, 0)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([("truncate", 18), ("relu", 0)], ("relu", 18)),
        ([("truncate", 10), ("relu", 8)], ("relu", 18)),
        ([("relu", 10), ("truncate", 8)], ("relu", 18)),
        ([("truncate", 10), ("truncate", 8)], ("truncate", 18)),
        ([("truncate", 4), ("truncate", 6), ("relu", 0), ("truncate", 8)], ("relu", 18)),
    ],
)
def test_truncations_fuse(chain, expected):
    b = builder()
    y = product(b)
    for op, bits in chain:
        y = b.add(op, y, layer=op, **{"bits" if op == "truncate" else "truncate": bits})
    b.output(y, "y", ["client"])
    plan = b.build("p", "predict")
    after = fuse_truncations(plan)
    assert ops(after) == ["multiply", expected[0]]
    assert after.steps[1].attributes["bits" if expected[0] == "truncate" else "truncate"] == expected[1]
    assert after.steps[1].layer == expected[0]
    same(plan, after, 4 * UNIT)


def test_truncations_of_values_used_twice_stay():
    b = builder()
    t = b.add("truncate", product(b), bits=18)
    b.output(b.add("relu", t), "relu", ["client"])
    b.output(t, "plain", ["client"])
    plan = b.build("p", "predict")
    assert fuse_truncations(plan) == plan
    assert pool_first(plan) == plan
    assert delay_truncations(plan) == plan


def test_a_sum_of_more_bits_than_a_truncation_takes_stays():
    b = PlanBuilder()
    b.input("x", (2,), 58, "client")
    y = b.add("truncate", b.add("shift", b.add("truncate", b.add("negate", "x"), bits=58), bits=58), bits=58)
    b.output(b.add("relu", y), "y", ["client"])
    plan = b.build("p", "predict")
    assert ops(fuse_truncations(plan)) == ["negate", "truncate", "shift", "relu"]


def test_pool_goes_before_relu_and_truncation():
    b = builder()
    y = b.add("relu", b.add("truncate", product(b), layer="conv", bits=8), layer="act", truncate=10)
    y = b.add("max_pool", y, layer="pool", **POOL)
    y = b.add("max_pool", y, layer="pool2", **POOL)
    b.output(y, "y", ["client"])
    plan = b.build("p", "predict")
    after = pool_first(plan)
    assert ops(after) == ["multiply", "max_pool", "max_pool", "truncate", "relu"]
    assert [step.layer for step in after.steps] == ["", "pool", "pool2", "conv", "act"]
    same(plan, after, 3 * UNIT)


def test_pool_stays_where_relu_is_used_again_or_pooling_enlarges():
    b = builder()
    y = b.add("relu", "x")
    b.output(b.add("max_pool", y, **POOL), "pool", ["client"])
    b.output(y, "relu", ["client"])
    z = b.add("max_pool", b.add("relu", "y"), window=[2, 2], strides=[1, 1], padding=[[1, 1], [1, 1]])
    b.output(z, "larger", ["client"])
    plan = b.build("p", "predict")
    assert pool_first(plan) == plan


def test_sum_of_truncations_truncates_once():
    b = builder()
    x = b.add("truncate", product(b), bits=18)
    y = b.add("truncate", b.add("shift", b.add("negate", "y"), bits=10), bits=10)
    b.output(b.add("subtract", x, y), "y", ["client"])
    plan = b.build("p", "predict")
    after = delay_truncations(plan)
    assert ops(after) == ["multiply", "negate", "shift", "shift", "subtract", "truncate"]
    same(plan, after, 3 * UNIT)


def test_residual_sum_costs_no_truncation_before_relu():
    b = builder()
    b.input("bias", (3,), F, "owner")
    y = b.add("truncate", product(b, "conv"), layer="conv", bits=18)
    y = b.add("add", y, "bias", layer="conv")
    y = b.add("add", "x", y, layer="skip")
    b.output(b.add("relu", y, layer="act"), "y", ["client"])
    plan = b.build("p", "predict")
    after = optimise(plan)
    assert "truncate" not in ops(after)
    assert after.steps[-1].attributes == {"truncate": 18, "width": 62}
    same(plan, after, 3 * UNIT)


def test_a_truncation_stays_before_a_sum_that_nothing_takes_in():
    b = builder()
    y = b.add("add", b.add("truncate", product(b), bits=18), "x")
    b.output(y, "y", ["client"])
    small = b.add("truncate", b.add("reduce_sum", product(b), axes=[0, 1, 2]), bits=18)
    large = b.add("add", small, "x")
    b.output(large, "broadcast", ["client"])
    plan = b.build("p", "predict")
    assert delay_truncations(plan) == plan


def test_softmax_and_argmax_do_not_wait_for_a_truncation():
    b = PlanBuilder()
    b.input("x", (4, 6), F, "client")
    b.input("w", (6, 5), F, "owner")
    z = b.add("truncate", b.add("matmul", "x", "w"), bits=F)
    for op in ("softmax", "argmax", "argmin"):
        b.output(b.add(op, z, axis=1), op, ["client"])
    plan = b.build("p", "predict")
    after = optimise(plan)
    assert "truncate" not in ops(after)
    same(plan, after, 8 * UNIT)
    before_cost, after_cost = (sum(account(p, "trio"), Cost()) for p in (plan, after))
    assert after_cost.rounds == before_cost.rounds - 1 and after_cost.bytes < before_cost.bytes
    # At 40 bits differences of 2^20 would wrap: the truncation stays.
    b = PlanBuilder()
    b.input("x", (4, 6), 40, "client")
    b.output(b.add("softmax", b.add("truncate", "x", bits=22), axis=1), "y", ["client"])
    assert ops(optimise(b.build("p", "predict"))) == ["truncate", "softmax"]


def test_optimised_cnn_is_cheaper():
    b = builder()
    b.input("w", (3, 3, 3, 4), F, "owner")
    b.input("bias", (4,), F, "owner")
    one = {"strides": [1, 1], "padding": [[1, 1], [1, 1]], "dilation": [1, 1], "input_dilation": [1, 1]}
    y = b.add("truncate", b.add("conv", "x", "w", layer="conv", **one), layer="conv", bits=18)
    y = b.add("relu", b.add("add", y, "bias", layer="conv"), layer="act")
    y = b.add("max_pool", y, layer="pool", **POOL)
    b.output(y, "y", ["client"])
    plan = b.build("p", "predict")
    after = optimise(plan)
    assert ops(after) == ["conv", "shift", "add", "max_pool", "relu"]
    same(plan, after, 3 * UNIT)
    before_cost, after_cost = (sum(account(p, "trio"), Cost()) for p in (plan, after))
    assert after_cost.rounds < before_cost.rounds and after_cost.bytes < 0.8 * before_cost.bytes


@pytest.mark.parametrize("name", CASES)
def test_zoo_is_the_same_after_all_passes(name):
    case = CASES[name]
    p = Simulate(NumpyKernel())
    case.check(execute(optimise(case.plan()), p, case.given(p))["result"])


def test_optimise_is_idempotent():
    for case in CASES.values():
        once = optimise(case.plan())
        assert optimise(once) == once


def test_names_stay_unique_when_passes_make_values():
    b = PlanBuilder()
    b.input("v2.pool", (1, 4, 4, 1), F, "client")
    b.input("v2.sum", (1, 4, 4, 1), F, "client")
    y = b.add("relu", b.add("multiply", "v2.pool", "v2.sum"), truncate=18)
    y = b.add("max_pool", y, **POOL)
    b.output(y, "y", ["client"])
    plan = b.build("p", "predict")
    after = optimise(plan)
    assert len(after.types) == 2 + len(after.steps)
    same(plan, after, 2 * UNIT)


def test_no_sums_or_comparisons_at_fractions_without_headroom():
    b = PlanBuilder()
    b.input("x", (1, 4, 4, 1), 50, "client")
    b.input("y", (1, 4, 4, 1), F, "client")
    small = b.add("truncate", b.add("multiply", "x", b.constant(np.ones((1, 1), int), 0)), bits=32)
    y = b.add("relu", b.add("add", small, "y"))
    z = b.add("max_pool", b.add("truncate", b.add("negate", "x"), bits=20), **POOL)
    b.output(y, "y", ["client"])
    b.output(z, "z", ["client"])
    plan = b.build("p", "predict")
    assert optimise(plan) == plan


def test_a_factor_and_the_truncations_around_it_are_one_opening():
    b = PlanBuilder()
    b.input("x", (4, 3), 40, "client")
    b.input("w", (4, 3), F, "client")
    b.input("rate", (), 30, "client", public=True)
    change = b.add("truncate", b.add("multiply", "rate", b.add("truncate", "x", bits=24)), bits=28)
    b.output(b.add("subtract", "w", change), "w", [], carry="w")
    plan = optimise(b.build("p", "train"))
    assert [(s.op, s.inputs[:2], s.attributes) for s in plan.steps][:1] == [("rescale", ("x", "rate"), {"bits": 52})]
    assert [s.op for s in plan.steps] == ["rescale", "subtract"]


def test_a_product_that_is_used_elsewhere_stays():
    b = PlanBuilder()
    b.input("x", (4,), F, "client")
    b.input("rate", (), F, "client", public=True)
    product = b.add("multiply", "x", "rate")
    b.output(b.add("truncate", product, bits=F), "y", [])
    b.output(product, "z", [])
    assert {s.op for s in optimise(b.build("p", "train")).steps} == {"multiply", "truncate"}


def test_a_secret_factor_is_refused():
    b = PlanBuilder()
    b.input("x", (4,), F, "client")
    b.input("y", (), F, "client")
    b.output(b.add("rescale", "x", "y", bits=F), "z", [])
    with pytest.raises(PlanError, match="expected a public value as operand 1"):
        b.build("p", "train")
