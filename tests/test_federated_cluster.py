"""Federations on three servers over TLS, every party with a certificate of its own, and what breaks on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import keras
import numpy as np
import pytest

from private_keras.cluster.client import ServerClient
from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.loop import PublicValue
from private_keras.cluster.putting import Column
from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.federated import Client, Server, vector
from private_keras.federated.board import Apart, Tensor, Unusable
from private_keras.federated.round import Round
from private_keras.federated.shared import ClusterBoard
from private_keras.plan.aggregate import SEED, aggregate_plan
from private_keras.plan.builder import PlanBuilder
from private_keras.server.config import read_config
from private_keras.server.policy import Policy
from tests.clusters import ROOT, TlsServers
from tests.federation import OWNERS, data, flat, model, together

ROWS = {"a": 10, "b": 40, "c": 25, "d": 33}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("federated"), ("mo", "stranger", *OWNERS), storage=True) as started:
        yield started


@pytest.fixture(scope="module")
def parties(servers):
    """Clusters by identity."""
    clusters = {name: NetworkCluster(read_config(servers.config), name) for name in ("mo", "stranger", *OWNERS)}
    for cluster in clusters.values():
        cluster.connect(60)
    yield clusters
    for cluster in clusters.values():
        cluster.close()


def server(parties, name, made=None, **options):
    options = {"minimum": 3, "deadline": 100.0, **options}
    return Server(made or model(), OWNERS, name, cluster=parties["mo"], **options)


def client(parties, name, owner, **options):
    return Client(f"mo/{name}", data(ROWS[owner], ord(owner)), cluster=parties[owner], **options)


def trained(each, **options):
    return each.fit(**{"epochs": 2, "batch_size": 8, "shuffle": False, "patience": 300, **options})


def averaged(rounds, owners_of=lambda number: OWNERS):
    """What plain Keras and NumPy make of the same data."""
    plain = model()
    variables = vector.averaged(plain)
    for number in range(rounds):
        start, total, rows = flat(plain), 0.0, 0
        for owner in owners_of(number):
            local = model()
            vector.assign(vector.averaged(local), vector.cut(start, vector.values(variables)))
            local.fit(*data(ROWS[owner], ord(owner)), epochs=2, batch_size=8, shuffle=False, verbose=0)
            total, rows = total + ROWS[owner] * flat(local), rows + ROWS[owner]
        vector.assign(variables, vector.cut(total / rows, vector.values(variables)))
    return flat(plain)


def openings(parties, party, federation):
    """What a party's audit logs say was opened of shares in a federation: (kind, caller, names of sources)."""
    found = set()
    for log in parties[party].audit():
        assert log.faults == []
        for entry in log.entries:
            sources = [s for s in entry.get("sources", ()) if f"/{federation}/" in s]
            if entry.get("event") == "opened" and sources:
                found.add((entry["kind"], entry["caller"], tuple(sources)))
    return found


def test_federated_averaging(parties):
    """Weights are those of plain federated averaging, and nothing of an update is opened but the mean."""
    made = model()
    clients = [client(parties, "plain", owner) for owner in OWNERS]
    history, *_ = together(
        lambda: server(parties, "plain", made, validation_data=data(50)).fit(rounds=2, verbose=0),
        *(lambda each=each: trained(each) for each in clients),
    )  # fmt: skip
    np.testing.assert_allclose(flat(made), averaged(2), atol=1e-5)
    assert history.history["owners"] == [4.0, 4.0] and history.history["val_loss"][1] < history.history["val_loss"][0]
    for each in clients:
        np.testing.assert_array_equal(flat(each.model), flat(made))
        assert each.model.history.history["used"] == [1.0, 1.0]
    for owner in OWNERS:
        opened = openings(parties, owner, "plain")
        mine = {each for each in opened if any(source.startswith(f"{owner}/") for source in each[2])}
        assert len(mine) == 2 and {each[:2] for each in mine} == {("aggregate", "mo")}
        assert all(len([s for s in each[2] if "/plain/update." in s]) == 4 for each in mine)
        assert not any("/plain/" in str(named) for named in parties[owner].names())
    assert not any("/plain/" in str(named) for named in parties["stranger"].names(others=True))


CURRENT = Round("0a1b2c3d", 0, 0, 1, tuple(OWNERS), 4, 60.0, "update", 4.0, False, 1000, 20, (5,))


def shared(parties, name, owners=OWNERS, minimum=4, uses=1):
    """Updates as clients share them; what they are."""
    policy = Policy(["mo"], [f"aggregate:{minimum}"], ["mo"], uses)
    rows = np.random.default_rng(1).normal(size=(len(owners), 5))
    for owner, row in zip(owners, rows, strict=True):
        tensors = {"examples": Tensor(np.array([[ord(owner)]]), 0), "update/0": Tensor(row[np.newaxis], 20)}
        ClusterBoard(parties[owner]).put(name, tensors, "", policy)
    counts = np.array([ord(owner) for owner in owners])
    return counts @ rows / counts.sum()


def test_an_update_is_in_one_mean_of_enough_owners_and_nothing_else(parties):
    expected = shared(parties, "once")
    board = ClusterBoard(parties["mo"])
    for owners in (OWNERS, OWNERS[:3]):
        with pytest.raises(Unusable, match="mean of 4 owners or more"):
            board.mean(replace(CURRENT, minimum=3).plan(owners), dict.fromkeys(owners, "once"), 1)
    for owner in OWNERS:
        with pytest.raises(SecurityError):
            board.open(owner, "once")
    opened = board.mean(CURRENT.plan(OWNERS), dict.fromkeys(OWNERS, "once"), 1)
    np.testing.assert_allclose(opened["mean/0"][0], expected, atol=1e-5)
    with pytest.raises(SecurityError, match="used 1 times"):
        board.mean(CURRENT.plan(OWNERS), dict.fromkeys(OWNERS, "once"), 2)


def _one_alone(plan):
    """Four owners' inputs, of which one's update alone goes into the mean."""
    b = PlanBuilder()
    for item in plan.inputs:
        b.input(item.name, item.type.shape, item.type.fraction, item.owner, item.label, item.public)
    b.output(b.add("multiply", "a/update/0", "b/examples"), "mean/0", ["client"])
    return b.build(plan.name, plan.kind)


def test_an_owner_whose_policy_refuses_the_mean_does_not_hold_up_the_others(parties):
    shared(parties, "refuses", OWNERS[:3], minimum=3)
    shared(parties, "refuses", ["d"], minimum=4)
    board, plan = ClusterBoard(parties["mo"]), replace(CURRENT, minimum=3).plan
    with pytest.raises(Unusable, match="allows the mean of 4 owners") as refused:
        board.mean(plan(OWNERS), dict.fromkeys(OWNERS, "refuses"), 1)
    assert refused.value.owner == "d"
    assert board.mean(plan(OWNERS[:3]), dict.fromkeys(OWNERS[:3], "refuses"), 1)["mean/0"].any()


@pytest.mark.parametrize("party", range(3))
def test_an_owner_whose_parts_do_not_belong_together_is_found(parties, monkeypatch, party):
    shared(parties, "apart", OWNERS[:3], minimum=3, uses=2)
    put = ServerClient.put

    def changing(self, generation, entries, about, policy, pieces):
        if self is parties["d"]._clients[party]:
            data = bytearray(b"".join(pieces))
            data[-1] ^= 1  # of the update, which comes last
            pieces = [bytes(data)]
        return put(self, generation, entries, about, policy, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(ServerClient, "put", changing)
        shared(parties, "apart", ["d"], minimum=3)
    board, plan = ClusterBoard(parties["mo"]), replace(CURRENT, minimum=3).plan
    with pytest.raises(Apart, match="input 'd/update/0' does not belong together") as found:
        board.mean(plan(OWNERS), dict.fromkeys(OWNERS, "apart"), 1)
    assert found.value.owners == ["d"]
    assert board.mean(plan(OWNERS[:3]), dict.fromkeys(OWNERS[:3], "apart"), 1)["mean/0"].any()


def test_owners_may_allow_a_mean_by_its_digest_alone(parties):
    """The plan that the model's owner tells before any round is what the servers judge."""
    made = server(parties, "digest")
    elements = sum(each.size for each in vector.values(vector.averaged(model())))
    fraction = made._plain.fraction
    for owner in OWNERS:
        policy = Policy(["mo"], [f"sha256:{made.plan(OWNERS[:3]).digest}"], ["mo"])
        update = Tensor(np.full((1, elements), ord(owner) / 100), fraction)
        ClusterBoard(parties[owner]).put("d", {"examples": Tensor(np.array([[2]]), 0), "update/0": update}, "", policy)
    board = ClusterBoard(parties["mo"])
    opened = board.mean(made.plan(["c", "a", "b"]), dict.fromkeys(OWNERS[:3], "d"), 1)
    np.testing.assert_allclose(opened["mean/0"], ord("b") / 100, atol=1e-5)
    for owners in (None, OWNERS[1:]):
        with pytest.raises(Unusable, match="its policy allows sha256"):
            board.mean(made.plan(owners), dict.fromkeys(owners or OWNERS, "d"), 1)
    for wrong in (["a", "b", "x"], ["a", "b"]):
        with pytest.raises(InputError, match="expected (at least 3|3 to)"):
            server(parties, "digest", minimum=3).plan(wrong)
    with pytest.raises(InputError, match="digests as sha256"):
        client(parties, "digest", "a", plans=["mean"])


@pytest.mark.parametrize("other", [
    _one_alone,
    lambda plan: aggregate_plan([5], OWNERS, 5.0, 1000, 20, 4),
], ids=["one update", "another limit"])
def test_servers_build_the_plan_themselves(parties, other):
    shared(parties, "own")
    mo = parties["mo"]
    given = {SEED: PublicValue(np.array(3))}
    for owner in OWNERS:
        given |= {f"{owner}/{label}": handle for label, handle in mo.load("own", owner)[0].items()}
    plan = other(CURRENT.plan(OWNERS))
    if other is _one_alone:
        with pytest.raises(SecurityError, match="aggregate_plan"):
            mo.run(plan, given)
    else:  # a mean, as the owners allow: the limits are the model owner's
        assert mo.run(plan, given)["mean/0"].shape == (1, 5)


def test_another_owners_name_does_not_help(parties):
    """What d shares is d's, whatever it is called; a stranger's shares are no owner's."""
    shared(parties, "names")
    parties["stranger"].put("names2", {"examples": _column(1, 0), "update/0": _column(5, 20)}, "", Policy(
        ["mo"], ["aggregate"], ["mo"]))  # fmt: skip
    mo = parties["mo"]
    given = {SEED: PublicValue(np.array(3))}
    for owner in OWNERS:
        source = ("names2", "stranger") if owner == "d" else ("names", owner)
        given |= {f"{owner}/{label}": handle for label, handle in mo.load(*source)[0].items()}
    with pytest.raises(SecurityError, match="shares of d, as the plan says. Received: shares of stranger"):
        mo.run(CURRENT.plan(OWNERS), given)


def _column(size, fraction):
    values = np.ones((1, size))
    return Column(values.shape, fraction, "float64", lambda: iter([values]))


def test_who_is_no_owner_sees_nothing_of_it(parties):
    shared(parties, "seen")
    for party in ("stranger", "a"):
        assert not any(n.name == "seen" and n.owner == "b" for n in parties[party].names(others=True))
        with pytest.raises(HandleNotFound):
            parties[party].load("seen", "b")


def test_a_server_killed_between_rounds(parties, servers):
    """Rounds go on with the server that was started anew; what was shared is on its disk."""
    made = model()

    class Restart(threading.Thread):
        def run(self):
            os.kill(servers.processes[1].pid, signal.SIGKILL)
            servers.processes.pop(1).wait()
            time.sleep(1.0)
            servers.start(1)
            servers.wait_listening(1, starts=2)

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                restart.start()

    restart = Restart()
    owners = OWNERS[:3]
    running = Server(made, owners, "restart", deadline=60.0, callbacks=[Kill()], cluster=parties["mo"])
    clients = [client(parties, "restart", owner) for owner in owners]
    history, *_ = together(
        lambda: running.fit(rounds=3, verbose=0, patience=300), *(lambda each=each: trained(each) for each in clients)
    )  # fmt: skip
    restart.join()
    assert history.history["owners"] == [3.0] * 3
    np.testing.assert_allclose(flat(made), averaged(3, lambda number: owners), atol=1e-5)


class Killed(BaseException):
    """What no code catches."""


def test_the_model_owner_killed_and_resumed(parties, servers):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    resumed = model(seed=77)
    owners = OWNERS[:3]

    def model_owner():
        with pytest.raises(Killed):
            server(parties, "resumed", callbacks=[Kill()], enough=3).fit(rounds=2, verbose=0)
        with NetworkCluster(read_config(servers.config), "mo") as again:
            again.connect()
            return Server(resumed, OWNERS, "resumed", enough=3, cluster=again).fit(rounds=2, verbose=0, resume=True)

    history, *_ = together(model_owner, *(lambda o=o: trained(client(parties, "resumed", o)) for o in owners))
    assert history.epoch == [0, 1]
    np.testing.assert_allclose(flat(resumed), averaged(2, lambda number: owners), atol=1e-5)


UPLOAD = """
import sys, time
config, sys.argv[:] = sys.argv[1], ["private-keras"]  # a tool, which loads no TensorFlow
import numpy as np
from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.putting import Column
from private_keras.server.config import read_config
from private_keras.server.policy import Policy

def blocks():
    yield np.ones((1, 5))
    print("half", flush=True)
    time.sleep(600)

cluster = NetworkCluster(read_config(config), "d")
cluster.connect()
policy = Policy(["mo"], ["aggregate:3"], ["mo"], 1)
one = lambda: iter([np.ones((1, 1))])
cluster.put("killed", {"examples": Column((1, 1), 0, "int64", one), "update/0": Column((2, 5), 20, "float64", blocks)},
            "", policy)
"""


def test_an_owner_killed_while_it_shares(parties, servers):
    """Its half of an upload is nothing that anybody can use, and it can share again."""
    program = [sys.executable, "-c", UPLOAD, str(servers.config)]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "half\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    board = ClusterBoard(parties["mo"])
    assert not any(each.owner == "d" and each.name == "killed" for each in board.listed())
    expected = shared(parties, "killed")
    opened = board.mean(CURRENT.plan(OWNERS), dict.fromkeys(OWNERS, "killed"), 4)
    np.testing.assert_allclose(opened["mean/0"][0], expected, atol=1e-5)
