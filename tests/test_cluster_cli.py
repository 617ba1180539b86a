"""The command line: keys, doctor, inspect, serve; plain words and exit codes."""

import json
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from private_keras.cli import main
from private_keras.cluster import LocalCluster
from private_keras.cluster.keys import NAME, check_name, make_party
from private_keras.errors import InputError
from private_keras.transport.credentials import name_of, pin_of
from tests.clusters import ROOT, TlsServers, dense_plan


def test_keys_makes_certificates_that_a_description_can_pin(tmp_path, capsys):
    directory = tmp_path / "keys"
    assert main(["keys", "server0", "analyst", "--directory", str(directory), "--days", "30"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {"server0", "analyst"}
    authority = x509.load_pem_x509_certificate((directory / "authority.pem").read_bytes())
    for name, pin in lines.items():
        certificate = x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        assert pin_of(certificate) == pin
        assert name_of(certificate) == name
        assert 28 < (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 31
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    for file in directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_keys_adds_parties_and_overwrites_nothing(tmp_path, capsys):
    directory = str(tmp_path / "keys")
    assert main(["keys", "server0", "--directory", directory]) == 0
    before = (tmp_path / "keys/server0.key").read_bytes()
    assert main(["keys", "server1", "server0", "--directory", directory]) == 1
    assert "server0.pem exists and is not overwritten" in capsys.readouterr().err
    assert not (tmp_path / "keys/server1.pem").exists(), "all or nothing"
    assert main(["keys", "server1", "--directory", directory]) == 0
    assert (tmp_path / "keys/server0.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "..", "authority", "a" * 64, "ä", "a b"])
def test_keys_refuses_names_that_cannot_be(tmp_path, name, capsys):
    assert main(["keys", name, "--directory", str(tmp_path)]) == 1
    assert "letters, digits and hyphens" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_keys_refuses_a_validity_of_no_days(tmp_path, capsys):
    assert main(["keys", "server0", "--directory", str(tmp_path), "--days", "0"]) == 1
    assert "at least 1 day" in capsys.readouterr().err


@given(st.text(max_size=70))
def test_names_are_checked(name):
    if NAME.fullmatch(name) and name != "authority":
        check_name(name)
    else:
        with pytest.raises(InputError):
            check_name(name)


def test_inspect_shows_a_plan(tmp_path, capsys):
    path = tmp_path / "plan.json"
    plan = dense_plan()
    path.write_text(plan.to_json())
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert plan.digest in out and plan.describe() in out
    path.write_text("{}")
    assert main(["inspect", str(path)]) == 1
    assert main(["inspect", str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_doctor_examines_an_embedded_cluster_and_a_dead_one(capsys, tmp_path):
    with LocalCluster() as cluster:
        config = str(cluster.directory / "cluster.json")
        assert main(["doctor", "--config", config]) == 0
        out = capsys.readouterr().out
        assert out.count("server0 at unix:") == 1 and "FAIL" not in out and "a job of" in out
    servers = [{"control": f"unix:{tmp_path}/{i}.c", "data": f"unix:{tmp_path}/{i}.d"} for i in range(3)]
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"servers": servers}))
    assert main(["doctor", "--config", str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["keys", "--help"], ["doctor", "--help"], ["inspect", "--help"],
                  ["names", "--help"], ["approve", "--help"], ["audit", "--help"]]
)
def test_every_command_explains_itself(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: private-keras" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["serve"], ["serve", "--config", "x", "--party", "one"], ["keys"]]
)
def test_wrong_arguments_exit_with_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def serve(*arguments):
    command = [sys.executable, "-m", "private_keras", "serve", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_serve_says_what_is_wrong_with_its_description(tmp_path):
    servers = TlsServers(tmp_path)
    done = serve("--config", str(tmp_path / "none.json"), "--party", "0")
    assert done.returncode == 1 and "cannot read" in done.stderr and "Traceback" not in done.stderr
    done = serve("--config", str(servers.config), "--party", "3")
    assert done.returncode == 1 and "party from 0 to 2" in done.stderr
    make_party(tmp_path / "keys", "server2", days=-1, directory=tmp_path / "old")
    for suffix in (".pem", ".key"):
        (tmp_path / f"old/server2{suffix}").replace(tmp_path / f"keys/server2{suffix}")
    done = serve("--config", str(servers.config), "--party", "2")
    assert done.returncode == 1 and "server2.pem is expired" in done.stderr and "keys --renew" in done.stderr
    (tmp_path / "keys/server1.key").unlink()
    done = serve("--config", str(servers.config), "--party", "1")
    assert done.returncode == 1 and "server1.key" in done.stderr and "private-keras keys" in done.stderr


def test_serve_ends_on_sigterm_and_says_when_its_address_is_taken(tmp_path):
    servers = TlsServers(tmp_path)
    servers.start(0)
    try:
        servers.wait_listening(0)
        done = serve("--config", str(servers.config), "--party", "0")
        assert done.returncode == 1 and "server0 cannot listen on 127.0.0.1" in done.stderr, done.stderr
        process = servers.processes.pop(0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        for party in list(servers.processes):
            servers.stop(party)


def test_predict_writes_what_the_model_predicts(tmp_path, capsys):
    import keras

    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)])
    plain.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).uniform(-1, 1, (7, 6)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    arguments = ["predict", str(tmp_path / "m.keras"), str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]
    assert main([*arguments, "--batch-size", "4"]) == 0
    assert "rounds" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), plain.predict(x, verbose=0), atol=1e-3)
    assert main(arguments) == 1
    assert "not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04"])
def test_predict_refuses_what_is_no_array(tmp_path, capsys, content):
    (tmp_path / "x.npy").write_bytes(content)
    assert main(["predict", "m.h5", str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]) == 1
    assert "x.npy" in capsys.readouterr().err


def test_predict_refuses_pickled_objects(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([{}], object))
    assert main(["predict", "m.h5", str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]) == 1
    assert "x.npy" in capsys.readouterr().err
