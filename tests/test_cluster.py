"""A cluster as models use it: on three local server processes, and simulated."""

import os
import stat
import subprocess
import sys
import threading
from concurrent import futures

import numpy as np
import pytest

from private_keras import cluster as pkc
from private_keras.cluster import LocalCluster, SimulatedCluster, running
from private_keras.cluster.client import CallFailed
from private_keras.errors import ClusterError, DeadlineExceeded, HandleNotFound, InputError, PeerLost, PrivateKerasError
from private_keras.plan.builder import PlanBuilder
from tests.clusters import ROOT, dense_data, dense_plan, long_plan


@pytest.fixture(scope="module")
def local():
    with LocalCluster() as made:
        yield made


@pytest.fixture(params=["local", "simulate"])
def cluster(request, local):
    if request.param == "local":
        yield local
    else:
        with SimulatedCluster() as made:
            yield made


def expected(data):
    return np.maximum(data["x"] @ data["w"], 0)


def test_a_plan_gives_what_numpy_gives_with_inline_and_stored_inputs(cluster):
    plan, data = dense_plan(), dense_data()
    handle = cluster.share(data["w"], 18, "dense/kernel")
    for inputs in (data, {**data, "w": handle}, {**data, "w": handle}):
        y = cluster.run(plan, inputs)
        assert list(y) == ["y"]
        assert y["y"].dtype == np.float64
        np.testing.assert_allclose(y["y"], expected(data), atol=1e-4)
    cluster.delete(handle)


def test_large_inputs_and_outputs_go_in_pieces(cluster):
    shape = (3, 700, 701)  # 11.8 MB of words: beyond one message, and no multiple of a piece
    b = PlanBuilder()
    b.input("x", shape, fraction=18, owner="client")
    b.input("one", (1,), fraction=18, owner="client")
    b.output(
        b.add("add", "x", b.add("broadcast", b.add("reshape", "one", shape=(1, 1, 1)), shape=shape)), "sum", ["client"]
    )
    plan = b.build("large", "predict")
    x = np.random.default_rng(1).normal(size=shape)
    handle = cluster.share(x, 18, "x")
    for given in (x, handle):
        y = cluster.run(plan, {"x": given, "one": np.ones(1)})["sum"]
        np.testing.assert_allclose(y, x + 1, atol=1e-5)
    cluster.delete(handle)


def test_several_outputs_scalars_and_integers_keep_their_scale(cluster):
    b = PlanBuilder()
    b.input("x", (2, 3), fraction=18, owner="client")
    b.output(b.add("argmax", "x", axis=1), "best", ["client"])
    b.output(b.add("reduce_max", "x", axis=1, keepdims=False), "top", ["client"])
    b.output(b.add("multiply", "x", "x"), "wide", ["client"])
    plan = b.build("several", "predict")
    x = np.array([[0.5, -1, 2], [3, 1, -7]])
    y = cluster.run(plan, {"x": x})
    assert y["best"].tolist() == [2, 0]
    np.testing.assert_allclose(y["top"], [2, 3], atol=1e-5)
    np.testing.assert_allclose(y["wide"], x * x, atol=1e-4)


def test_values_that_cannot_be_shared_are_refused_before_anything_is_sent(cluster):
    plan, data = dense_plan(), dense_data()
    for bad, message in [
        (np.full((4, 8), np.nan), "images.*32 of 32 values are NaN"),
        (np.full((4, 8), np.inf), "NaN or infinite"),
        (np.full((4, 8), 1e12), "images.*range"),
        (np.zeros((4, 9)), r"images.*expected shape \(4, 8\). Received: shape \(4, 9\)"),
        (np.zeros(32), "expected shape"),
        (np.array([["a"] * 8] * 4), "expected real numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            cluster.run(plan, {**data, "x": bad})
        if bad.shape == (4, 8):
            with pytest.raises(InputError):
                cluster.share(bad, 18, "images")
    with pytest.raises(InputError, match="at least one element"):
        cluster.share(np.zeros((0, 8)), 18, "images")
    with pytest.raises(InputError, match=r"missing inputs \['w'\].*unknown inputs \['v'\]"):
        cluster.run(plan, {"x": data["x"], "v": data["w"]})
    for seconds in (0, -1):
        with pytest.raises(InputError, match="deadline"):
            cluster.run(plan, data, deadline=seconds)


def test_handles_say_what_they_are_and_must_fit(cluster):
    plan, data = dense_plan(), dense_data()
    handle = cluster.share(data["w"], 18, "dense/kernel")
    assert (handle.shape, handle.fraction, handle.size) == ((8, 3), 18, 24)
    assert "incarnation" not in repr(handle)
    with pytest.raises(InputError, match=r"images: expected shape \(4, 8\).*'dense/kernel' with shape \(8, 3\)"):
        cluster.run(plan, {"x": handle, "w": handle})
    wrong = cluster.share(data["w"], 10, "coarse")
    with pytest.raises(InputError, match="18 fractional bits.*10"):
        cluster.run(plan, {**data, "w": wrong})
    cluster.delete(wrong)
    cluster.delete(handle)
    cluster.delete(handle)  # gone already: nothing happens
    with pytest.raises(HandleNotFound, match="w|dense/kernel"):
        cluster.run(plan, {**data, "w": handle})
    np.testing.assert_allclose(cluster.run(plan, data)["y"], expected(data), atol=1e-4)


def test_what_a_server_that_gave_up_says_itself_is_waited_for(monkeypatch):
    """Others may be heard long before it: what they say of it is further from the cause."""
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.0)
    tasks = [futures.Future() for _ in range(3)]
    tasks[1].set_exception(CallFailed(PeerLost("server1: server0 gave up the job"), "GaveUp"))
    tasks[2].set_exception(CallFailed(PeerLost("server2: server0 gave up the job"), "GaveUp"))
    cause = CallFailed(ClusterError("server0: no room"), "StoreFull")
    threading.Timer(0.5, tasks[0].set_exception, (cause,)).start()
    with pytest.raises(ClusterError, match="server0: no room"):
        running._settle(tasks, running._Calls())


def test_a_deadline_ends_a_job_and_the_cluster_stays_usable(cluster):
    plan, data = long_plan(), dense_data(64, 64)
    with pytest.raises(DeadlineExceeded):
        cluster.run(plan, data, deadline=0.3 if cluster.protocol == "trio" else 0.01)
    small = dense_data()
    np.testing.assert_allclose(cluster.run(dense_plan(), small)["y"], expected(small), atol=1e-4)


def test_statistics_count_the_last_run_and_all(local):
    plan, data = dense_plan(), dense_data()
    before = local.stats.total
    local.run(plan, data)
    local.run(plan, data)
    last, total = local.stats.last, local.stats.total
    assert last.runs == 1
    assert total.runs == before.runs + 2
    assert total.bytes - before.bytes == 2 * last.bytes
    assert last.rounds > 0
    assert len(last.sent) == 3
    assert all(n > 0 for n in last.sent)
    assert 0 < last.computing <= last.seconds
    for text in (str(local.stats), local.stats._repr_html_()):
        assert f"{last.sent[2]:,}" in text and "rounds" in text


def test_runs_from_several_threads(local):
    plan = dense_plan()
    failures = []

    def work(seed):
        data = dense_data(seed=seed)
        try:
            for _ in range(5):
                np.testing.assert_allclose(local.run(plan, data)["y"], expected(data), atol=1e-4)
        except Exception as error:  # shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
    assert not failures


def test_more_jobs_than_compute_at_once_wait_for_their_turn_until_their_deadline(local):
    plan, data = long_plan(), dense_data(64, 64)
    outcomes = []
    with pytest.raises(DeadlineExceeded):
        local.run(plan, data, deadline=0.2)  # from now on the servers know the plan, and all jobs start at once

    def work():
        try:
            local.run(plan, data, deadline=2)
        except PrivateKerasError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
    assert len(outcomes) == 12 and all(isinstance(error, DeadlineExceeded) for error in outcomes), outcomes
    small = dense_data()
    np.testing.assert_allclose(local.run(dense_plan(), small)["y"], expected(small), atol=1e-4)


def test_nothing_of_a_job_stays_on_the_servers(local):
    handle = local.share(np.ones((8, 3)), 18, "w")
    stored = [client.health().stored_bytes for client in local._clients]
    local.run(dense_plan(), {**dense_data(), "w": handle})
    assert [client.health().stored_bytes for client in local._clients] == stored == [384, 384, 384]
    assert [client.health().jobs for client in local._clients] == [0, 0, 0]
    local.delete(handle)
    assert [client.health().stored_bytes for client in local._clients] == [0, 0, 0]


def test_the_directory_is_private_and_goes_with_the_cluster():
    made = LocalCluster()
    directory, pids = made.directory, made.pids
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 for file in directory.glob("*.control"))
    made.close()
    made.close()
    assert not directory.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(ClusterError, match="closed"):
        made.run(dense_plan(), dense_data())


def test_connecting_makes_a_cluster_current_until_it_is_left(local):
    assert pkc.current() is local
    with pkc.connect(protocol="simulate") as simulated:
        assert pkc.current() is simulated
        assert simulated.protocol == "simulate"
    assert pkc.current() is not simulated
    with pytest.raises(InputError, match="identity"):
        pkc.connect(identity="me")
    with pytest.raises(InputError, match="expected a protocol"):
        pkc.connect(protocol="duo")
    with pytest.raises(InputError, match="cannot read"):
        pkc.connect("/does/not/exist.json", identity="me")


def test_first_use_starts_a_cluster_and_disconnect_ends_it():
    program = (
        "from private_keras import cluster as c\n"
        "from tests.clusters import dense_plan, dense_data\n"
        "first = c.current(); assert c.current() is first\n"
        "first.run(dense_plan(), dense_data())\n"
        "print(first.directory)\n"
        "c.disconnect()\n"
        "import os; assert not os.path.exists(first.directory)\n"
        "second = c.current(); assert second is not first\n"
        "print(second.directory)\n"
    )
    command = [sys.executable, "-c", _TOOL + program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert not any(os.path.exists(line) for line in done.stdout.split())


# A program is taken for a tool, and does not load Keras.
_TOOL = "import sys; sys.argv[0] = 'pytest'; sys.path.insert(0, '.')\n"


def test_a_fork_of_the_client_cannot_use_or_end_its_cluster(local):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            local.run(dense_plan(), dense_data())
            os.write(writer, b"ran")
        except ClusterError as error:
            os.write(writer, str(error).encode())
            local.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"forked" in os.read(reader, 1000)
    os.close(reader)
    os.close(writer)
    data = dense_data()
    np.testing.assert_allclose(local.run(dense_plan(), data)["y"], expected(data), atol=1e-4)


def test_servers_say_no_values_and_keep_none_on_disk(local):
    secret = np.full((4, 8), 3.14159265358979)
    local.run(dense_plan(), {**dense_data(), "x": secret})
    needles = [b"3.14159", secret.tobytes()[:8], np.rint(secret[0, 0] * 2**18).astype(np.int64).tobytes()]
    for file in local.directory.iterdir():
        if file.is_file():
            content = file.read_bytes()
            assert not any(needle in content for needle in needles)


def test_servers_start_without_keras():
    program = (
        "import private_keras.server.process, sys\n"
        "print([m for m in ('keras', 'tensorflow', 'h5py') if m in sys.modules])"
    )
    command = [sys.executable, "-c", _TOOL + program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stderr
