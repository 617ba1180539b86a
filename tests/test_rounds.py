"""Rounds that branches share: merging, order, failures, and what a plan's steps gain by them."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import PrivateKerasError
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols import rounds as module
from private_keras.protocols.protocol import Cost
from private_keras.protocols.rounds import Rounds
from private_keras.ring import default_kernel
from private_keras.ring.fixedpoint import decode, encode
from private_keras.server.execute import Program
from private_keras.server.execute.account import account, room
from tests.trio import Session

U = np.uint64
F = 18


def echo(sent: list):
    """An evaluator whose peer sends the same words plus one."""

    def exchange(words):
        sent.append(words.copy())
        return words + U(1)

    return exchange


def words(*values):
    return np.array(values, U)


def test_branches_that_wait_at_the_same_time_send_one_message():
    sent = []
    rounds = Rounds(echo(sent))

    def chain(start, length):
        def run():
            value = words(start)
            for _ in range(length):
                value = rounds.open(value)
            return value

        return run

    assert [int(v[0]) for v in rounds.together(chain(0, 3), chain(10, 1), chain(20, 2))] == [3, 11, 22]
    assert [list(m) for m in sent] == [[0, 10, 20], [1, 21], [2]]
    assert rounds.count == 3


def test_branches_of_branches_share_rounds_with_all():
    sent = []
    rounds = Rounds(echo(sent))

    def inner():
        return rounds.together(lambda: rounds.open(words(1)), lambda: rounds.open(words(2)))

    rounds.together(inner, lambda: rounds.open(words(3)))
    assert [sorted(m) for m in sent] == [[1, 2, 3]]


def test_what_is_posted_goes_with_the_next_round():
    sent, seen = [], []
    rounds = Rounds(echo(sent))
    ticket = rounds.post(words(5, 6), seen.append)
    assert not sent and not ticket.done
    assert list(rounds.open(words(7))) == [8]
    assert ticket.done and list(ticket.reply) == [6, 7] and list(seen[0]) == [6, 7]
    assert rounds.wait(ticket) is ticket.reply and rounds.count == 1


def test_large_messages_go_alone_and_at_once():
    sent = []
    rounds = Rounds(echo(sent))
    small = rounds.post(words(1))
    assert rounds.post(np.zeros(module.ALONE_WORDS + 1, U)).done
    assert not small.done and len(sent) == 1
    rounds.wait(small)
    assert rounds.count == 2


def test_a_party_that_sends_nothing_keeps_in_step():
    rounds, told = Rounds(told=lambda tickets: told.append([t.size for t in tickets])), []
    rounds.together(lambda: rounds.open(4), lambda: [rounds.open(1), rounds.open(2)])
    assert told == [[4, 1], [2]] and rounds.count == 2


def test_an_error_in_a_branch_ends_all_others():
    rounds, ended = Rounds(echo([])), []

    def waits():
        try:
            rounds.open(words(1))
            rounds.open(words(1))
        finally:
            ended.append(True)

    def fails():
        rounds.open(words(2))
        raise PrivateKerasError("broken")

    with pytest.raises(PrivateKerasError, match="broken"):
        rounds.together(waits, waits, fails)
    assert ended == [True, True]


def test_an_error_of_the_exchange_is_raised_where_the_branches_were_started():
    def exchange(_):
        raise PrivateKerasError("cut")

    rounds = Rounds(exchange)
    with pytest.raises(PrivateKerasError, match="cut"):
        rounds.together(lambda: rounds.open(words(1)), lambda: rounds.open(words(2)))


def test_threads_have_rounds_of_their_own():
    results = {}

    def job(i):
        rounds = Rounds(echo([]))
        results[i] = rounds.together(*(lambda k=k: int(rounds.open(words(k))[0]) for k in range(5)))

    threads = [threading.Thread(target=job, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == [1, 2, 3, 4, 5] for result in results.values()) and len(results) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), max_size=5), min_size=1, max_size=6))
def test_both_sides_of_any_branches_agree(chains):
    """What one party opens and what the other keeps in step with has the same sizes, in the same order."""
    sent, told = [], []

    def run(rounds, message):
        rounds.together(*(lambda c=c: [rounds.open(message(n)) for n in c] for c in chains))
        assert rounds.count == max(len(c) for c in chains)

    run(Rounds(echo(sent)), lambda n: np.zeros(n, U))
    run(Rounds(told=lambda tickets: told.append(sum(t.size for t in tickets))), int)
    assert [m.size for m in sent] == told


def branching(width: int) -> "object":
    """`width` products of one x with different weights, a relu on each, and their sum."""
    b = PlanBuilder()
    b.input("x", (3, 4), F, "client")
    total = ""
    for i in range(width):
        b.input(f"w{i}", (4, 2), F, "client")
        y = b.add("relu", b.add("matmul", "x", f"w{i}"), truncate=F)
        total = b.add("add", total, y) if total else y
    b.output(total, "y", ["client"])
    return b.build("branches", "predict")


def test_independent_steps_of_a_plan_share_rounds():
    plan = branching(5)
    one, many = (sum(account(p, "trio"), Cost()) for p in (branching(1), plan))
    assert many.rounds == one.rounds == 4 and many.bytes == 5 * one.bytes
    rng = np.random.default_rng(0)
    reals = {item.name: rng.normal(size=item.type.shape) for item in plan.inputs}
    session, program = Session(default_kernel()), Program(plan)

    def run(p, *shares):
        return program.compute(p, dict(zip(reals, shares, strict=True)))["y"]

    opened = decode(session.run(run, *(encode(v, F) for v in reals.values())), F)
    expected = sum(np.maximum(reals["x"] @ reals[f"w{i}"], 0) for i in range(5))
    assert np.abs(opened - expected).max() < 1e-4
    assert (many.rounds, dict(many.sent)) == session.measured()


def activated(several: bool = False) -> "object":
    """A product, its truncation, and a sigmoid-like spline of that; with `several`, another use of the truncation."""
    b = PlanBuilder()
    b.input("x", (3, 4), F, "client")
    b.input("w", (4, 2), F, "client")
    z = b.add("truncate", b.add("matmul", "x", "w"), bits=F)
    y = b.add(
        "spline", z, knots=[-2 << F, 2 << F], coefficients=[[0, 0], [1 << F + 9, 1 << 8], [2 << F + 9, 0]],
        scale=F + 10, fraction=F + 10,
    )  # fmt: skip
    b.output(y, "y", ["client"])
    if several:
        b.output(z, "z", ["client"])
    return b.build("activated", "predict")


def test_a_truncation_takes_no_round_of_its_own_before_a_spline():
    plan = activated()
    cost = sum(account(plan, "trio"), Cost())
    # The product is masked; its pieces are found in two levels, with the quotient's mask beside the first, and a last
    # opening.
    assert cost.rounds == 4
    assert sum(account(activated(several=True), "trio"), Cost()).rounds == 5
    rng = np.random.default_rng(0)
    reals = {item.name: rng.normal(size=item.type.shape) for item in plan.inputs}
    for made in (plan, activated(several=True)):
        session, program = Session(default_kernel()), Program(made)

        def run(p, *shares, program=program):
            return program.compute(p, dict(zip(reals, shares, strict=True)))["y"]

        opened = decode(session.run(run, *(encode(v, F) for v in reals.values())), F + 10)
        expected = np.clip((reals["x"] @ reals["w"]) / 4 + 0.5, 0, 1)
        assert np.abs(opened - expected).max() < 1e-4
        assert session.declared.rounds == session.measured()[0]


def test_a_value_that_several_steps_need_is_masked_once():
    b = PlanBuilder()
    b.input("x", (6,), 12, "client")
    y = b.add("multiply", "x", "x")
    for i in range(4):
        b.output(b.add("multiply", y, b.add("negate", y)), f"y{i}", ["client"])
    costs = account(b.build("shared", "predict"), "trio")
    assert [cost.rounds for cost in costs if cost.rounds] == [1]
    # y, and -y in the first step, are masked; then five products are dealt.
    assert sum(costs, Cost()).bytes == 6 * 8 * (4 + 5)


def test_room_is_counted_for_public_steps_beside_secret_ones_that_wait():
    """Counted as if they were secret, public comparisons take rounds while secret steps wait for theirs."""
    b = PlanBuilder()
    x, n = b.input("x", (3,), 20, "client"), b.input("n", (3,), 20, "client", public=True)
    secret = b.add("relu", x)
    positive = b.add("greater_equal", n, b.constant(np.zeros(3, np.int64), 20))
    b.output(b.add("multiply", secret, positive), "y", ["client"])
    plan = b.build("public beside secret", "compute")
    assert room(Program(plan), "trio").moved > sum(account(plan, "trio"), Cost()).bytes
