"""Names, policies and receivers on a simulated cluster: what there is without servers, and advice for the rest."""

import numpy as np
import pytest

from private_keras.cluster import SimulatedCluster
from private_keras.cluster.delivery import Delivery
from private_keras.cluster.named import as_table
from private_keras.errors import HandleNotFound, UnsupportedError
from private_keras.plan.builder import PlanBuilder
from private_keras.server.policy import Policy


def plan(receivers):
    b = PlanBuilder()
    b.input("x", (3,), 18, "client")
    b.output(b.add("relu", "x"), "y", receivers)
    return b.build("p", "compute")


def test_names_have_policies():
    with SimulatedCluster() as cluster:
        handle = cluster.share(np.ones(3), 18, "x")
        cluster.save("a", {"x": handle}, policy=Policy(use=["b"], plans=["fit"]))
        (found,) = cluster.names()
        assert str(found) == "local/a" and found.policy.plans == ("fit",) and found.entries[0].shape == (3,)
        assert cluster.names(others=True) == []
        cluster.set_policy("a", Policy())
        assert cluster.names()[0].policy == Policy()
        with pytest.raises(HandleNotFound):
            cluster.set_policy("b", Policy())
        assert "local/a  x real[3]" in as_table(cluster.names()) and as_table([]) == "none"


def test_there_is_nobody_else_to_receive():
    with SimulatedCluster() as cluster:
        assert cluster.run(plan(["client", "local"]), {"x": np.ones(3)})["y"].tolist() == [1, 1, 1]
        with pytest.raises(UnsupportedError, match="receiver.*connect to servers"):
            cluster.run(plan(["receiver"]), {"x": np.ones(3)}, delivery="scores")
        assert cluster.deliveries() == []
        with pytest.raises(HandleNotFound):
            cluster.receive(Delivery("analyst", "scores", (), 0.0, "", b"", 3))
        with pytest.raises(UnsupportedError, match="connect to servers"):
            cluster.audit()


def test_plans_that_were_run_have_a_text():
    with SimulatedCluster() as cluster:
        made = plan(["client"])
        with pytest.raises(HandleNotFound):
            cluster.plan_text(made.digest)
        cluster.run(made, {"x": np.ones(3)})
        assert cluster.plan_text("sha256:" + made.digest) == made.to_json()
