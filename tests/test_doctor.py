"""`private-keras doctor`: what it finds, and what it advises."""

import re
import time

import pytest

from private_keras.cluster import doctor
from private_keras.cluster.doctor import Report, _state, examine
from private_keras.cluster.keys import make_party, renew
from private_keras.server.config import parse_config, read_config
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, free_ports


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("doctor")
    roles = {"clinic": ["receiver"], "hospital": ["server", "owner"]}
    with TlsServers(directory, ("analyst", "clinic", "hospital"), roles, ("hospital",)) as made:
        yield made


def findings(report, kind):
    return [line for line in report.splitlines() if line.startswith(kind)]


def test_all_is_well(servers, monkeypatch):
    monkeypatch.setattr(doctor, "SLOW_SECONDS", 60.0)  # this machine may be busy
    report, healthy = examine(servers.config, "analyst")
    assert healthy and not findings(report, "FAIL") and not findings(report, "warn"), report
    assert "server0 at 127.0.0.1" in report and "operated by hospital" in report
    assert "keeps nothing on disk" in report
    for name in ("authority", "analyst", "server2", "hospital"):
        assert re.search(rf"ok    {name}.pem: valid until .* \(82\d days\)", report), report
    for server in ("server0", "server1", "server2"):
        rates = r"[\d.]+ ms there and back, [\d.]+ [MG]bit/s up, [\d.]+ [MG]bit/s down from here"
        assert re.search(f"{server}: {rates}", report)
    for pair in ("server1 to server0", "server2 to server0", "server2 to server1"):
        assert re.search(rf"ok    {pair}: data port open, [\d.]+ ms", report)
    assert re.search(r"a job of \d+ rounds took [\d.]+ ms", report)
    assert re.search(r"a job that moves [\d.]+ MB between servers took [\d.]+ s: at least [\d.]+ [MG]bit/s", report)


def test_who_runs_no_jobs_is_not_asked_to(servers):
    report, healthy = examine(servers.config, "clinic")
    assert healthy and "clinic runs no jobs: its roles are receiver" in report


def test_a_key_that_others_may_read(servers):
    key = servers.directory / "keys/clinic.key"
    key.chmod(0o640)
    report, healthy = examine(servers.config, "clinic")
    key.chmod(0o600)
    assert healthy and f"chmod 600 {key}" in report and findings(report, "warn")


def changed(servers, name, party, **entries):
    content = {**servers.content, "servers": [dict(server) for server in servers.content["servers"]]}
    content["servers"][party].update(entries)
    return servers.write(name, content)


def test_a_server_that_is_not_there(servers):
    report, healthy = examine(changed(servers, "broken.json", 1, control="127.0.0.1:1"), "analyst")
    assert not healthy
    (line,) = findings(report, "FAIL")
    assert "ServerUnavailable: server1" in line and "-> is the server running" in report
    assert "server2 to server0: data port open" in report and "no job was run" in report


def test_a_certificate_of_somebody_else_and_none(servers):
    report, healthy = examine(changed(servers, "pin.json", 2, certificate="sha256:" + "0" * 64), "analyst")
    assert not healthy
    assert "FAIL  server2.pem: its key is not the one pinned" in report
    assert "FAIL  SecurityError: server2" in report and "compare certificates and pins" in report
    report, healthy = examine(servers.config, "nobody")
    assert not healthy and "nobody.pem" in report


def test_a_closed_data_port(servers, tmp_path):
    """Server 1 is told another data address of server 0, where nobody listens."""
    servers.stop(1)
    (free,) = free_ports(1)
    servers.start(1, changed(servers, "closed.json", 0, data=f"127.0.0.1:{free}"))
    servers.wait_listening(1, starts=2)
    report, healthy = examine(servers.config, "analyst")
    servers.stop(1)
    servers.start(1)
    servers.wait_listening(1, starts=3)
    assert not healthy
    assert "FAIL  server1 to server0, data port: ServerUnavailable: server1: server0 does not answer" in report
    assert "server2 to server1: data port open" in report


def test_certificates_that_end_soon_or_have(servers, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    for path in (servers.directory / "keys").iterdir():
        (keys / path.name).write_bytes(path.read_bytes())
    renew(keys, "analyst", days=9)
    (keys / "server0.pem").unlink()
    (keys / "server0.key").unlink()
    make_party(keys, "server0", days=-2)
    config = tmp_path / "cluster.json"
    config.write_text(servers.config.read_text())
    with pytest.warns(UserWarning, match="analyst.pem is valid until"):
        report, healthy = examine(config, "analyst")
    assert not healthy, "server 0 has another key than here"
    assert re.search(r"warn  analyst.pem: valid until .* \([89] days\)\n +-> .*keys --renew analyst", report)
    assert "FAIL  server0.pem" in report


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"draining": True}, "about to end"),
        ({"storage": "/x cannot be written to"}, "FAIL  server0: /x cannot be written to"),
        ({"storage": "/x: the disk is full"}, "FAIL  server0: /x: the disk is full"),
        ({"storage_free": 1000}, "1,000 bytes free"),
        ({"certificate_ends": time.time() + 5.5 * 86_400}, "ends in 5 days"),
    ],
)
def test_what_a_server_says_of_itself(servers, changes, line):
    server = read_config(servers.config).servers[0]
    given = {"storage_free": 1 << 40, "certificate_ends": time.time() + 900 * 86_400, **changes}
    report = Report()
    _state(report, server, wire.HelloReply(version="1"), wire.HealthReply(**given), 0.0)
    assert (line is None) == (len(report.lines) == 1)
    assert line is None or (line in str(report) and "->" in str(report))
    assert report.healthy == ("storage" not in changes)


def test_clocks_that_differ(servers):
    server = read_config(servers.config).servers[0]
    for ahead, words in ((600.0, "600 s ahead of"), (-90.0, "90 s behind")):
        report = Report()
        state = wire.HealthReply(storage_free=1 << 40, certificate_ends=time.time() + 900 * 86_400)
        _state(report, server, wire.HelloReply(version="1"), state, ahead)
        assert words in str(report) and "NTP" in str(report)


def test_names_of_a_description(tmp_path):
    content = {f"server{i}": f"h{i}:1" for i in range(3)}
    config = parse_config({**content, "b": "h:0", "a": "h:0"}, tmp_path)
    assert config.names == ["server0", "server1", "server2", "a", "b"]
