"""Gradients of every primitive, against central differences and in fixed point."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients import RULES, UNFOLDED, Gradient, gradients
from private_keras.plan.gradients.check import check_gradients, gradient_plan, probe, real_values
from private_keras.plan.gradients.tape import LONGEST
from private_keras.plan.passes import optimise
from private_keras.plan.primitives import TABLE
from tests.gradient_runs import shared, simulated
from tests.gradient_zoo import CASES
from tests.plan_zoo import F

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def test_every_primitive_has_a_rule_and_a_case():
    assert set(TABLE) <= set(RULES) | set(UNFOLDED)
    assert {name.split()[0] for name in CASES} >= set(TABLE) - {"random"}


@pytest.mark.parametrize("name", CASES)
def test_central_differences(name):
    build, inputs, fractions = CASES[name]
    errors = check_gradients(build, inputs, fractions=fractions, tolerance=2e-5)
    assert set(errors) == set(inputs)


def fixed_point(name, run) -> float:
    """The largest error of a case's gradients, of each input's largest."""
    build, inputs, fractions = CASES[name]
    plan, scales = gradient_plan(build, inputs, list(inputs), fractions=fractions)
    where = {item.name: item.value for item in plan.outputs}
    values = {**inputs, "probe": probe(plan.types[where["value"]].shape)}
    true = real_values(plan, values)
    found = run(optimise(plan), values)
    sizes = {n: max(1.0, np.abs(true[where[n]] * scale).max()) for n, scale in scales.items()}
    return max([np.abs((found[n] - true[where[n]]) * scales[n]).max() / sizes[n] for n in scales], default=0.0)


@pytest.mark.parametrize("name", CASES)
def test_fixed_point(name):
    assert fixed_point(name, simulated) < 5e-5


@pytest.mark.parametrize(
    "name", ["relu truncated", "abs", "maximum", "max_pool padded", "conv 2d groups", "softmax", "sqrt", "spline",
             "select", "one_hot", "matmul batch", "gather"],
)
def test_three_parties(name):
    assert fixed_point(name, shared) < 1e-4


# --- convolutions, pools and movements of any shape -------------------------------------------------------------------
@st.composite
def convolutions(draw):
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    each = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    space, window = each(1, 6), each(1, 3)
    attributes = {
        "strides": each(1, 3), "dilation": each(1, 2), "input_dilation": each(1, 2),
        "padding": [[draw(st.integers(0, 3)), draw(st.integers(0, 3))] for _ in range(rank)], "groups": groups,
    }
    channels, filters = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = (draw(st.integers(1, 2)), *space, channels * groups)
    return x, (*window, channels, filters * groups), attributes


@FUZZ
@given(convolutions(), st.integers(0, 2**20))
def test_convolutions(case, seed):
    x, w, attributes = case
    generator = np.random.default_rng(seed)
    inputs = {"x": generator.uniform(-1, 1, x), "w": generator.uniform(-1, 1, w)}
    accepted(lambda b: b.add("conv", "x", "w", **attributes), inputs)


def accepted(build, inputs) -> None:
    """Checks gradients of steps that the primitive's own rule takes."""
    b = PlanBuilder()
    for name, value in inputs.items():
        b.input(name, value.shape, F, "c")
    try:
        build(b)
    except PlanError:
        return
    check_gradients(build, inputs, tolerance=1e-6)


@FUZZ
@given(st.data())
def test_pools_and_slices(data):
    rank = data.draw(st.integers(1, 2))
    each = lambda low, high: data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    space = each(1, 7)
    x = probe((1, *space, 1)) + np.arange(np.prod(space)).reshape(1, *space, 1)
    padding = [list(pair) for pair in zip(each(0, 2), each(0, 2), strict=True)]
    pool = {"window": each(1, 4), "strides": each(1, 3), "padding": padding}
    accepted(lambda b: b.add("sum_pool", "x", **pool), {"x": x})
    accepted(lambda b: b.add("max_pool", "x", **pool), {"x": x})
    steps = [step or 1 for step in each(-3, 3)]
    part = {"start": each(-8, 8), "stop": each(-8, 8), "step": steps}
    accepted(lambda b: b.add("slice", "x", **part), {"x": x[0, ..., 0]})


@FUZZ
@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(0, 1), st.booleans())
def test_gathers(indices, axis, skewed):
    indices = [index // 8 for index in indices] if skewed else indices
    x = probe((9, 2) if axis == 0 else (2, 9))
    errors = check_gradients(lambda b: b.add("gather", "x", axis=axis, indices=indices), {"x": x})
    assert errors["x"] < 1e-6


@FUZZ
@given(st.data())
def test_broadcasts(data):
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=4))
    shapes = []
    for _ in range(3):
        kept = data.draw(st.integers(0, len(sizes)))
        shapes.append(tuple(data.draw(st.sampled_from([1, n])) for n in sizes[kept:]))
    inputs = {name: probe(shape) * (i + 1) + i / 7 for i, (name, shape) in enumerate(zip("xyz", shapes, strict=True))}

    def build(b):
        total = b.add("subtract", b.add("multiply", "x", "y"), b.add("shift", "z", bits=F))
        return b.add("select", b.add("less", "x", "y"), total, b.add("shift", "y", bits=F))

    check_gradients(build, inputs, tolerance=1e-6)


# --- chains -----------------------------------------------------------------------------------------------------------
SMOOTH = ["add", "subtract", "multiply", "matmul", "negate", "softmax", "transpose", "relu", "reduce", "square"]


@st.composite
def chains(draw):
    """Steps on 3 by 3 matrices: values are used several times, as in models that branch."""
    return [(draw(st.sampled_from(SMOOTH)), draw(st.integers(0, 9)), draw(st.integers(0, 9)))
            for _ in range(draw(st.integers(1, 8)))]


def write(chain):
    def build(b):
        values = ["x", "y"]
        for op, i, j in chain:
            x, y = values[i % len(values)], values[-1 - j % len(values)]
            if op == "square":
                z = b.add("multiply", x, x)
            elif op == "reduce":
                total = b.add("reduce_sum", x, axes=[1], keepdims=True)
                z = b.add("multiply", b.add("broadcast", total, shape=[3, 3]), b.constant(np.asarray(21845), 16))
            elif op in ("negate", "relu", "softmax", "transpose"):
                z = b.add(op, x, **{"softmax": {"axis": 1}, "transpose": {"axes": [1, 0]}}.get(op, {}))
            else:
                z = b.add(op, x, y)
            f = b.type(z).fraction
            values.append(b.add("truncate", z, bits=f - F) if f > F else z)
        return values[-1]

    return build


@FUZZ
@given(chains())
def test_chains_of_steps(chain):
    inputs = {"x": probe((3, 3)) * 0.7 + 1e-3, "y": probe((3, 3)).T * 0.4 + 0.05}
    build = write(chain)
    plan, scales = gradient_plan(build, inputs, ["x", "y"])
    where = {item.name: item.value for item in plan.outputs}
    values = {**inputs, "probe": probe((3, 3))}
    true = real_values(plan, values)
    if max(np.abs(true[name]).max() for name in true) > 2**8:
        return
    kinks = [np.abs(true[s.inputs[0]]).min() for s in plan.steps if s.op == "relu"]
    if min(kinks, default=1) < 1e-3:
        return
    check_gradients(build, inputs, tolerance=1e-4)
    found = simulated(optimise(plan), values)
    for name, scale in scales.items():
        size = max(1.0, max(np.abs(true[v]).max() for v in true))
        assert np.abs((found[name] - true[where[name]]) * scale).max() <= 2e-3 * size


def test_a_deep_chain():
    """Iterative: no stack of 5,000 calls, and no product or truncation where none is needed."""
    b = PlanBuilder()
    b.input("x", (2,), F, "c")
    b.input("y", (2,), F, "c")
    value = "x"
    for index in range(5000):
        value = b.add(*[("negate", value), ("add", value, "y"), ("subtract", "y", value)][index % 3])
    count = len(b.steps)
    found = gradients(b, {value: Gradient(b.constant(np.ones(2, np.int64), 0))}, ["x", "y"])
    assert found["x"].scale == -1.0
    b.output(found["y"].value, "y", ())
    real = real_values(b.build("deep", "train"), {"x": np.zeros(2), "y": np.zeros(2)})
    # By y: 1 for each sum, with the sign that the steps behind it give.
    sign, total = 1.0, 0.0
    for index in reversed(range(5000)):
        total += sign if index % 3 else 0
        sign *= [-1, 1, -1][index % 3]
    assert real[found["y"].value] * found["y"].scale == pytest.approx([total, total])
    assert {s.op for s in b.steps[count:]} <= {"constant", "broadcast", "add", "subtract", "multiply"}


def test_products_of_a_deep_chain():
    b = PlanBuilder()
    b.input("x", (2, 2), F, "c")
    b.input("w", (2, 2), F, "c")
    value = "x"
    for _ in range(1000):
        value = b.add("truncate", b.add("matmul", value, "w"), bits=F)
    found = gradients(b, {value: Gradient(b.constant(np.ones((2, 2), np.int64), 0))}, ["x", "w"])
    b.output(value, "y", ())
    b.output(found["w"].value, "by_w", ())
    b.output(found["x"].value, "by_x", ())
    plan = b.build("deep", "train")
    assert max(kind.fraction for kind in plan.types.values()) <= LONGEST
    turn = np.array([[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]])
    values = {"x": probe((2, 2)), "w": turn}
    true, found_values = real_values(plan, values), simulated(plan, values)
    for item in plan.outputs:
        size = max(1.0, np.abs(true[item.value]).max())
        assert np.abs(found_values[item.name] - true[item.value]).max() < 2e-2 * size
