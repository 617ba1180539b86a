"""Commands that need no Keras load none of it: each in a process of its own kind, against servers over TLS."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from private_keras.cluster import NetworkCluster
from private_keras.cluster.results import addressed
from private_keras.server.config import read_config
from tests.clusters import ROOT, TlsServers, dense_data, dense_plan
from tests.test_house import CLIENT_ONLY

# Runs commands one after the other, as the installed script does, and says what each printed and then had loaded.
PROGRAM = f"""
import contextlib, io, json, sys
sys.orig_argv = [sys.executable, "-m", "private_keras"]
from private_keras.cli import main
for arguments in json.load(sys.stdin):
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(arguments)
    loaded = [name for name in {sorted(CLIENT_ONLY)!r} if name in sys.modules]
    print(json.dumps([arguments[0], code, told.getvalue(), loaded]))
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("light"), storage=True) as made:
        yield made


def test_commands_without_models_load_no_keras(servers, tmp_path):
    (tmp_path / "people.csv").write_text("age,income\n34,1.5\n20,2\n")
    np.save(tmp_path / "x.npy", np.eye(3))
    plan = dense_plan()
    (tmp_path / "plan.json").write_text(plan.to_json())
    result = tmp_path / "y.npy"
    here = ["--config", str(servers.config), "--identity", "analyst"]
    with NetworkCluster(read_config(servers.config), "other") as sender:
        sender.connect(20)
        sender.run(addressed(plan, "analyst"), dense_data(), delivery="scores")
        prepared = addressed(replace(plan, name="another"), "other")
        sender.run(prepared, dense_data())
        commands = [
            ["keys", "a", "b", "--directory", str(tmp_path / "keys")],
            ["keys", "--show", "--directory", str(tmp_path / "keys")],
            ["doctor", *here],
            ["share", str(tmp_path / "people.csv"), "--name", "people", "--categories", "age", *here],
            ["share", str(tmp_path / "x.npy"), "--name", "x", "--use", "other", *here],
            ["names", *here],
            ["approve", "x", f"sha256:{plan.digest}", *here],
            ["inspect", str(tmp_path / "plan.json")],
            ["inspect", f"sha256:{prepared.digest}", *here],
            ["receive", *here],
            ["receive", "other/scores", "--out", str(result), *here],
            ["forget", "people", *here],
            ["audit", str(servers.config), "--identity", "analyst"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], input=json.dumps(commands), cwd=ROOT, capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in told] == [command[0] for command in commands]
    for name, code, printed, loaded in told:
        assert code == 0, f"{name}: {printed}"
        assert not loaded, f"{name} has loaded {', '.join(loaded)}"
    assert np.load(result).shape == (4, 3)


def test_servers_have_no_keras_in_memory(servers):
    """Not even a part of it that was loaded while they ran."""
    for process in servers.processes.values():
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "private_keras" in mapped and not [name for name in CLIENT_ONLY if f"/{name}/" in mapped]
