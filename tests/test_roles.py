"""Roles of parties, over TLS: servers refuse what a role does not allow, by themselves."""

import numpy as np
import pytest

from private_keras.cluster import connect
from private_keras.errors import SecurityError
from private_keras.server.policy import Policy
from tests.clusters import TlsServers, dense_data, dense_plan

ROLES = {
    "hospital-a": ["server", "owner"],
    "hospital-b": ["server", "owner", "analyst"],
    "analyst": ["analyst"],
    "clinic": ["receiver"],
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("roles")
    with TlsServers(directory, tuple(ROLES), ROLES, ("hospital-a", "hospital-b"), storage=True) as made:
        yield made


@pytest.mark.parametrize("name", ["analyst", "hospital-b"])
def test_an_analyst_runs_plans_even_one_that_operates_a_server(servers, name):
    data = dense_data()
    with connect(servers.config, identity=name) as cluster:
        y = cluster.run(dense_plan(), data, deadline=20)["y"]
    np.testing.assert_allclose(y, np.maximum(data["x"] @ data["w"], 0), atol=1e-4)


def test_an_owner_shares_and_runs_nothing(servers):
    with connect(servers.config, identity="hospital-a") as cluster:
        cluster.delete(cluster.share(np.ones((8, 3)), 18, "w"))
        with pytest.raises(SecurityError, match=r"server0: hospital-a may not predict, evaluate.*add 'analyst' to"):
            cluster.run(dense_plan(), dense_data(), deadline=20)


def test_an_analyst_saves_for_itself_and_lets_nobody_use_it(servers):
    with connect(servers.config, identity="analyst") as cluster:
        handle = cluster.share(np.ones((8, 3)), 18, "w")
        cluster.save("mine", {"w": handle})
        with pytest.raises(SecurityError, match=r"analyst may not let others use shares: .* add 'owner' to"):
            cluster.save("ours", {"w": handle}, policy=Policy(use=["hospital-b"], plans=["predict"]))
        assert cluster.saved() == ["mine"]
        cluster.forget("mine")
        cluster.delete(handle)


def test_a_receiver_neither_shares_nor_runs(servers):
    with connect(servers.config, identity="clinic") as cluster:
        with pytest.raises(SecurityError, match=r"clinic may not share anything: .* receiver .receive"):
            cluster.share(np.ones((8, 3)), 18, "w")
        with pytest.raises(SecurityError, match="clinic may not predict"):
            cluster.run(dense_plan(), dense_data(), deadline=20)
        assert [client.health().stored_bytes for client in cluster._clients] == [0, 0, 0]


def test_the_operators_own_certificate_is_not_the_servers(servers):
    """Who operates server 0 has another certificate than it, with which nobody calls."""
    with pytest.raises(SecurityError, match="server0 is a server of this cluster and cannot be its client"):
        connect(servers.config, identity="server0")
