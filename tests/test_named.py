"""Named shares of one client: kept on disk under a name, found again, replaced, forgotten; and the command."""

import contextlib
import gc
import os
import signal

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cli
from private_keras import cluster as clusters
from private_keras.errors import FileError, HandleNotFound, InputError
from tests.training import logistic, two_classes


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with clusters.LocalCluster() as made:
        yield made


@pytest.fixture
def simulated():
    with clusters.SimulatedCluster() as made:
        yield made


def test_kept_found_and_used(cluster):
    x, y = two_classes(40)
    kept = pk.share(x, "patients/x", pk.Policy())
    pk.share(y.astype("int32"), "patients/y", pk.Policy())
    assert repr(kept) == "<SecretTensor 'patients/x', shape (40, 5), float32, of client>"
    np.testing.assert_allclose(kept[3:5].reveal(), x[3:5], atol=2**-18)
    found = pk.secret("patients/x"), pk.secret("patients/y")
    assert [(t.shape, str(t.dtype), t.owner) for t in found] == [
        ((40, 5), "float32", "client"), ((40, *y.shape[1:]), "int32", "client")
    ]  # fmt: skip
    private, plain = logistic()
    private.fit(*found, shuffle=False, verbose=0)
    plain.fit(x, y, shuffle=False, verbose=0)
    np.testing.assert_allclose(private.predict(kept[:4], verbose=0), plain.predict(x[:4], verbose=0), atol=1e-3)
    assert set(cluster.saved()) == {"patients/x", "patients/y"}


def test_a_restart_of_servers_and_a_new_version(cluster):
    old = pk.share(np.full((4, 2), 1.0), "x", pk.Policy())
    np.testing.assert_array_equal(old.reveal(), np.full((4, 2), 1.0))
    new = pk.share(np.full((4, 2), 2.0), "x", pk.Policy())
    np.testing.assert_array_equal(new.reveal(), np.full((4, 2), 2.0))
    np.testing.assert_array_equal(old.reveal(), np.full((4, 2), 1.0), "who has loaded the old one keeps it")
    os.kill(cluster.pids[0], signal.SIGKILL)
    for _ in range(2):
        try:
            value = new.reveal()
        except pk.errors.ClusterError:
            continue
        break
    np.testing.assert_array_equal(value, np.full((4, 2), 2.0), "found on disk again")
    pk.share(np.zeros(3), "x", pk.Policy())
    assert pk.secret("x").shape == (3,)
    pk.set_policy(f"{cluster.identity}/x", pk.Policy(uses=3))
    assert [item.policy.uses for item in cluster.names() if item.name == "x"] == [3]
    pk.forget(f"{cluster.identity}/x")
    with pytest.raises(HandleNotFound, match="'x'"):
        pk.secret("x")
    with pytest.raises(HandleNotFound, match="nothing was deleted"):
        pk.forget("x")


def test_files_larger_than_a_block(cluster, tmp_path):
    array = np.arange(3 * 2**19, dtype=np.float32).reshape(-1, 3) / 2**19
    np.save(tmp_path / "large.npy", array)
    x = pk.share(tmp_path / "large.npy", "large", pk.Policy(), verbose=0)
    np.testing.assert_allclose(x[[0, 5, len(array) - 1]].reveal(), array[[0, 5, -1]], atol=2**-18)


def test_simulated(simulated):
    x, _ = two_classes(12)
    pk.share(x, "x", pk.Policy())
    np.testing.assert_allclose(pk.secret("x").reveal(), x, atol=2**-18)


@pytest.mark.parametrize("use, expected", [
    (lambda: pk.share([1.0], policy=pk.Policy()), "kept under a name"),
    (lambda: pk.share([1.0], "a b", pk.Policy()), "name of 1 to 80"),
    (lambda: pk.share([1.0], "../x", pk.Policy()), "name of 1 to 80"),
    (lambda: pk.share([1.0], "x", {"use": []}), r"pk.Policy\(...\). Received: dict"),
    (lambda: pk.secret(3), "expected a name"),
    (lambda: pk.secret(""), "name of 1 to 80"),
    (lambda: pk.set_policy("x", "all"), "Received: str"),
    (lambda: pk.Sequential([pk.Input((2,)), pk.layers.Dense(1)]).save_shares("m", policy=True), "Received: bool"),
    (lambda: pk.share([1.0]).reveal(name="x"), "name goes with to"),
    (lambda: pk.share([1.0]).reveal(to="a b"), "party's name"),
    (lambda: pk.share([1.0]).reveal(to="receiver", name="/x"), "name of 1 to 80"),
    (lambda: pk.share([1.0]).reveal(to="receiver", name="x/01234567.0.1"), "part of a result"),
])  # fmt: skip
def test_arguments(use, expected, simulated):
    with pytest.raises(InputError, match=expected):
        use()
    assert simulated.saved() == []


def test_a_model_is_no_data_and_data_are_no_model(simulated):
    model = pk.Sequential([pk.Input((2,)), pk.layers.Dense(1)])
    model.save_shares("m", policy=pk.Policy())
    with pytest.raises(InputError, match="load_shares"):
        pk.secret("m")
    pk.share(np.ones((2, 2)), "x", pk.Policy())
    with pytest.raises(FileError):
        pk.models.load_shares("x")
    gc.collect()
    with pytest.raises(InputError):
        pk.secret("m")
    pk.share(1.0)
    gc.collect()
    assert len(simulated._stored) <= 1, "what was loaded in vain is deleted"


def test_handles_end_with_the_tensor(simulated):
    pk.share(np.ones((2, 2)), "x", pk.Policy())
    x = pk.secret("x")
    before = len(simulated._stored)
    del x
    gc.collect()
    pk.secret("x")
    assert len(simulated._stored) == before


def test_a_bar_like_that_of_keras(simulated, capsys):
    pk.share(np.ones((2, 2)), "x", pk.Policy(), verbose=1)
    assert "4/4" in capsys.readouterr().out


# --- the command ------------------------------------------------------------------------------------------------------
PEOPLE = "age,sex,income\n34,f,1.5\n20,m,\n71,f,0.25\n"


def test_the_command_shares_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    codes = tmp_path / "codes.json"
    arguments = ["share", str(path), "--name", "people", "--columns", "income,sex,age", "--fill", "income=-2", "--use",
                 "analyst", "--plans", "fit", "--plans", "evaluate", "--reveal-to", "analyst", "--uses", "9", "--until",
                 "2999-01-01", "--range", "age=0:120", "--categories", "sex=m,f", "--codes", str(codes)]  # fmt: skip
    assert cli.main(arguments) == 0
    out = capsys.readouterr()
    assert "people: shape (3, 3), float64, columns income, sex, age; analyst may run evaluate, fit" in out.out
    assert out.err == "" and codes.read_text().split() == ["{", '"sex":', "[", '"m",', '"f"', "]", "}"]
    with clusters.LocalCluster():
        np.testing.assert_array_equal(pk.secret("people").reveal(), [[1.5, 1, 34], [-2, 0, 20], [0.25, 1, 71]])
    assert cli.main(arguments) == 1
    assert "not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, expected", [
    (["--columns", "weight"], "expected columns among"),
    (["--range", "age=0"], "no colon"), (["--range", "age=a:b"], "expected a number"),
    (["--fill", "3"], "COLUMN=NUMBER"), (["--fill", "income=x"], "expected a number"),
    (["--policy", "none.json"], "cannot read"),
    (["--policy", "none.json", "--uses", "3"], "leave out --use"), (["--plans", "all"], "kinds of"),
    ([], "column 'sex', row 1: expected a number"), (["--categories", "sex"], "column 'income', row 2"),
])  # fmt: skip
def test_what_the_command_refuses(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people.csv").write_text(PEOPLE)
    monkeypatch.setattr("private_keras.cli.share.connect", lambda *a, **k: pytest.fail("a cluster was used"))
    assert cli.main(["share", "people.csv", "--name", "people", *arguments]) == 1
    assert expected in capsys.readouterr().err


def saved_model(path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", metrics=["accuracy"])
    model.save(path)
    return model


def test_commands_on_named_data_and_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    plain = saved_model("m.keras")
    x, y = two_classes(48)
    for name, part in (("a", slice(0, 16)), ("b", slice(16, 48))):
        np.save(f"{name}.npy", x[part])
        assert cli.main(["share", f"{name}.npy", "--name", f"{name}/x", "--quiet"]) == 0
    np.save("y.npy", y)
    fit = ["fit", "m.keras", "a/x,b/x", "y.npy", "--epochs", "2", "--batch-size", "48", "--seed", "1"]
    assert cli.main([*fit, "--save", "trained"]) == 0
    assert cli.main([*fit, "--out", "trained.keras"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch 2: accuracy") == 2 and "saved as trained" in printed
    plain.fit(x, y, epochs=2, batch_size=48, verbose=0)
    opened = keras.models.load_model("trained.keras")
    for one, other in zip(opened.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert cli.main(["predict", "trained", "b/x", "--out", "p.npy"]) == 0
    np.testing.assert_allclose(np.load("p.npy"), plain.predict(x[16:], verbose=0), atol=1e-3)
    assert cli.main(["forget", "a/x", "c/x"]) == 1 and "no shares under the name 'c/x'" in capsys.readouterr().err
    assert cli.main(["forget", "local/a/x", "b/x"]) == 0
    assert cli.main(["forget", "a/x"]) == 1


@pytest.mark.parametrize("arguments, expected", [
    (["predict", "m", "x", "--out", "p.npy", "--to", "b"], "either --out or --to. Received: both"),
    (["predict", "m", "x", "--out", "p.npz"], "expected a .npy file"),
    (["predict", "m", "x"], "either --out or --to. Received: neither"),
    (["predict", "m.keras", "x", "--to", "b"], "no file m.keras"),
    (["fit", "m", "x.npy", "y", "--save", "n"], "cannot read x.npy"),
    (["fit", "m", "x", "y"], "either --save or --out"),
    (["receive", "a/b", "--config", "c"], "a name and --out"),
    (["receive", "--out", "x.npy", "--config", "c"], "or neither"),
    (["receive", "a/b", "--out", "x.csv", "--config", "c"], "expected a .npy or .npz file"),
])  # fmt: skip
def test_what_commands_on_named_data_refuse(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("fit", "predict", "receive"):
        monkeypatch.setattr(f"private_keras.cli.{command}.connect", lambda *a, **k: pytest.fail("a cluster was used"))
    assert cli.main(arguments) == 1
    assert expected in capsys.readouterr().err


def test_the_command_that_receives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    results = {"analyst/scores": np.arange(3.0), "analyst/quality": {"loss": np.array(0.5), "accuracy": np.array(1.0)}}
    monkeypatch.setattr("private_keras.cli.receive.connect", lambda *a, **k: clusters.SimulatedCluster())
    monkeypatch.setattr("private_keras.cli.receive.deliveries", lambda: list(results))

    @contextlib.contextmanager
    def fetched(name):
        yield results[name]
        del results[name]

    monkeypatch.setattr("private_keras.cli.receive.fetched", fetched)
    assert cli.main(["receive", "--config", "c"]) == 0
    assert capsys.readouterr().out == "analyst/scores\nanalyst/quality\n"
    assert cli.main(["receive", "analyst/scores", "--out", "s.npy", "--config", "c"]) == 0
    assert cli.main(["receive", "analyst/quality", "--out", "q.npz", "--config", "c"]) == 0
    np.testing.assert_array_equal(np.load("s.npy"), [0, 1, 2])
    with np.load("q.npz") as found:
        assert {name: float(found[name]) for name in found} == {"loss": 0.5, "accuracy": 1.0}
    assert cli.main(["receive", "--config", "c"]) == 0 and "nothing waits" in capsys.readouterr().out
