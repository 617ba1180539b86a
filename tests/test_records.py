"""What is left of forgotten shares: policies that still rule, as many as an owner may have, until it gives them up."""

import numpy as np
import pytest

import private_keras as pk
from private_keras.cli import main
from private_keras.cluster import NetworkCluster, SimulatedCluster
from private_keras.errors import ClusterError, HandleNotFound, InputError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.ring import default_kernel
from private_keras.server import limits
from private_keras.server.catalogue import Catalogue
from private_keras.server.config import read_config
from private_keras.server.entries import SavedTensor
from private_keras.server.policy import Policy
from private_keras.server.storage import Storage
from private_keras.server.store import Store
from private_keras.server.terms import Source
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, saving_of

OPEN = Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"])


@pytest.fixture
def names(tmp_path):
    catalogue = Catalogue(tmp_path)
    yield catalogue.names
    catalogue.close()


def source(number, name="data", owner="hospital"):
    return Source(owner, name, number, "00" * 8)


def forgotten(names, which, lent=False):
    row = names.begin(which, "", (SavedTensor("x", (2,), 0),), OPEN, 10, str(which))
    names.finish(row, b"")
    assert names.commit(which) and (not lent or names.lend(which))
    names.removed(names.forget(which))


def test_an_owner_has_so_many_records_and_is_told_what_to_do(names, monkeypatch):
    monkeypatch.setattr(limits, "OWNER_MAX_RECORDS", 5)
    for number in range(3):
        forgotten(names, source(number, "a"), lent=True)
    for number in range(2):
        forgotten(names, source(number, "b"), lent=True)
    with pytest.raises(ClusterError, match=r"5 records of this owner .* under a \(3\), b \(2\).*--policies"):
        forgotten(names, source(9))
    forgotten(names, source(9, owner="other"), lent=True)
    assert names.forget_policies("hospital", "b") == 2 and names.forget_policies("hospital", "b") == 0
    forgotten(names, source(9))
    assert names.policy(source(0, "a")) == OPEN and names.policy(source(0, "b")) is None
    monkeypatch.setattr(limits, "MAX_RECORDS", 4)
    with pytest.raises(ClusterError, match=r"5 records of all .* yours are most under no name"):
        forgotten(names, source(1, owner="third"))


def test_what_is_there_counts_and_stays(names, monkeypatch):
    monkeypatch.setattr(limits, "OWNER_MAX_RECORDS", 2)
    for number in range(2):
        names.finish(names.begin(source(number), "", (SavedTensor("x", (2,), 0),), OPEN, 10, str(number)), b"")
    with pytest.raises(ClusterError, match="2 records of this owner"):
        forgotten(names, source(2))
    assert names.forget_policies("hospital", "*") == 0 and len(list(names.listed("hospital"))) == 2


def test_records_that_rule_nothing_make_room_by_themselves_oldest_first(names, monkeypatch):
    """Nobody else has ever had the shares, so nothing of anybody's depends on their policy."""
    monkeypatch.setattr(limits, "OWNER_MAX_RECORDS", 4)
    forgotten(names, source(0), lent=True)
    for number in range(1, 20):
        forgotten(names, source(number))
    assert [n for n in range(20) if names.find(source(n)) is not None] == [0, 17, 18, 19]
    with pytest.raises(InputError, match="saved already"):  # remembered as long as there is room
        forgotten(names, source(19))


def test_a_record_with_a_file_is_not_dropped_before_the_file_is(names, monkeypatch):
    monkeypatch.setattr(limits, "OWNER_MAX_RECORDS", 1)
    row = names.begin(source(1), "", (SavedTensor("x", (2,), 0),), OPEN, 10, "file")
    names.finish(row, b"")
    names.forget(source(1))
    with pytest.raises(ClusterError, match="1 records"):
        forgotten(names, source(2))
    assert names.forget_policies("hospital", "data") == 0 and names.files() == {"file": "forgotten"}
    names.removed("file")
    forgotten(names, source(2))


def test_names_that_begin_alike(names):
    for name in ("round/1", "round/2", "roundabout", "r%", "other"):
        forgotten(names, source(1, name), lent=True)
    forgotten(names, source(1, "round/1", owner="other"), lent=True)
    assert names.forget_policies("hospital", "round/") == 0 and names.forget_policies("hospital", "%") == 0
    assert names.forget_policies("hospital", "round/*") == 2
    assert names.forget_policies("hospital", "r%*") == 1
    assert names.forget_policies("hospital", "*") == 2 and names.policy(source(1, "round/1", "other")) == OPEN


def test_lending_is_of_what_can_be_loaded(names):
    assert not names.lend(source(1))
    forgotten(names, source(1))
    assert not names.lend(source(1))


def test_shares_that_are_forgotten_while_somebody_loads_them_are_not_lent(tmp_path, monkeypatch):
    storage = Storage(tmp_path, "trio", 0)
    saving = saving_of(storage, Store(), default_kernel(1))
    snapshot = wire.Snapshot(name="x", number=1, nonce=bytes(8))
    entry = wire.Entry(label="x", shape=[1], fraction=18)
    put = wire.PutRequest(snapshot=snapshot, entries=[entry], data=bytes(24), policy=OPEN.to_json())
    saving.put(put, iter(()), "hospital")
    saving.commit(wire.CommitRequest(snapshot=snapshot), "hospital")
    opened = storage.opened

    def meanwhile(*given):
        found = opened(*given)
        saving.forget(wire.ForgetRequest(snapshots=[snapshot]), "hospital")
        return found

    monkeypatch.setattr(storage, "opened", meanwhile)
    load = wire.LoadRequest(base=bytes(16))
    load.snapshot.CopyFrom(snapshot)
    load.snapshot.owner = "hospital"
    with pytest.raises(HandleNotFound, match="any more"):
        list(saving.load(load, "analyst"))
    assert saving._store.nbytes == 0


def layer(owner="hospital", output=("client",)):
    b = PlanBuilder()
    b.input("x", (6, 4), 18, owner)
    b.input("w", (4, 4), 18, "client")
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=18), "y", list(output))
    return b.build("layer", "predict")


def test_results_of_others_end_with_the_policy_that_is_given_up(tmp_path, capsys):
    x, w = np.ones((6, 4)), np.eye(4)
    with TlsServers(tmp_path, ("hospital", "analyst"), storage=True) as servers:
        config = read_config(servers.config)
        with NetworkCluster(config, "hospital") as hospital, NetworkCluster(config, "analyst") as analyst:
            hospital.connect(60)
            analyst.connect(60)
            for name in ("kept", "given/up", "given/too"):
                hospital.save(name, {"x": hospital.share(x, 18, "x")}, policy=OPEN)
            results = {
                name: analyst.run(layer(output=()), {"x": analyst.load(name, "hospital")[0]["x"], "w": w})["y"]
                for name in ("kept", "given/up", "given/too")
            }
            for name in results:
                hospital.forget(name)
            asked = ["forget", "--policies", "--config", str(servers.config), "--identity", "hospital"]
            assert main([*asked, "given/*", "hospital/nothing"]) == 0
            assert capsys.readouterr().out.splitlines() == [
                "given/*: 2 policies given up", "nothing: 0 policies given up",
            ]  # fmt: skip
            y = analyst.run(layer("client"), {"x": results["kept"], "w": w})["y"]
            np.testing.assert_allclose(y, x, atol=1e-4)
            for name in ("given/up", "given/too"):
                with pytest.raises(SecurityError, match=f"hospital/{name}: this server knows nothing of these shares"):
                    analyst.run(layer("client"), {"x": results[name], "w": w})
            logged = [entry for entry in hospital.audit()[1].entries if entry["event"] == "policies"]
            assert [(e["name"], e["forgotten"]) for e in logged] == [("given/*", 2)]


@pytest.mark.parametrize("name", ["", "**", "a*b", "../*"])
def test_names_that_are_none_are_refused(name):
    with SimulatedCluster(), pytest.raises(InputError, match="expected a name"):
        pk.forget_policies(name)


def test_a_simulated_cluster_keeps_none():
    with SimulatedCluster():
        assert pk.forget_policies("x*") == 0
