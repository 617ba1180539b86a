"""Every notebook runs from top to bottom, shows pictures, and leaves no server process behind."""
import os
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.test_faults import eventually

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def descendants(folder: str) -> list[str]:
    """Command lines of processes that were started for the notebook: they have its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("XDG_DATA_HOME") == folder:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 4


@pytest.mark.timeout(800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    folder = str(tmp_path / "data")
    monkeypatch.setenv("XDG_DATA_HOME", folder)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    notebook = nbformat.read(path, as_version=4)
    watched = []
    client = NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}},
        on_cell_executed=lambda **_: watched.extend(descendants(folder)),
    )  # fmt: skip
    client.execute(env={**os.environ, "XDG_DATA_HOME": folder})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("serve" in line for line in watched)
    assert eventually(lambda: not [line for line in descendants(folder) if "serve" in line])


INTERRUPTED = """
import numpy as np, keras, private_keras as pk
cluster = pk.connect()
model = pk.Sequential([pk.Input((8,)), pk.layers.Dense(4, activation="relu"), pk.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((64, 8)), np.ones((64, 1))
model.fit(x, y, batch_size=8, verbose=0)
print("trained once")
"""


def run_cell(client, code: str) -> str:
    """Executes code to its end; returns what it printed, or the name of its error."""
    return follow(client, client.execute(code))


def follow(client, request: str, until: str | None = None) -> str:
    """What a cell prints, until it has ended or has printed `until`."""
    text = ""
    while True:
        message = client.get_iopub_msg(timeout=200)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        text += content.get("text", "") + content.get("ename", "")
        if until is not None and until in text:
            return text
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return text


@pytest.mark.timeout(800)
def test_interrupting_a_cell_stops_the_job_and_leaves_the_cluster_usable(tmp_path, monkeypatch):
    folder = str(tmp_path / "data")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path), env={**os.environ, "XDG_DATA_HOME": folder, "TF_CPP_MIN_LOG_LEVEL": "3"})
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=200)
        assert "trained once" in run_cell(client, INTERRUPTED)
        long = client.execute("print('begin', flush=True)\nmodel.fit(x, y, batch_size=1, epochs=100_000, verbose=0)")
        assert "begin" in follow(client, long, until="begin")
        time.sleep(2)
        manager.interrupt_kernel()
        assert "KeyboardInterrupt" in follow(client, long)
        assert "(64, 1) 3" in run_cell(client, "print(model.predict(x, verbose=0).shape, len(cluster.pids))")
        again = "print(len(model.fit(x, y, batch_size=8, epochs=2, verbose=0).epoch), 'epochs')"
        assert "2 epochs" in run_cell(client, again)
        assert any("serve" in line for line in descendants(folder))
        manager.restart_kernel(now=False)
        client.wait_for_ready(timeout=200)
        assert "trained once" in run_cell(client, INTERRUPTED)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    assert eventually(lambda: not [line for line in descendants(folder) if "serve" in line])
