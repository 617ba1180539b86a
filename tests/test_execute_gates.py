"""What a training step adds to execution: comparisons paid for once, public values, outputs that are kept."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import InputError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.primitives import TABLE
from private_keras.protocols.protocol import Cost
from private_keras.protocols.simulate import Simulate
from private_keras.ring import default_kernel
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program
from private_keras.server.execute.account import account, room
from tests.plan_zoo import CASES, F, decode, encode
from tests.trio import Session

rng = np.random.default_rng(3)
EDGES = np.array([0.0, 2.0**-F, -(2.0**-F), 5.5, -5.5, 2.0**20, -(2.0**20)])


def opened(plan, **reals):
    """All outputs by name, on three parties, which send what is accounted; public inputs are given in the clear."""
    session, program = Session(default_kernel()), Program(plan)
    names = [item.name for item in plan.inputs if not item.public]
    elements = {i.name: encode(np.asarray(reals[i.name], np.float64), i.type.fraction) for i in plan.inputs}
    known = {item.name: elements[item.name] for item in plan.inputs if item.public}

    def run(p, *shares):
        return tuple(program.compute(p, {**known, **dict(zip(names, shares, strict=True))}).values())

    # Counted by the session itself as well, with public values that the account does not have.
    results = session.run(run, *(elements[name] for name in names))
    results = results if isinstance(results, list) else [results]
    total = sum(account(plan, "trio"), Cost())
    assert (total.rounds, dict(total.sent)) == session.measured()
    return {
        item.name: decode(y, plan.types[item.value].fraction) for item, y in zip(plan.outputs, results, strict=True)
    }


def gated(before: str, *, truncate=(0, 0), after: str = "gate", gates: int = 1, shape=(7,)):
    """before(x), then gates of x on g."""
    b = PlanBuilder()
    b.input("x", shape, F, "client")
    b.input("g", shape, F, "client")
    y = b.add(before, "x", **({"truncate": truncate[0]} if before == "relu" else {}))
    b.output(y, "y", ["client"])
    for i in range(gates):
        b.output(b.add(after, "x", "g", truncate=truncate[1]), f"g{i}", ["client"])
    return b.build("gates", "predict")


@pytest.mark.parametrize("truncate", [(0, 0), (8, 0), (0, 8), (8, 8)])
@pytest.mark.parametrize("before", ["relu", "abs"])
def test_gates_pass_what_the_comparison_said(before, truncate):
    g = rng.integers(-99, 99, 7) / 2.0**6
    result = opened(gated(before, truncate=truncate), x=EDGES, g=g)
    reference = {"relu": np.maximum(EDGES, 0), "abs": np.abs(EDGES)}[before]
    assert np.abs(result["y"] - reference).max() <= (2.0 ** (8 - F) if before == "relu" and truncate[0] else 0)
    off = np.abs(result["g0"] - np.where(EDGES > 0, g, 0))
    if before == "relu" and truncate[0]:
        # What is below a quarter of the truncated relu's unit may count as 0 to its gates as well.
        small = (EDGES > 0) & (EDGES < 2.0 ** (truncate[0] - 2 - F))
        off = np.where(small, np.minimum(off, np.abs(result["g0"])), off)
    assert off.max() <= (2.0 ** (8 - F) if truncate[1] else 0)


@pytest.mark.parametrize("before", ["relu", "abs"])
def test_a_gate_costs_one_product(before):
    plan = gated(before, gates=2)
    alone = Cost()
    costs = account(plan, "trio")
    # 8 bytes a word, two words dealt for each of the 7 elements: no round, since g is masked already.
    assert [c for step, c in zip(plan.steps, costs, strict=True) if step.op == "gate"] == [
        Cost(0, (((2, 1), 2 * 8 * 7),), 2 * 8 * 7)
    ] * 2
    compared = [c for step, c in zip(plan.steps, costs, strict=True) if step.op == before]
    b = PlanBuilder()
    b.input("x", (7,), F, "client")
    b.output(b.add(before, "x"), "y", ["client"])
    alone = sum(account(b.build("alone", "predict"), "trio"), Cost())
    assert sum(compared, Cost()) == alone, "keeping its bits made a comparison dearer"


def test_a_gate_without_a_comparison_before_it_compares_once():
    b = PlanBuilder()
    b.input("x", (7,), F, "client")
    b.input("g", (7,), F, "client")
    for i in range(3):
        b.output(b.add("gate", "x", "g"), f"g{i}", ["client"])
    b.output(b.add("relu", "x"), "y", ["client"])
    plan = b.build("late", "predict")
    rounds = [cost.rounds for cost in account(plan, "trio")]
    assert rounds == [3, 0, 0, 0], "the relu compares at the same time, in the same rounds"
    result = opened(plan, x=EDGES, g=np.ones(7))
    assert all((result[f"g{i}"] == (EDGES > 0)).all() for i in range(3))


def test_a_fused_gate_and_truncation_take_one_opening():
    b = PlanBuilder()
    for name in ("x", "a", "c"):
        b.input(name, (7,), F, "client")
    b.output(b.add("relu", "x"), "y", ["client"])
    product = b.add("multiply", "a", "c")
    b.output(b.add("gate", "x", product, truncate=F), "g", ["client"])
    plan = b.build("fused", "predict")
    assert [cost.rounds for cost in account(plan, "trio")] == [3, 0, 1]
    a = rng.integers(-99, 99, 7) / 64
    result = opened(plan, x=EDGES, a=a, c=a)
    assert np.abs(result["g"] - np.where(EDGES > 0, a * a, 0)).max() <= 2.0**-F


def test_scalars_can_be_gated():
    result = opened(gated("relu", gates=2, shape=()), x=-1.0, g=2.0)
    assert result["g0"] == result["g1"] == 0 and result["g0"].shape == ()


def test_bits_are_freed_after_the_last_gate():
    plan = gated("relu", gates=2)
    program = Program(plan)
    b = PlanBuilder()
    b.input("x", (7,), F, "client")
    b.output(b.add("relu", "x"), "y", ["client"])
    for i in range(3):
        b.output(b.add("negate", "x"), f"n{i}", ["client"])
    # relu, its bits, and two gates, all alive at once; without gates: relu and three results.
    assert room(program, "trio").elements == room(Program(b.build("free", "reveal")), "trio").elements == 28
    assert program.graph.uses["x > 0"] == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**60), 2**60), st.integers(-(2**61), 2**61)), min_size=1, max_size=70),
       st.sampled_from([0, 1, 18, 40]))
def test_gate_property(pairs, bits):
    pairs = [(x, g) for x, g in pairs if not 0 < x < 2**18] or [(1 << 18, 3)]  # these may count as 0 below
    x, g = (np.array(column, np.int64).astype(np.uint64) for column in zip(*pairs, strict=True))

    def run(p, a, b):
        _, positive = p.relu_and_bits(a, 20)
        return p.gate(positive, b, bits) if bits else p.multiply_bits(positive, b)

    got = Session().run(run, x, g).astype(np.int64)
    floor = np.where(x.astype(np.int64) > 0, g.astype(np.int64), 0) >> bits
    assert set((got - floor).tolist()) <= ({0, 1} if bits else {0})


# --- public values ----------------------------------------------------------------------------------------------------
def public_plan(op, case, public):
    """A case of the zoo with some of its inputs public."""
    b = PlanBuilder()
    for name, value in case.inputs.items():
        b.input(name, value.shape, case.fractions.get(name, F), "client", public=name in {*public, *case.public})
    b.output(case.build(b), "result", ["client"])
    return b.build(op, "reveal")


@pytest.mark.parametrize("name", CASES)
def test_every_primitive_takes_public_operands(name):
    case = CASES[name]
    names = list(case.inputs)
    for public in [names, names[:1], names[1:]]:
        plan = public_plan(case.op, case, public)
        case.check(encode(opened(plan, **case.inputs)["result"], plan.types[plan.outputs[0].value].fraction))
        if public == names:
            assert sum(account(plan, "trio"), Cost()) == Cost(), "public values cost nothing"


@pytest.mark.parametrize("name", CASES)
def test_all_servers_compute_the_same_public_values(name):
    case = CASES[name]
    plan = public_plan(case.op, case, list(case.inputs))
    results = []
    for kernel in (NumpyKernel(), default_kernel(), default_kernel()):
        results.append(Program(plan).compute(Simulate(kernel), case.encoded())["result"].value)
    assert all(np.array_equal(results[0], result) for result in results)


def test_every_primitive_is_in_the_zoo_of_public_operands():
    assert {case.op for case in CASES.values()} == set(TABLE)


def test_products_with_public_values_are_local():
    b = PlanBuilder()
    b.input("w", (5, 3), F, "client")
    b.input("x", (4, 5), F, "client", public=True)
    b.input("rate", (), 20, "client", public=True)
    y = b.add("multiply", b.add("matmul", "x", "w"), "rate")
    b.output(b.add("add", y, b.add("reduce_sum", y, axes=[0])), "y", [])
    assert sum(account(b.build("public", "train"), "trio"), Cost()) == Cost()


def test_costs_do_not_depend_on_public_values():
    """A public factor of zero is no reason to send less."""
    b = PlanBuilder()
    b.input("x", (4,), F, "client")
    b.input("c", (4,), 0, "client", public=True)
    b.output(b.add("relu", b.add("multiply", "x", "c")), "y", ["client"])
    plan = b.build("public", "reveal")
    measured = []
    for c in (np.zeros(4), np.ones(4)):
        session = Session()
        session.run(
            lambda p, x, c=c: Program(plan).compute(p, {"x": x, "c": c.astype(np.uint64)})["y"], encode(np.ones(4), F)
        )
        measured.append(session.measured())
    assert measured[0] == measured[1]


def test_public_inputs_are_plain_and_secret_ones_are_not():
    b = PlanBuilder()
    b.input("x", (4,), F, "client")
    b.input("rate", (2,), F, "client", public=True)
    b.output(b.add("negate", "x"), "y", ["client"])
    program = Program(b.build("public", "predict"))
    p = Simulate(NumpyKernel())
    x, rate = p.constant(np.zeros(4, np.uint64)), np.zeros(2, np.uint64)
    assert program.run(p, {"x": x, "rate": rate})["y"].shape == (4,)
    for wrong, message in (
        ({"x": rate, "rate": rate}, r"'x' of 'client': expected a share of a secret value. Received: a public array"),
        ({"x": x, "rate": x}, r"'rate' of 'client': expected a public value.*Received: SimulatedShare"),
        ({"x": x, "rate": rate.astype(np.float64)}, r"uint64. Received: dtype float64"),
        ({"x": x, "rate": np.zeros((2, 1), np.uint64)}, r"expected shape \[2\]. Received: \[2, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            program.run(p, wrong)


def test_kept_outputs_are_not_opened():
    b = PlanBuilder()
    b.input("w", (4,), F, "client")
    y = b.add("negate", "w")
    b.output(y, "new", [], carry="w")
    b.output(b.add("reduce_sum", b.add("multiply", y, y), axes=[0]), "loss", ["client"])
    program = Program(b.build("step", "train"))
    p = Simulate(NumpyKernel())
    w = p.constant(encode(np.ones(4), F))
    assert list(program.run(p, {"w": w})) == ["loss"]
    assert list(program.compute(p, {"w": w})) == ["new", "loss"]
