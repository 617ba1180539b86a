"""Type rules and executor agree: whatever plan is accepted, its steps give results of the announced shapes."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan
from private_keras.plan.primitives import TABLE
from private_keras.protocols.protocol import Cost
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program, execute
from private_keras.server.execute.account import account, room
from tests.trio import Session

AXES = range(4)
SMALL = st.integers(0, 4)
PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=3)
# Mostly sensible values, so that most of the steps are accepted.
VALUES = {
    "bits": st.integers(0, 20),
    "truncate": st.integers(0, 20),
    "fraction": st.integers(0, 18),
    "low": st.sampled_from([-128, -128, -12]),
    "high": st.sampled_from([-128, -128, 10]),
    "depth": st.integers(1, 5),
    "axis": st.integers(0, 2),
    "axes": st.permutations(AXES).flatmap(lambda a: st.integers(0, 4).map(lambda n: a[:n])),
    "keepdims": st.booleans(),
    "twice": st.booleans(),
    "groups": st.integers(1, 2),
    "indices": st.lists(SMALL, min_size=1, max_size=4),
    "padding": PAIRS,
    "start": st.lists(st.integers(-6, 6), min_size=1, max_size=3),
    "stop": st.lists(st.integers(-6, 6), min_size=1, max_size=3),
    "step": st.lists(st.sampled_from([-2, -1, 1, 2, 3]), min_size=1, max_size=3),
    "shape": st.lists(st.integers(1, 6), max_size=4),
    "scale": st.integers(18, 40),
    "label": st.just(""),
    "distribution": st.sampled_from(["bernoulli", "uniform", "normal"]),
    "probability": st.integers(0, 1 << 32),
    "stream": st.integers(0, 3),
    "slopes": st.lists(st.integers(-2, 2), min_size=2, max_size=2),
    "slope_bits": st.integers(0, 3),
    "width": st.sampled_from([20, 61, 62]),
    "knots": st.lists(st.integers(-9, 9), max_size=3, unique=True).map(sorted),
    "coefficients": st.lists(st.lists(st.integers(-99, 99), min_size=3, max_size=3), min_size=1, max_size=4),
    **{
        name: st.lists(st.integers(1, 3), min_size=1, max_size=3)
        for name in ("strides", "dilation", "input_dilation", "window")
    },
}
LENGTHS = ("padding", "strides", "dilation", "input_dilation", "window", "start", "stop", "step")


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@st.composite
def plans(draw) -> Plan:
    """One to six random steps on any values before them: values are used several times, as in models that branch."""
    b = PlanBuilder()
    shape = draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))
    other = shape if draw(st.booleans()) else draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))
    fraction = draw(st.sampled_from([0, 12, 18]))
    b.input("x", tuple(shape), fraction, "c")
    b.input("y", tuple(other), fraction, "c")
    c = b.constant(np.full(other, 3, np.int64), fraction)
    b.input("seed", (), 0, "c", public=True)
    made = ["x"]
    for _ in range(draw(st.integers(1, 6))):
        value = draw(st.sampled_from([*made[-3:], "seed"]))
        op = draw(st.sampled_from([name for name in TABLE if name != "constant"]))
        count = max(len(b.type(value).shape) - (0 if op in ("pad", "slice") else 2), 0)
        attributes = {}
        for name in TABLE[op].attributes:
            drawn = draw(VALUES[name])
            attributes[name] = (drawn * 4)[:count] if name in LENGTHS else drawn
        operands = [value, *draw(st.lists(st.sampled_from(["y", *made, c]), min_size=3, max_size=3))]
        for index in TABLE[op].public:
            operands[index] = "seed"
        try:
            made.append(b.add(op, *operands[: TABLE[op].arity[0]], **attributes))
        except PlanError:
            continue
    b.output(made[-1], "result", ["c"])
    return b.build("random", "reveal")


def values(plan: Plan) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {i.name: np.asarray(generator.integers(0, 1 << 14, i.type.shape)).astype(np.uint64) for i in plan.inputs}


@settings(FUZZ, max_examples=300)
@given(plans())
def test_shapes_are_as_announced(plan):
    p = Simulate(NumpyKernel())
    given = {name: value if name == "seed" else p.constant(value) for name, value in values(plan).items()}
    result = execute(plan, p, given)["result"]
    assert result.shape == plan.types[plan.outputs[0].value].shape
    assert result.dtype == np.uint64


@settings(FUZZ, max_examples=60)
@given(plans())
def test_three_parties_send_what_is_accounted(plan):
    session, program = Session(NumpyKernel()), Program(plan)

    def run(p, *shares):
        return program.compute(p, {"seed": seed, **dict(zip(["x", "y"], shares, strict=True))})["result"]

    seed = values(plan)["seed"]
    opened = session.run(run, *(v for name, v in values(plan).items() if name != "seed"))
    assert opened.shape == plan.types[plan.outputs[0].value].shape
    assert room(program, "trio").moved >= 0
    total = sum(account(plan, "trio"), Cost())
    assert (total.rounds, dict(total.sent)) == session.measured()
