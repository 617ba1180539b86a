"""Results for others on real servers: killed before, while and after results are left, fetched and forgotten."""

import os
import random
import threading
import time
import warnings
from concurrent import futures
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from private_keras.cli import main
from private_keras.cluster import NetworkCluster, running
from private_keras.cluster.client import ServerClient
from private_keras.cluster.delivery import Deliveries, Delivery
from private_keras.errors import FileError, HandleNotFound, PrivateKerasError
from private_keras.plan.builder import PlanBuilder
from private_keras.server.config import read_config
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers
from tests.test_faults import eventually

PARTIES = ("analyst", "receiver")
PARTS = range(3)


def made(size=64):
    b = PlanBuilder()
    x = b.input("x", (size, size), 18, "client")
    b.output(b.add("relu", x), "y", ["receiver"])
    return b.build("relu of x", "compute")


def data(seed, size=64):
    return np.random.default_rng(seed).integers(-100, 100, (size, size)).astype(float)


def send(cluster, seed, plan=None):
    plan = made() if plan is None else plan
    return cluster.run(plan, {"x": data(seed)}, delivery=f"n{seed}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("outbox"), PARTIES, storage=True) as running:
        running.starts = [1, 1, 1]
        yield running


@pytest.fixture
def killed(tmp_path):
    with TlsServers(tmp_path, PARTIES, storage=True) as running:
        running.starts = [1, 1, 1]
        yield running


def start(servers, party):
    servers.start(party)
    servers.starts[party] += 1
    servers.wait_listening(party, starts=servers.starts[party])


def kill(servers, party):
    process = servers.processes.pop(party)
    process.kill()
    process.wait()


def restart(servers, parties):
    for party in parties:
        kill(servers, party)
    for party in parties:
        start(servers, party)


@contextmanager
def connected(servers, name):
    """A new connection: one from before a restart may still be backing off."""
    with NetworkCluster(read_config(servers.config), name) as cluster:
        cluster.connect(60)
        yield cluster


def received(servers):
    """By name, what waits, whole; every one is checked."""
    with connected(servers, "receiver") as cluster:
        found = cluster.deliveries()
        for item in found:
            seed = int(item.name.removeprefix("n"))
            np.testing.assert_array_equal(cluster.receive(item)["y"], np.maximum(data(seed), 0))
        assert not cluster.deliveries()
    return {item.name for item in found}


def files(servers, party=None):
    place = f"trio-server{'*' if party is None else party}"
    return sorted(servers.storage.glob(f"{place}/deliveries/*"))


@pytest.mark.parametrize("killed", [(0,), (1,), (2,), (0, 1, 2)])
def test_what_was_acknowledged_waits_through_kills(servers, killed):
    with connected(servers, "analyst") as analyst:
        assert send(analyst, 1) == {}
    restart(servers, killed)
    assert received(servers) == {"n1"} and not files(servers)


@pytest.mark.parametrize("party", PARTS)
def test_a_server_killed_between_fetching_and_forgetting(servers, party):
    with connected(servers, "analyst") as analyst:
        send(analyst, 2)
    with connected(servers, "receiver") as receiver:
        (item,) = receiver.deliveries()
        np.testing.assert_array_equal(receiver.fetch(item)["y"], np.maximum(data(2), 0))
        kill(servers, party)
        # The result is here; a server that cannot forget it now is no reason to lose it.
        with pytest.warns(UserWarning, match=f"server{party} keeps its part of analyst/n2"):
            receiver.received(item)
    start(servers, party)
    with connected(servers, "receiver") as receiver:
        assert receiver.deliveries() == []
        with pytest.raises(HandleNotFound, match="received before"):
            receiver.fetch(item)
    assert len(files(servers)) <= 1
    with connected(servers, "analyst") as analyst:  # withdraws what is left
        analyst._forget([item.id])
    assert not files(servers)


@pytest.mark.parametrize("party", PARTS)
def test_a_server_killed_while_results_are_left_and_fetched(killed, party):
    """At any moment: what its sender was told is done waits whole; of all else, all parts or none are found.

    A server may keep its part of a result that nobody was told of: these servers serve no other test.
    """
    servers = killed
    generator, acknowledged = random.Random(party), set()
    with connected(servers, "analyst") as analyst:
        began = time.monotonic()
        send(analyst, 3)
        took = time.monotonic() - began
    for seed in (4, 5):
        with connected(servers, "analyst") as analyst:
            killer = threading.Timer(generator.uniform(0, 1.5 * took), servers.processes[party].kill)
            killer.start()
            with suppress(PrivateKerasError):
                send(analyst, seed)
                acknowledged.add(f"n{seed}")
            killer.join()
        kill(servers, party)
        start(servers, party)
    with connected(servers, "receiver") as receiver:
        (first, *_) = receiver.deliveries()
        killer = threading.Timer(generator.uniform(0, 0.1), servers.processes[party].kill)
        killer.start()
        with suppress(PrivateKerasError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.testing.assert_array_equal(receiver.receive(first)["y"], np.maximum(data(3), 0))
        killer.join()
    kill(servers, party)
    start(servers, party)
    assert acknowledged <= received(servers) | {str(first)} <= {"n3", "n4", "n5", "analyst/n3"}


def test_a_damaged_part_is_an_error_that_names_the_server_and_nothing_is_lost(servers):
    with connected(servers, "analyst") as analyst, connected(servers, "receiver") as receiver:
        send(analyst, 6)
        (item,) = receiver.deliveries()
        (path,) = files(servers, 1)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(FileError, match="server1: the result 'n6' of analyst: damaged"):
            receiver.receive(item)
        path.write_bytes(content)
        np.testing.assert_array_equal(receiver.receive(item)["y"], np.maximum(data(6), 0))


def test_a_result_that_a_full_disk_does_not_take_is_left_nowhere(servers):
    """Here a directory that cannot be written to; `test_outbox` has the other ways to fail."""
    place = servers.storage / "trio-server1"
    for path in place.glob("deliveries"):
        path.rmdir()
    (place / "deliveries").write_text("in the way")
    with connected(servers, "analyst") as analyst, connected(servers, "receiver") as receiver:
        with pytest.raises(PrivateKerasError, match="server1: the server's disk refuses"):
            send(analyst, 7)
        assert not receiver.deliveries()
        assert eventually(lambda: not files(servers, 0) and not files(servers, 2))
        (place / "deliveries").unlink()
        send(analyst, 8)
    assert received(servers) == {"n8"}


def test_what_a_sender_was_not_told_of_because_it_hung_up_is_left_nowhere(servers):
    b = PlanBuilder()
    b.input("x", (1 << 20,), 18, "client")
    y = b.add("relu", "x")
    b.output(y, "mine", ["client"])  # takes many messages, which wait for a reader
    b.output(b.add("slice", y, start=[0], stop=[9], step=[1]), "theirs", ["receiver"])
    plan, job = b.build("both", "compute"), os.urandom(16)
    with connected(servers, "analyst") as analyst:
        analyst._send(plan, analyst.incarnation)
        parts = {"x": analyst._split(np.zeros(1 << 20, np.uint64))}
        inputs = running.Inputs(parts, {}, {}, {}, 1, delivery="n11")
        calls = [
            client.run(running._requests(party, job, plan, inputs, 60.0), 60.0, False)
            for party, client in enumerate(analyst._clients)
        ]  # fmt: skip
        next(reply for reply in calls[0] if reply.contributions)
        assert len(files(servers, 0)) == 1
        for call in calls:
            call.cancel()
        assert eventually(lambda: not files(servers))
        analyst._forget([job])  # the helper had nothing to say, so that its call had come to its end


def test_the_command_keeps_a_result_until_its_file_is_written(servers, tmp_path, monkeypatch, capsys):
    def full(file, _):
        file.write(b"half")
        raise OSError("the receiver's disk is full")

    with connected(servers, "analyst") as analyst:
        send(analyst, 9)
    given = ["receive", "analyst/n9", "--config", str(servers.config), "--identity", "receiver", "--out"]
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(np, "save", full)
        main([*given, str(tmp_path / "y.npy")])
    assert not any(tmp_path.iterdir())
    assert main([*given, str(tmp_path / "y.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.maximum(data(9), 0))
    assert main([*given, str(tmp_path / "again.npy")]) != 0 and not files(servers)
    capsys.readouterr()


def test_without_storage_a_restart_loses_results_and_says_so(tmp_path):
    with TlsServers(tmp_path, PARTIES) as servers:
        servers.starts = [1, 1, 1]
        with connected(servers, "analyst") as analyst:
            send(analyst, 1)
        with connected(servers, "receiver") as receiver:
            (item,) = receiver.deliveries()
        restart(servers, [1])
        with connected(servers, "receiver") as receiver:
            assert receiver.deliveries() == []
            with pytest.raises(HandleNotFound, match="server1: .*lost in a restart"):
                receiver.fetch(item)


# --- parts of different jobs ------------------------------------------------------------------------------------------
class Told:
    """A server as a receiver sees it."""

    def __init__(self, name, items):
        self.name, self.items = name, items

    def deliveries(self):
        return [item for item, _ in self.items]

    def receive(self, job):
        return [wire.Contribution(output=0, data=part.tobytes()) for item, part in self.items if item.id == job]


def told(job, words, servers=3, **changes):
    entries = [wire.Entry(label="y", shape=[1], fraction=0)]
    facts = {"sender": "analyst", "name": "n", "id": bytes([job]) * 16, "entries": entries, "digest": "d"}
    return wire.Delivery(servers=servers, created=1.0, **{**facts, **changes}), np.array([words], "<u8")


def waiting(*parties):
    return Deliveries([Told(f"server{i}", items) for i, items in enumerate(parties)], futures.ThreadPoolExecutor(3))


@pytest.mark.parametrize(
    "changes", [{"sender": "other"}, {"name": "m"}, {"digest": "e"}, {"servers": 2}, {"entries": []},
                {"id": bytes([9]) * 16}],
)  # fmt: skip
@pytest.mark.parametrize("party", PARTS)
def test_servers_that_tell_different_things_of_a_result_have_none(changes, party):
    parts = [[told(1, 5)] for _ in PARTS]
    assert [item.name for item in waiting(*parts).listed()] == ["n"]
    parts[party] = [told(1, 5, **changes)]
    found = waiting(*parts).listed()
    assert not found or party == 2 and changes == {"servers": 2} and found[0].servers == 3


def test_a_part_that_a_server_has_of_another_run_under_the_same_id_is_not_added():
    """Two evaluators' results of a job with stock, and the helper's part of a job that had the same id before."""
    parts = [[told(1, 5, 2)], [told(1, 6, 2)], [told(1, 1000, 3)]]
    (item,) = waiting(*parts).listed()
    assert waiting(*parts).fetch(item)["y"].tolist() == [11]


def test_a_server_without_its_part_is_an_error_and_not_a_zero(servers):
    with connected(servers, "analyst") as analyst, connected(servers, "receiver") as receiver:
        send(analyst, 10)
        (item,) = receiver.deliveries()
        ServerClient.forget_delivery(receiver._clients[2], item.id)
        assert receiver.deliveries() == []
        with pytest.raises(HandleNotFound, match="server2"):
            receiver.fetch(item)
        assert isinstance(item, Delivery)
        analyst._forget([item.id])
