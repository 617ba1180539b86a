"""The tape: fractions, scales, joints; what is refused; maxima unfolded."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients import UNFOLDED, Gradient, Joint, Tape, difference, gradients, unfold
from private_keras.plan.gradients.check import check_gradients, probe, real_values
from private_keras.plan.gradients.tape import LONGEST
from private_keras.plan.plan import Plan
from tests.gradient_runs import simulated
from tests.plan_zoo import UNIT, F, encode


def builder(*shape: int, fraction: int = F) -> PlanBuilder:
    b = PlanBuilder()
    for name in "xyz":
        b.input(name, shape or (3, 4), fraction, "c")
    return b


def ops(b: PlanBuilder, since: int = 0) -> list[str]:
    return [step.op for step in b.steps[since:]]


def meaning(b: PlanBuilder, name: str, **inputs) -> np.ndarray:
    b.output(name, f"out/{name}", ())
    plan = b.build("p", "reveal")
    given_ = {item.name: inputs.get(item.name, probe(item.type.shape)) for item in plan.inputs}
    return real_values(plan, given_)[name]


# --- values ---------------------------------------------------------------------------------------------------------
def test_truncations_that_are_there_are_used():
    b = builder()
    z = b.add("multiply", "x", "y")
    short = b.add("truncate", z, bits=F)
    tape = Tape(b, 24)
    assert tape.cut(z, F) == short
    assert tape.cut(z, 24) == tape.cut(z, 24) != short
    assert tape.cut(z, 36) == z
    assert b.type(tape.cut("x", 24)).fraction == 24
    assert ops(b) == ["multiply", "truncate", "truncate", "shift"]


def test_what_is_repeated_is_truncated_before():
    b = builder()
    row = b.add("reduce_sum", b.add("multiply", "x", "y"), axes=[1])
    wide = b.add("broadcast", b.add("reshape", row, shape=[3, 1]), shape=[3, 4])
    tape = Tape(b, 24)
    short = tape.cut(wide, 24)
    assert b.type(short).shape == (3, 4) and b.type(short).fraction == 24
    truncation = next(step for step in b.steps if step.op == "truncate")
    assert b.type(truncation.output).size == 3
    assert tape.cut(row, 24) == truncation.output


def test_sums_are_at_the_longest_fraction_but_keep_headroom():
    b = builder()
    b.input("long", (3, 4), 50, "c")
    tape = Tape(b, 24)
    assert b.type(tape.minus("x", b.add("multiply", "x", "y"))).fraction == 36
    assert b.type(tape.minus("long", "x")).fraction == LONGEST
    assert b.type(tape.times("long", "x")).fraction <= LONGEST


@pytest.mark.parametrize("fraction", [11, 31, 58])
def test_fractions_that_leave_no_room_are_refused(fraction):
    with pytest.raises(PlanError, match="fraction"):
        Tape(builder(), fraction)


# --- scales ---------------------------------------------------------------------------------------------------------
SCALES = st.floats(1e-9, 1e9).flatmap(lambda s: st.sampled_from([s, -s]))


@settings(max_examples=100, deadline=None)
@given(st.lists(SCALES, min_size=1, max_size=4), st.booleans())
def test_sums_of_all_scales(scales, long):
    b = builder()
    tape = Tape(b, 24)
    factors = [b.add("multiply", name, "y") if long else name for name in "xyz"]
    total = tape.add(*(Gradient(factors[i % 3], scale) for i, scale in enumerate(scales)))
    values = {name: probe((3, 4)) * (1 + i) for i, name in enumerate("xyz")}
    true = sum(values["xyz"[i % 3]] * (values["y"] if long else 1) * scale for i, scale in enumerate(scales))
    if not total.scale:
        assert not true.any()
        return
    b.output(total.value, "sum", ())
    plan = b.build("p", "train")
    assert plan.types[total.value].fraction <= LONGEST
    size = max(map(abs, scales))
    # Terms whose values are taken twice may leave a small difference of large ones.
    assert np.abs(real_values(plan, values)[total.value] * total.scale - true).max() <= 1e-4 * size * 4
    assert np.abs(simulated(plan, values)["sum"] * total.scale - true).max() <= 1e-4 * size * 4


def test_equal_opposite_and_power_of_two_scales_are_exact_and_free():
    for first, second in ((0.3, 0.3), (0.3, -0.3), (-0.25, 0.5), (3.0, 3 / 128)):
        b = builder()
        tape = Tape(b, 24)
        total = tape.add(Gradient("x", first), Gradient("y", second))
        assert "truncate" not in ops(b)
        x, y = probe((3, 4)), probe((3, 4)) * 3
        assert meaning(b, total.value, x=x, y=y) * total.scale == pytest.approx(first * x + second * y, rel=1e-12)


def test_equal_terms_are_one():
    b = builder()
    tape = Tape(b, 24)
    assert tape.add(Gradient("x", 2.0), Gradient("x", 0.5)) == Gradient("x", 2.5)
    assert tape.add(Gradient("x", 2.0), Gradient("x", -2.0)).scale == 0
    assert not b.steps
    with pytest.raises(PlanError, match="at least one"):
        tape.add()


def test_plain_is_the_gradient_itself():
    b = builder()
    tape = Tape(b, 24)
    for scale in (1.0, 1 / 128, 0.3, -3.7, 1e-6, 2.0**20):
        name = tape.plain(Gradient("x", scale), 20)
        assert b.type(name).fraction == 20
        assert meaning(b, name) == pytest.approx(probe((3, 4)) * scale, rel=2e-5)


def test_public_numbers_cost_no_product():
    b = builder()
    tape = Tape(b, 24)
    half = b.constant(encode(np.full((3, 4), 0.5), 4), 4)
    assert tape.multiply(Gradient("x", 3.0), half) == Gradient("x", 1.5)
    assert tape.multiply(Gradient(tape.constant(1, 0, (3, 4)), 0.25), "x") == Gradient("x", 0.25)
    total = tape.reduce_to(Gradient(tape.constant(1, 0, (3, 4))), (4,))
    assert (total.scale, b.type(total.value).shape) == (3.0, (4,))
    assert set(ops(b)) == {"constant", "broadcast"}
    assert tape.uniform(b.constant(np.array([1, 2]), 0)) is None and tape.uniform("x") is None


def test_mean_of_squares_needs_no_product_backward():
    b = builder()
    d = b.add("subtract", "x", "y")
    loss = b.add("reduce_sum", b.add("multiply", d, d), axes=[0, 1])
    count = len(b.steps)
    found = gradients(b, {loss: Gradient(b.constant(np.asarray(1), 0), 1 / 12)}, ["x", "y"])
    assert found == {"x": Gradient(d, 1 / 6), "y": Gradient(d, -1 / 6)}
    assert set(ops(b, count)) <= {"constant", "reshape", "broadcast"}


def test_no_gradient_is_computed_that_is_not_asked_for():
    b = builder(4, 4)
    z = b.add("matmul", b.add("relu", "x"), "y")
    count = len(b.steps)
    found = gradients(b, {z: Gradient("z")}, ["y", "z"])
    assert found["z"] is None and ops(b, count) == ["transpose", "matmul"]
    assert gradients(b, {"y": Gradient("z", 3.0)}, ["y"]) == {"y": Gradient("z", 3.0)}


def test_gradients_of_results_of_steps():
    b = builder(4, 4)
    middle = b.add("relu", "x")
    z = b.add("negate", b.add("negate", b.add("negate", middle)))
    found = gradients(b, {z: Gradient("z")}, ["x", middle])
    assert found[middle] == Gradient("z", -1.0)
    assert b.maker(found["x"].value).op == "gate"


# --- joints ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cross_entropy(axis):
    shape = (3, 4, 2)
    target = np.moveaxis(np.eye(shape[axis])[np.arange(24 // shape[axis]) % shape[axis]].reshape(
        *np.delete(shape, axis), shape[axis]), -1, axis)

    def build(b: PlanBuilder) -> str:
        build.y = b.add("softmax", "x", axis=axis)
        likelihood = b.add("log", build.y)
        chosen = b.add("multiply", likelihood, b.constant(target.astype(np.int64), 0))
        return b.add("negate", b.add("reduce_sum", chosen, axes=[axis]))

    def joints(b: PlanBuilder, value: str) -> dict[str, Joint]:
        return {value: difference("x", build.y, b.constant(target.astype(np.int64), 0), axis)}

    check_gradients(build, {"x": probe(shape) * 2}, joints=joints, tolerance=1e-5)
    check_gradients(build, {"x": probe(shape) * 2}, tolerance=1e-5)


def test_a_joint_walks_past_the_steps_between():
    b = builder(4)
    y = b.add("argmax", b.add("abs", "x"), axis=0)
    loss = b.add("multiply", "y", "y")
    joint = Joint(("x", "y"), lambda tape, g: [tape.scaled(tape.multiply(g, "y"), 2.0), None])
    found = gradients(b, {loss: Gradient("z")}, ["x", "y"], joints={loss: joint})
    assert found["y"] is None and found["x"].scale == 2.0
    assert y not in {name for step in b.steps[3:] for name in step.inputs}


def test_the_checker_tells_wrong_gradients():
    def build(b: PlanBuilder) -> str:
        return b.add("relu", b.add("multiply", "x", "y"))

    inputs = {"x": probe((3, 4)), "y": probe((3, 4)).T.reshape(3, 4)}
    assert max(check_gradients(build, inputs).values()) < 1e-6
    for wrong in (1.001, 0.0, -1.0):
        def joints(b: PlanBuilder, value: str, factor: float = wrong) -> dict[str, Joint]:
            return {value: Joint(("x", "y"), lambda tape, g: [tape.scaled(tape.multiply(g, "y"), factor), None])}

        with pytest.raises(PlanError, match="central differences.*'x'"):
            check_gradients(build, {**inputs, "x": np.abs(inputs["x"]), "y": np.abs(inputs["y"])}, joints=joints)


@pytest.mark.parametrize(
    ("joint", "message"),
    [
        (Joint(("x",), lambda tape, g: []), "one for each of 1"),
        (Joint(("x",), lambda tape, g: [Gradient("row")]), r"shape \[3, 4\] for 'x'"),
        (Joint(("x",), lambda tape, g: [tape.multiply(g, "none")]), "name of a value"),
    ],
)
def test_joints_that_do_not_fit(joint, message):
    b = builder()
    b.input("row", (4,), F, "c")
    y = b.add("negate", "x", layer="here")
    with pytest.raises(PlanError, match=message) as caught:
        gradients(b, {y: Gradient("z")}, ["x"], joints={y: joint})
    assert "gradient of layer 'here'" in str(caught.value)


def test_seeds_and_names_that_do_not_fit():
    b = builder()
    y = b.add("negate", "x")
    late = b.add("negate", y)
    with pytest.raises(PlanError, match="shape"):
        gradients(b, {y: Gradient(b.constant(np.asarray(1), 0))}, ["x"])
    with pytest.raises(PlanError, match="name of a value"):
        gradients(b, {y: Gradient("z")}, ["nobody"])
    for joints in ({"x": Joint(("y",), list)}, {"nobody": Joint(("y",), list)}):
        with pytest.raises(PlanError, match="results of steps"):
            gradients(b, {y: Gradient("z")}, ["x"], joints=joints)
    with pytest.raises(PlanError, match="computed before"):
        gradients(b, {y: Gradient("z")}, ["x"], joints={y: Joint((late,), list)})


# --- unfolded maxima ------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_unfolded_is_the_same(data):
    """Exactly, up to the truncation that a pool is taken before."""
    op = data.draw(st.sampled_from(sorted(UNFOLDED)))
    size = st.integers(1, 5)
    shape = (data.draw(size), data.draw(size), data.draw(size), 2)
    inputs, attributes = ["x"], {}
    if op in ("maximum", "minimum"):
        inputs = ["x", "y"]
    elif op == "max_pool":
        window = [data.draw(st.integers(1, 3)) for _ in range(2)]
        attributes = {"window": window, "strides": [data.draw(st.integers(1, 3)) for _ in range(2)]}
        attributes["padding"] = [[data.draw(st.integers(0, n - 1)) for _ in range(2)] for n in window]
    elif op != "abs":
        attributes = {"axis": data.draw(st.integers(0, 3)), "keepdims": data.draw(st.booleans())}
    results = {}
    for write in (lambda b, *a, **k: b.add(*a, **k), unfold):
        b = builder(*shape)
        try:
            y = write(b, op, *inputs, **attributes)
        except PlanError as error:
            results[write] = type(error)
            continue
        b.output(y, "y", ())
        plan = b.build("p", "train")
        values = {item.name: probe(shape) * 7 * (i + 1) for i, item in enumerate(plan.inputs)}
        results[write] = (plan.types[y], simulated(plan, values)["y"].tolist())
        largest = max(np.abs(v).max() for v in real_values(plan, values).values())
        # Differences of values, and nothing larger: padding brings no numbers of its own.
        assert largest <= 2 * max(np.abs(v).max() for v in values.values())
    first, second = results.values()
    assert first == second


def test_what_cannot_be_unfolded():
    b = builder()
    with pytest.raises(PlanError, match="expected one of"):
        unfold(b, "softmax", "x", axis=1)
    with pytest.raises(PlanError, match="layer 'here', reduce_max: .*axis"):
        unfold(b, "reduce_max", "x", axis=7, layer="here")
    with pytest.raises(PlanError, match="padding below the window"):
        b.input("image", (1, 4, 4, 1), F, "c")
        unfold(b, "max_pool", "image", window=[2, 2], strides=[2, 2], padding=[[2, 0], [0, 0]])
    assert not b.steps


def test_ties_go_to_the_first_and_gradients_add_up():
    b = builder(1, 6)
    y = unfold(b, "reduce_max", "x", axis=1)
    found = gradients(b, {y: Gradient(b.constant(np.asarray([1]), 0))}, ["x"])
    got = meaning(b, found["x"].value, x=np.array([[1.0, 3.0, 3.0, 3.0, 0.0, 3.0]]))
    assert got.sum() == 1 and set(got.ravel()) == {0.0, 1.0} and got[0, [0, 4]].tolist() == [0, 0]


def test_pools_of_truncated_relus_move_before_them():
    b = builder(2, 4, 4, 1, fraction=36)
    y = b.add("relu", b.add("truncate", "x", bits=8, layer="conv"), truncate=10, layer="act")
    y = unfold(b, "max_pool", y, window=[2, 2], strides=[2, 2], padding=[[0, 0], [0, 0]], layer="pool")
    last = b.steps[-2:]
    assert [(step.op, step.layer) for step in last] == [("truncate", "conv"), ("relu", "act")]
    assert b.type(y).fraction == F
    b.output(y, "y", ())
    plan = b.build("p", "train")
    values = {item.name: probe(item.type.shape) for item in plan.inputs}
    expected = np.maximum(values["x"], 0).reshape(2, 2, 2, 2, 2, 1).max((2, 4))
    assert np.abs(simulated(plan, values)["y"] - expected).max() <= 2 * UNIT


def test_overflow_is_far():
    """Values of 2^19 in size pass through products, gates, sums and functions without wrapping."""
    b = builder(4, 4)
    h = b.add("relu", b.add("truncate", b.add("matmul", "x", "y"), bits=F))
    z = b.add("truncate", b.add("matmul", h, "y"), bits=F)
    found = gradients(b, {z: Gradient("z")}, ["x", "y"])
    for name in "xy":
        b.output(found[name].value, name, ())
    plan: Plan = b.build("p", "train")
    values = {"x": np.eye(4) * 64, "y": np.eye(4) * 64, "z": np.full((4, 4), 127.0)}
    true, got = real_values(plan, values), simulated(plan, values)
    for item in plan.outputs:
        assert 2**18 < np.abs(true[item.value]).max() < 2**20
        assert np.abs(got[item.name] / np.where(true[item.value] == 0, 1, true[item.value]) - 1).max(
            where=true[item.value] != 0, initial=0) < 1e-4
