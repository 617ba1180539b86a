"""Owners, users and receivers of one cluster, over TLS: servers hold to policies, results go where they may."""

import json

import numpy as np
import pytest

from private_keras.cli import main
from private_keras.cli.audit import _line as line_of
from private_keras.cluster import Rows
from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.server.policy import Policy
from tests.clusters import TlsServers, connected, layer

F = 18
PARTIES = ("hospital", "analyst", "receiver", "maker")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("policies"), PARTIES, storage=True) as made:
        yield made


@pytest.fixture(scope="module")
def parties(servers):
    with connected(servers, PARTIES) as clusters:
        yield clusters


X = np.random.default_rng(3).normal(size=(6, 4))
W = np.random.default_rng(4).normal(size=(4, 2))


def share(parties, name, **policy):
    hospital = parties["hospital"]
    handle = hospital.share(X, F, name)
    hospital.save(name, {"x": handle}, policy=Policy(**{"use": ["analyst"], "plans": ["predict"], **policy}))
    hospital.delete(handle)


def load(parties, name, who="analyst"):
    return parties[who].load(name, "hospital")[0]["x"]


def test_what_a_policy_allows(parties):
    share(parties, "a", reveal_to=["analyst"])
    x = load(parties, "a")
    y = parties["analyst"].run(layer(), {"x": x, "w": W})["y"]
    np.testing.assert_allclose(y, X @ W, atol=1e-4)
    with pytest.raises(SecurityError, match=r"server\d: hospital/a: its policy allows predict. Asked: plan"):
        parties["analyst"].run(layer(kind="evaluate", value="mean"), {"x": x, "w": W})
    with pytest.raises(SecurityError, match="of kind 'reveal'"):
        parties["analyst"].run(layer(kind="reveal", value="raw"), {"x": x, "w": W})


def test_others_have_no_names_and_no_handles(parties):
    share(parties, "b", reveal_to=["analyst"])
    assert "hospital/b" in map(str, parties["analyst"].names(others=True))
    assert "hospital/b" not in map(str, parties["maker"].names(others=True))
    (own,) = [n for n in parties["hospital"].names() if n.name == "b"]
    assert own.policy.use == ("analyst",) and own.entries[0].shape == (6, 4) and own.bytes > 0
    (seen,) = [n for n in parties["analyst"].names(others=True) if n.name == "b"]
    assert seen.policy is None
    with pytest.raises(HandleNotFound) as missing:
        load(parties, "nothing", "maker")
    with pytest.raises(HandleNotFound) as forbidden:
        load(parties, "b", "maker")
    assert str(missing.value).replace("nothing", "b") == str(forbidden.value)


def test_results_for_a_receiver_go_to_it_alone(parties):
    share(parties, "c", reveal_to=["receiver"])
    x = load(parties, "c")
    made = layer(receivers=["receiver"])
    assert parties["analyst"].run(made, {"x": x, "w": W}, delivery="scores") == {}
    assert not parties["analyst"].deliveries() and not parties["hospital"].deliveries()
    (found,) = parties["receiver"].deliveries()
    assert str(found) == "analyst/scores" and found.digest == made.digest and found.outputs == (("y", (6, 2), F),)
    for name in ("analyst", "hospital", "maker"):
        with pytest.raises(HandleNotFound):
            parties[name].receive(found)
    np.testing.assert_allclose(parties["receiver"].receive(found)["y"], X @ W, atol=1e-4)
    with pytest.raises(HandleNotFound, match="received before"):
        parties["receiver"].receive(found)
    assert not parties["receiver"].deliveries()


def test_to_both_the_client_and_a_receiver(parties):
    b = PlanBuilder()
    b.input("x", (2, 2), F, "client")
    b.output("x", "mine", ["client"])
    b.output(b.add("relu", "x"), "ours", ["client", "receiver"])
    b.output(b.add("abs", "x"), "theirs", ["receiver"])
    x = np.array([[1.0, -2.0], [-3.0, 4.0]])
    opened = parties["analyst"].run(b.build("p", "compute"), {"x": x}, delivery="both")
    assert sorted(opened) == ["mine", "ours"] and opened["ours"].tolist() == [[1, 0], [0, 4]]
    (found,) = parties["receiver"].deliveries()
    result = parties["receiver"].receive(found)
    assert {n: v.tolist() for n, v in result.items()} == {"ours": [[1, 0], [0, 4]], "theirs": [[1, 2], [3, 4]]}


def test_deliveries_need_a_name_and_a_receiver_of_the_cluster(parties):
    with pytest.raises(InputError, match="expected a name for the delivery"):
        parties["analyst"].run(layer(["receiver"], owner="client"), {"x": X, "w": W})
    with pytest.raises(InputError, match="expected no name for the delivery"):
        parties["analyst"].run(layer(owner="client"), {"x": X, "w": W}, delivery="scores")
    with pytest.raises(SecurityError, match="no receiver of that name"):
        parties["analyst"].run(layer(["stranger"], owner="client"), {"x": X, "w": W}, delivery="scores")


def test_policies_change(parties):
    share(parties, "d")
    x = load(parties, "d")
    with pytest.raises(SecurityError, match="opened to none"):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    policy = Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"])
    parties["hospital"].set_policy("d", policy)
    parties["analyst"].run(layer(), {"x": x, "w": W})
    with pytest.raises(HandleNotFound):
        parties["analyst"].set_policy("d", policy)
    parties["hospital"].set_policy("d", Policy())
    with pytest.raises(SecurityError, match="does not let you use them"):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    parties["hospital"].forget("d")  # what was loaded before stays under its policy
    with pytest.raises(SecurityError, match="does not let you use them"):
        parties["analyst"].run(layer(), {"x": x, "w": W})


def test_uses(parties):
    share(parties, "e", reveal_to=["analyst"], uses=2)
    x = load(parties, "e")
    for _ in range(2):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    with pytest.raises(SecurityError, match="hospital/e: used 2 times"):
        parties["analyst"].run(layer(), {"x": load(parties, "e"), "w": W})


def test_kept_results_stay_under_the_policy_through_saving_and_loading(parties):
    share(parties, "f", plans=["fit", "evaluate"], reveal_to=["analyst"])
    analyst = parties["analyst"]
    rows = Rows(load(parties, "f"), np.arange(6)[None])
    kept = analyst.run(layer([], "train", value="mean"), {"x": rows, "w": W})["y"]
    analyst.save("means", {"y": kept})
    again = analyst.load("means")[0]["y"]
    b = PlanBuilder()
    b.output(b.input("y", (2,), F, "client"), "y", ["client"])
    opening = b.build("opening", "reveal")
    np.testing.assert_allclose(analyst.run(opening, {"y": again})["y"], (X @ W).sum(0), atol=1e-3)
    parties["hospital"].set_policy("f", Policy())
    for handle in (kept, again):
        with pytest.raises(SecurityError, match="hospital/f: its policy does not let you"):
            analyst.run(opening, {"y": handle})
    copy = load_copy(parties)
    with pytest.raises(SecurityError, match="hospital/g"):
        analyst.run(opening_of(4), {"y": copy})


def load_copy(parties):
    """The data themselves, under a name of the analyst's."""
    share(parties, "g", plans=["predict"], reveal_to=["analyst"])
    analyst = parties["analyst"]
    analyst.save("copy", {"x": load(parties, "g")})
    return analyst.load("copy")[0]["x"]


def opening_of(columns):
    b = PlanBuilder()
    b.output(b.input("y", (6, columns), F, "client"), "y", ["client"])
    return b.build("opening", "reveal")


def test_stock_is_no_way_round(parties):
    share(parties, "h", reveal_to=["analyst"], uses=1)
    b = PlanBuilder()
    b.input("x", (2, 6), F, "client")
    b.input("w", (6, 4), F, "hospital")
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=F), "y", ["client"])
    made = b.build("ahead", "predict")
    analyst, w, batch = parties["analyst"], load(parties, "h"), np.ones((2, 6))
    items = [analyst.prepare(made, {"w": w}) for _ in range(3)]
    analyst.run(made, {"w": w, "x": batch}, item=items[0])
    with pytest.raises(SecurityError, match="hospital/h: used 1 times"):
        analyst.run(made, {"w": w, "x": batch}, item=items[1])
    parties["hospital"].set_policy("h", Policy(use=["analyst"], plans=["evaluate"], reveal_to=["analyst"]))
    with pytest.raises(SecurityError, match="hospital/h: its policy allows evaluate"):
        analyst.run(made, {"w": w, "x": batch}, item=items[2])
    with pytest.raises(SecurityError, match="hospital/h: its policy allows evaluate"):
        analyst.prepare(made, {"w": w})


def test_stock_for_a_receiver(parties):
    made = layer(["receiver"], owner="client")
    analyst = parties["analyst"]
    w = analyst.share(W, F, "w")
    item = analyst.prepare(made, {"w": w})
    assert analyst.run(made, {"x": X, "w": w}, item=item, delivery="ahead") == {}
    (found,) = parties["receiver"].deliveries()
    np.testing.assert_allclose(parties["receiver"].receive(found)["y"], X @ W, atol=1e-4)


def test_owners_look_at_plans_and_allow_their_digests(parties):
    made = layer(value="raw", kind="reveal")
    share(parties, "i", plans=["sha256:" + made.digest], reveal_to=["analyst"])
    x = load(parties, "i")
    np.testing.assert_allclose(parties["analyst"].run(made, {"x": x, "w": W})["y"], X, atol=1e-4)
    text = parties["hospital"].plan_text("sha256:" + made.digest)
    assert text == made.to_json()
    with pytest.raises(HandleNotFound, match="no plan with digest"):
        parties["hospital"].plan_text("0" * 64)
    with pytest.raises(SecurityError, match="Ask hospital to allow that kind, or look at the plan"):
        parties["analyst"].run(layer(), {"x": x, "w": W})


def test_audit_logs(parties):
    share(parties, "j", reveal_to=["receiver"])
    x = load(parties, "j")
    parties["analyst"].run(layer(["receiver"]), {"x": x, "w": W}, delivery="logged")
    with pytest.raises(SecurityError):
        parties["analyst"].run(layer(), {"x": x, "w": W})
    (found,) = [d for d in parties["receiver"].deliveries() if d.name == "logged"]
    parties["receiver"].receive(found)
    for name, expected in (
        ("hospital", {"save", "commit", "load", "run", "opened", "refused"}),
        ("analyst", {"load", "run", "opened", "sent", "received", "refused"}),
        ("receiver", {"run", "opened", "sent", "received"}),
        ("maker", set()),
    ):
        for log in parties[name].audit():
            assert log.faults == [] and log.head.signed and log.head.durable
            about = [
                e for e in log.entries
                if "hospital/j" in str(e) or e.get("name") == "j" or e.get("delivery") == "logged"
            ]
            assert {e["event"] for e in about} >= expected
            if name == "maker":
                assert not about
            for entry in about:
                assert not any(str(value)[:7] in json.dumps(entry) for value in X.ravel())


def test_openings_of_an_owners_shares_are_listed_before_all_others(parties):
    """A plan may have more outputs than an entry lists."""
    share(parties, "o", reveal_to=["analyst"])
    b = PlanBuilder()
    b.input("x", (6, 4), F, "hospital")
    b.input("w", (4, 2), F, "client")
    for i in range(40):
        b.output("w", f"own{i}", ["client"] if i % 4 else [])
    b.output(b.add("truncate", b.add("matmul", "x", "w"), bits=F), "theirs", ["client"])
    parties["analyst"].run(b.build("many", "predict"), {"x": load(parties, "o"), "w": W})
    for log in parties["hospital"].audit():
        entries = [entry for entry in log.entries if entry.get("sources") == ["hospital/o"]]
        assert [entry["event"] for entry in entries] == ["run", "opened"]
        for entry in entries:
            assert entry["openings"][0]["shows"] == {"hospital/o": "rows"} and len(entry["openings"]) == 31
    b.output("w", "one", ["client"])
    b.output("w", "two", ["client"])
    parties["analyst"].run(b.build("many", "predict"), {"x": load(parties, "o"), "w": W})
    log, *_ = parties["hospital"].audit()
    last = log.entries[-1]
    assert (last["openings"][0]["output"], len(last["openings"]), last["unlisted"]) == ("theirs", 32, 1)
    assert "; opens 1 more, which the plan names" in line_of(last)


def command(capsys, *arguments):
    code = main(list(arguments))
    return code, capsys.readouterr()


def test_commands_of_owners(servers, parties, capsys, tmp_path):
    at = ["--config", str(servers.config), "--identity"]
    share(parties, "k", plans=[], reveal_to=["analyst"])  # to be looked at, and only then allowed
    made = layer(kind="reveal", value="raw")
    path = tmp_path / "plan.json"
    path.write_text(made.to_json())
    digest = "sha256:" + made.digest
    code, said = command(capsys, "names", *at, "hospital")
    assert code == 0 and "hospital/k  x real[6, 4]" in said.out and '"plans":[]' in said.out
    code, said = command(capsys, "names", *at, "analyst")
    assert "hospital/k" in said.out and "policy" not in said.out.split("Of others:")[1]
    code, said = command(capsys, "inspect", str(path))
    assert code == 0 and "of hospital: the data themselves" in said.out and digest in said.out
    assert "Cost of 'raw of patients'" in said.out
    x = load(parties, "k")
    with pytest.raises(SecurityError, match=f"digest {digest}"):
        parties["analyst"].run(made, {"x": x, "w": W})
    code, said = command(capsys, "inspect", digest, *at, "hospital")
    assert code == 0 and "of hospital: the data themselves" in said.out
    code, said = command(capsys, "approve", "hospital/k", digest, *at, "hospital")
    assert code == 0 and digest in said.out
    np.testing.assert_allclose(parties["analyst"].run(made, {"x": x, "w": W})["y"], X, atol=1e-4)
    assert command(capsys, "approve", "k", digest, *at, "hospital", "--revoke")[0] == 0
    with pytest.raises(SecurityError, match="hospital/k"):
        parties["analyst"].run(made, {"x": x, "w": W})
    for wrong in (["none", digest], ["k", "sha256:1"]):
        code, said = command(capsys, "approve", *wrong, *at, "hospital")
        assert code == 1 and "private-keras: " in said.err
    assert command(capsys, "inspect", digest)[0] == 1


@pytest.mark.parametrize("policy, told", [
    ({"use": ["analist"], "reveal_to": ["analist", "receiver"]}, "names analist, and the cluster's description does"),
    ({"use": ["analyst"], "until": "2020-01-01"}, "ended on 2020-01-01"),
])  # fmt: skip
def test_an_owner_is_told_of_a_policy_that_lets_nobody_in(parties, policy, told):
    with pytest.warns(UserWarning, match=told):
        share(parties, "m", **policy)
    with pytest.warns(UserWarning, match=told):
        parties["hospital"].set_policy("m", Policy(plans=["fit"], **policy))
    parties["hospital"].forget("m")


@pytest.mark.filterwarnings("default")
def test_the_command_line_warns_in_a_line(servers, tmp_path, capsys):
    np.save(tmp_path / "x.npy", X)
    who = ["--use", "analist", "--plans", "fit", "--config", str(servers.config), "--identity", "hospital"]
    assert command(capsys, "share", str(tmp_path / "x.npy"), "--name", "n", *who)[1].err.startswith(
        "private-keras: warning: the policy names analist,"
    )
    assert command(capsys, "forget", "hospital/n", *who[4:])[0] == 0


def test_command_that_reads_audit_logs(servers, parties, capsys, tmp_path):
    share(parties, "l", reveal_to=["analyst"])
    made = layer()
    parties["analyst"].run(made, {"x": load(parties, "l"), "w": W})
    seen = tmp_path / "seen.json"
    given = ["audit", str(servers.config), "--identity", "hospital", "--seen", str(seen)]
    code, said = command(capsys, *given)
    assert code == 0, said.out
    assert said.out.count("chain verified, signed, read for the first time") == 3
    assert "opens y to analyst (hospital/l: rows)" in said.out and "uses hospital/l" in said.out
    assert f"kind predict; digest sha256:{made.digest}; job " in said.out
    parties["hospital"].set_policy("l", Policy())
    code, said = command(capsys, *given, "--verify")
    assert code == 0 and said.out.count("goes on from what it was") == 3 and "opens" not in said.out
    code, said = command(capsys, *given, "--server", "server1", "--since", "2000-01-01")
    assert "server1" in said.out and "  server0  " not in said.out
    assert command(capsys, *given, "--since", "2999-01-01")[1].out.count("\n") == 3
    assert command(capsys, *given, "--since", "soon")[0] == 1
    assert command(capsys, *given, "--server", "server9")[0] == 1
    kept = json.loads(seen.read_text())
    seen.write_text(json.dumps({**kept, "server1": [kept["server1"][0] + 1, kept["server1"][1], True]}))
    code, said = command(capsys, *given, "--verify")
    assert code == 1 and "WRONG    server1: it is cut short" in said.out


def test_transcript_of_a_result_for_a_receiver(parties):
    """The caller is sent nothing of it by any server; the receiver gets a word from each evaluator that is random by
    itself, nothing from the helper, and the sum is the result.
    """
    analyst, made = parties["analyst"], layer(["receiver"], owner="client")
    sent, firsts = [], []
    real = [client.run for client in analyst._clients]

    def watched(party):
        def run(*given):
            call = real[party](*given)

            def replies():
                for reply in call:
                    sent.append(len(reply.contributions))
                    yield reply

            return _Watched(call, replies())

        return run

    with pytest.MonkeyPatch.context() as patch:
        for party, client in enumerate(analyst._clients):
            patch.setattr(client, "run", watched(party))
        for _ in range(2):
            assert analyst.run(made, {"x": X, "w": W}, delivery="watched") == {}
    assert len(sent) >= 6 and set(sent) == {0}
    for found in parties["receiver"].deliveries():
        parts = [
            np.frombuffer(b"".join(p.data for p in client.receive(found.id)), "<u8")
            for client in parties["receiver"]._clients
        ]
        assert [part.size for part in parts] == [12, 12, 0]
        total = (parts[0] + parts[1]).astype(np.int64) / 2.0**F
        np.testing.assert_allclose(total.reshape(6, 2), X @ W, atol=1e-4)
        firsts.append(parts[0])
        parties["receiver"].receive(found)
    # The same result twice: other words, with all bits used.
    assert not (firsts[0] == firsts[1]).any()
    assert np.bitwise_or.reduce(np.concatenate(firsts)) == np.uint64(2**64 - 1)


class _Watched:
    """A call whose replies somebody looks at."""

    def __init__(self, call, replies):
        self._call, self._replies = call, replies

    def __iter__(self):
        return self._replies

    def __getattr__(self, name):
        return getattr(self._call, name)
