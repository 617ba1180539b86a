"""Emulated networks: a plan runs through them, they take the time that they promise, and nothing stays behind."""

import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.networks import links
from benchmarks.networks.hosts import EMULATED, emulated, links_for
from private_keras.cluster import current
from private_keras.forecast import Network
from tests.clusters import dense_data, dense_plan

SLOW = Network(rtt=20e-3, bandwidth=100e6)


def works(cluster):
    data = dense_data()
    began = time.monotonic()
    y = cluster.run(dense_plan(), data, deadline=60)["y"]
    np.testing.assert_allclose(y, np.maximum(data["x"] @ data["w"], 0), atol=1e-4)
    return time.monotonic() - began


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def spaces():
    """A network that namespaces of this machine can emulate; without netem, bandwidth alone."""
    for network in (SLOW, Network(rtt=0.0, bandwidth=1e9)):
        try:
            with links.Spaces(network):
                return network
        except links.Unavailable as error:
            why = error
    pytest.skip(f"no network namespaces here: {why}")


def test_a_plan_runs_through_proxies(monkeypatch):
    monkeypatch.setattr(links, "CALIBRATIONS", 0)  # this machine may be busy
    with emulated(SLOW, links.Proxied) as (cluster, servers):
        assert current() is cluster
        assert servers.kind == "delaying proxy" and servers.round_trip >= SLOW.rtt
        works(cluster)
        # Comparison, sharing and opening: several messages one after the other.
        assert works(cluster) > 2 * SLOW.rtt
        assert len(alive(servers.pids)) == 3
    assert not alive(servers.pids)


def test_what_a_proxy_takes_itself_is_part_of_the_delay(monkeypatch):
    monkeypatch.setattr(links, "_measured", lambda delay, bandwidth: 2 * delay + 3e-3)
    monkeypatch.setattr(links, "ProxyProcess", lambda delay, *_: delays.append(delay))
    delays = []
    assert links.Proxied(SLOW).round_trip() == pytest.approx(SLOW.rtt)
    assert delays == [pytest.approx(SLOW.rtt / 2 - 1.5e-3)]


def test_a_plan_runs_through_namespaces():
    network = spaces()
    with emulated(network, links.Spaces) as (cluster, servers):
        assert servers.kind == "namespaces"
        names = {Path(f"/proc/{pid}/ns/net").readlink() for pid in [*servers.pids, "self"]}
        assert len(names) == 4
        works(cluster)
        assert works(cluster) > 2 * network.rtt
    assert not alive(servers.pids)
    left = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "pk" not in left


def test_loopback_without_a_network():
    with emulated("tcp") as (cluster, servers):
        assert servers.kind == "loopback" and servers.round_trip is None
        works(cluster)


def test_nothing_stays_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(ZeroDivisionError), emulated("tcp") as (_, servers):
        raise ZeroDivisionError
    assert not alive(servers.pids)
    assert not list(tmp_path.iterdir())


def test_what_is_missing_gives_proxies(monkeypatch):
    def unavailable(network):
        raise links.Unavailable("no rights")

    monkeypatch.setattr("benchmarks.networks.hosts.Spaces", unavailable)
    with links_for(EMULATED["lan"]) as made:
        assert made.kind == "delaying proxy"


def test_shaping():
    assert links.shaping(EMULATED["wan"]) == ["netem", "delay", "20000us", "rate", "300000000bit", "limit", "1000000"]
    assert links.shaping(Network(0.0, 1e9))[:3] == ["tbf", "rate", "1000000000bit"]


def through(delay, bandwidth, count):
    """Seconds until `count` bytes have come through a proxy, and what has come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = links.ProxyProcess(delay, bandwidth, [server.getsockname()[1]])
        try:
            with socket.create_connection(("127.0.0.1", proxy.ports[0])) as ours, server.accept()[0] as theirs:
                sent = np.random.default_rng(0).bytes(count)
                began = time.monotonic()
                writer = threading.Thread(target=lambda: (ours.sendall(sent), ours.shutdown(socket.SHUT_WR)))
                writer.start()
                came = b""
                while piece := theirs.recv(1 << 20):
                    came += piece
                seconds = time.monotonic() - began
                writer.join()
                # The way back is open as long as nobody closes it.
                theirs.sendall(b"answer")
                assert ours.recv(16) == b"answer"
        finally:
            proxy.close()
    assert came == sent
    return seconds


def test_the_proxy_delays():
    assert through(0.05, 1e9, 1000) >= 0.05


def test_the_proxy_is_as_slow_as_its_link():
    # 2 MB at 80 Mbit/s take 0.2 s.
    assert through(0.0, 80e6, 2_000_000) >= 0.2


def test_the_proxy_closes_where_nobody_listens():
    port = links.Direct().address(3, 0)[1]
    proxy = links.ProxyProcess(0.0, 1e9, [port])
    try:
        with socket.create_connection(("127.0.0.1", proxy.ports[0]), timeout=60) as client:
            assert client.recv(1) == b""
    finally:
        proxy.close()
