"""Steps that do the same to different values, as one."""
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes import optimise, together
from private_keras.plan.passes.together import compute_together
from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account
from tests.gradient_runs import simulated
from tests.plan_zoo import UNIT, F

SHAPES = [(3, 4), (4,), (), (2, 1, 3), (5,)]


def ops(plan: Plan) -> Counter:
    return Counter(step.op for step in plan.steps)


def cost(plan: Plan) -> Cost:
    return sum(account(plan, "trio"), Cost())


def values(plan: Plan) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {item.name: generator.integers(64, 2048, item.type.shape) / 1024 for item in plan.inputs}


def same(before: Plan, after: Plan, tolerance: float) -> None:
    assert after.inputs == before.inputs and after.outputs == before.outputs
    assert Plan.from_json(after.to_json()) == after
    assert all(after.types[item.value] == before.types[item.value] for item in before.outputs)
    inputs = values(before)
    now = simulated(after, inputs)
    for name, value in simulated(before, inputs).items():
        assert np.abs(now[name] - value).max() <= tolerance


def adam(shapes) -> Plan:
    """An update by momentum over the root of the mean square, of each weight for itself."""
    b = PlanBuilder()
    for i, shape in enumerate(shapes):
        for name in ("w", "g", "m"):
            b.input(f"{name}{i}", shape, F, "client")
        layer = f"layer{i}"
        square = b.add("truncate", b.add("multiply", f"g{i}", f"g{i}", layer=layer), bits=F, layer=layer)
        mean = b.add("add", square, f"m{i}", layer=layer)
        step = b.add("multiply", f"g{i}", b.add("rsqrt", mean, layer=layer), layer=layer)
        rate = b.constant(np.asarray(3), 5)
        step = b.add("truncate", b.add("multiply", step, rate, layer=layer), bits=F + 5, layer=layer)
        b.output(b.add("subtract", f"w{i}", step, layer=layer), f"new/w{i}", (), carry=f"w{i}")
        b.output(mean, f"new/m{i}", (), carry=f"m{i}")
    return b.build("adam", "train")


def test_updates_of_all_weights_take_the_rounds_of_one():
    plan, alone = adam(SHAPES), adam(SHAPES[:1])
    after = compute_together(plan)
    assert ops(after)["rsqrt"] == 1 and ops(after)["truncate"] == 2
    assert cost(after).rounds == cost(alone).rounds
    assert cost(after).bytes <= cost(plan).bytes * 1.05
    same(plan, after, 60 * UNIT)
    assert compute_together(after) == after


def test_vectors_that_are_there_are_not_put_together_again():
    b = PlanBuilder()
    for i in range(3):
        b.input(f"x{i}", (2, 2), 36, "client")
        b.output(b.add("exp", b.add("truncate", f"x{i}", bits=F)), f"y{i}", ())
    after = optimise(b.build("p", "train"))
    assert ops(after)["concatenate"] == 1 and ops(after)["truncate"] == ops(after)["exp"] == 1
    same(b.build("p", "train"), after, 64 * UNIT)


def test_steps_that_need_each_other_stay_apart():
    b = PlanBuilder()
    b.input("x", (3,), F, "client")
    value = "x"
    for _ in range(4):
        value = b.add("truncate", b.add("shift", b.add("negate", value), bits=3), bits=3)
    b.output(value, "y", ())
    plan = b.build("p", "train")
    assert compute_together(plan) == plan


def test_what_differs_or_is_public_or_true_stays_apart():
    b = PlanBuilder()
    b.input("x", (3,), F, "client")
    b.input("y", (3,), 24, "client")
    b.input("rate", (3,), F, "client", public=True)
    b.input("hot", (3,), 0, "client")
    made = [
        b.add("truncate", "x", bits=4), b.add("truncate", "x", bits=5), b.add("truncate", "y", bits=4),
        b.add("truncate", "rate", bits=4),
        b.add("multiply", "x", "rate"), b.add("multiply", "x", "hot"),
        b.add("relu", "x"), b.add("relu", b.add("negate", "x")),
    ]
    for i, name in enumerate(made):
        b.output(name, f"out{i}", ())
    plan = b.build("p", "train")
    assert compute_together(plan) == plan


def test_large_tensors_stay_apart(monkeypatch):
    monkeypatch.setattr(together, "_MEMBER_ELEMENTS", 8)
    monkeypatch.setattr(together, "_GROUP_ELEMENTS", 12)
    b = PlanBuilder()
    for i, size in enumerate([9, 4, 4, 4, 4, 9]):
        b.input(f"x{i}", (size,), F, "client")
        b.output(b.add("truncate", f"x{i}", bits=3), f"y{i}", ())
    plan = b.build("p", "train")
    after = compute_together(plan)
    sizes = sorted(after.types[step.output].size for step in after.steps if step.op == "truncate")
    assert sum(sizes) == 34 and sizes[-2:] == [9, 9] and len(sizes) < 6 and max(sizes[:-2]) <= 12
    same(plan, after, 2 * UNIT * 8)


OPS = ["truncate", "exp", "rsqrt", "multiply", "maximum", "spline", "relu", "add", "sum"]
SPLINE = {"knots": [0], "coefficients": [[1 << F, 0], [1 << F, 1]], "scale": F, "fraction": F}


@st.composite
def plans(draw):
    b = PlanBuilder()
    made = [b.input(f"x{i}", draw(st.sampled_from([(2, 2), (4,)])), F, "client") for i in range(4)]
    for _ in range(draw(st.integers(2, 14))):
        op, x, y = draw(st.sampled_from(OPS)), *(draw(st.sampled_from(made)) for _ in range(2))
        if op in ("multiply", "maximum", "add"):
            y = b.add("reshape", y, shape=list(b.type(x).shape))
            z = b.add(op, x, y)
        elif op == "truncate":
            z = b.add("truncate", b.add("shift", x, bits=4), bits=4)
        elif op == "spline":
            z = b.add("spline", x, **SPLINE)
        elif op == "sum":
            z = b.add("broadcast", b.add("reduce_sum", x, axes=[0], keepdims=True), shape=list(b.type(x).shape))
        elif op == "exp":
            z = b.add("exp", b.add("negate", b.add("relu", x)))
        else:
            z = b.add(op, x)
        made.append(b.add("truncate", z, bits=F) if b.type(z).fraction > F else z)
    for i, name in enumerate(made[-3:]):
        b.output(b.add("maximum", name, b.add("negate", name)), f"y{i}", ())
    return b.build("p", "train")


@settings(max_examples=80, deadline=None)
@given(plans())
def test_random_plans(plan):
    after = compute_together(plan)
    largest = max(np.abs(v).max() for v in simulated(plan, values(plan)).values())
    if largest < 2**6:
        same(plan, after, 2e-3 * max(1.0, largest**2))
    # Steps share rounds by themselves: what is computed together saves calls, and may wait for the last of them.
    assert cost(after).bytes <= cost(plan).bytes + 16 * sum(plan.types[s.output].size for s in plan.steps)
    assert compute_together(after) == after
