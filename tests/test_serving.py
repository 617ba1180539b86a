"""Many requests of many clients: every answer goes to who asked, and nothing is left behind."""

import os
import secrets
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from private_keras.cluster import NetworkCluster
from private_keras.cluster.running import Inputs, run_job
from private_keras.errors import ClusterError, HandleNotFound, PeerLost, SecurityError
from private_keras.server.config import read_config
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, dense_data, dense_plan, endless_plan, long_plan
from tests.test_faults import eventually

NAMES = tuple(f"client{i}" for i in range(10))
PLAN = dense_plan()
LONG = long_plan(800)
ENDLESS, ENDLESS_DATA = endless_plan(), dense_data(256, 256)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("serving"), NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def clusters(servers):
    made = [NetworkCluster(read_config(servers.config), name) for name in NAMES]
    for cluster in made:
        cluster.connect(60)
    yield made
    for cluster in made:
        cluster.close()


def ask(cluster, number):
    """Whether the answer is the one to this question, which no other one has."""
    y = cluster.run(PLAN, {"x": np.full((4, 8), number / 1000), "w": np.ones((8, 3))}, deadline=60)["y"]
    return bool(np.abs(y - 8 * number / 1000).max() < 1e-3)


def at_once(clusters, count):
    answers = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.__setitem__(n, ask(clusters[n % len(clusters)], n)), daemon=True)
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers == dict.fromkeys(range(count), True)


def footprint(pid):
    """File descriptors, threads, and MiB of a process that has nothing to do."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0]) / 1024


def settled(pids):
    time.sleep(1.5)  # servers give memory back that has not been used for a second
    return [footprint(pid) for pid in pids]


def same_size(before, after, count):
    # Which calls are at a server at once varies, and so does how many threads and lanes it has made for them.
    return all(
        now[0] <= then[0] + 20 and now[1] <= then[1] + 20 and now[2] <= then[2] + 10 + count / 500
        for then, now in zip(before, after, strict=True)
    )


def serve(servers, clusters, count):
    """`count` requests one after the other and 50 at once, again and again: what servers have made for as many at once
    as there may be serves the next ones, and nothing else grows.
    """
    pids = [servers.processes[party].pid for party in range(3)] + [os.getpid()]
    seen = []
    while len(seen) < 2 or not same_size(*seen[-2:], count):
        assert len(seen) < 6, seen  # what every request left behind would have grown each time
        assert all(ask(clusters[n % len(clusters)], n) for n in range(count))
        assert at_once(clusters, 50)
        seen.append(settled(pids))
    for client in clusters[0]._clients:
        assert eventually(lambda client=client: client.health().jobs == 0)
        state = client.health()
        assert (state.jobs, state.waiting, state.stored_bytes) == (0, 0, 0)


def test_requests_one_after_the_other_and_fifty_at_once(servers, clusters):
    serve(servers, clusters, 100)


@pytest.mark.long
def test_a_thousand_requests_and_fifty_at_once(servers, clusters):
    serve(servers, clusters, 1000)


def test_nobody_reaches_anothers_job_or_shares(clusters):
    """Not by its id, and not by its handles, even while it runs."""
    mine, other = clusters[:2]
    job = secrets.token_bytes(16)
    handle = mine.share(np.ones((8, 64)), 18, "w")
    results = []
    thread = threading.Thread(target=lambda: results.append(start(mine, job, handle)))
    thread.start()
    assert eventually(lambda: all(client.health().jobs == 1 for client in mine._clients))
    for client in other._clients:
        cancel = client._channel.unary_unary(
            "/private_keras.v1.Server/Cancel", wire.CancelRequest.SerializeToString, wire.CancelReply.FromString
        )
        assert not cancel(wire.CancelRequest(job=job), timeout=60).found
    other.delete(handle)
    with pytest.raises(HandleNotFound):
        other.run(LONG, {"x": np.ones((64, 8)), "w": handle})
    with pytest.raises(SecurityError, match="used before"):
        start(other, job, other._split(np.zeros((8, 64), np.uint64)))
    thread.join(60)
    assert len(results) == 1 and np.abs(results[0].opened["y"].astype(np.int64) / 2**18 - 8).max() < 1e-3
    mine.delete(handle)


def start(cluster, job, w):
    """Runs LONG under a job's id of one's own choice."""
    cluster._send(LONG, cluster.incarnation)
    x = cluster._split(np.full((64, 8), 1 << 18, np.uint64))
    return run_job(cluster._clients, cluster._jobs, LONG, Inputs({"x": x, "w": w}, {}, {}, {}, 1), 60, None, job)


def test_a_client_that_goes_away_leaves_the_queue_to_the_others(servers, clusters):
    """Its jobs, waiting and computing, end; somebody else's, begun after them, does not wait for their deadlines."""
    leaving = NetworkCluster(read_config(servers.config), NAMES[2])
    leaving.connect()
    errors = []

    def run():
        try:
            leaving.run(ENDLESS, ENDLESS_DATA, deadline=100)
        except (ClusterError, ValueError, grpc.RpcError) as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: all(client.health().jobs == 12 for client in clusters[0]._clients))
    assert eventually(lambda: clusters[0]._clients[0].health().waiting == 4)
    for client in leaving._clients:
        client._channel.close()
    assert eventually(lambda: all(client.health().jobs == 0 for client in clusters[0]._clients))
    assert ask(clusters[1], 5)
    for thread in threads:
        thread.join(60)
    leaving.close()


def test_a_server_killed_while_others_wait_is_told_to_all_of_them(servers, clusters):
    outcomes = []

    def run(cluster):
        try:
            cluster.run(ENDLESS, ENDLESS_DATA, deadline=100)
            outcomes.append("done")
        except ClusterError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(cluster,), daemon=True) for cluster in clusters]
    for thread in threads:
        thread.start()
    assert eventually(lambda: all(client.health().jobs == 10 for client in clusters[0]._clients))
    servers.processes[1].kill()
    servers.processes.pop(1).wait()
    for thread in threads:
        thread.join(60)
    lost = [outcome for outcome in outcomes if isinstance(outcome, PeerLost) and "server1" in str(outcome)]
    assert len(lost) == 10, outcomes
    starts = servers.log(1).count('"server started"') + 1
    servers.start(1)
    servers.wait_listening(1, starts=starts)
    assert all(ask(cluster, n) for n, cluster in enumerate(clusters))
