"""Jobs that wait for their turn: fair, bounded, ended early; and three servers that never wait for each other."""

import random
import secrets
import threading
import time
from contextlib import ExitStack, closing
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.cluster import NetworkCluster
from private_keras.errors import ClusterError, DeadlineExceeded, InputError, PeerLost
from private_keras.server.allowance import Allowance, parse_allowance
from private_keras.server.config import read_config
from private_keras.server.jobs import JobCancelled, Jobs, ServerBusy
from private_keras.server.pace import Pace, TooManyRequests
from private_keras.server.store import Kept, Store, StoreFull
from private_keras.server.turns import Place, Turns
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, dense_data, dense_plan, endless_plan
from tests.test_faults import eventually
from tests.test_server_lanes import DIGEST, Servers, alike


def nothing():
    """Neither a reason to end nor anybody to tell."""


class Queue:
    """Jobs that take their turns in threads of their own, in a known order of arrival."""

    def __init__(self, limit, each):
        self.turns = Turns(limit, each)
        self.order = []
        self._threads = []

    def come(self, owner):
        place = Place(owner)
        before = self.turns.waiting

        def take():
            self.turns.take(place, nothing, nothing)
            self.order.append(place)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        assert eventually(lambda: place in self.order or self.turns.waiting == before + 1)
        self._threads.append(thread)
        return place

    def serve(self):
        """Ends one job after the other; owners in the order of their turns."""
        served = 0
        while served < len(self._threads):
            assert eventually(lambda served=served: len(self.order) > served)
            self.turns.leave(self.order[served])
            served += 1
        return [place.owner for place in self.order]


def test_identities_take_turns_whatever_each_brings():
    queue = Queue(limit=1, each=1)
    for owner in "aaaabbc":
        queue.come(owner)
    assert "".join(queue.serve()) == "aabcaba"  # the first found nobody there
    assert queue.turns.waiting == 0


def test_one_identity_computes_no_more_than_its_part():
    queue = Queue(limit=4, each=2)
    for owner in "aaaa":
        queue.come(owner)
    assert len(queue.order) == 2 and queue.turns.waiting == 2
    queue.come("b")
    assert eventually(lambda: [place.owner for place in queue.order] == ["a", "a", "b"])
    queue.serve()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=25), st.integers(1, 3), st.integers(1, 3))
def test_everybody_has_a_turn_and_never_too_many(owners, limit, each):
    turns = Turns(limit, each)
    places = [Place(owner) for owner in owners]
    now, most, had = set(), [], []
    lock = threading.Lock()

    def job(place):
        turns.take(place, nothing, nothing)
        with lock:
            now.add(place)
            had.append(place)
            most.append((len(now), max(sum(p.owner == o for p in now) for o in "abc")))
        with lock:
            now.remove(place)
        turns.leave(place)

    threads = [threading.Thread(target=job, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(id, had)) == sorted(map(id, places))
    assert max(count for count, _ in most) <= limit and max(count for _, count in most) <= each
    assert turns.waiting == 0


def test_a_deadline_passes_in_the_queue():
    jobs = Jobs(nothing, Allowance(jobs=1))
    with jobs.begin(b"a" * 16, "x", time.monotonic() + 60) as first:
        first.wait_turn(nothing)
        with jobs.begin(b"b" * 16, "x", time.monotonic() + 0.05) as second:
            with pytest.raises(DeadlineExceeded, match="waited for its turn"):
                second.wait_turn(nothing)
        assert jobs.turns.waiting == 0
    with jobs.begin(b"c" * 16, "y", time.monotonic() + 60) as third:
        third.wait_turn(nothing)


def test_a_job_is_cancelled_in_the_queue():
    jobs = Jobs(nothing, Allowance(jobs=1))
    deadline = time.monotonic() + 60
    with jobs.begin(b"a" * 16, "x", deadline) as first:
        first.wait_turn(nothing)
        with jobs.begin(b"b" * 16, "x", deadline) as second:
            threading.Timer(0.05, jobs.cancel, (b"b" * 16, "x")).start()
            with pytest.raises(JobCancelled):
                second.wait_turn(nothing)
        assert jobs.turns.waiting == 0
    with jobs.begin(b"c" * 16, "x", deadline) as third:
        third.wait_turn(nothing)


def test_the_queue_is_bounded_for_each_client_and_for_all():
    jobs = Jobs(nothing, Allowance(jobs=1, jobs_each=1, queued=2, queued_each=1))
    deadline = time.monotonic() + 60
    with jobs.begin(b"a" * 16, "x", deadline), jobs.begin(b"b" * 16, "x", deadline):
        with pytest.raises(ServerBusy, match="2 of this client, of at most 3 and 2"):
            with jobs.begin(b"c" * 16, "x", deadline):
                pass
        with jobs.begin(b"d" * 16, "y", deadline):
            with pytest.raises(ServerBusy, match="3 jobs are on this server, 0 of this client"):
                with jobs.begin(b"e" * 16, "z", deadline):
                    pass


def test_a_server_that_drains_finishes_what_it_has():
    jobs = Jobs(nothing, Allowance())
    deadline = time.monotonic() + 60
    done = []
    with jobs.begin(b"a" * 16, "x", deadline):
        thread = threading.Thread(target=lambda: done.append(jobs.drain(60)))
        thread.start()
        assert eventually(lambda: jobs.draining)
        with pytest.raises(ServerBusy, match="about to end"):
            with jobs.begin(b"b" * 16, "x", deadline):
                pass
        assert not done
    thread.join(60)
    assert done == [True]
    with Jobs(nothing, Allowance()).begin(b"a" * 16, "x", deadline):
        pass


def test_servers_that_meet_jobs_in_different_orders_do_not_wait_for_each_other(tmp_path):
    """40 jobs, two at once, brought to each server in an order of its own, by five identities."""
    servers = Servers(tmp_path, Allowance(jobs=2, jobs_each=1))
    jobs = [(secrets.token_bytes(16), f"client{i % 5}") for i in range(40)]
    computing, most, results = set(), [], {}
    lock = threading.Lock()

    def one(party, job_id, owner):
        with servers.jobs[party].begin(job_id, owner, time.monotonic() + 60) as running:
            lanes = servers.lanes[party].open(running, DIGEST, alike(party))
            if party == 0:
                with lock:
                    computing.add(job_id)
                    most.append(len(computing))
            for peer, channel in lanes.channels.items():
                out = np.empty(1, np.uint64)
                channel.exchange(0, np.full(1, party, np.uint64), out)
                assert out[0] == peer
            if party == 0:
                with lock:
                    computing.remove(job_id)
            lanes.finish(dict.fromkeys(lanes.channels, 1), [])
            results[party, job_id] = dict(lanes.keys)

    threads = []
    for party in range(3):
        order = list(jobs)
        random.Random(party).shuffle(order)
        threads += [threading.Thread(target=one, args=(party, *job), daemon=True) for job in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    servers.close()
    assert len(results) == 120
    for job_id, _ in jobs:
        assert all(results[i, job_id][j] == results[j, job_id][i] for i in range(3) for j in range(i))
    assert max(most) <= 2


def test_a_server_that_gives_up_a_waiting_job_ends_it_everywhere(tmp_path):
    servers = Servers(tmp_path, Allowance(jobs=1))
    errors = {}

    def one(party, job_id, between=None):
        try:
            with servers.jobs[party].begin(job_id, "x", time.monotonic() + 60) as running:
                lanes = servers.lanes[party].open(running, DIGEST, alike(party))
                if between is not None:
                    between.wait(60)
                lanes.finish(dict.fromkeys(lanes.channels, 1), list(lanes.channels))
        except ClusterError as error:
            errors[party, job_id] = error

    end, first, second = threading.Event(), b"1" * 16, b"2" * 16
    threads = [threading.Thread(target=one, args=(party, first, end)) for party in range(3)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(servers.jobs[0].turns._computing) == 1)
    waiting = [threading.Thread(target=one, args=(party, second)) for party in range(3)]
    for thread in waiting:
        thread.start()
    assert eventually(lambda: servers.jobs[0].turns.waiting == 1)
    servers.jobs[2].cancel(second, "x")
    for thread in waiting[1:]:
        thread.join(60)
    assert isinstance(errors[2, second], ClusterError)
    end.set()
    for thread in threads + waiting:
        thread.join(60)
    assert isinstance(errors[0, second], PeerLost) and not [key for key in errors if key[1] == first]
    servers.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "limits: expected an object"),
        ({"speed": 1}, "unknown limits.*speed"),
        ({"jobs": 0}, "jobs: expected 1 to 64"),
        ({"jobs": 2.5}, "jobs: expected"),
        ({"jobs": True}, "jobs: expected"),
        ({"queued": -1}, "queued: expected 0"),
        ({"stored_share": 1.5}, "stored_share: expected"),
        ({"stored_share": float("nan")}, "stored_share: expected"),
        ({"requests_a_minute": "many"}, "requests_a_minute: expected"),
    ],
)
def test_limits_that_cannot_be_are_named(content, message):
    with pytest.raises(InputError, match=message):
        parse_allowance(content, "limits")
    assert parse_allowance({"jobs": 3}, "limits") == Allowance(jobs=3)


def test_one_client_takes_no_more_of_the_store_than_its_share():
    store = Store(quota=100, share=0.5)
    with store.room(40, "a") as room:
        store.put("a", [Kept(b"h" * 16, None, 30)], room)
    with pytest.raises(StoreFull, match="30 of 50 that one client may take"):
        with store.room(21, "a"):
            pass
    with store.room(50, "b"), store.room(20, "a"), pytest.raises(StoreFull, match="of 100 are taken"):
        with store.room(1, "c"):
            pass
    with store.room(10) as room:
        store.put("b", [Kept(b"i" * 16, None, 10)], room)
    with pytest.raises(StoreFull, match="10 of 50"), store.room(41, "b"):
        pass
    store.delete([b"h" * 16], "a")
    store.delete([b"i" * 16], "b")
    with store.room(50, "a"), store.room(50, "b"):
        assert store.nbytes == 100
    assert store.nbytes == 0 and not store._taken and not store._handles


def test_one_client_takes_no_more_of_the_handles_than_its_share(monkeypatch):
    """However small what is kept under them is."""
    monkeypatch.setattr("private_keras.server.limits.MAX_HANDLES", 4)
    store = Store(quota=1000, share=0.5)

    def put(owner, *handles):
        with store.room(len(handles), owner) as room:
            store.put(owner, [Kept(handle * 16, None, 1) for handle in handles], room)

    put("a", b"a", b"b")
    with pytest.raises(StoreFull, match="2 tensors of this client are stored, 2 of all clients, of at most 2 and 4"):
        put("a", b"c")
    put("b", b"c", b"d")
    store.delete([b"a" * 16, b"c" * 16, b"z" * 16], "a")
    put("a", b"e")
    with pytest.raises(StoreFull, match="0 tensors of this client are stored, 4 of all clients"):
        put("c", b"f")


def test_requests_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("private_keras.server.pace.time", SimpleNamespace(monotonic=lambda: now[0]))
    pace = Pace(60, 1)
    for _ in range(60):
        pace.count("a", "Run")
    with pytest.raises(TooManyRequests, match="a may make 60 requests a minute; wait 1.0 s"):
        pace.count("a", "Upload")
    pace.count("a", "Health")
    pace.count("b", "Run")
    now[0] = 1.0
    pace.count("a", "Run")
    with pytest.raises(TooManyRequests):
        pace.count("a", "Run")
    unlimited = Pace(0, 1)
    for _ in range(1000):
        unlimited.count("a", "Run")


def test_calls_at_once():
    pace = Pace(0, 2)
    with pace.present("a"):
        with pace.present("a"), pytest.raises(TooManyRequests, match="a has 2 calls"), pace.present("a"):
            pass
        with pace.present("b"), pace.present("a"):
            pass


def test_a_client_whose_calls_do_not_end_leaves_room_for_others(tmp_path):
    servers = TlsServers(tmp_path, NAMES)
    servers.content["limits"] = {"jobs": 1, "queued": 1}
    servers.config = servers.write("cluster.json", servers.content)
    with servers, ExitStack() as held:
        first, second = (
            held.enter_context(closing(NetworkCluster(read_config(servers.config), name))) for name in NAMES[:2]
        )
        first.connect(60)
        over = threading.Event()
        held.callback(over.set)

        def endless():
            yield wire.UploadRequest(handle=secrets.token_bytes(16), elements=1)
            over.wait(100)

        stub = first._clients[0]._calls["Upload"]["stream_unary"]
        calls = [stub.future(endless(), timeout=100) for _ in range(40)]
        held.callback(lambda: [each.cancel() for each in calls])
        assert eventually(lambda: sum(each.done() for each in calls) == 30)
        second.connect(60)
        handle = second.share(np.ones(3), 18, "x")
        second.delete(handle)


NAMES = tuple(f"client{i}" for i in range(10))


@pytest.fixture(scope="module")
def busy_servers(tmp_path_factory):
    """Servers that compute two jobs at a time."""
    directory = tmp_path_factory.mktemp("busy")
    servers = TlsServers(directory, NAMES)
    servers.content["limits"] = {"jobs": 2, "jobs_each": 1, "queued_each": 9}
    servers.config = servers.write("cluster.json", servers.content)
    with servers:
        yield servers


def answer(cluster, plan, number):
    """Runs a job that only this number belongs to; whether its result is that number's."""
    x, w = np.full((4, 8), number / 100), np.ones((8, 3))
    y = cluster.run(plan, {"x": x, "w": w}, deadline=60)["y"]
    return bool(np.abs(y - 8 * number / 100).max() < 1e-3)


def test_fifty_requests_of_ten_identities_at_once_each_get_their_own_answer(busy_servers):
    plan = dense_plan()
    clusters = [connect_quietly(busy_servers, name) for name in NAMES]
    try:
        answers = {}

        def ask(number):
            answers[number] = answer(clusters[number % 10], plan, number)

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == dict.fromkeys(range(50), True)
        for client in clusters[0]._clients:
            assert eventually(lambda client=client: client.health().jobs == 0)
            assert client.health().stored_bytes == 0
    finally:
        for cluster in clusters:
            cluster.close()


def connect_quietly(servers, name):
    """A cluster that is nobody else's current one."""
    cluster = NetworkCluster(read_config(servers.config), name)
    cluster.connect()
    return cluster


def test_a_request_that_waits_too_long_or_is_one_too_many_is_told_so(busy_servers):
    plan, data = endless_plan(), dense_data(256, 256)
    cluster = connect_quietly(busy_servers, NAMES[0])
    try:
        outcomes = []

        def ask(deadline):
            try:
                cluster.run(plan, data, deadline=deadline)
                outcomes.append("done")
            except ClusterError as error:
                outcomes.append(error)

        first = threading.Thread(target=ask, args=(60,))
        first.start()
        assert eventually(lambda: all(client.health().jobs == 1 for client in cluster._clients))
        with pytest.raises(DeadlineExceeded, match="waited for its turn"):
            cluster.run(dense_plan(), {"x": np.ones((4, 8)), "w": np.ones((8, 3))}, deadline=2)
        waiting = [threading.Thread(target=ask, args=(60,)) for _ in range(9)]
        for thread in waiting:
            thread.start()
        assert eventually(lambda: all(client.health().jobs == 10 for client in cluster._clients))
        with pytest.raises(ClusterError, match="10 of this client, of at most 122 and 10"):
            cluster.run(dense_plan(), {"x": np.ones((4, 8)), "w": np.ones((8, 3))})
        # Somebody else's job does not wait for all of these.
        other = connect_quietly(busy_servers, NAMES[1])
        assert answer(other, dense_plan(), 7)
        assert sum(client.health().jobs for client in cluster._clients) > 0
        other.close()
    finally:
        cluster.close()
    for thread in [first, *waiting]:
        thread.join(60)
    assert len(outcomes) == 10
