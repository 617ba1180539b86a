"""Bounds on a plan's values, its run on real numbers, and the domains that both judge by."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.plan import domains
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.primitives import TABLE
from private_keras.plan.ranges import RULES, ranges
from private_keras.plan.reference import MEANINGS
from private_keras.plan.shadow import shadow
from private_keras.plan.spans import Span, spline
from private_keras.protocols import functions
from private_keras.protocols.functions import positive
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from tests.plan_zoo import CASES, F, decode, encode

PAGE = (Path(__file__).parents[1] / "docs" / "functions.md").read_text()
INPUT = Span(-8.0, 8.0)


def test_one_rule_and_one_meaning_for_each_primitive():
    assert set(RULES) == set(TABLE) - {"constant"}
    assert set(MEANINGS) == set(TABLE)


@pytest.mark.parametrize("name", CASES)
def test_meanings_agree_with_numpy_and_bounds_hold(name):
    case = CASES[name]
    plan = case.plan()
    expected = case.expected(*case.inputs.values())
    seen = shadow(plan, case.inputs)
    assert not seen.overflows and not seen.exits
    last = next(s for s in seen.seen if s.step.output == plan.outputs[0].value)
    assert last.span == pytest.approx((np.min(expected), np.max(expected)), abs=case.tolerance + 1e-9)
    spans = {n: Span(float(v.min()), float(v.max())) for n, v in case.inputs.items()}
    for bounds in (ranges(plan, spans, {}), ranges(plan, {}, case.inputs)):
        assert bounds.proven
        assert all(holds(bounds.spans[s.step.output], s.span) for s in seen.seen)


def holds(bound: Span, span: Span) -> bool:
    slack = 1e-9 * (1 + bound.size)
    return bound.low - slack <= span.low <= span.high <= bound.high + slack


# --- random plans ---------------------------------------------------------------------------------------------------
UNARY = {
    "negate": {}, "relu": {}, "abs": {}, "exp": {}, "rsqrt": {}, "sqrt": {}, "log": {}, "reciprocal": {},
    "softmax": {"axis": 1}, "transpose": {"axes": [1, 0]}, "pad": {"padding": [[0, 0], [0, 0]]},
    "gather": {"axis": 0, "indices": [2, 0, 0]},
    "spline": {"knots": [-(1 << F), 0, 1 << F],
               "coefficients": [[0, 0, 0], [1 << 36, 1 << F, -1], [7, 0, 1], [5, 3, 0]],
               "scale": 2 * F, "fraction": F, "slopes": [-1, 2], "slope_bits": 1},
}
BINARY = ["add", "subtract", "maximum", "minimum", "multiply", "matmul", "select"]


@st.composite
def plans(draw):
    """Chains of steps on 3 by 3 matrices."""
    b = PlanBuilder()
    values = [b.input("x", (3, 3), F, "client"), b.input("w", (3, 3), F, "owner")]
    for _ in range(draw(st.integers(1, 8))):
        op = draw(st.sampled_from([*UNARY, *BINARY]))
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        if op in UNARY:
            z = b.add(op, x, **UNARY[op])
        elif op == "select":
            z = b.add(op, b.add("less", x, y), x, y)
        else:
            z = b.add(op, x, y)
        values.append(b.add("truncate", z, bits=F) if b.type(z).fraction > F else z)
    b.output(b.add("relu", values[-1]), "y", ["client"])
    return b.build("random", "predict")


@settings(max_examples=300, deadline=None)
@given(plans(), st.integers(0, 2**32 - 1))
def test_bounds_hold_for_random_plans(plan, seed):
    rng = np.random.default_rng(seed)
    values = {"x": rng.uniform(*INPUT, (3, 3)), "w": rng.uniform(*INPUT, (3, 3))}
    seen = shadow(plan, values)
    for known in ({}, {"w": values["w"]}):
        bounds = ranges(plan, {n: INPUT for n in values if n not in known}, known)
        assert all(holds(bounds.spans[s.step.output], s.span) for s in seen.seen)
        # What is proven is seen.
        if bounds.proven:
            assert not seen.overflows and not seen.exits


# --- splines --------------------------------------------------------------------------------------------------------
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), max_size=4, unique=True), st.data(), st.integers(-2000, 2000),
    st.integers(0, 3000),
)
def test_spans_of_splines(knots, data, low, length):
    coefficient = st.integers(-50, 50)
    attributes = {
        "knots": sorted({*knots, 0}), "scale": 9, "fraction": 4, "slope_bits": 2, "width": 62,
        "slopes": data.draw(st.tuples(coefficient, coefficient)),
    }
    pieces = len(attributes["knots"]) + 1
    attributes["coefficients"] = [data.draw(st.tuples(coefficient, coefficient, coefficient)) for _ in range(pieces)]
    span, largest = spline(attributes, Span(low / 16, (low + length) / 16), 4)
    units = np.arange(low, low + length + 1)
    rows = np.array(attributes["coefficients"])[np.searchsorted(attributes["knots"], units, side="right")]
    curve = rows[:, 0] + rows[:, 1] * units + rows[:, 2] * units**2
    left, right = attributes["slopes"]
    tails = left * np.minimum(units, 0) + right * np.maximum(units, 0)
    y = curve / 2.0**9 + tails / 2.0**6
    assert holds(span, Span(y.min(), y.max()))
    assert largest >= max(np.abs(curve).max(), np.abs(tails).max())


# --- wrapping -------------------------------------------------------------------------------------------------------
def one_step(op: str, *fractions: int, **attributes):
    b = PlanBuilder()
    names = [b.input(f"x{i}", (1, 2), f, "client") for i, f in enumerate(fractions)]
    b.output(b.add(op, *names, layer="here", **attributes), "y", ["client"])
    return b.build("one", "predict")


@pytest.mark.parametrize(
    ("plan", "small", "large"),
    [
        (one_step("multiply", 18, 18), 2.0**12.9, 2.0**13),
        (one_step("multiply", 0, 18), 2.0**21.9, 2.0**22),
        (one_step("maximum", 18, 18), 2.0**42.9, 2.0**43),
        (one_step("less", 18, 18), 2.0**42.9, 2.0**43),
        (one_step("argmax", 36, axis=1), 2.0**24.9, 2.0**25),
        (one_step("reduce_max", 36, axis=1), 2.0**24.9, 2.0**25),
        (one_step("softmax", 18, axis=1), 2.0**41.9, 2.0**42),
        (one_step("reduce_sum", 18, axes=[0, 1]), 2.0**42.9, 2.0**43),
        (one_step("shift", 18, bits=10), 2.0**33.9, 2.0**34),
        (one_step("spline", 18, knots=[0], coefficients=[[0, 0], [0, 0]], scale=18, fraction=18, slopes=[0, 2**16],
                  slope_bits=16), 2.0**27.9, 2.0**28),
    ],
)
def test_where_steps_wrap(plan, small, large):
    """The largest values are apart as far as can be, of opposite signs where differences count."""
    signs = np.array([[1.0, -1.0]])
    if plan.steps[0].op == "reduce_sum":
        signs = np.abs(signs)
    if plan.steps[0].op in ("maximum", "less"):
        apart = [signs, -signs]
    else:
        apart = [signs] * len(plan.inputs)
    for size, wraps in ((small, False), (large, True)):
        values = {item.name: a * size for item, a in zip(plan.inputs, apart, strict=True)}
        seen = shadow(plan, values)
        assert bool(seen.overflows) == wraps
        assert all(s.step.layer == "here" and s.headroom <= 0.02 for s in seen.overflows)
        # What the error asks for: of operands where differences wrap, else of results.
        assert all(s.limit in (large, s.span.size) for s in seen.overflows)
        bounds = ranges(plan, {n: Span(v.min(), v.max()) for n, v in values.items()}, {})
        assert not wraps or not bounds.proven


def test_inputs_out_of_range_are_not_proven():
    plan = one_step("negate", 18)
    assert ranges(plan, {"x0": Span(-(2.0**42), 1)}, {}).proven
    assert not ranges(plan, {"x0": Span(-(2.0**43), 1)}, {}).proven
    assert not ranges(plan, {"x0": Span(-math.inf, math.inf)}, {}).proven


# --- domains --------------------------------------------------------------------------------------------------------
def test_domains_are_those_of_the_functions():
    assert set(domains.FUNCTIONS) == set(TABLE) & {"exp", "reciprocal", "rsqrt", "sqrt", "log"}
    for op, function in [(n, getattr(positive, n)) for n in ("reciprocal", "rsqrt", "sqrt", "log")]:
        high = inspect.signature(function).parameters["high_bit"].default
        assert domains.domain(op, F)[1] == 2.0**high
    low = inspect.signature(positive.reciprocal).parameters["low_bit"].default
    assert domains.domain("reciprocal", F)[0] == 2.0**low
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE, re.M))
    for op in domains.FUNCTIONS:
        low, high = domains.domain(op, F)
        written = rows[op].split(" .. ")
        assert number(written[1]) == high
        # Below its domain exp is 0, which is within a unit.
        assert number(written[0]) == low if op != "exp" else math.exp(number(written[0])) < 2.0**-F


def number(text: str) -> float:
    base, _, power = text.strip().partition("^")
    return float(base) ** (-F if power == "-fraction" else float(power or 1))


@pytest.mark.parametrize("op", domains.FUNCTIONS)
def test_saturated_is_what_servers_give(op):
    x = np.array([-(2.0**30), -1.0, 0.0, 2.0**-F, 2.0**-13, 0.3, 5.0, 15.9, 17.0, 2.0**10, 2.0**20, 2.0**21, 2.0**23])
    p = Simulate(NumpyKernel())
    given_ = decode(getattr(functions, op)(p, p.constant(encode(x, F)), F).value, F)
    expected = domains.saturated(op, x, F)
    # The clamp of exp is at 23 ln 2, a little above the domain; sqrt is 0 below a unit.
    slack = 3e-3 if op == "exp" else 1e-4
    assert np.abs(given_ - expected).max(where=np.abs(expected) < 1, initial=0) < 1e-4
    assert np.abs(given_ / np.where(expected == 0, 1, expected) - 1).max(where=np.abs(expected) >= 1, initial=0) < slack


@pytest.mark.parametrize("depth", [1, 2, 5, 8, 9])
def test_indices_that_one_hot_tells_apart(depth):
    low, high = domains.depth_domain(depth)
    plan = one_step("one_hot", 0, depth=depth)
    assert not shadow(plan, {"x0": np.array([[low, high]])}).matters
    wrong = shadow(plan, {"x0": np.array([[0, high + 1]])})
    assert wrong.exits and wrong.matters
    p = Simulate(NumpyKernel())
    hot = p.one_hot(p.constant(np.array([int(high) + 1], np.uint64)), depth).value
    assert hot[0, 0] == 1  # what the exact meaning does not have


def test_only_exits_that_reach_the_result_matter():
    b = PlanBuilder()
    b.input("x", (3,), F, "client")
    e = b.add("exp", "x")
    b.output(b.add("reciprocal", e), "inverse", ["client"])
    far = shadow(b.build("inverse", "predict"), {"x": np.array([0.0, 1.0, 40.0])})
    assert [s.step.op for s in far.exits] == ["exp", "reciprocal"] and not far.matters
    b.output(e, "exp", ["client"])
    assert shadow(b.build("both", "predict"), {"x": np.array([0.0, 1.0, 40.0])}).matters


def test_a_discarded_branch_does_not_matter():
    b = PlanBuilder()
    b.input("x", (3,), F, "client")
    zero = b.constant(np.zeros(3, np.int64), F)
    b.output(b.add("select", b.add("less", zero, "x"), b.add("log", "x"), zero), "y", ["client"])
    plan = b.build("guarded", "predict")
    guarded = shadow(plan, {"x": np.array([-3.0, 0.0, 2.0])})
    assert guarded.exits and not guarded.matters
    c = PlanBuilder()
    c.input("x", (3,), F, "client")
    c.output(c.add("log", "x"), "y", ["client"])
    assert shadow(c.build("bare", "predict"), {"x": np.array([-3.0, 0.0, 2.0])}).matters
