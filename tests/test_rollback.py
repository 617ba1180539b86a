"""A server whose whole directory was put back to an older copy: what that gives away, and who notices."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

from private_keras.cli import main
from private_keras.cluster import NetworkCluster, named
from private_keras.cluster.audit import Head, broken_off
from private_keras.errors import HandleNotFound, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.server.catalogue import AuditRow, Segment
from private_keras.server.chain import START, chained, content_of
from private_keras.server.config import read_config
from private_keras.server.policy import Policy
from private_keras.server.terms import Source
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers

X, W = np.ones((6, 4)), np.eye(4)
OPEN = Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"])


def layer():
    b = PlanBuilder()
    b.input("x", (6, 4), 18, "hospital")
    b.input("w", (4, 4), 18, "client")
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=18), "y", ["client"])
    return b.build("layer", "predict")


def share(hospital, name, policy):
    handle = hospital.share(X, 18, name)
    hospital.save(name, {"x": handle}, policy=policy)
    hospital.delete(handle)


class Parties:
    """Both owners and users, newly connected."""

    def __init__(self, servers):
        self.config = read_config(servers.config)

    def __enter__(self):
        self.hospital, self.analyst = (NetworkCluster(self.config, name) for name in ("hospital", "analyst"))
        for cluster in (self.hospital, self.analyst):
            cluster.connect(20)
        return self

    def __exit__(self, *_):
        self.hospital.close()
        self.analyst.close()

    def use(self, name):
        return self.analyst.run(layer(), {"x": self.analyst.load(name, "hospital")[0]["x"], "w": W})["y"]


@pytest.mark.parametrize("party", [0, 1, 2])
def test_an_old_copy_of_one_server_opens_nothing_and_is_noticed_by_owners(tmp_path, monkeypatch, capsys, party):
    monkeypatch.setattr(named, "SETTLED_SECONDS", 0.0)
    with TlsServers(tmp_path, ("hospital", "analyst"), storage=True) as servers:
        place, copy = servers.storage / f"trio-server{party}", tmp_path / "copy"
        with Parties(servers) as p:
            share(p.hospital, "revoked", OPEN)
            share(p.hospital, "deleted", OPEN)
            share(p.hospital, "once", Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"], uses=1))
        servers.stop(party)
        shutil.copytree(place, copy)
        servers.start(party)
        servers.wait_listening(party, starts=2)
        with Parties(servers) as p:
            np.testing.assert_allclose(p.use("revoked"), X, atol=1e-4)
            np.testing.assert_allclose(p.use("once"), X, atol=1e-4)
            p.hospital.set_policy("revoked", Policy())
            p.hospital.forget("deleted")
        audit = ["audit", str(servers.config), "--identity", "hospital", "--verify", "--seen", str(tmp_path / "seen")]
        assert main(audit) == 0
        servers.stop(party)
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        servers.start(party)
        servers.wait_listening(party, starts=3)
        with Parties(servers) as p:
            # Policies, deletions and uses of the other two hold, whatever this one thinks.
            for name in ("revoked", "deleted"):
                with pytest.raises(HandleNotFound):
                    p.use(name)
            with pytest.raises(SecurityError, match=r"server\d: hospital/once: used 1 times"):
                p.use("once")
            # Its owner is told, and does not bring back by accident what was revoked.
            with pytest.warns(UserWarning) as told:
                p.hospital.names()
            said = sorted(str(warning.message) for warning in told)
            assert len(said) == 2
            assert f"hospital/deleted: server{party} kept a version of it that" in said[0]
            assert "hospital/revoked: servers have different policies of it" in said[1]
            assert f"server{party}: " in said[1]
        capsys.readouterr()
        known = ["--config", str(servers.config), "--identity", "hospital"]
        approve = ["approve", "revoked", "sha256:" + "0" * 64, *known]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert main(approve) == 1 and "different policies of 'revoked'" in capsys.readouterr().err
        # Commands of owners look whether logs go on from where `audit` read them last, without being asked.
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main(["names", *known]) == 0 and "cut short" not in capsys.readouterr().err
            shutil.copy(tmp_path / "seen", tmp_path / "audit-hospital.json")
            assert main(["names", *known]) == 0
            assert f"server{party}: it is cut short: it had " in capsys.readouterr().err
        assert main(audit) == 1
        assert f"WRONG    server{party}: it is cut short" in capsys.readouterr().out
        # Who reads the logs for the first time sees it where jobs are missing on this server.
        assert main([*audit[:-1], str(tmp_path / "other")]) == 1
        assert f"server{party} logged none" in capsys.readouterr().out
        with Parties(servers) as p, warnings.catch_warnings():
            warnings.simplefilter("error")
            p.hospital.set_policy("revoked", Policy())
            p.hospital.forget("deleted")
            p.hospital.names()


def found(policy="a", committed=True, created=0.0):
    return wire.Found(committed=committed, policy=policy, created=created)


SOURCE, OTHER = (Source("hospital", name, 1, "00") for name in ("x", "y"))


@pytest.mark.parametrize(
    ("told", "doubt"),
    [
        ([{SOURCE: found()}] * 3, None),
        ([{}] * 3, None),
        ([{SOURCE: found()}, {SOURCE: found()}, {}], "server0, server1 kept a version of it that server2 did not"),
        ([{SOURCE: found(committed=False)}] * 3, None),
        ([{SOURCE: found()}, {SOURCE: found()}, {SOURCE: found(committed=False)}], "that server2 did not"),
        ([{SOURCE: found("b")}, {SOURCE: found()}, {SOURCE: found()}], "server0: b; server1, server2: a"),
        ([{SOURCE: found("b", created=950.0)}, {SOURCE: found()}, {SOURCE: found()}], None),  # on its way
        ([{SOURCE: found(), OTHER: found()}, {SOURCE: found()}, {SOURCE: found()}], "hospital/y: server0 kept"),
    ],
)  # fmt: skip
def test_where_servers_differ(told, doubt):
    said = named.doubts({f"server{i}": each for i, each in enumerate(told)}, 1000.0)
    assert len(said) == (doubt is not None) and all(doubt in text and "private-keras audit" in text for text in said)
    if all(SOURCE in each and each[SOURCE].committed for each in told):
        (one,) = named.named(told_as_policies(told), False)
        assert one.agreed == ("b" not in {f.policy for each in told for f in each.values()})


def told_as_policies(told):
    texts = {"a": Policy().to_json(), "b": OPEN.to_json()}
    return [
        {s: wire.Found(committed=f.committed, policy=texts[f.policy], created=f.created) for s, f in each.items()}
        for each in told
    ]


def log(count):
    """Entries of a log, and its end."""
    chain, rows = START, []
    for number in range(count):
        content = content_of(str(number))
        chain = chained(chain, content)
        rows.append(AuditRow(number, "", content, chain))
    return rows, Head(count, chain)


def test_a_log_that_does_not_go_on_from_where_it_was_read():
    rows, _ = log(10)
    for count in range(11):
        seen = Head(count, rows[count - 1].chain if count else START)
        assert broken_off(rows[max(0, count - 1):], True, seen) == ""
    seen = Head(8, rows[7].chain)
    assert "cut short: it had 8" in broken_off([], True, seen)
    assert "written anew: entry 7" in broken_off(rows[7:], True, Head(8, bytes(32)))
    assert "entry 9: changed" in broken_off([*rows[7:9], replace(rows[9], chain=bytes(32))], True, seen)
    assert "entry 8 is missing" in broken_off([rows[7], rows[9]], True, seen)
    assert broken_off([], False, replace(seen, durable=False)) == "", "in memory only: begins anew with the server"
    assert broken_off([], False, seen), "on disk before, and no more"
    # Moved away by the server's operator: what was read is its end, is in it, or is not there at all.
    for first, count, chain, wrong in (
        (0, 8, rows[7].chain, ""), (0, 8, START, "anew"), (0, 9, START, ""), (8, 10, START, "cut short"),
    ):  # fmt: skip
        said = broken_off([], True, seen, [Segment(first, count, START, chain, 1.0)])
        assert wrong in said and bool(wrong) == bool(said)
