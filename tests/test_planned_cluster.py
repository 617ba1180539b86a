"""Plans that owners see before any run, over TLS: their digests are what servers judge, and all that it takes."""

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.cli import main
from private_keras.errors import SecurityError
from tests.clusters import TlsServers

PARTIES = ("hospital", "maker", "analyst", "clinic")
RNG = np.random.default_rng(6)
X = RNG.uniform(-1, 1, (24, 5))
Y = (X[:, :1] > 0).astype("float32")
W = RNG.normal(size=(5, 2))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("planned"), PARTIES, storage=True) as made:
        connect(made, "hospital")
        for name, data in (("x", X), ("y", Y)):
            pk.share(data, name, pk.Policy(use=["analyst"], reveal_to=["analyst", "clinic"]))
        connect(made, "maker")
        network().save_shares("net", pk.Policy(use=["analyst"], reveal_to=["analyst", "clinic"]))
        yield made
        pk.connect(protocol="simulate").close()


def connect(servers, name):
    return pk.connect(servers.config, identity=name)


def network():
    model = pk.Sequential([
        pk.Input((5,)), pk.layers.Dense(3, "relu", name="a"), pk.layers.Dense(1, activation="sigmoid", name="b"),
    ], name="net")  # fmt: skip
    model.compile(keras.optimizers.SGD(0.5, momentum=0.5), "binary_crossentropy", metrics=["accuracy"])
    return model


def allow(servers, owner, names, plans):
    connect(servers, owner)
    for name in names:
        pk.set_policy(name, pk.Policy(use=["analyst"], plans=plans, reveal_to=["analyst", "clinic"]))


def judged(servers):
    """Digests that each server has logged of jobs on shares of others, in order."""
    logs = connect(servers, "analyst").audit()
    found = [[entry["digest"] for entry in log.entries if entry["event"] == "run"] for log in logs]
    return ["sha256:" + digest for digest in found[0]]


def x():
    return pk.secret("hospital/x")


def y():
    return pk.secret("hospital/y")


CALLS = {
    "predict": (lambda: (network().predict, x()), {"verbose": 0}),
    "predict to another": (lambda: (network().predict, x()), {"verbose": 0, "to": "clinic", "name": "p"}),
    "a model and data of others": (lambda: (pk.models.load_shares("maker/net").predict, x()), {"verbose": 0}),
    "statistics first": (lambda: (network().predict, x() - pk.ops.mean(x(), axis=0)), {"verbose": 0}),
    "evaluate": (lambda: (pk.models.load_shares("maker/net").evaluate, x(), y()), {"verbose": 0}),
    "evaluate for another": (lambda: (network().evaluate, x(), y()), {"to": "clinic", "name": "e", "batch_size": 24}),
    "fit": (lambda: (network().fit, x(), y()), {"epochs": 2, "batch_size": 10, "verbose": 0, "seed": 1}),
    "fit somebody's model": (
        lambda: (pk.models.load_shares("maker/net").fit, x(), y()),
        {"epochs": 2, "batch_size": 16, "validation_split": 0.25, "verbose": 0},
    ),
    "operations": (lambda: ((pk.ops.matmul(x(), W) + 1.0).reveal,), {}),
    "weights": (lambda: (pk.models.load_shares("maker/net").reveal,), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_was_planned_and_allowed_runs_and_nothing_else(servers, name):
    make, options = CALLS[name]
    for owner, names in (("hospital", ["x", "y"]), ("maker", ["net"])):
        allow(servers, owner, names, [])
    before = judged(servers)
    call, *args = make()
    plans = pk.plans(call, *args, **options)
    assert judged(servers) == before, "planning is no job"
    connect(servers, "analyst")
    call, *args = make()
    with pytest.raises(SecurityError, match=plans.digests[0]):
        call(*args, **options)
    for left in {0, len(plans) - 1} if len(plans) > 1 else ():
        some = plans.digests[:left] + plans.digests[left + 1 :]
        for owner, names in (("hospital", ["x", "y"]), ("maker", ["net"])):
            allow(servers, owner, names, some)
        connect(servers, "analyst")
        call, *args = make()
        with pytest.raises(SecurityError, match=plans.digests[left]):
            call(*args, **options)
    for owner, names in (("hospital", ["x", "y"]), ("maker", ["net"])):
        allow(servers, owner, names, plans.digests)
    before = len(judged(servers))
    call, *args = make()
    call(*args, **options)
    assert list(dict.fromkeys(judged(servers)[before:])) == plans.digests


def test_an_approved_plan_takes_the_names_that_its_owner_has_seen(servers):
    """An analyst that swaps two names of one owner, or names one twice, is refused by the servers."""
    connect(servers, "hospital")
    for name, rows in (("old", X), ("new", X[::-1].copy())):
        pk.share(rows, name, pk.Policy(use=["analyst"], reveal_to=["analyst"]))

    def change(first, second):
        connect(servers, "analyst")
        return pk.ops.relu(pk.secret(f"hospital/{first}") - pk.secret(f"hospital/{second}"))

    plans = pk.plans(change("new", "old").reveal)
    assert "hospital: new#data" in plans.describe() and "hospital: old#data" in plans.describe()
    connect(servers, "hospital")
    for name in ("old", "new"):
        pk.set_policy(name, pk.Policy(use=["analyst"], plans=plans.digests, reveal_to=["analyst"]))
    np.testing.assert_allclose(change("new", "old").reveal(), np.maximum(X[::-1] - X, 0), atol=1e-4)
    for names in (("old", "new"), ("new", "new"), ("x", "old")):
        with pytest.raises(SecurityError, match="its policy allows"):
            change(*names).reveal()  # an honest client's plan says what it takes, and is another one
    analyst = connect(servers, "analyst")
    (plan,) = plans
    old, new = (analyst.load(name, "hospital")[0]["data"] for name in ("old", "new"))
    right = {item.name: new if item.shares.startswith("new") else old for item in plan.inputs}
    assert analyst.run(plan, right)
    names = list(right)
    for wrong in ({names[0]: right[names[1]], names[1]: right[names[0]]}, dict.fromkeys(names, old)):
        with pytest.raises(SecurityError, match="expected (new|old)#data of hospital, as the plan says"):
            analyst.run(plan, wrong)


def test_by_files_and_on_the_command_line(servers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    at = ["--config", str(servers.config), "--identity"]
    allow(servers, "hospital", ["x"], [])
    plain = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, name="d")], name="plain")
    plain.save("m.keras")
    predict = ["predict", "m.keras", "hospital/x", "--batch-size", "16", *at, "analyst"]
    assert main([*predict, "--out", "no.npy"]) == 1
    assert main([*predict, "--plans", "asked"]) == 0
    files = sorted(map(str, (tmp_path / "asked").iterdir()))
    assert len(files) == 2
    assert main(["inspect", *files]) == 0
    assert capsys.readouterr().out.count("of hospital: results for single rows") == 2
    assert main(["approve", "x", files[0], *at, "hospital"]) == 0
    assert main([*predict, "--out", "no.npy"]) == 1
    assert main(["approve", "x", *files, *at, "hospital"]) == 0
    assert main([*predict, "--out", "p.npy"]) == 0
    np.testing.assert_allclose(np.load("p.npy"), plain.predict(X, verbose=0), atol=1e-3)
    assert main(["approve", "x", *files, "--revoke", *at, "hospital"]) == 0
    assert main([*predict, "--out", "no.npy"]) == 1
    capsys.readouterr()
    assert main(["approve", "x", "no.json", *at, "hospital"]) == 1
    assert "or a plan's file. Received: 'no.json'" in capsys.readouterr().err
