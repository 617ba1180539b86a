"""What breaks: servers killed, stopped or missing, a client that dies or is interrupted. Real processes, no mocks."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from private_keras.cluster import LocalCluster, Loop, connect, local, running
from private_keras.cluster.interface import kept_handles
from private_keras.errors import ClusterError, DeadlineExceeded, FrameError, HandleNotFound, PeerLost
from private_keras.plan.builder import PlanBuilder
from tests.clusters import ROOT, TlsServers, dense_data, dense_plan, long_plan
from tests.loops import Held, Regression, sgd_inputs, sgd_plan

LONG, LONG_DATA = long_plan(), dense_data(64, 64)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster() as made:
        yield made


def works(cluster):
    data = dense_data()
    y = cluster.run(dense_plan(), data, deadline=20)["y"]
    np.testing.assert_allclose(y, np.maximum(data["x"] @ data["w"], 0), atol=1e-4)


def busy(cluster):
    """Waits until every server runs a job."""
    deadline = time.monotonic() + 60
    while any(client.health().jobs == 0 for client in cluster._clients):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid):
    """Whether a process that is not our child has ended."""
    with suppress(OSError):
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    return True


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_server_killed_in_a_job_is_named_and_the_cluster_is_usable_again(cluster, party, caplog):
    works(cluster)
    handle = cluster.share(np.ones((8, 3)), 18, "w")
    before = cluster.incarnation
    victim = cluster.pids[party]

    def kill():
        busy(cluster)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(PeerLost, match=f"server{party}"):  # by the loss, not by the deadline
        cluster.run(LONG, LONG_DATA, deadline=100)
    killer.join()
    works(cluster)
    assert f"server{party} had ended" in caplog.text
    assert cluster.incarnation != before
    with pytest.raises(HandleNotFound, match="'w'.*share them again"):
        cluster.run(dense_plan(), {**dense_data(), "w": handle})


def test_the_other_servers_notice_a_loss_by_themselves(cluster):
    """Without the client's cancellation: each survivor reports the dead server, or the one that reported it."""
    works(cluster)
    outcomes = []

    def run():
        try:
            cluster.run(LONG, LONG_DATA, deadline=60)
        except ClusterError as error:
            outcomes.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    busy(cluster)
    os.kill(cluster.pids[2], signal.SIGKILL)
    survivors = cluster._clients[:2]
    assert eventually(lambda: all(client.health().jobs == 0 for client in survivors))
    runner.join(60)
    assert len(outcomes) == 1 and "server2" in str(outcomes[0])
    works(cluster)


def test_a_server_killed_between_jobs_is_started_anew(cluster):
    works(cluster)
    handle = cluster.share(np.ones((8, 3)), 18, "w")
    os.kill(cluster.pids[1], signal.SIGKILL)
    with pytest.raises(HandleNotFound):
        for _ in range(2):  # at the latest the second use knows
            with suppress(PeerLost):
                cluster.run(dense_plan(), {**dense_data(), "w": handle})
    works(cluster)
    again = cluster.share(np.ones((8, 3)), 18, "w")
    cluster.run(dense_plan(), {**dense_data(), "w": again})


def test_a_loss_that_the_system_reports_late_is_noticed_all_the_same(cluster, monkeypatch):
    """Connections to a killed server may end before its process can be seen to have ended."""
    works(cluster)
    os.kill(cluster.pids[1], signal.SIGKILL)
    with suppress(PeerLost):
        cluster.run(dense_plan(), dense_data(), deadline=20)
    honest, looks = LocalCluster._dead, []

    def late(self):
        looks.append(True)
        return [] if len(looks) <= 2 else honest(self)

    monkeypatch.setattr(local, "REAP_SECONDS", 0)
    monkeypatch.setattr(LocalCluster, "_dead", late)
    works(cluster)


@pytest.mark.parametrize("party", [0, 2])
def test_a_stopped_server_exceeds_the_deadline_and_is_named(cluster, party):
    works(cluster)
    pid = cluster.pids[party]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(DeadlineExceeded, match=f"server{party}"):
            cluster.run(dense_plan(), dense_data(), deadline=1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    works(cluster)


def test_ctrl_c_cancels_the_job_everywhere_and_the_cluster_stays_usable(cluster):
    works(cluster)
    pids = cluster.pids

    def interrupt():
        busy(cluster)
        signal.raise_signal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else os.kill(
            os.getpid(), signal.SIGINT
        )

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        cluster.run(LONG, LONG_DATA, deadline=60)
    thread.join()
    assert eventually(lambda: all(client.health().jobs == 0 for client in cluster._clients))
    works(cluster)
    assert cluster.pids == pids


INTERRUPTED = """
import faulthandler, os, random, signal, sys, threading, time
faulthandler.dump_traceback_later(90, exit=True)  # a hang is a failure that says where
sys.argv[0] = "pytest"  # a tool: Keras is not loaded
sys.path.insert(0, ".")
from private_keras.cluster import LocalCluster
from tests.clusters import dense_data, dense_plan

def strike(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGINT)

generator = random.Random(int(sys.argv[1]))
plan, data = dense_plan(), dense_data()
struck = 0
with LocalCluster() as cluster:
    cluster.run(plan, data)
    pids = cluster.pids
    for _ in range(40):
        thread = threading.Thread(target=strike, args=(generator.uniform(0.0005, 0.03),))
        try:
            thread.start()  # which may strike before this returns
            while True:
                cluster.run(plan, data)
        except KeyboardInterrupt:
            struck += 1
        thread.join()
        cluster.run(plan, data)
    assert cluster.pids == pids
print("struck", struck)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_ctrl_c_at_any_moment_leaves_nothing_locked(seed):
    """Interrupts strike anywhere in a run, also while its calls are being made; the next run works each time."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(seed)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "struck 40" in done.stdout


CLIENT = """
import sys, time
sys.argv[0] = "pytest"  # a tool: Keras is not loaded
sys.path.insert(0, ".")
from private_keras.cluster import LocalCluster
from tests.clusters import dense_data, long_plan
cluster = LocalCluster()
print(cluster.directory, *cluster.pids, flush=True)
if sys.argv[1] == "running":
    cluster.run(long_plan(), dense_data(64, 64), deadline=60)
elif sys.argv[1] == "forked":
    import os
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
elif sys.argv[1] == "idle":
    time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "running", "forked", "exit"])
def test_servers_and_their_directory_go_with_a_client_that_is_killed(state):
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, state], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    child = None
    try:
        directory, *pids = client.stdout.readline().split()
        assert len(pids) == 3 and os.path.isdir(directory)
        if state == "forked":
            child = int(client.stdout.readline())
        if state == "running":
            time.sleep(0.3)
        if state == "exit":
            assert client.wait(60) == 0
        else:
            client.kill()
        assert eventually(lambda: all(gone(int(pid)) for pid in pids)), "servers outlive their client"
        assert eventually(lambda: not os.path.exists(directory)), os.listdir(directory)
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
        if child is not None:
            os.kill(child, signal.SIGKILL)


def test_a_server_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr("private_keras.cluster.local.MODULE", "private_keras.no_such_module")
    with pytest.raises(ClusterError, match="server0 ended with exit code 1.*no_such_module"):
        LocalCluster()


LOOP_STEPS = 4000
REGRESSION = Regression(steps=LOOP_STEPS)


def long_loop(cluster, held, on_step=None):
    x, y = held.share(REGRESSION.x), held.share(REGRESSION.y)
    return cluster.run(
        sgd_plan(), sgd_inputs(REGRESSION, x, y), deadline=120, loop=Loop(LOOP_STEPS, on_step)
    )  # fmt: skip


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_server_killed_in_the_middle_of_a_loop_is_named_and_nothing_is_kept(cluster, party):
    works(cluster)
    victim = cluster.pids[party]

    def kill(done):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    held = Held(cluster)
    with pytest.raises(PeerLost, match=f"server{party}"), held:  # by the loss, not by the deadline
        long_loop(cluster, held, kill)
    survivors = [client for client in cluster._clients if client.name != f"server{party}"]
    assert eventually(lambda: all(client.health().jobs == 0 for client in survivors))
    before = [nbytes for i, nbytes in enumerate(held.before) if i != party]
    assert eventually(lambda: [client.health().stored_bytes for client in survivors] == before)
    works(cluster)


def test_ctrl_c_in_the_middle_of_a_loop_keeps_nothing_and_the_cluster_goes_on(cluster):
    works(cluster)
    pids = cluster.pids
    with Held(cluster) as held:
        with pytest.raises(KeyboardInterrupt):
            long_loop(cluster, held, lambda done: signal.raise_signal(signal.SIGINT))
        assert eventually(lambda: all(client.health().jobs == 0 for client in cluster._clients))
    works(cluster)
    assert cluster.pids == pids


LOOPING = """
import os, signal, sys
sys.argv[0] = "pytest"  # a tool: Keras is not loaded
sys.path.insert(0, ".")
from private_keras.cluster import connect
from tests.loops import Held, Regression
from tests.test_faults import long_loop
cluster = connect(sys.argv[1], identity="analyst")
long_loop(cluster, Held(cluster), lambda done: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_client_that_dies_in_the_middle_of_a_loop_leaves_no_results(tmp_path):
    with TlsServers(tmp_path) as servers, connect(servers.config, identity="analyst") as watching:
        done = subprocess.run([sys.executable, "-c", LOOPING, str(servers.config)], cwd=ROOT, timeout=100)
        assert done.returncode == -signal.SIGKILL
        assert eventually(lambda: all(client.health().jobs == 0 for client in watching._clients))
        # Shares that it had stored stay its own; the loop's results were never stored.
        given = 8 * (REGRESSION.x.size + REGRESSION.y.size)
        assert [client.health().stored_bytes for client in watching._clients] == [2 * given] * 3
        for party in range(3):
            assert '"kind": "error"' not in servers.log(party), servers.log(party)[-2000:]


def test_results_are_forgotten_where_another_server_failed_after_the_end(cluster, monkeypatch):
    """One server's whole result arrives, another's does not: no server keeps a part."""
    works(cluster)
    honest = running._collect

    def broken(client, call, plan, part):
        honest(client, call, plan, part)
        if client.name == "server1":
            raise FrameError("server1 ended the job without its whole result")

    monkeypatch.setattr(running, "_collect", broken)
    with Held(cluster), pytest.raises(FrameError, match="server1"):
        cluster.run(keeping_plan(), {"x": np.zeros(4)})


@pytest.mark.parametrize("party", [0, 1, 2])
def test_results_are_forgotten_when_the_call_is_cancelled_at_the_last_moment(cluster, party):
    """The server has stored them already; the client hangs up instead of reading on."""
    works(cluster)
    plan = keeping_plan(1 << 20)  # the opened part takes many messages, which wait for a reader
    with Held(cluster):
        cluster._send(plan, cluster.incarnation)
        kept = kept_handles(plan, cluster.incarnation)
        parts = {"x": cluster._split(np.zeros(1 << 20, np.uint64))}
        inputs = running.Inputs(parts, {}, {}, kept, 1)
        job = os.urandom(16)
        calls = [
            client.run(running._requests(i, job, plan, inputs, 30.0), 30.0, short=False)
            for i, client in enumerate(cluster._clients)
        ]
        first = next(reply for reply in calls[party] if reply.contributions or reply.HasField("done"))
        assert bool(first.contributions) == (party < 2)
        for call in calls:
            call.cancel()
        assert eventually(lambda: all(client.health().jobs == 0 for client in cluster._clients))
        # The helper has nothing to open, so its call may have come to its end before.
        cluster._clients[2].delete([handle.id for handle in kept.values()])


def keeping_plan(n=4):
    b = PlanBuilder()
    b.input("x", (n,), 18, "client")
    b.output("x", "kept", [])
    b.output(b.add("relu", "x"), "opened", ["client"])
    return b.build("keeping", "compute")
