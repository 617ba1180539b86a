"""Lanes between three servers in one process, over real Unix sockets: agreement on jobs, pooling, failures."""

import errno
import os
import secrets
import threading
import time

import numpy as np
import pytest

from private_keras.errors import ClusterError, FrameError, PeerLost, SecurityError, ServerUnavailable, VersionMismatch
from private_keras.server.allowance import Allowance
from private_keras.server.jobs import JobCancelled, Jobs
from private_keras.server.lanes import Lanes
from private_keras.server.log import Log
from private_keras.server.pairing import Setup
from private_keras.server.ties import Common
from private_keras.transport.frames import HELLO_STEP, SETUP_STEP
from private_keras.transport.unix import UnixEndpoint

DIGEST = bytes(range(32))
NAMES = ["server0", "server1", "server2"]

ALIKE = Common((), b"")  # what all have in common of no inputs


def alike(party, parts=ALIKE):
    """What a party has in common with each peer."""
    return dict.fromkeys({0, 1, 2} - {party}, parts)


def eventually(check, seconds=60.0):
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Servers:
    """Lanes and jobs of three servers."""

    def __init__(self, directory, allowance=None):
        self.allowance = allowance or Allowance()
        os.chmod(directory, 0o700)
        self.addresses = [str(directory / name) for name in NAMES]
        self.lanes = [self._make(party) for party in range(3)]
        self.jobs = [Jobs(lanes.wake, self.allowance) for lanes in self.lanes]
        self.restarted = []
        for party in (0, 1, 2):
            self.lanes[party].listen(self.addresses[party])

    def _make(self, party, protocol="trio"):
        return Lanes(party, NAMES, self.addresses, UnixEndpoint(), protocol, Log(NAMES[party], "error"), 128)

    def restart(self, party):
        self.lanes[party].close()
        self.lanes[party] = self._make(party)
        self.lanes[party].listen(self.addresses[party])
        self.jobs[party] = Jobs(self.lanes[party].wake, self.allowance)

    def run(
        self, work, job=None, digests=(DIGEST,) * 3, parties=(0, 1, 2), seconds=60.0, draws=None, needed=None,
        parts=ALIKE,
    ):  # fmt: skip
        """work(party, job, lanes) at each party; returns results or exceptions, by party.

        `draws(party, peer)` is how often it then says it drew; the same for all if not given. `needed(party)` are the
        peers it waits for; all if not given.
        """
        job_id = job or secrets.token_bytes(16)
        results = {}

        def one(party):
            try:
                with self.jobs[party].begin(job_id, "local", time.monotonic() + seconds) as running:
                    lanes = self.lanes[party].open(running, digests[party], alike(party, parts))
                    try:
                        results[party] = work(party, running, lanes)
                    except BaseException:
                        lanes.fail(party)
                        raise
                    drew = {peer: draws(party, peer) if draws else 7 for peer in lanes.channels}
                    lanes.finish(drew, needed(party) if needed else list(drew))
            except Exception as error:  # handed to the test
                results[party] = error

        threads = [threading.Thread(target=one, args=(p,), daemon=True) for p in parties]
        for t in threads:
            t.start()
        for t in threads:
            t.join(100)
            assert not t.is_alive(), "a server hangs"
        return results

    def close(self):
        for lanes in self.lanes:
            lanes.close()


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path)
    yield made
    made.close()


def keys_of(party, job, lanes):
    return dict(lanes.keys)


def pairs(results):
    """The keys of each pair, after checking that both ends have the same."""
    found = {}
    for i in range(3):
        for j in range(i):
            assert results[i][j] == results[j][i]
            found[j, i] = results[i][j]
    return found


def test_each_pair_has_a_key_of_its_own_fresh_in_every_job_of_one_lane(servers):
    seen = set()
    for _ in range(5):
        found = pairs(servers.run(keys_of))
        seen |= set(found.values())
    assert len(seen) == 15


def test_lanes_carry_messages_and_are_used_again(servers):
    def work(party, job, lanes):
        for peer, channel in lanes.channels.items():
            out = np.empty(3, np.uint64)
            channel.exchange(0, np.full(3, party, np.uint64), out)
            assert (out == peer).all()
        return {peer: channel for peer, channel in lanes.channels.items()}

    first, second = servers.run(work), servers.run(work)
    for party in range(3):
        assert first[party] == second[party], "the lanes of the first job serve the second"


def test_a_result_is_withheld_where_two_servers_drew_differently(servers):
    results = servers.run(keys_of, draws=lambda party, peer: 8 if (party, peer) == (2, 0) else 7)
    assert isinstance(results[0], FrameError) and "server2 drew randomness" in str(results[0])
    assert isinstance(results[2], FrameError) and "server0 drew randomness" in str(results[2])
    assert not isinstance(results[1], Exception)
    pairs(servers.run(keys_of))  # the next job is well


def channels_of(party, job, lanes):
    return dict(lanes.channels)


NEEDED = {0: [2], 1: [2], 2: []}.get  # as the runner has it where results are opened


def test_who_has_no_part_of_the_result_does_not_wait_for_the_others(servers):
    idle = servers.lanes[2]._idle

    def work(party, job, lanes):
        if party != 2:
            assert eventually(lambda: idle[0] and idle[1]), "the helper waits for servers that have not come to the end"
        return dict(lanes.channels)

    first = servers.run(work, needed=NEEDED)
    assert eventually(lambda: not any(lane.channel.idle() for lanes in idle.values() for lane in lanes))
    second = servers.run(channels_of, needed=NEEDED)
    assert second == first, "once all have said that the first job is over, its lanes serve the second"


def test_a_lane_whose_peer_is_still_busy_serves_no_other_job(servers):
    go, begun = threading.Event(), threading.Barrier(3)
    found = []

    def busy(party, job, lanes):
        begun.wait(60)
        if party != 2:
            assert go.wait(60)
        return dict(lanes.channels)

    thread = threading.Thread(target=lambda: found.append(servers.run(busy, needed=NEEDED)))
    thread.start()
    assert eventually(lambda: len(servers.lanes[2]._idle[0]) == 1 and len(servers.lanes[2]._idle[1]) == 1)
    others = servers.run(channels_of, needed=NEEDED)
    go.set()
    thread.join()
    for party in range(3):
        assert not set(others[party].values()) & set(found[0][party].values())


def test_a_result_that_does_not_depend_on_who_drew_differently_comes_and_their_lane_is_closed(servers):
    first = servers.run(channels_of, draws=lambda party, peer: 8 if (party, peer) == (1, 0) else 7, needed=NEEDED)
    assert not any(isinstance(result, Exception) for result in first.values())
    second = servers.run(channels_of, needed=NEEDED)
    assert second[1][0] is not first[1][0] and second[0][1] is not first[0][1]
    assert second[2] == first[2]


@pytest.mark.parametrize("party", [0, 1])
def test_the_helper_disagreeing_withholds_results_from_those_who_have_them(servers, party):
    results = servers.run(keys_of, draws=lambda p, peer: 8 if (p, peer) == (2, party) else 7, needed=NEEDED)
    assert isinstance(results[party], FrameError) and "server2 drew randomness" in str(results[party])
    assert isinstance(results[2], dict)
    pairs(servers.run(keys_of, needed=NEEDED))


@pytest.mark.parametrize("party", [0, 1])
def test_the_helper_lost_before_it_says_its_count_withholds_results_from_those_who_have_them(servers, party):
    def work(own, job, lanes):
        if own == 2:
            lanes.channels[party].close()
        return dict(lanes.channels)

    results = servers.run(work, needed=NEEDED)
    assert isinstance(results[party], PeerLost) and "server2" in str(results[party])
    assert isinstance(results[1 - party], dict) and isinstance(results[2], dict)
    pairs(servers.run(keys_of, needed=NEEDED))


@pytest.mark.parametrize("slow", [False, True])
def test_a_lane_that_was_cut_at_the_end_of_the_job_before_is_replaced(servers, slow):
    """As when a job is cancelled while its peers have come to the end and gone on to the next."""
    first = servers.run(channels_of)
    real_claim = servers.lanes[1]._claim
    servers.lanes[1]._claim = lambda *given: late() and real_claim(*given)

    def late():  # the peer may notice and come again before this server looks at the lane that broke
        return not slow or eventually(lambda: [lane for lane in servers.lanes[1]._offers.values() if not lane.used])

    real = servers.lanes[2]._take

    def take(peer):
        lane = real(peer)
        if peer == 1:
            first[1][2].interrupt()  # after the other end looked
        return lane

    servers.lanes[2]._take = take
    second = servers.run(channels_of)
    assert not any(isinstance(result, Exception) for result in second.values()), second
    assert second[2][1] is not first[2][1] and second[1][2] is not first[1][2]


def test_jobs_at_the_same_time_have_lanes_of_their_own(servers):
    barrier = threading.Barrier(6)

    def work(party, job, lanes):
        barrier.wait(60)
        return list(lanes.channels.values())

    outcomes = [None, None]
    threads = [threading.Thread(target=lambda i=i: outcomes.__setitem__(i, servers.run(work))) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
    for party in range(3):
        assert not set(outcomes[0][party]) & set(outcomes[1][party])


def test_another_plan_is_refused_at_both_ends(servers):
    results = servers.run(keys_of, digests=(DIGEST, bytes(32), DIGEST))
    errors = [str(e) for e in results.values() if isinstance(e, VersionMismatch)]
    assert any("server1 has another plan" in e for e in errors), results
    assert not any(isinstance(r, dict) for r in results.values())
    assert pairs(servers.run(keys_of)), "the servers can be used again"


def test_a_failure_at_one_party_ends_the_job_at_all_and_closes_the_lanes(servers):
    def work(party, job, lanes):
        if party == 1:
            raise ClusterError("out of luck")
        lanes.channels[1].receive(0, np.empty(1, np.uint64))

    before = servers.run(lambda party, job, lanes: list(lanes.channels.values()))
    results = servers.run(work)
    assert str(results[1]) == "out of luck"
    for party in (0, 2):
        assert isinstance(results[party], PeerLost) and "server1 gave up" in str(results[party])
    after = servers.run(lambda party, job, lanes: list(lanes.channels.values()))
    for party in range(3):
        assert not set(before[party]) & set(after[party])


def test_a_server_that_was_restarted_is_reached_again(servers):
    pairs(servers.run(keys_of))
    for party in (0, 1, 2):
        servers.restart(party)
        assert len(set(pairs(servers.run(keys_of)).values())) == 3


class Hurried:
    """A listener that fails before it accepts anybody, as one without descriptors does."""

    def __init__(self, listener):
        self._listener = listener
        self.failures = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]

    def accept(self):
        if self.failures:
            raise self.failures.pop()
        return self._listener.accept()

    def __getattr__(self, name):
        return getattr(self._listener, name)


def test_connections_that_cannot_be_accepted_end_no_server(servers, monkeypatch):
    servers.lanes[0].close()
    listen = UnixEndpoint.listen
    monkeypatch.setattr(UnixEndpoint, "listen", lambda self, address: Hurried(listen(self, address)))
    servers.restart(0)
    assert len(set(pairs(servers.run(keys_of)).values())) == 3
    assert not servers.lanes[0]._listener.failures


def test_without_a_thread_for_it_a_connection_is_closed(servers, monkeypatch):
    real, left = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start(thread):
        if thread.name == "lane" and left:
            raise left.pop()
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert any(isinstance(result, Exception) for result in servers.run(keys_of, seconds=1).values())
    assert not left and len(set(pairs(servers.run(keys_of)).values())) == 3
    assert all(lanes._callers <= 3 for lanes in servers.lanes)


def test_who_does_not_come_is_named(servers, monkeypatch):
    monkeypatch.setattr("private_keras.server.limits.JOIN_SECONDS", 0.3)
    results = servers.run(keys_of, parties=(0, 2))
    assert isinstance(results[0], ServerUnavailable) and "server1 did not join" in str(results[0])
    assert isinstance(results[2], Exception)


def test_nobody_at_the_data_address_is_named(servers, monkeypatch):
    monkeypatch.setattr("private_keras.server.limits.DIAL_SECONDS", 0.3)
    monkeypatch.setattr("private_keras.server.limits.JOIN_SECONDS", 0.3)
    servers.lanes[0]._listener.close()
    os.unlink(servers.addresses[0])
    results = servers.run(keys_of)
    assert isinstance(results[2], ServerUnavailable) and "server0" in str(results[2])


def test_a_cancelled_job_ends_while_it_waits(servers):
    job_id = secrets.token_bytes(16)

    def cancel():
        while not servers.jobs[0].cancel(job_id, "local"):
            time.sleep(0.01)

    threading.Timer(0.1, cancel).start()
    results = servers.run(keys_of, job=job_id, parties=(0,))
    assert isinstance(results[0], JobCancelled)

    job_id, begun = secrets.token_bytes(16), threading.Barrier(4)

    def work(party, job, lanes):
        begun.wait(60)
        lanes.channels[0 if party else 2].receive(0, np.empty(1))

    threading.Thread(target=lambda: begun.wait(60) >= 0 and cancel()).start()
    results = servers.run(work, job=job_id)
    assert isinstance(results[0], PeerLost)  # the runner turns it into JobCancelled, which it asks the job for
    assert isinstance(results[1], PeerLost) and isinstance(results[2], PeerLost)


def test_ids_are_used_once_and_their_number_at_a_time_is_bounded():
    jobs = Jobs(lambda: None, Allowance(jobs=1, queued=1))
    deadline = time.monotonic() + 10
    with jobs.begin(b"a" * 16, "x", deadline), jobs.begin(b"b" * 16, "x", deadline):
        with pytest.raises(ClusterError, match="2 jobs are on this server, 2 of this client, of at most 2"):
            with jobs.begin(b"c" * 16, "x", deadline):
                pass
        assert not jobs.cancel(b"a" * 16, "y"), "a job of somebody else"
    assert len(jobs) == 0
    with jobs.begin(b"c" * 16, "x", deadline):
        pass  # refused above for lack of room, so it was not used
    for used in (b"a" * 16, b"c" * 16):
        with pytest.raises(SecurityError, match="used before"), jobs.begin(used, "x", deadline):
            pass
    with pytest.raises(SecurityError, match="16 bytes"), jobs.begin(b"short", "x", deadline):
        pass


@pytest.mark.parametrize("claim", [0, 1, 7])
def test_callers_that_claim_to_be_somebody_they_cannot_be_are_dropped(servers, claim):
    channel = UnixEndpoint().dial(servers.addresses[1], "server1", time.monotonic() + 60)
    setup = Setup(claim)
    theirs = np.empty(len(setup.message), np.uint8)
    channel.exchange(SETUP_STEP, np.frombuffer(setup.message, np.uint8), theirs)
    with pytest.raises(PeerLost):
        channel.receive(HELLO_STEP, np.empty(1, np.uint8))
    channel.close()


def test_garbage_on_the_data_socket_does_no_harm(servers):
    for junk in (b"", b"\0" * 5, b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(4096)):
        channel = UnixEndpoint().dial(servers.addresses[0], "server0", time.monotonic() + 60)
        if junk:
            channel._socket.sendall(junk)
        channel.close()
    assert pairs(servers.run(keys_of))


def test_an_announcement_that_nobody_claims_is_dropped(servers, monkeypatch):
    monkeypatch.setattr("private_keras.server.limits.JOIN_SECONDS", 0.2)
    results = servers.run(keys_of, parties=(2,))
    assert isinstance(results[2], Exception)
    assert eventually(lambda: not servers.lanes[0]._offers and not servers.lanes[1]._offers)


@pytest.mark.parametrize("needed", [False, True])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_result_that_needs_all_servers_is_none_when_one_does_not_come_to_the_end(servers, lost, needed):
    def work(party, job, lanes):
        if party == lost:
            raise ClusterError("no room")
        return "done"

    results = servers.run(work, needed=None if needed else lambda party: [])
    assert isinstance(results[lost], ClusterError)
    for party in {0, 1, 2} - {lost}:
        assert isinstance(results[party], PeerLost) if needed else results[party] == "done"
    assert pairs(servers.run(keys_of))
