"""The forecast: exact in rounds and bytes, monotone in everything, and sums that hold."""

import math
from dataclasses import fields, replace

import pytest

from private_keras.cluster import LocalCluster
from private_keras.errors import InputError
from private_keras.forecast import NETWORKS, Machine, Network, forecast, measure_machine
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account

F = 18
STILL = Machine(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def dense(rows=4, units=8, layers=2):
    b = PlanBuilder()
    y = b.input("x", (rows, units), F, "client")
    for i in range(layers):
        w = b.input(f"w{i}", (units, units), F, "client")
        y = b.add("relu", b.add("matmul", y, w, layer=f"dense{i}"), truncate=F, layer=f"dense{i}")
    b.output(y, "y", ["client"])
    return b.build("dense", "predict")


def test_rounds_and_bytes_are_those_of_the_account():
    plan = dense()
    total = sum(account(plan, "trio"), Cost())
    told = forecast(plan)
    assert (told.rounds, told.bytes) == (total.rounds + 1, total.bytes + 2 * 8 * 32)
    assert told.ahead == total.ahead
    assert [row.layer for row in told.layers] == ["dense0", "dense1", "opening of the outputs"]


def test_a_wire_without_a_machine_takes_rounds_and_bytes():
    plan = dense(rows=1, units=2)
    slow = forecast(plan, Network(rtt=2.0, bandwidth=1e12), STILL)
    # A round is one way; what the helper deals is there after the first, and the opening is one more.
    assert slow.seconds == pytest.approx(slow.rounds * 1.0 + 1.0, rel=1e-3)
    narrow = forecast(plan, Network(rtt=0.0, bandwidth=8.0), STILL)
    assert narrow.seconds > narrow.ahead


@pytest.mark.parametrize("field", [f.name for f in fields(Machine)])
def test_seconds_grow_with_each_number_of_the_machine(field):
    plan, fast = dense(), Machine()
    slow = replace(fast, **{field: 1000 * getattr(fast, field)})
    for network in NETWORKS.values():
        before, after = (forecast(plan, network, m).seconds for m in (fast, slow))
        assert before < after


def test_shared_cores_bound_the_seconds_from_below():
    plan, machine = dense(rows=512, units=256), Machine()
    alone, shared = (forecast(plan, Network(0.0, 1e12, cores), machine).seconds for cores in (0, 2))
    one = forecast(plan, Network(0.0, 1e12, 1), machine).seconds
    assert alone < shared < one


def test_larger_batches_and_models_never_take_less():
    for network in NETWORKS:
        rows = [forecast(dense(rows=n), network).seconds for n in (1, 4, 64, 512)]
        deep = [forecast(dense(layers=n), network).seconds for n in (1, 2, 5)]
        assert rows == sorted(rows) and deep == sorted(deep)


def test_layers_add_up():
    told = forecast(dense(layers=5), "wan")
    assert told.seconds == pytest.approx(sum(row.seconds for row in told.layers))
    assert all(row.seconds >= 0 for row in told.layers)
    assert f"{told.rounds}" in str(told) and "<table>" in told._repr_html_()


@pytest.mark.parametrize("arguments", [(-1.0, 1e9), (math.nan, 1e9), (0.1, 0.0), (0.1, 1e9, -1), (0.1, 1e9, 1.5)])
def test_networks_that_are_none(arguments):
    with pytest.raises(InputError, match="Network: expected"):
        Network(*arguments)


def test_a_machine_is_measured():
    with LocalCluster() as cluster:
        found = measure_machine("local", cluster)
        assert all(math.isfinite(getattr(found, f.name)) and getattr(found, f.name) >= 0 for f in fields(found))
        assert found != STILL and forecast(dense(), "local", found).seconds > 0
