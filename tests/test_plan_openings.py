"""A plan may not open an input by calling it something else."""
import numpy as np
import pytest

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder


def builder() -> PlanBuilder:
    b = PlanBuilder()
    b.input("x", (1, 4, 4, 2), 18, "client")
    b.input("w", (3, 3, 2, 2), 18, "model-owner", "conv/kernel")
    return b


def one(b: PlanBuilder, shape=()) -> str:
    return b.constant(np.ones(shape, np.int64) << 18, 18)


LOCAL = {
    "itself": lambda b: "w",
    "reshape": lambda b: b.add("reshape", "w", shape=[36]),
    "transpose": lambda b: b.add("transpose", "w", axes=[3, 2, 1, 0]),
    "slice": lambda b: b.add("slice", "w", start=[0] * 4, stop=[1] * 4, step=[1] * 4),
    "gather": lambda b: b.add("gather", "w", axis=0, indices=[1]),
    "pad": lambda b: b.add("pad", "w", padding=[[1, 1]] * 4),
    "negate": lambda b: b.add("negate", "w"),
    "shift": lambda b: b.add("shift", "w", bits=4),
    "truncate": lambda b: b.add("truncate", b.add("shift", "w", bits=4), bits=4),
    "add constant": lambda b: b.add("add", "w", one(b)),
    "constant minus": lambda b: b.add("subtract", one(b), "w"),
    "sum with itself": lambda b: b.add("add", "w", b.add("negate", b.add("shift", "w", bits=0))),
    "multiply constant": lambda b: b.add("multiply", one(b), "w"),
    "matmul constant": lambda b: b.add("matmul", "w", one(b, (2, 2))),
    "conv constant": lambda b: b.add(
        "conv", "w", one(b, (1, 1, 2, 2)), strides=[1, 1], padding=[[0, 0]] * 2, dilation=[1, 1], input_dilation=[1, 1]
    ),
    "broadcast": lambda b: b.add("broadcast", "w", shape=[2, 3, 3, 2, 2]),
    "reduce_sum": lambda b: b.add("reduce_sum", "w", axes=[0]),
    "sum_pool": lambda b: b.add("sum_pool", "w", window=[1, 1], strides=[1, 1], padding=[[0, 0]] * 2),
    "concatenate with a result": lambda b: b.add(
        "concatenate", b.add("relu", b.add("reshape", "x", shape=[32])), b.add("reshape", "w", shape=[36]), axis=0
    ),
    "concatenate and slice": lambda b: b.add(
        "slice", b.add("concatenate", "w", "w", axis=0), start=[0] * 4, stop=[2] * 4, step=[1] * 4
    ),
}


@pytest.mark.parametrize("name", LOCAL)
def test_opening_an_input_of_another_party_is_refused(name):
    b = builder()
    b.output(LOCAL[name](b), "y", ["client"])
    with pytest.raises(PlanError, match="'w' of 'model-owner' to client"):
        b.build("p", "predict")


@pytest.mark.parametrize("name", LOCAL)
def test_declared_or_to_its_owner_it_is_allowed(name):
    b = builder()
    b.output(LOCAL[name](b), "y", ["client"])
    assert b.build("p", "reveal").kind == "reveal"
    b = builder()
    b.output(LOCAL[name](b), "y", ["model-owner"])
    b.build("p", "predict")


def test_results_are_no_inputs():
    b = builder()
    y = b.add("conv", "x", "w", strides=[1, 1], padding=[[0, 0]] * 2, dilation=[1, 1], input_dilation=[1, 1])
    b.output(y, "product", ["client"])
    b.output(b.add("relu", "x"), "relu", ["model-owner"])
    b.output(one(b), "public", ["anybody"])
    totals = [b.add("reduce_sum", name, axes=[0, 1, 2, 3]) for name in ("x", "w")]
    b.output(b.add("add", *totals), "sum", ["z"])
    b.build("p", "predict")


def test_one_receiver_too_many():
    b = builder()
    b.output(b.add("negate", "x"), "y", ["client", "model-owner"])
    with pytest.raises(PlanError, match="to model-owner"):
        b.build("p", "predict")
