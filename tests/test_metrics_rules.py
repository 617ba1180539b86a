"""Operations that metrics need, and the quotients of their results, on simulated shares against NumPy and Keras."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.states import recording
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.training.quotients import RESULTS, ResultLowering, logarithm, quotient
from private_keras.tracing.walk import Walk, topological
from tests.metric_cases import simulated, symbolic

RNG = np.random.default_rng(31)


def on_shares(function, *arrays: np.ndarray) -> list[np.ndarray]:
    """function(tensors) on shares, as its rules write it."""
    tensors = [symbolic(a) for a in arrays]
    with recording():
        results = keras.tree.flatten(function(*tensors))
    lo = Lowering(18, "accurate", "owner")
    names = [
        lo.builder.input(f"x{i}", a.shape, 0 if a.dtype.kind in "iub" else 18, "client") for i, a in enumerate(arrays)
    ]
    graph = Graph(tensors, outputs=results)
    walk = Walk(lo, graph, {id(t): lo.secret(n) for t, n in zip(tensors, names, strict=True)}, [])
    nodes = topological(graph)
    graph.settings |= {id(node) for node in nodes}
    walk.run(nodes)
    if walk.findings:
        raise UnsupportedError("; ".join(f.message for f in walk.findings))
    for i, result in enumerate(results):
        lo.builder.output(lo.as_secret(walk.value(result)).name, f"y{i}", ("client",))
    plan = lo.builder.build("rules", "reveal")
    found = simulated(plan, dict(zip(names, arrays, strict=True)))
    return [found[f"y{i}"] for i in range(len(results))]


def test_limits_in_comparisons_are_not_rounded():
    unit = 2.0**-18
    x = np.array([0.3, 0.3 + unit, 0.3 - unit, 0.5, 0.5 + unit, -7.0]).astype("float32")
    x = (np.rint(x * 2**18) / 2**18).astype("float32")
    for limit in (0.3, 0.5, 1e-9, -1e-9, 1e12, -1e12):
        for name, compare in (("greater", np.greater), ("greater_equal", np.greater_equal), ("less", np.less),
                              ("less_equal", np.less_equal)):  # fmt: skip
            operation = getattr(ops, name)
            (found,) = on_shares(lambda t: operation(t, limit), x)  # noqa: B023
            np.testing.assert_array_equal(found, compare(x.astype("float64"), limit))
            (found,) = on_shares(lambda t: operation(limit, t), x)  # noqa: B023
            np.testing.assert_array_equal(found, compare(limit, x.astype("float64")))


def test_repeated_operands_are_compared_where_they_differ():
    x, limits = RNG.uniform(size=(1, 6)).astype("float32"), np.repeat(np.linspace(0, 1, 5), 6).reshape(5, 6)
    (found,) = on_shares(lambda t: ops.greater(ops.tile(t, (5, 1)), limits.astype("float32")), x)
    np.testing.assert_array_equal(found, x > limits.astype("float32"))


@pytest.mark.parametrize(("low", "high"), [(0.0, 7.0), (-3.0, 2.5), (0.5, 4.25)])
def test_ceil_of_what_was_clipped(low, high):
    x = np.concatenate([RNG.uniform(low - 1, high + 1, 40), [low, high, 0, 1, 2]]).astype("float32")
    x = (np.rint(x * 2**18) / 2**18).astype("float32")
    (found,) = on_shares(lambda t: ops.ceil(ops.clip(t, low, high)), x)
    np.testing.assert_array_equal(found, np.ceil(np.clip(x, low, high)))
    with pytest.raises(UnsupportedError, match="clip it first"):
        on_shares(ops.ceil, x)


def test_sums_by_segment_leave_out_what_is_in_none():
    ids = np.array([0, 3, -1, 3, 1, 9, 2, 0, 4], "int32")
    data = RNG.integers(-4, 5, (9, 2)).astype("float32")
    expected = np.array([data[ids == j].sum(0) for j in range(4)])
    (found,) = on_shares(lambda d, i: ops.segment_sum(d, i, num_segments=4), data, ids)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("offset", "cut"), [(0, False), (-1, False), (-1, True), (2, False), (-3, True)])
def test_sums_by_segment_of_a_ceil(offset, cut):
    x = (np.rint(np.append(RNG.uniform(0, 1, 12), [0, 1]) * 2**18) / 2**18).astype("float32")
    data = RNG.integers(0, 9, 14).astype("float32")

    def summed(d, t):
        places = ops.ceil(ops.clip(t, 0.0, 1.0) * 5.0) + offset
        places = ops.relu(places) if cut else places
        return ops.segment_sum(d, ops.cast(places, "int32"), num_segments=4)

    places = np.ceil(x.astype("float64") * 5) + offset
    places = np.maximum(places, 0) if cut else places
    (found,) = on_shares(summed, data, x)
    np.testing.assert_array_equal(found, [data[places == j].sum() for j in range(4)])


@pytest.mark.parametrize("k", [1, 3])
def test_the_largest_few_in_order_and_of_equals_the_first(k):
    x = np.array([[1, 3, 3, 2], [-5, -6, -5, -7], [0, 0, 0, 0]], "float32")
    values, places = on_shares(lambda t: ops.top_k(t, k), x)
    expected = np.argsort(-x, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(x, expected, 1))
    targets = np.array([2, 1, 3], "int32")
    (found,) = on_shares(lambda t, p: ops.in_top_k(t, p, k), targets, x)
    np.testing.assert_array_equal(found, ops.convert_to_numpy(ops.in_top_k(targets, x, k)))


def test_scattered_values_add_up():
    places = RNG.integers(0, 3, (9, 2)).astype("int32")
    values = RNG.integers(0, 5, 9).astype("int32")
    (found,) = on_shares(lambda i, v: ops.scatter(i, v, (3, 3)), places, values)
    expected = np.zeros((3, 3))
    np.add.at(expected, tuple(places.T), values)
    np.testing.assert_array_equal(found, expected)


def divided(x: np.ndarray, y: np.ndarray, fraction: int) -> np.ndarray:
    lo = ResultLowering("client")
    a, b = (lo.secret(lo.builder.input(n, v.shape, fraction, "client")) for n, v in (("x", x), ("y", y)))
    lo.builder.output(quotient(lo, a, b).name, "z", ("client",))
    return simulated(lo.builder.build("quotient", "evaluate"), {"x": x, "y": y})["z"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([0, 18]), st.lists(st.tuples(st.floats(0, 30), st.floats(-1, 2)), min_size=1, max_size=8))
def test_a_quotient_of_sums_of_any_size_is_exact(fraction, pairs):
    y = np.array([np.rint(2.0 ** (a + fraction)) for a, _ in pairs]) / 2.0**fraction
    y = np.minimum(y, 2.0**30 - 1)
    x = np.rint(y * np.array([b for _, b in pairs]) * 2.0**fraction) / 2.0**fraction
    assert np.max(np.abs(divided(x, y, fraction) - x / y)) < 2e-6  # some units of an inverse with 22 bits


def test_quotients_at_the_ends_of_their_range():
    y = np.array([0, -1, -5, 2.0**-18, 1, 0.1, 3])
    y = np.rint(y * 2**18) / 2**18
    x = np.array([5, 1, 0, 2.0**-18, -16000, 900, 0])
    expected = np.where(y > 0, x / np.where(y > 0, y, 1), 0)
    assert np.max(np.abs(divided(x, y, 18) - expected) / np.maximum(np.abs(expected), 1)) < 2e-6


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-12, 30), min_size=1, max_size=8))
def test_logarithms_of_sums_are_exact(powers):
    x = np.maximum(np.rint(2.0 ** (np.array(powers) + 18)), 1) / 2**18
    lo = ResultLowering("client")
    name = lo.builder.input("x", x.shape, 18, "client")
    lo.builder.output(logarithm(lo, None, lo.secret(name)).name, "y", ("client",))
    found = simulated(lo.builder.build("log", "evaluate"), {"x": np.minimum(x, 2.0**30 - 1)})["y"]
    assert np.max(np.abs(found - np.log(np.minimum(x, 2.0**30 - 1)))) < 2e-6


def test_rules_of_results_are_those_of_steps_but_for_products_and_quotients():
    changed = {cls.__name__ for cls, rule in RESULTS.items() if Walk.table.get(cls) is not rule}
    assert changed == {"Divide", "TrueDivide", "DivideNoNan", "Multiply", "Square", "GreaterEqual", "Isinf", "Log"}
