"""The executor: every primitive against NumPy, on one party and on three, and what it says when things go wrong."""
import weakref

import numpy as np
import pytest

from private_keras.errors import FrameError, InputError, PlanError, PrivateKerasError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.primitives import TABLE
from private_keras.protocols.protocol import Cost
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program, execute
from private_keras.server.execute.account import account, room
from private_keras.server.execute.graph import LATE
from private_keras.server.execute.program import OPERATIONS
from tests.plan_zoo import CASES, Case, F, exact
from tests.trio import Session


def simulated(case: Case) -> np.ndarray:
    p = Simulate(NumpyKernel())
    return execute(case.plan(), p, case.given(p))["result"]


def test_every_primitive_is_executed_and_in_the_zoo():
    assert set(OPERATIONS) == set(TABLE)
    assert {case.op for case in CASES.values()} == set(TABLE)


@pytest.mark.parametrize("name", CASES)
def test_simulated(name):
    CASES[name].check(simulated(CASES[name]))


@pytest.mark.parametrize("name", CASES)
def test_on_three_parties_as_accounted(name):
    case = CASES[name]
    plan = case.plan()
    program = Program(plan)
    session = Session(NumpyKernel())

    def run(p, *shares):
        return program.compute(p, {**known, **dict(zip(secret, shares, strict=True))})["result"]

    known, secret = ({n: v for n, v in case.encoded().items() if (n in case.public) == kind} for kind in (True, False))
    case.check(session.run(run, *secret.values()))
    total = sum(account(plan, "trio"), Cost())
    assert (total.rounds, dict(total.sent)) == session.measured()


def test_inputs_must_fit():
    case = CASES["add"]
    p = Simulate(NumpyKernel())
    shares = {name: p.constant(value) for name, value in case.encoded().items()}
    with pytest.raises(InputError, match=r"Missing: \['y'\]"):
        execute(case.plan(), p, {"x": shares["x"]})
    with pytest.raises(InputError, match=r"Not in the plan: \['z'\]"):
        execute(case.plan(), p, {**shares, "z": shares["x"]})
    with pytest.raises(InputError, match=r"'y' of 'client': expected shape \[2, 1, 4\]. Received: \[3, 4\]"):
        execute(case.plan(), p, {**shares, "y": shares["x"]})


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (FrameError("server1 sent 3 bytes"), FrameError, "layer 'zoo', step 0 .relu -> v0.: server1 sent 3 bytes"),
        (ValueError("value 42"), PrivateKerasError, "layer 'zoo', step 0 .relu -> v0.: .* failed with ValueError"),
        (MemoryError(), PrivateKerasError, "MemoryError"),
    ],
)
def test_errors_name_the_step_and_quote_no_value(raised, expected, message):
    class Failing(Simulate):
        def relu(self, x, bits=0, width=62):
            raise raised

    case = CASES["relu"]
    p = Failing(NumpyKernel())
    with pytest.raises(expected, match=message) as caught:
        execute(case.plan(), p, {"x": p.constant(case.encoded()["x"])})
    assert "42" not in str(caught.value)


def test_values_are_freed_after_their_last_use():
    alive = []

    class Watched(Simulate):
        def linear(self, fn, shape, *xs):
            result = super().linear(fn, shape, *xs)
            alive.append(1)
            weakref.finalize(result, alive.pop)
            return result

    b = PlanBuilder()
    y = b.input("x", (4,), F, "client")
    for _ in range(20):
        y = b.add("add", y, y)
    b.output(b.add("relu", y), "y", ["client"])
    plan = b.build("chain", "predict")
    p = Watched(NumpyKernel())
    seen = []
    execute(plan, p, {"x": p.constant(np.zeros(4, np.uint64))}, lambda index, step: seen.append(len(alive)))
    assert max(seen) == 1


def test_a_small_slice_does_not_keep_what_it_is_of():
    b = PlanBuilder()
    whole = b.add("add", b.input("x", (1000,), F, "client"), "x")
    b.output(b.add("slice", whole, start=[3], stop=[5], step=[1]), "y", [])
    p = Simulate(NumpyKernel())
    kept = Program(b.build("part", "compute")).compute(p, {"x": p.constant(np.arange(1000, dtype=np.uint64))})["y"]
    assert list(kept.value) == [6, 8] and kept.value.base is None


def test_on_step_sees_each_step_and_can_stop():
    plan = CASES["greater_equal moved"].plan()
    seen = []
    p = Simulate(NumpyKernel())
    shares = {name: p.constant(value) for name, value in CASES["greater_equal moved"].encoded().items()}
    execute(plan, p, shares, lambda index, step: seen.append((index, step.op)))
    # A step that only rearranges is part of the step that uses it.
    assert seen == [(i, step.op) for i, step in enumerate(plan.steps) if step.op not in LATE]

    def stop(index, step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan, p, shares, stop)


def test_a_program_runs_again_and_with_unused_inputs():
    b = PlanBuilder()
    for name in ("x", "unused"):
        b.input(name, (3,), F, "client")
    b.add("negate", "x")
    y = b.add("relu", "x")
    b.output(y, "first", ["client"])
    b.output(y, "second", ["client"])
    program = Program(b.build("twice", "predict"))
    p = Simulate(NumpyKernel())
    for _ in range(2):
        x = np.array([1, 2**64 - 1, 0], np.uint64)
        outputs = program.run(p, {"x": p.constant(x), "unused": p.constant(x)})
        assert all(np.array_equal(outputs[name], [1, 0, 0]) for name in ("first", "second"))


def test_constants_stay_public():
    """Products with constants send nothing."""
    b = PlanBuilder()
    b.input("x", (4, 4), F, "client")
    c = b.constant(exact(4, 4).astype(np.int64), F)
    y = b.add("matmul", b.add("multiply", "x", c), b.add("transpose", c, axes=[1, 0]))
    b.output(b.add("reduce_sum", y, axes=[0]), "y", ["client"])
    assert account(b.build("linear", "predict"), "trio") == [Cost()] * 5


def test_account_of_other_protocols():
    plan = CASES["relu"].plan()
    assert account(plan, "simulate") == [Cost()]
    with pytest.raises(PlanError, match="'morse'"):
        account(plan, "morse")


def test_live_elements_are_those_of_results_that_are_still_needed():
    b = PlanBuilder()
    b.input("x", (4,), 18, "client")
    wide = b.add("broadcast", "x", shape=[10, 4])  # 40, needed to the end
    twice = b.add("add", wide, wide)  # 40 more
    b.add("reduce_sum", twice, axes=[0, 1], keepdims=False)  # 1 more; nobody needs it
    total = b.add("reduce_sum", twice, axes=[0], keepdims=False)  # 4 more, then `twice` goes
    b.output(b.add("add", wide, total), "y", ["client"])  # 40 + 4 + 40
    assert room(Program(b.build("plan", "reveal")), "trio").elements == 84
