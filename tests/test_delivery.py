"""Results for somebody else: what sender and receiver have of them, and metrics as others get them."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.cluster import PublicValue
from private_keras.cluster.results import Address, addressed, fetched
from private_keras.errors import ClusterError, HandleNotFound, InputError, UnsupportedError
from private_keras.models.training.delivered import delivered
from private_keras.plan.builder import PlanBuilder


class Post:
    """What waits for a receiver."""

    def __init__(self, *items):
        self.items = [SimpleNamespace(sender=s, name=n, id=bytes([i]), value=v) for i, (s, n, v) in enumerate(items)]

    def deliveries(self):
        return list(self.items)

    def fetch(self, item):
        if isinstance(item.value, Exception):
            raise item.value
        return item.value

    def received(self, item):
        self.items.remove(item)


@pytest.fixture
def post(monkeypatch):
    def make(*items):
        made = Post(*items)
        monkeypatch.setattr("private_keras.cluster.results.current", lambda: made)
        return made

    return make


def one(*numbers):
    return {"y": np.array(numbers, float)}


def test_the_oldest_of_a_name_comes_first_and_once(post):
    post(("analyst", "scores", one(1)), ("other", "scores", one(2)), ("analyst", "scores", one(3)))
    assert pk.deliveries() == ["analyst/scores", "other/scores"]
    assert [pk.receive("analyst/scores").tolist() for _ in range(2)] == [[1.0], [3.0]]
    with pytest.raises(HandleNotFound, match="'analyst/scores'.*pk.deliveries"):
        pk.receive("analyst/scores")
    assert pk.deliveries() == ["other/scores"]


def test_parts_of_one_result(post):
    address = Address("receiver", "scores", 3)
    names = [address.part(i) for i in range(3)]
    assert len(set(names)) == 3 and all(len(name) <= 80 for name in names)
    incomplete = [("analyst", names[i], one(i)) for i in (2, 0)]
    post(*incomplete)
    assert pk.deliveries() == []
    with pytest.raises(HandleNotFound, match="not all of it yet"):
        pk.receive("analyst/scores")
    waiting = post(*incomplete, ("mallory", names[1], one(9)), ("analyst", names[1], one(1)))
    assert pk.deliveries() == ["analyst/scores"]
    assert pk.receive("analyst/scores").tolist() == [0.0, 1.0, 2.0]
    assert [item.sender for item in waiting.items] == ["mallory"]


def test_a_result_of_which_a_part_cannot_be_fetched_stays_whole(post):
    address = Address("receiver", "scores", 2)
    parts = ("analyst", address.part(0), one(0)), ("analyst", address.part(1), ClusterError("a server is lost"))
    waiting = post(*parts)
    with pytest.raises(ClusterError, match="a server is lost"):
        pk.receive("analyst/scores")
    assert len(waiting.items) == 2
    waiting.items[1].value = one(1)
    with pytest.raises(OSError), fetched("analyst/scores"):
        raise OSError("the receiver's disk is full")
    assert pk.receive("analyst/scores").tolist() == [0.0, 1.0] and not waiting.items


def test_several_outputs_are_a_dict(post):
    post(("analyst", "quality", {"loss": np.array(0.5), "accuracy": np.array(0.75)}))
    assert pk.receive("analyst/quality") == {"loss": 0.5, "accuracy": 0.75}


@pytest.mark.parametrize("name", [3, None])
def test_a_name_that_is_none(name, post):
    post()
    with pytest.raises(InputError, match="expected a name"):
        pk.receive(name)


def test_a_plan_for_somebody_else():
    b = PlanBuilder()
    y = b.add("matmul", b.input("x", (2, 3), 18, "client"), b.input("w", (3, 1), 18, "client"))
    b.output(y, "y", ["client"])
    b.output(y, "kept", [])
    assert [item.receivers for item in addressed(b.build("m", "predict"), "receiver").outputs] == [("receiver",), ()]


def test_a_simulated_cluster_has_nobody_else():
    with clusters.SimulatedCluster():
        model = pk.Sequential([pk.Input((3,)), pk.layers.Dense(1)])
        model.compile("sgd", "mse")
        x, y = np.ones((4, 3)), np.ones((4, 1))
        for use in (lambda: model.predict(x, verbose=0, to="receiver"), lambda: pk.share(x).reveal(to="receiver"),
                    lambda: model.evaluate(x, y, verbose=0, to="receiver")):  # fmt: skip
            with pytest.raises(UnsupportedError, match="nobody beside"):
                use()
        for use in (lambda: model.predict(x, name="scores"), lambda: model.evaluate(x, y, name="scores")):
            with pytest.raises(InputError, match="name goes with to"):
                use()
        with pytest.raises(InputError, match="number of batches"):
            model.predict(((x,) for _ in range(2)), verbose=0, to="receiver")


@pytest.mark.parametrize("metrics", [["accuracy", "mae"], [keras.metrics.MeanSquaredError(name="odd name")]])
def test_metrics_for_somebody_else_are_those_of_keras(metrics):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, (20, 1))
    with clusters.SimulatedCluster() as cluster:
        model = pk.Sequential([pk.Input((3,)), pk.layers.Dense(1, activation="sigmoid")])
        model.compile("sgd", "binary_crossentropy", metrics=metrics)
        expected = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
        jobs = model._jobs()
        results = jobs.steps.results(jobs._last)
        sent = delivered(results, jobs.tallies)
        given = jobs._metrics(cluster, results, results.states.values())
        given |= {name: PublicValue(value) for name, value in sent.public.items()}
        opened = cluster.run(sent.plan, {item.name: given[item.name] for item in sent.plan.inputs})
    assert sent.plan.kind == "reveal", "sums are opened as what they are"
    assert len(opened) == len(expected)
    for name, value in expected.items():
        assert opened[name.replace(" ", "_")] == pytest.approx(value, abs=1e-5)


def test_metrics_that_are_no_means_are_refused():
    with clusters.SimulatedCluster():
        model = pk.Sequential([pk.Input((3,)), pk.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[keras.metrics.RootMeanSquaredError(name="root")])
        with pytest.raises(UnsupportedError, match="'root' cannot be sent.*is a mean"):
            model.evaluate(np.ones((4, 3)), np.ones((4, 1)), verbose=0, to="receiver")
