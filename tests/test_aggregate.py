"""The plan of a weighted mean: what it opens, how exactly, what hostile owners can do, that no other plan is taken."""

import json
import secrets

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from private_keras.cluster.simulated import SimulatedCluster
from private_keras.errors import PlanError
from private_keras.plan.aggregate import PROJECTIONS, SEED, Mean, aggregate_plan, mean_of, update_fraction
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server.execute import Program
from tests.aggregates import SIZES, given, joined, mean, names, updates
from tests.trio import Session, ring, signed

LIMIT = 4.0


@pytest.mark.parametrize("count, limit, most", [
    (3, LIMIT, 1 << 20), (3, 2.0**-10, 1), (10, 256.0, 300), (100, 1.0, 1 << 20), (5, 2.0**14, 50),
])  # fmt: skip
def test_mean(count, limit, most):
    """The error is a few units of what is opened, which is bounded by the room that sums need."""
    owners = names(count)
    counts, rows = updates(count, limit, most=most)
    plan = aggregate_plan(SIZES, owners, limit)
    opened = SimulatedCluster().run(plan, given(owners, counts, rows))
    unit = 2.0 ** -min(update_fraction(count, limit), plan.types[plan.outputs[0].value].fraction)
    assert np.abs(joined(opened) - mean(counts, rows)).max() < 3 * unit + 3e-7 * limit


@pytest.mark.parametrize("examples", [1, 2, 100, 500])
def test_few_examples_at_most(examples):
    owners = names(3)
    counts, rows = updates(3, LIMIT, most=examples)
    opened = SimulatedCluster().run(aggregate_plan(SIZES, owners, LIMIT, examples), given(owners, counts, rows))
    assert np.abs(joined(opened) - mean(counts, rows)).max() < 1e-6


@settings(deadline=None, max_examples=25)
@drawn(st.integers(3, 9), st.sampled_from([0.01, 1.0, 30.0]), st.integers(1, 1 << 20), st.integers(0, 1 << 30))
def test_any_counts(count, limit, most, seed):
    owners = names(count)
    counts, rows = updates(count, limit, seed, most)
    opened = SimulatedCluster().run(aggregate_plan(SIZES, owners, limit), given(owners, counts, rows))
    exact = mean(counts, rows)
    assert np.abs(joined(opened) - exact).max() < 1e-6 + 3e-7 * np.abs(exact).max()


@pytest.mark.parametrize("limit", [2.0**-10, LIMIT, 64.0, 2.0**14])
def test_last_digits_of_a_mean_do_not_tell_the_sum_of_counts(limit):
    """Of a dividend in whole units of the result they would: multiples of 2^13 / 4998, at random rounded."""
    owners, counts = names(5), [900, 1100, 1000, 950, 1048]
    plan = aggregate_plan([20_000], owners, limit, 2000)
    fraction = next(item.type.fraction for item in plan.inputs if item.label == "update")
    unit = 2.0 ** plan.types[plan.outputs[0].value].fraction
    # Of few hundred units: the inverse's own rounding hides more in larger ones.
    rows = np.random.default_rng(4).normal(size=(5, 1, 20_000)) * min(limit / 200, 300 / unit)
    values = {f"{owner}/examples": ring([[n]]) for owner, n in zip(owners, counts, strict=True)}
    values |= {
        f"{owner}/update/0": ring(np.rint(row * 2**fraction).astype(np.int64))
        for owner, row in zip(owners, rows, strict=True)
    }
    program = Program(plan)

    def go(p, *shares):
        given_ = dict(zip(values, shares, strict=True)) | {SEED: np.array(9, np.uint64)}
        return program.compute(p, given_)["mean/0"]

    opened = signed(Session().run(go, *values.values())).reshape(-1)
    # Of numbers that lie nowhere in particular: one over the root of their number.
    assert abs(np.exp(2j * np.pi * (opened * sum(counts) % 2**13) / 2**13).mean()) < 0.05
    assert np.abs(opened / unit - np.average(rows, 0, counts)).max() <= 3 / unit


def ring_run(plan, values, seed=5):
    """A run on ring elements, as a hostile owner may share them; the mean in real numbers."""
    p, program = Simulate(default_kernel()), Program(plan)
    shares = {name: SimulatedShare(value) for name, value in values.items()}
    shares[SEED] = np.array(seed, np.uint64)
    outputs = program.run(p, shares)
    return joined({
        item.name: fixedpoint.decode(outputs[item.name], plan.types[item.value].fraction) for item in plan.outputs
    })  # fmt: skip


def encoded(plan, owners, counts, rows):
    types = {item.name: item.type for item in plan.inputs}
    inputs = given(owners, counts, rows)
    del inputs[SEED]
    return {name: fixedpoint.encode(value, types[name].fraction) for name, value in inputs.items()}


ROW = sum(SIZES)
HOSTILE = {
    "one huge element": lambda row: [1 << 50, *[0] * (ROW - 1)],
    "top bit": lambda row: [1 << 62, *[0] * (ROW - 1)],
    "top bits that cancel": lambda row: [1 << 62, 1 << 62, *[0] * (ROW - 2)],
    "squares that wrap": lambda row: [1 << 32] * ROW,
    "negative": lambda row: [-(1 << 61)] * ROW,
    "just too long": lambda row: [8 * int(x) for x in row],
    "too long, with the bit that no comparison sees": lambda row: [
        3 * int(x) + (i % 2 << 63) for i, x in enumerate(row)
    ],
    "a little above the range": lambda row: [*[0] * (ROW - 1), 26 * int(LIMIT * 2**22)],
    "random words": lambda row: list(np.random.default_rng(3).integers(0, 1 << 63, ROW)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_update_out_of_range_counts_as_nothing(kind):
    owners = names(4)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(4, LIMIT)
    values = encoded(plan, owners, counts, rows)
    own = np.concatenate([values[f"owner-2/update/{part}"][0] for part in range(2)]).view(np.int64)
    bad = ring([HOSTILE[kind](own)])
    values["owner-2/update/0"], values["owner-2/update/1"] = bad[:, : SIZES[0]], bad[:, SIZES[0] :]
    honest = [0, 1, 3]
    for seed in range(5):
        error = np.abs(ring_run(plan, values, seed) - mean(counts[honest], rows[honest])).max()
        assert error < 1e-6


def test_the_bit_that_no_comparison_sees_changes_nothing():
    owners = names(3)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(3, LIMIT)
    values = encoded(plan, owners, counts, rows)
    values["owner-1/update/0"] = values["owner-1/update/0"] + np.uint64(1 << 63)
    values["owner-1/examples"] = values["owner-1/examples"] + np.uint64(1 << 63)
    assert np.abs(ring_run(plan, values) - mean(counts, rows)).max() < 1e-6


@pytest.mark.parametrize("count", [0, -1, (1 << 20) + 1, 1 << 40, 1 << 62, -(1 << 62), 1 << 63])
def test_a_count_out_of_range_counts_as_nothing(count):
    owners = names(4)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(4, LIMIT)
    values = encoded(plan, owners, counts, rows)
    values["owner-0/examples"] = ring([[count]])
    assert np.abs(ring_run(plan, values) - mean(counts[1:], rows[1:])).max() < 1e-6


@pytest.mark.parametrize("minimum, sound", [(3, 3), (3, 2), (4, 4), (4, 3), (5, 5), (5, 4)])
def test_a_mean_of_fewer_than_the_minimum_is_zero(minimum, sound):
    owners = names(5)
    plan = aggregate_plan(SIZES, owners, LIMIT, minimum=minimum)
    counts, rows = updates(5, LIMIT)
    values = encoded(plan, owners, counts, rows)
    for owner in owners[sound:]:
        values[f"{owner}/examples"] = ring([[0]])
    expected = mean(counts[:sound], rows[:sound]) if sound >= minimum else 0.0
    assert np.abs(ring_run(plan, values) - expected).max() < 1e-6


def test_a_limit_that_one_owner_alone_keeps_opens_nothing():
    owners = names(4)
    counts, rows = updates(4, LIMIT)
    rows[1] /= 1000
    plan = aggregate_plan(SIZES, owners, LIMIT / 900)
    assert np.abs(ring_run(plan, encoded(plan, owners, counts, rows))).max() < 1e-6
    few = aggregate_plan(SIZES, owners, LIMIT, examples=10)
    counts = np.array([1000, 10, 1000, 1000])
    assert np.abs(ring_run(few, encoded(few, owners, counts, rows))).max() < 1e-6


def test_nothing_sound_gives_zeros():
    owners = names(3)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(3, LIMIT)
    values = encoded(plan, owners, 0 * counts, rows)
    assert np.abs(ring_run(plan, values)).max() < 1e-6


@settings(deadline=None, max_examples=30)
@drawn(st.integers(0, 1 << 40), st.integers(0, 2**32))
def test_an_honest_update_of_the_largest_length_counts_whatever_the_seed(seed, shape):
    """Also where all of its length is in one element."""
    owners = names(3)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(3, LIMIT, shape)
    rows[0] = 0
    rows[0, shape % ROW] = -LIMIT
    values = encoded(plan, owners, counts, rows)
    assert np.abs(ring_run(plan, values, seed) - mean(counts, rows)).max() < 1e-6


def test_on_three_parties():
    owners = names(3)
    plan = aggregate_plan(SIZES, owners, LIMIT)
    counts, rows = updates(3, LIMIT)
    values = encoded(plan, owners, counts, rows)
    session, program = Session(), Program(plan)

    def go(p, *shares):
        given = dict(zip(values, shares, strict=True)) | {SEED: np.array(9, np.uint64)}
        results = program.compute(p, given)
        return tuple(results[item.name] for item in plan.outputs)

    opened = session.run(go, *values.values())
    fraction = plan.types[plan.outputs[0].value].fraction
    got = np.concatenate([fixedpoint.decode(part[0], fraction) for part in opened])
    assert np.abs(got - mean(counts, rows)).max() < 1e-6
    assert session.measured()[0] == session.declared.rounds == 34


APART = {
    "other masked counts": ("examples", 1, 0),
    "other masked updates": ("update/0", 0, 0),
    "other masks of the count": ("examples", 2, 1),
    "other masks of the update": ("update/0", 2, 1),
    "another mask at one evaluator": ("examples", 0, 1),
}


@pytest.mark.parametrize("what", APART)
def test_shares_that_do_not_belong_together_do_not_lower_the_minimum(what):
    """Who gives the servers parts of several tensors spoils the mean; too few others stay hidden in it all the same."""
    label, party, place = APART[what]
    owners = names(4)
    counts, rows = np.array([1, 50, 90, 95]), updates(4, LIMIT)[1]
    plan = aggregate_plan(SIZES, owners, LIMIT, examples=60)  # which two of the honest do not keep
    values = encoded(plan, owners, counts, rows)
    wrong, program = list(values).index(f"{owners[0]}/{label}"), Program(plan)

    def twist(number, parts):
        if number == wrong:
            noise = default_kernel().random(secrets.token_bytes(16), 0, parts[0][0].size).reshape(parts[0][0].shape)
            changed = list(parts[party])
            changed[place] = changed[place] + noise
            parts[party] = tuple(changed)
        return parts

    def go(p, *shares):
        results = program.compute(p, dict(zip(values, shares, strict=True)) | {SEED: np.array(9, np.uint64)})
        return tuple(results[item.name] for item in plan.outputs)

    for _ in range(8):
        opened = Session(twist=twist).run(go, *values.values())
        assert all(np.abs(fixedpoint.decode(part, 0)).max() <= 1 for part in opened)


def test_a_mean_is_opened_whose_owners_and_limits_are_read_from_the_plan():
    plan = aggregate_plan([5, 6], ["b", "a", "c"], 0.3, 1000, 14)
    assert mean_of(Plan.from_json(plan.to_json())) == Mean(("a", "b", "c"), 3)
    assert mean_of(aggregate_plan([5], names(9), 0.3, minimum=8)).minimum == 8
    assert plan.digest == aggregate_plan([5, 6], ["c", "b", "a"], 0.3, 1000, 14).digest
    assert {receiver for item in plan.outputs for receiver in item.receivers} == {"client"}
    assert all(item.public == (item.name == SEED) for item in plan.inputs)


def changed(edit):
    document = json.loads(aggregate_plan([5], names(4), 2.0).to_json())
    edit(document)
    return document


def _first(document, op):
    return next(step["output"] for step in document["steps"] if step["op"] == op)


@pytest.mark.parametrize("edit", [
    lambda d: d.update(name="mean of at least 3 updates, length up to 4.0, examples up to 1048576"),
    lambda d: d.update(name="mean"),
    lambda d: d.update(name="mean of at least 4 updates, length up to 2.0, examples up to 1048576"),
    lambda d: d.update(name="mean of at least 2 updates, length up to 2.0, examples up to 1048576"),
    lambda d: d.update(name="mean of at least 3 updates, length up to 2.0, examples up to 999999999"),
    lambda d: d.update(name="mean of at least 3 updates, length up to 1e99, examples up to 1048576"),
    lambda d: d.update(name="mean of at least 3 updates, length up to 1.2.3, examples up to 1048576"),
    lambda d: d.update(kind="compute"),
    lambda d: d["outputs"][0].update(receivers=["client", "other"]),
    lambda d: d["outputs"].append({"value": _first(d, "multiply"), "name": "counts", "receivers": ["client"]}),
    lambda d: d["inputs"][0].update(owner="client"),
    lambda d: [item.update(owner="client") for item in d["inputs"]],
    lambda d: d["inputs"][1].update(label="another"),
    lambda d: d["steps"][-1].update(layer="another"),
    lambda d: [step["attributes"].update(probability=1) for step in d["steps"] if step["op"] == "random"],
])  # fmt: skip
def test_another_plan_is_refused(edit):
    plan = Plan.from_json(json.dumps(changed(edit)))
    with pytest.raises(PlanError):
        mean_of(plan)


def test_a_mean_of_one_owners_update_is_refused_though_the_plan_names_more():
    """Four owners' inputs, of which one alone goes into what is opened."""
    document = changed(lambda d: None)
    first = {item["name"] for item in document["inputs"] if item["name"].startswith("owner-0/update")}
    for step in document["steps"]:
        if step["op"] == "concatenate" and first & set(step["inputs"]):
            step["inputs"] = [min(first)] * 4
    with pytest.raises(PlanError):
        mean_of(Plan.from_json(json.dumps(document)))


@pytest.mark.parametrize("arguments", [
    {"owners": ["a", "b"]}, {"owners": ["a", "b", "b"]}, {"owners": ["a", "b", "client"]}, {"limit": 0.0},
    {"limit": float("nan")}, {"limit": float("inf")}, {"limit": 1e6}, {"examples": 0}, {"examples": 1 << 21},
    {"minimum": 2}, {"minimum": 4}, {"fraction": 23}, {"fraction": 3}, {"sizes": [0]},
    {"owners": names(4096), "limit": 2.0**14},
], ids=str)  # fmt: skip
def test_arguments_that_do_not_fit(arguments):
    with pytest.raises(PlanError, match="expected"):
        aggregate_plan(**{"sizes": [5], "owners": names(3), "limit": 1.0, **arguments})


def test_who_shares_with_fewer_bits_than_there_is_room_for():
    """Bits are chosen for all owners; a round of fewer takes them as they are."""
    fraction = update_fraction(1000, 16.0)
    owners = names(3)
    counts, rows = updates(3, 16.0)
    plan = aggregate_plan(SIZES, owners, 16.0, fraction=fraction)
    opened = SimulatedCluster().run(plan, given(owners, counts, rows))
    assert fraction < update_fraction(3, 16.0)
    assert np.abs(joined(opened) - mean(counts, rows)).max() < 3 * 2.0**-fraction


def test_sums_of_random_elements_have_as_many_signs_as_the_argument_needs():
    plan = aggregate_plan([5], names(3), 1.0)
    drawn_ = [step for step in plan.steps if step.op == "random"]
    assert [step.attributes["shape"] for step in drawn_] == [[5, PROJECTIONS]] * 2 and PROJECTIONS >= 64
    assert len({step.attributes["stream"] for step in drawn_}) == 2
