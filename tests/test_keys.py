"""Certificates that are renewed, made without an authority, or end: on disk, and between servers that run."""

import datetime
import re
import stat
import time
import types

import numpy as np
import pytest

from private_keras.cli import main
from private_keras.cluster import NetworkCluster, connect
from private_keras.cluster.keys import make_alone, make_keys, make_party, renew, show
from private_keras.errors import FileError, InputError, PrivateKerasError, SecurityError
from private_keras.server.config import parse_config
from private_keras.server.identity import Identities
from private_keras.transport.credentials import Credentials, Watched, read_certificate
from tests.clusters import TlsServers, dense_data, dense_plan
from tests.test_faults import eventually


def works(cluster):
    data = dense_data()
    y = cluster.run(dense_plan(), data, deadline=20)["y"]
    np.testing.assert_allclose(y, np.maximum(data["x"] @ data["w"], 0), atol=1e-4)


def files(directory, name, **pins):
    return Credentials((directory / "authority.pem",), directory / f"{name}.pem", directory / f"{name}.key", pins)


@pytest.mark.parametrize("new_key", [False, True])
def test_renewal_keeps_the_files_from_before(tmp_path, new_key):
    pin = make_keys(tmp_path, ["analyst"], days=5)["analyst"]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    renewed = renew(tmp_path, "analyst", 100, new_key)
    assert (renewed == pin) != new_key
    certificate = read_certificate(tmp_path / "analyst.pem")
    assert (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days in (99, 100)
    files(tmp_path, "analyst", analyst=renewed).read()
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    kept = {re.sub(r"\.\d{8}-\d{6}-\d+$", "", name): text for name, text in now.items() if name not in before}
    wanted = {"analyst.pem", "analyst.key"} if new_key else {"analyst.pem"}
    assert kept == {name: before[name] for name in wanted}


def test_an_authority_is_renewed_with_its_key_and_what_it_signed_stays_good(tmp_path):
    make_keys(tmp_path, ["analyst"], days=5)
    renew(tmp_path, "authority", 100)
    read_certificate(tmp_path / "analyst.pem").verify_directly_issued_by(read_certificate(tmp_path / "authority.pem"))
    with pytest.raises(InputError, match="another authority"):
        renew(tmp_path, "authority", 100, new_key=True)


def test_renewal_needs_what_was_there(tmp_path):
    with pytest.raises(FileError, match="no certificate of analyst"):
        renew(tmp_path, "analyst")
    make_keys(tmp_path, ["analyst"])
    (tmp_path / "authority.key").unlink()
    before = (tmp_path / "analyst.pem").read_bytes()
    with pytest.raises(FileError, match="no key of authority"):
        renew(tmp_path, "analyst")
    assert (tmp_path / "analyst.pem").read_bytes() == before


def test_the_command_renews_and_shows(tmp_path, capsys):
    directory = ["--directory", str(tmp_path)]
    assert main(["keys", "analyst", "server0", "--days", "3", *directory]) == 0
    pins = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert main(["keys", "--renew", "analyst", "--days", "300", *directory]) == 0
    assert capsys.readouterr().out == f"analyst: {pins['analyst']}\n"
    assert main(["keys", "--show", *directory]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("authority: sha256:") and lines[0].endswith("renew soon)")
    assert pins["analyst"] in lines[1] and lines[1].endswith("valid)")
    assert pins["server0"] in lines[2] and lines[2].endswith("renew soon)")
    assert [name for name, _, _ in show(tmp_path)] == ["authority", "analyst", "server0"]
    for wrong in (["keys"], ["keys", "a", "--show"], ["keys", "a", "--new-key"]):
        with pytest.raises(SystemExit) as caught:
            main([*wrong, *directory])
        assert caught.value.code == 2 and "expected names" in capsys.readouterr().err
    assert main(["keys", "--show", "--directory", str(tmp_path / "none")]) == 1


def test_watched_files_are_taken_up_when_they_fit(tmp_path):
    make_keys(tmp_path, ["analyst"])
    told = []
    watched = Watched(files(tmp_path, "analyst"), told.append)
    first = watched.current()
    assert watched.current() == first and first[0] == 0
    (tmp_path / "more").mkdir()
    make_party(tmp_path, "analyst", directory=tmp_path / "more")
    (tmp_path / "analyst.pem").write_bytes((tmp_path / "more/analyst.pem").read_bytes())
    assert watched.current() == first and "not of one pair" in told[0]
    (tmp_path / "analyst.key").write_bytes((tmp_path / "more/analyst.key").read_bytes())
    version, pem = watched.current()
    assert version == 1 and pem.certificate == (tmp_path / "more/analyst.pem").read_bytes()
    (tmp_path / "analyst.pem").unlink()
    assert watched.current() == (version, pem) and "no file" in told[-1]


class Called:
    """A call's context, as far as identities look at it."""

    def __init__(self, certificate):
        self._shown = certificate

    def auth_context(self):
        return {"x509_pem_cert": [self._shown]}


def test_a_certificate_that_ends_while_a_connection_is_open_is_of_no_use_any_more(tmp_path, monkeypatch):
    make_keys(tmp_path, ["analyst"], days=2)
    servers = [{"control": f"h{i}:1", "data": f"h{i}:2"} for i in range(3)]
    identities = Identities(parse_config({"servers": servers}, tmp_path))
    context = Called((tmp_path / "analyst.pem").read_bytes())
    assert identities.of(context, "Run") == "analyst"

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=3)

    monkeypatch.setattr(
        "private_keras.server.identity.datetime", types.SimpleNamespace(datetime=Later, UTC=datetime.UTC)
    )
    with pytest.raises(SecurityError, match="analyst has expired"):
        identities.of(context, "Run")


def test_a_certificate_that_ends_soon_is_warned_of(tmp_path):
    servers = TlsServers(tmp_path)
    for name in ("server1", "analyst"):
        renew(tmp_path / "keys", name, days=9)
    with servers:
        assert eventually(lambda: '"certificate ends soon", "file": "server1.pem", "days": 8' in servers.log(1))
        with pytest.warns(UserWarning, match=r"analyst.pem is valid until .* keys --renew"):
            connect(servers.config, identity="analyst").close()
        connect(servers.config, identity="other").close()


def test_servers_that_run_take_up_renewed_certificates(tmp_path):
    """On both planes: for clients, and for the lanes between servers."""
    with TlsServers(tmp_path) as servers, connect(servers.config, identity="analyst") as cluster:
        works(cluster)
        for name in ("server0", "server1", "server2", "analyst"):
            renew(tmp_path / "keys", name)
        with connect(servers.config, identity="analyst") as fresh:
            works(fresh)
        for party in range(3):
            log = servers.log(party)
            assert '"certificate renewed"' in log
        servers.stop(2)
        servers.start(2)
        servers.wait_listening(2, starts=2)
        works_eventually(cluster)
        works(cluster)


def works_eventually(cluster, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return works(cluster)
        except PrivateKerasError:
            if time.monotonic() > deadline:
                raise


def alone(directory, clients=("analyst",)):
    """Servers whose parties made their certificates themselves."""
    servers = TlsServers(directory, clients)
    names = ["server0", "server1", "server2", *clients]
    for path in list((directory / "keys").iterdir()):
        path.unlink()
    pins = {name: make_alone(directory / "keys", name) for name in names}
    for server in servers.content["servers"]:
        server["certificate"] = pins[server["name"]]
    servers.content["clients"] = {name: {"certificate": pins[name]} for name in clients}
    servers.content["authority"] = None
    servers.config = servers.write("cluster.json", servers.content)
    return servers


def test_a_cluster_without_an_authority(tmp_path):
    with alone(tmp_path) as servers:
        with connect(servers.config, identity="analyst") as cluster:
            works(cluster)
        # Somebody with a certificate of the right name, made by itself as well.
        theirs = tmp_path / "theirs/keys"
        theirs.mkdir(parents=True)
        for path in (tmp_path / "keys").glob("server*.pem"):
            (theirs / path.name).write_bytes(path.read_bytes())
        pin = make_alone(theirs, "analyst")
        content = {**servers.content, "clients": {"analyst": {"certificate": pin}}}
        cluster = NetworkCluster(parse_config(content, tmp_path / "theirs"), "analyst")
        with pytest.raises(SecurityError, match="refuses the certificate analyst.pem"):
            cluster.connect(60)
        cluster.close()
        # One whose certificate another party signed: parties are no authorities.
        (theirs / "analyst.pem").unlink()
        (theirs / "analyst.key").unlink()
        for suffix in (".pem", ".key"):
            (theirs / f"authority{suffix}").write_bytes((tmp_path / f"keys/analyst{suffix}").read_bytes())
        pin = make_party(theirs, "analyst")
        content["clients"] = {"analyst": {"certificate": pin}}
        cluster = NetworkCluster(parse_config(content, tmp_path / "theirs"), "analyst")
        with pytest.raises(SecurityError, match="refuses the certificate analyst.pem"):
            cluster.connect(60)
        cluster.close()
        # Renewed by itself: of no use until the others have the new file.
        renew(tmp_path / "keys", "analyst")
        with connect(servers.config, identity="analyst") as cluster:
            works(cluster)
