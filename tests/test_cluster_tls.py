"""A cluster over TLS with certificates, on loopback: end to end, and everybody who must be refused."""

import secrets
import socket
import ssl

import grpc
import numpy as np
import pytest

from private_keras.cluster import NetworkCluster, connect
from private_keras.cluster.keys import make_authority, make_party
from private_keras.errors import (
    ClusterError,
    HandleNotFound,
    InputError,
    PrivateKerasError,
    SecurityError,
    ServerUnavailable,
    VersionMismatch,
)
from private_keras.server.config import parse_config, read_config
from private_keras.server.entrance import SERVICE
from tests.clusters import TlsServers, dense_data, dense_plan


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with TlsServers(tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture(scope="module")
def analyst(servers):
    with connect(servers.config, identity="analyst") as cluster:
        yield cluster


def works(cluster):
    data = dense_data()
    y = cluster.run(dense_plan(), data, deadline=20)["y"]
    np.testing.assert_allclose(y, np.maximum(data["x"] @ data["w"], 0), atol=1e-4)


def refusal(config, identity, seconds=60):
    """The error that connecting gives."""
    cluster = NetworkCluster(config, identity)
    try:
        with pytest.raises(PrivateKerasError) as caught:
            cluster.connect(seconds)
        return caught.value
    finally:
        cluster.close()


def test_end_to_end(analyst):
    works(analyst)
    handle = analyst.share(np.ones((8, 3)), 18, "w")
    x = dense_data()["x"]
    for _ in range(3):
        y = analyst.run(dense_plan(), {"x": x, "w": handle})["y"]
        np.testing.assert_allclose(y, np.maximum(x @ np.ones((8, 3)), 0), atol=1e-4)
    analyst.delete(handle)


def test_a_cluster_needs_an_identity_and_its_protocol(servers):
    with pytest.raises(InputError, match="who you are"):
        connect(servers.config)
    with pytest.raises(InputError, match="cluster for trio.*simulate"):
        connect(servers.config, identity="analyst", protocol="simulate")


def test_files_that_are_missing_are_named(servers):
    error = refusal(read_config(servers.config), "nobody")
    assert isinstance(error, SecurityError) and "nobody.pem" in str(error) and "private-keras keys" in str(error)


def test_shares_of_one_identity_are_of_no_use_to_another(servers, analyst):
    handle = analyst.share(np.ones((8, 3)), 18, "w")
    with connect(servers.config, identity="other") as other:
        with pytest.raises(HandleNotFound, match="'w'"):
            other.run(dense_plan(), {**dense_data(), "w": handle})
        other.delete(handle)
        works(other)
    analyst.run(dense_plan(), {**dense_data(), "w": handle})
    analyst.delete(handle)


def test_who_is_not_in_the_description_is_refused(servers, tmp_path):
    """With a certificate of the right authority, but a name that is no client's, or a server's."""
    config = read_config(servers.config)
    make_party(servers.directory / "keys", "stranger")
    error = refusal(config, "stranger")
    assert isinstance(error, SecurityError) and "stranger is not among the clients" in str(error)
    error = refusal(config, "server1")
    assert isinstance(error, SecurityError) and "cannot be its client" in str(error)


def _with_keys(servers, tmp_path, days=825, authority=None):
    """The same servers as seen by an analyst with another certificate."""
    keys = tmp_path / "keys"
    make_party(authority or servers.directory / "keys", "analyst", days=days, directory=keys)
    (keys / "authority.pem").write_bytes((servers.directory / "keys/authority.pem").read_bytes())
    return parse_config(servers.content, tmp_path)


def test_a_client_is_told_that_its_files_are_another_party_s(servers, tmp_path):
    config = _with_keys(servers, tmp_path)
    for kind in ("pem", "key"):
        (tmp_path / f"keys/other.{kind}").write_bytes((tmp_path / f"keys/analyst.{kind}").read_bytes())
    error = refusal(config, "other")
    assert isinstance(error, SecurityError) and "this client has as other is analyst's" in str(error)


def test_an_expired_certificate_is_refused(servers, tmp_path):
    error = refusal(_with_keys(servers, tmp_path, days=-1), "analyst")
    assert isinstance(error, SecurityError) and "analyst.pem is expired" in str(error)


def test_servers_refuse_an_expired_certificate_themselves(servers, tmp_path, monkeypatch):
    monkeypatch.setattr("private_keras.transport.credentials.check_dates", lambda *_: None)
    error = refusal(_with_keys(servers, tmp_path, days=-1), "analyst")
    assert isinstance(error, SecurityError) and "server0" in str(error) and "refuses the certificate" in str(error)


def test_a_certificate_of_another_authority_is_refused(servers, tmp_path):
    make_authority(tmp_path / "elsewhere")
    error = refusal(_with_keys(servers, tmp_path, authority=tmp_path / "elsewhere"), "analyst")
    assert (
        isinstance(error, SecurityError)
        and "server0" in str(error)
        and "refuses the certificate analyst.pem" in str(error)
    )


def test_no_certificate_no_service(servers):
    address = servers.content["servers"][0]["control"]
    authority = (servers.directory / "keys/authority.pem").read_bytes()
    plain = grpc.insecure_channel(address)
    anonymous = grpc.secure_channel(
        address, grpc.ssl_channel_credentials(authority), options=(("grpc.ssl_target_name_override", "server0"),)
    )
    for channel in (plain, anonymous):
        call = channel.unary_unary(f"/{SERVICE}/Hello", None, None)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        channel.close()


def test_another_party_behind_an_address_is_noticed(servers):
    content = {**servers.content, "servers": [dict(s) for s in servers.content["servers"]]}
    first, second = content["servers"][:2]
    first["control"], second["control"] = second["control"], first["control"]
    error = refusal(parse_config(content, servers.directory), "analyst")
    assert isinstance(error, SecurityError) and "expected server0" in str(error) and "server1" in str(error)


def test_another_key_than_the_pinned_is_noticed(servers):
    content = {**servers.content, "servers": [dict(s) for s in servers.content["servers"]]}
    content["servers"][2]["certificate"] = "sha256:" + "0" * 64
    error = refusal(parse_config(content, servers.directory), "analyst")
    assert isinstance(error, SecurityError) and "server2" in str(error) and "pinned" in str(error)


@pytest.mark.parametrize("plane", ["control", "data"])
def test_tls_1_2_is_refused(servers, plane):
    """A caller with a valid certificate that offers TLS 1.2 gets no connection, and one with TLS 1.3 does."""
    host, port = servers.content["servers"][0][plane].split(":")
    for version, welcome in [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)]:
        context = ssl.create_default_context(cafile=servers.directory / "keys/authority.pem")
        context.load_cert_chain(servers.directory / "keys/server1.pem", servers.directory / "keys/server1.key")
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            if welcome:
                with context.wrap_socket(sock, server_hostname="server0") as tls:
                    assert tls.version() == "TLSv1.3"
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(sock, server_hostname="server0")


def test_a_server_that_is_not_there_is_named(servers):
    content = {**servers.content, "servers": [dict(s) for s in servers.content["servers"]]}
    content["servers"][1]["control"] = "127.0.0.1:1"
    error = refusal(parse_config(content, servers.directory), "analyst", seconds=5)
    assert isinstance(error, ServerUnavailable) and "server1" in str(error) and "127.0.0.1:1" in str(error)


def test_servers_that_expect_another_peer_refuse_the_lane(servers, analyst, tmp_path):
    """Server 2 with a description that pins server 0 to another key: no job runs, and the error says who and why."""
    works(analyst)
    content = {**servers.content, "servers": [dict(s) for s in servers.content["servers"]]}
    content["servers"][0]["certificate"] = "sha256:" + "0" * 64
    wrong = servers.write("wrong.json", content)
    servers.stop(2)
    (servers.directory / "server2.log").unlink()
    servers.start(2, wrong)
    servers.wait_listening(2)
    with connect(servers.config, identity="analyst") as fresh:
        with pytest.raises(SecurityError, match="server2.*server0.*pinned"):
            fresh.run(dense_plan(), dense_data(), deadline=20)
    servers.stop(2)
    (servers.directory / "server2.log").unlink()
    servers.start(2)
    servers.wait_listening(2)


def test_a_server_that_was_restarted_is_found_again_and_its_shares_are_missed(servers, analyst):
    with connect(servers.config, identity="analyst") as cluster:
        works(cluster)
        handle = cluster.share(np.ones((8, 3)), 18, "w")
        before = cluster.incarnation
        assert servers.stop(1) == 0
        with pytest.raises(ClusterError, match="server1"):
            cluster.run(dense_plan(), dense_data(), deadline=20)
        with pytest.raises(ServerUnavailable, match="server1"):
            cluster.run(dense_plan(), dense_data(), deadline=20)
        (servers.directory / "server1.log").unlink()
        servers.start(1)
        servers.wait_listening(1)
        works(cluster)
        assert cluster.incarnation != before
        with pytest.raises(HandleNotFound):
            cluster.run(dense_plan(), {**dense_data(), "w": handle})


def test_logs_say_who_ran_what_and_no_values_or_keys(servers, analyst):
    works(analyst)
    text = "".join(servers.log(party) for party in range(3))
    assert '"job done"' in text and '"client": "analyst"' in text
    key = (servers.directory / "keys/server0.key").read_text().splitlines()[1]
    assert key not in text
    assert secrets.token_hex(8) not in text


def test_another_release_is_refused(servers, monkeypatch):
    monkeypatch.setattr("private_keras.cluster.client.VERSION", "9.9.9")
    error = refusal(read_config(servers.config), "analyst")
    assert isinstance(error, VersionMismatch) and "server0" in str(error) and "expected release 9.9.9" in str(error)


