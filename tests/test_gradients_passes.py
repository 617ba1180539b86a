"""Passes on plans that have gradients: fewer openings, and each relu's comparison paid once."""
from collections import Counter

import numpy as np
import pytest

from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients import Gradient, difference, gradients, unfold
from private_keras.plan.passes import optimise
from private_keras.plan.passes.relu_truncation import fuse_truncations
from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account
from tests.gradient_runs import shared, simulated
from tests.plan_zoo import UNIT, F


def values(plan: Plan, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {item.name: generator.integers(-1024, 1024, item.type.shape) / 1024 for item in plan.inputs}


def ops(plan: Plan) -> Counter:
    return Counter(step.op for step in plan.steps)


def mlp(batch: int, sizes: list[int]) -> Plan:
    """One step of stochastic gradient descent on softmax and cross-entropy, learning rate 1."""
    b = PlanBuilder()
    h = b.input("x", (batch, sizes[0]), F, "client")
    b.input("target", (batch, sizes[-1]), 0, "client")
    weights = []
    for i, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weights += [b.input(f"w{i}", (n, m), F, "client"), b.input(f"b{i}", (m,), F, "client")]
        z = b.add("truncate", b.add("matmul", h, f"w{i}", layer=f"dense{i}"), layer=f"dense{i}", bits=F)
        z = b.add("add", z, f"b{i}", layer=f"dense{i}")
        h = z if i == len(sizes) - 2 else b.add("relu", z, layer=f"act{i}")
    y = b.add("softmax", h, layer="softmax", axis=1)
    loss = b.add("reduce_sum", y, layer="loss", axes=[1])  # stands for the loss, which the joint knows
    seeds = {loss: Gradient(b.constant(np.ones(batch, np.int64), 0), 1 / batch)}
    found = gradients(b, seeds, weights, joints={loss: difference(h, y, "target", axis=1)})
    for name, g in found.items():
        b.output(g.value, f"by/{name}", ())
        new = b.constant(np.asarray(round(g.scale * 2**15)), 15)
        change = b.add("multiply", g.value, new)
        change = b.add("truncate", change, bits=b.type(change).fraction - F)
        b.output(b.add("subtract", name, change), f"new/{name}", (), carry=name)
    return b.build("mlp", "train")


def test_a_dense_training_step_has_no_opening_to_spare():
    plan = mlp(8, [12, 16, 16, 4])
    after = optimise(plan)
    count = ops(after)
    # Two gates share the comparisons of two relus, whose truncations they and the sums before them take in.
    assert count["relu"] == count["gate"] == 2
    relus = {step.inputs[0] for step in after.steps if step.op == "relu"}
    assert {step.inputs[0] for step in after.steps if step.op == "gate"} == relus
    assert all(step.attributes["truncate"] == F for step in after.steps if step.op == "relu")
    # Logits; and the weights, once each, all those together whose gradients are of one length.
    assert count["truncate"] == 1
    cut = [after.types[step.output].size for step in after.steps if step.op == "rescale"]
    assert len(cut) <= 4 and sum(cut) == sum(after.types[o.value].size for o in after.outputs if o.carry)
    # Three products forward, three by weights, two by inputs: none by x.
    assert count["matmul"] == 8
    assert [(o.name, o.carry, o.receivers) for o in after.outputs] == [
        (o.name, o.carry, o.receivers) for o in plan.outputs
    ]
    assert Plan.from_json(after.to_json()) == after
    inputs = values(plan)
    before, now = simulated(plan, inputs), simulated(after, inputs)
    for name in before:
        assert np.abs(before[name] - now[name]).max() <= 64 * UNIT
    costs = [sum(account(p, "trio"), Cost()) for p in (plan, after)]
    assert costs[1].bytes < costs[0].bytes and costs[1].rounds < costs[0].rounds


def descended(inputs: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The new weights, by the textbook."""
    hidden, before = [inputs["x"]], []
    for i in range(layers):
        before.append(hidden[-1] @ inputs[f"w{i}"] + inputs[f"b{i}"])
        hidden.append(np.maximum(before[-1], 0))
    e = np.exp(before[-1] - before[-1].max(1, keepdims=True))
    g = (e / e.sum(1, keepdims=True) - inputs["target"]) / len(e)
    new = {}
    for i in reversed(range(layers)):
        new[f"new/w{i}"], new[f"new/b{i}"] = inputs[f"w{i}"] - hidden[i].T @ g, inputs[f"b{i}"] - g.sum(0)
        g = (g @ inputs[f"w{i}"].T) * (before[i - 1] > 0) if i else g
    return new


@pytest.mark.parametrize("run", [simulated, shared])
def test_a_dense_training_step_descends(run):
    plan = optimise(mlp(8, [12, 16, 16, 4]))
    inputs = {name: value / 2 for name, value in values(plan, 5).items()}
    inputs["target"] = np.eye(4)[np.arange(8) % 4]
    got = run(plan, inputs)
    for name, expected in descended(inputs, 3).items():
        assert np.abs(got[name] - expected).max() < 1e-4


def test_gates_follow_the_value_before_a_truncation_that_relu_takes_in():
    b = PlanBuilder()
    b.input("x", (4, 4), F, "client")
    b.input("g", (4, 4), F, "client")
    z = b.add("multiply", "x", "x")
    x = b.add("truncate", b.add("truncate", z, bits=8), bits=10)
    b.output(b.add("relu", x), "relu", ())
    cut = b.add("truncate", b.add("multiply", "g", "x"), bits=10)
    b.output(b.add("truncate", b.add("gate", x, cut), bits=8), "gate", ())
    plan = b.build("p", "train")
    after = fuse_truncations(plan)
    assert ops(after) == {"multiply": 2, "relu": 1, "gate": 1}
    gate = next(step for step in after.steps if step.op == "gate")
    assert gate.inputs[0] == z and gate.attributes == {"truncate": 18}
    inputs = values(plan)
    for name, value in simulated(plan, inputs).items():
        assert np.abs(simulated(after, inputs)[name] - value).max() <= 4 * UNIT


def test_a_relu_and_a_gate_stay_where_gates_ask_for_their_sign():
    """They have other signs than what they are of."""
    b = PlanBuilder()
    b.input("x", (4, 4), F, "client")
    b.input("g", (4, 4), F, "client")
    for name, made in (("relu", b.add("relu", "x")), ("gate", b.add("gate", "x", "g"))):
        b.output(b.add("truncate", made, bits=3), name, ())
        b.output(b.add("gate", made, "g"), f"after/{name}", ())
    plan = b.build("p", "train")
    assert fuse_truncations(plan) == plan


def test_pools_are_taken_before_relus_and_their_gradients_find_the_comparisons():
    b = PlanBuilder()
    b.input("x", (2, 4, 4, 3), F, "client")
    b.input("w", (3,), F, "client")
    z = b.add("truncate", b.add("multiply", "x", "w"), bits=F)
    y = b.add("relu", b.add("add", z, "w"))
    y = unfold(b, "max_pool", y, window=[2, 2], strides=[2, 2], padding=[[0, 0], [0, 0]])
    found = gradients(b, {y: Gradient(b.constant(np.ones((2, 2, 2, 3), np.int64), 0))}, ["w"])
    b.output(y, "y", ())
    b.output(found["w"].value, "by/w", ())
    plan = b.build("p", "train")
    after = optimise(plan)
    sizes = [after.types[step.output].size for step in after.steps if step.op == "relu"]
    assert sizes == [48, 24, 24]
    relus = {step.inputs[0] for step in after.steps if step.op == "relu"}
    assert {step.inputs[0] for step in after.steps if step.op == "gate"} == relus
    inputs = values(plan)
    before, now = simulated(plan, inputs), simulated(after, inputs)
    for name in before:
        assert np.abs(before[name] - now[name]).max() <= 64 * UNIT


def test_kept_public_and_carried_values_go_through_all_passes():
    b = PlanBuilder()
    b.input("w", (3,), F, "client")
    b.input("rate", (), F, "client", public=True)
    change = b.add("truncate", b.add("multiply", "w", "rate"), bits=F)
    b.output(b.add("subtract", "w", change), "new/w", (), carry="w")
    b.output("w", "same/w", ())
    plan = b.build("p", "train")
    after = optimise(plan)
    assert after.outputs[1:] == plan.outputs[1:] and after.inputs == plan.inputs
    assert after.outputs[0].carry == "w" and after.types[after.outputs[0].value].fraction == F


def test_random_steps_of_different_streams_stay_apart():
    b = PlanBuilder()
    b.input("seed", (), 0, "client", public=True)
    b.input("x", (3,), F, "client")
    drawn = {"shape": [3], "fraction": 0, "distribution": "bernoulli", "probability": 2**31}
    masks = [b.add("random", "seed", **drawn, stream=stream) for stream in (0, 1, 1)]
    total = b.add("add", *(b.add("multiply", "x", mask) for mask in masks[:2]))
    total = b.add("add", total, b.add("multiply", "x", masks[2]))
    found = gradients(b, {total: Gradient(b.constant(np.ones(3, np.int64), 0))}, ["x"])
    b.output(found["x"].value, "by/x", ())
    after = optimise(b.build("p", "train"))
    # The gradient is the sum of the masks: public, as they are.
    assert ops(after)["random"] == 2 and ops(after)["multiply"] == 0
