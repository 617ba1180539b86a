"""Comparisons that look at fewer bits: as exact where bounds hold, cheaper, and never narrower than proven."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import private_keras as pk
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes.windows import narrow_windows
from private_keras.plan.plan import Plan
from private_keras.plan.ranges import ranges
from private_keras.plan.shadow import shadow
from private_keras.plan.spans import Span, inside
from private_keras.protocols.protocol import Cost
from private_keras.protocols.simulate import Simulate
from private_keras.ring import default_kernel
from private_keras.ring.fixedpoint import decode, encode
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program, execute
from private_keras.server.execute.account import account
from private_keras.tracing.curves import activation
from tests.trio import Session, ring, signed

F = 18
POOL = {"window": [2, 2], "strides": [2, 2], "padding": [[0, 0], [0, 0]]}


def network() -> Plan:
    """A convolution, pooling, relu and a curve."""
    b = PlanBuilder()
    b.input("x", (2, 6, 6, 1), F, "client")
    b.input("w", (3, 3, 1, 4), F, "client")
    one = {"strides": [1, 1], "padding": [[1, 1], [1, 1]], "dilation": [1, 1], "input_dilation": [1, 1]}
    y = b.add("max_pool", b.add("conv", "x", "w", **one), **POOL)
    y = b.add("relu", y, truncate=F)
    b.output(b.add("spline", y, **activation("tanh").attributes(F)), "y", ["client"])
    return b.build("network", "predict")


def values(plan: Plan, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {item.name: rng.uniform(-1, 1, item.type.shape) for item in plan.inputs}


def narrowed(plan: Plan, largest: float, weights: dict[str, np.ndarray]) -> Plan:
    spans = {i.name: Span(-largest, largest) for i in plan.inputs if i.name not in weights}
    return narrow_windows(plan, spans, weights)


def widths(plan: Plan) -> dict[str, int]:
    return {step.op: step.attributes["width"] for step in plan.steps if "width" in step.attributes}


def test_windows_are_narrow_as_proven_and_in_whole_digits():
    plan = network()
    given = values(plan)
    after = narrowed(plan, 1.0, {"w": given["w"]})
    assert widths(plan) == {"max_pool": 62, "relu": 62, "spline": 46}
    # |conv| is below 8 at 36 bits: with the margin below 2^40, and differences below 2^41.
    assert np.abs(given["w"]).sum(axis=(0, 1, 2)).max() < 8
    assert widths(after) == {"max_pool": 44, "relu": 40, "spline": 24}
    assert Plan.from_json(after.to_json()) == after and after.digest != plan.digest
    costs = [sum(account(p, "trio"), Cost()) for p in (plan, after)]
    assert costs[1].bytes < 0.8 * costs[0].bytes and costs[1].rounds <= costs[0].rounds
    assert narrowed(after, 1.0, {"w": given["w"]}) == after


def test_three_parties_compute_the_same_in_narrow_windows():
    plan = network()
    given = values(plan, 3)
    after = narrowed(plan, 1.0, {"w": given["w"]})
    results = []
    for p in (plan, after):
        session, program = Session(default_kernel()), Program(p)

        def run(party, *shares, program=program):
            return program.compute(party, dict(zip(given, shares, strict=True)))["y"]

        results.append(decode(session.run(run, *(encode(v, F) for v in given.values())), F))
        total = sum(account(p, "trio"), Cost())
        assert (total.rounds, dict(total.sent)) == session.measured()
    assert np.abs(results[0] - results[1]).max() <= 3 * 2.0**-F


def test_windows_hold_where_rounding_is_all_there_is():
    """Values that shrink below a unit and are summed and enlarged again: what they are then is rounding."""
    n = 256
    b = PlanBuilder()
    b.input("x", (n,), F, "client")
    b.input("shrink", (n, n), F, "client")
    b.input("grow", (n, n), F, "client")
    y = b.add("truncate", b.add("matmul", b.add("reshape", "x", shape=[1, n]), "shrink"), bits=F)
    b.output(b.add("relu", b.add("matmul", y, "grow"), truncate=F), "y", ["client"])
    plan = b.build("rounding", "predict")
    weights = {"shrink": np.eye(n) * 2.0**-18, "grow": np.full((n, n), 2.0**12)}
    after = narrowed(plan, 2.0**-6, weights)
    # Each sum is n units, one for each rounded term, times the weight.
    assert n * 2.0 ** (12 + F) < 2.0 ** widths(after)["relu"] < 2.0**62
    x = np.full(n, 2.0**-6)
    opened = []
    for case in (plan, after):
        session, program = Session(default_kernel()), Program(case)

        def run(party, *shares, program=program):
            return program.compute(party, dict(zip(("x", *weights), shares, strict=True)))["y"]

        result = session.run(run, *(encode(v, F) for v in (x, *weights.values())))
        opened.append(decode(result, F))
    for result in opened:
        assert (result >= 0).all() and (result <= n * 2.0 ** (12 - F) + 1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2.0**-6, 1.0, 100.0, 2.0**20]))
def test_what_is_proven_holds_at_the_bounds(seed, largest):
    """Inputs at their bounds, the worst there are for sums of weights, come out as in wide windows."""
    plan = network()
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (3, 3, 1, 4))
    after = narrowed(plan, largest, {"w": w})
    x = largest * rng.choice([-1.0, 1.0], (2, 6, 6, 1))
    x[0, :3, :3, 0] = largest * np.sign(w[:, :, 0, 0])
    p = Simulate(NumpyKernel())
    opened = []
    for case in (plan, after):
        result = execute(case, p, {"x": p.constant(encode(x, F)), "w": p.constant(encode(w, F))})
        opened.append(decode(result["y"], F))
    assert np.abs(opened[0] - opened[1]).max() <= 3 * 2.0**-F
    assert not shadow(after, {"x": x, "w": w}).overflows


def test_a_batch_beyond_a_window_is_seen_before_it_is_shared():
    plan = network()
    given = values(plan)
    after = narrowed(plan, 1.0, {"w": given["w"]})
    beyond = {**given, "x": given["x"] * 2.0**12}
    assert not shadow(plan, beyond).overflows
    found = shadow(after, beyond).overflows
    assert {seen.step.op for seen in found} == {"max_pool", "relu", "spline"}
    # And the bounds say so, too.
    assert not ranges(after, {"x": Span(-(2.0**12), 2.0**12)}, {"w": given["w"]}).proven
    assert ranges(after, {"x": Span(-1.0, 1.0)}, {"w": given["w"]}).proven


@pytest.mark.parametrize("width", [1, 4, 13, 40, 61, 62])
def test_relu_at_the_edges_of_its_window(width):
    top = 2**width
    edges = [0, 1, -1, top - 1, -top + 1, top // 2, -(top // 2)]
    x = ring([v for v in edges if abs(v) < 2**62])
    session = Session(default_kernel())
    y = session.run(lambda p, s: p.relu(s, 0, width), x)
    assert list(signed(y)) == [max(v, 0) for v in signed(x)]
    assert session.declared == session.counted
    p = Simulate(NumpyKernel())
    assert list(signed(p.relu(p.constant(x), 0, width).value)) == list(signed(y))


# --- models -----------------------------------------------------------------------------------------------------------
def small_model():
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D(),
        keras.layers.Flatten(), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(3),
    ])  # fmt: skip
    return plain, pk.convert(plain)


def test_a_model_is_cheaper_for_inputs_of_known_size_and_says_the_same():
    plain, model = small_model()
    x = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 1)).astype("float32")
    before = model.cost(4)
    with pk.LocalCluster() as cluster:
        model.narrow(1.0)
        after = model.cost(4)
        assert after.bytes < 0.9 * before.bytes and after.rounds <= before.rounds
        assert np.abs(model.predict(x, verbose=0) - plain.predict(x, verbose=0)).max() < 1e-3
        narrow = cluster.stats.last.bytes
        # Beyond the size, and where nobody can look, all bits count again.
        assert np.abs(model.predict(8 * x, verbose=0) - plain.predict(8 * x, verbose=0)).max() < 1e-3
        assert cluster.stats.last.bytes > narrow
        shared = pk.share(x)
        assert np.abs(model.predict(shared, verbose=0) - plain.predict(x, verbose=0)).max() < 1e-3
        assert cluster.stats.last.bytes > narrow
        model.narrow(None)
        assert model.cost(4).bytes == before.bytes
        # The plan of what is ready is the narrow one.
        model.narrow(1.0)
        model.prepare(1, batch_size=4, verbose=0)
        assert np.abs(model.predict(x, verbose=0) - plain.predict(x, verbose=0)).max() < 1e-3
        assert len(cluster.stats.last.sent) == 2, "the helper has done its part before"


@pytest.mark.parametrize("largest", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_sizes_that_are_none(largest):
    with pytest.raises(pk.errors.InputError, match="narrow: expected"):
        small_model()[1].narrow(largest)


def test_a_narrow_relu_needs_room_for_the_bits_it_does_not_look_at():
    b = PlanBuilder()
    b.output(b.add("relu", b.input("x", (3,), 36, "client"), truncate=18, width=20), "y", ["client"])
    plan = b.build("relu", "predict")
    step, types = plan.steps[0], [plan.types["x"]]

    def fits(largest):
        return inside(step, [Span(-largest / 2.0**36, 0.0)], types) <= 2.0**62

    assert fits(2**20 - 2**16) and not fits(2**20 - 2**16 + 1)
