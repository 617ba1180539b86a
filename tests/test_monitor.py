"""Health, readiness and metrics over HTTP; and how a server ends, with its jobs or without."""

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, closing, contextmanager, suppress

import numpy as np
import pytest

from private_keras.cluster import connect
from private_keras.errors import ClusterError, InputError
from private_keras.server import monitor as monitor_module
from private_keras.server.metrics import Metrics
from private_keras.server.monitor import Monitor, parse_address
from tests.clusters import TlsServers, dense_data, dense_plan, endless_plan, held_back
from tests.test_faults import eventually

LINE = re.compile(r'(?P<name>private_keras_[a-z_]+)(\{(?P<labels>([a-z]+="[^"]*",?)+)\})? (?P<value>[-+0-9.e]+)')


def get(port, path):
    """Code and text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def readings(text):
    """By name and labels; fails for a line that is not of the format."""
    found, announced = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            announced.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match and match["name"] in announced, line
            key = (match["name"].removeprefix("private_keras_"), match["labels"] or "")
            assert key not in found
            found[key] = float(match["value"])
    return found


def metrics_port(servers, party):
    return json.loads(next(line for line in servers.log(party).splitlines() if "server started" in line))["metrics"]


@contextmanager
def watched(directory, **limits):
    """Servers with metrics, by clients at server 1."""
    servers = TlsServers(directory)
    servers.content["limits"] = limits
    servers.config = servers.write("cluster.json", servers.content)
    for party in range(3):
        more = ["--metrics-by-client"] if party == 1 else []
        servers.start(party, None, directory / "disk", "--metrics", "0", *more)
    try:
        for party in range(3):
            servers.wait_listening(party)
        yield servers
    finally:
        servers.__exit__()


def test_what_an_orchestrator_and_prometheus_are_told(tmp_path):
    with watched(tmp_path) as servers, connect(servers.config, identity="analyst") as cluster:
        ports = [metrics_port(servers, party) for party in range(3)]
        cluster.run(dense_plan(), dense_data(), deadline=20)
        cluster.run(dense_plan(), dense_data(), deadline=20)
        with pytest.raises(InputError, match="server1: expected at most 1048576 bytes"):
            cluster._clients[1].probe(0, 1 << 30)
        handle = cluster.share(np.ones((8, 3)), 18, "w")
        found = [readings(get(port, "/metrics")[1]) for port in ports]
        for party, port in enumerate(ports):
            assert get(port, "/healthz") == (200, "alive\n")
            assert get(port, "/readyz") == (200, "ready\n")
            assert get(port, "/secrets")[0] == 404
            mine = found[party]
            assert mine["jobs_total", 'kind="run"'] == 2
            assert mine["ready", ""] == 1 and mine["jobs", ""] == 0 and mine["store_bytes", ""] > 0
            assert 800 * 86400 < mine["certificate_end_seconds", ""] - time.time() < 830 * 86400
            assert mine["open_files", ""] < mine["open_files_limit", ""] and mine["resident_bytes", ""] > 1e6
            assert mine["storage_free_bytes", ""] > 0
        sent = sum(mine["lane_bytes_total", 'direction="sent"'] for mine in found)
        assert sent == sum(mine["lane_bytes_total", 'direction="received"'] for mine in found) > 0
        assert sum(cluster.stats.total.sent) == sent
        assert found[0]["requests_total", 'call="RunShort",result="ok"'] == 2
        assert found[1]["requests_total", 'call="RunShort",result="ok",client="analyst"'] == 2
        assert found[1]["errors_total", 'call="Probe",error="InputError"'] == 1
        assert found[1]["control_bytes_total", 'direction="received"'] > 8 * 32
        assert not any("analyst" in labels for _, labels in found[0])
        cluster.delete(handle)


def test_a_slow_caller_does_not_stop_the_monitor():
    with closing(Monitor("0", lambda: "", lambda: ["asleep"])) as monitor:
        with socket.create_connection(("127.0.0.1", monitor.port)):
            assert get(monitor.port, "/readyz") == (503, "asleep\n")
        for method in ("POST", "PUT", "DELETE"):
            request = urllib.request.Request(f"http://127.0.0.1:{monitor.port}/metrics", method=method)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            assert caught.value.code == 501
            caught.value.close()


def test_callers_that_send_a_byte_now_and_then_neither_stop_the_monitor_nor_its_end(monkeypatch):
    monkeypatch.setattr(monitor_module, "CALLERS", 2)
    with closing(Monitor("0", lambda: "", list)) as monitor, ExitStack() as held:
        slow = [held.enter_context(socket.create_connection(("127.0.0.1", monitor.port))) for _ in range(3)]

        def cut(sock):
            """Whether the monitor has ended it."""
            try:
                return not sock.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        def ended():
            for sock in slow:
                with suppress(OSError):
                    sock.sendall(b"G")
            time.sleep(0.05)
            return all(cut(sock) for sock in slow)

        assert eventually(ended)
        assert get(monitor.port, "/healthz") == (200, "alive\n")
        held.enter_context(socket.create_connection(("127.0.0.1", monitor.port))).sendall(b"GET /")


def test_addresses_for_metrics():
    assert parse_address("9000") == ("127.0.0.1", 9000)
    assert parse_address("0.0.0.0:9000") == ("0.0.0.0", 9000)
    for wrong in ("", "x", "h:x", "1.2.3.4:99999", "h:1/x"):
        with pytest.raises(InputError, match="expected host:port or a port"):
            parse_address(wrong)
    with closing(Monitor("0", lambda: "", list)) as monitor, pytest.raises(ClusterError, match="for metrics"):
        Monitor(str(monitor.port), lambda: "", list)


def test_labels_are_escaped():
    metrics = Metrics(True)
    metrics.request("Run", "ok", 'a"b\\c\nd')
    assert 'client="a\\"b\\\\c\\nd"} 1' in metrics.text()


def test_a_server_that_is_told_to_end_finishes_its_jobs_and_takes_no_new_ones(tmp_path, monkeypatch):
    data, release = dense_data(), threading.Event()
    with watched(tmp_path, drain_seconds=60) as servers, connect(servers.config, identity="analyst") as cluster:
        port = metrics_port(servers, 1)
        results = []
        monkeypatch.setattr(cluster._clients[1], "run", held_back(cluster._clients[1], release))
        job = threading.Thread(target=lambda: results.append(cluster.run(dense_plan(), data, deadline=60)["y"]))
        job.start()
        assert eventually(lambda: all(client.health().jobs == 1 for client in cluster._clients))
        os.kill(servers.processes[1].pid, signal.SIGTERM)
        assert eventually(lambda: get(port, "/readyz") == (503, "about to end\n"))
        assert get(port, "/healthz")[0] == 200
        assert cluster._clients[1].health().draining
        monkeypatch.undo()
        with pytest.raises(ClusterError, match="server1: this server is about to end"):
            cluster.run(dense_plan(), dense_data(), deadline=20)
        release.set()
        job.join(60)
        np.testing.assert_allclose(results, [np.maximum(data["x"] @ data["w"], 0)], atol=1e-4)
        assert servers.processes[1].wait(60) == 0
        assert '"server drains"' in servers.log(1) and '"server stopped"' in servers.log(1)


@pytest.mark.parametrize("twice", [True, False])
def test_a_second_signal_or_the_end_of_the_grace_ends_jobs_too(tmp_path, twice):
    plan, data = endless_plan(), dense_data(256, 256)
    grace = {"drain_seconds": 3600 if twice else 0.5}
    with watched(tmp_path, **grace) as servers, connect(servers.config, identity="analyst") as cluster:
        errors = []

        def run():
            try:
                cluster.run(plan, data, deadline=100)
            except ClusterError as error:
                errors.append(error)

        job = threading.Thread(target=run)
        job.start()
        assert eventually(lambda: all(client.health().jobs == 1 for client in cluster._clients))
        os.kill(servers.processes[1].pid, signal.SIGTERM)
        if twice:
            assert eventually(lambda: '"server drains"' in servers.log(1))
            os.kill(servers.processes[1].pid, signal.SIGTERM)
        assert servers.processes[1].wait(60) == 0
        job.join(60)
        assert errors and "server1" in str(errors[0])
