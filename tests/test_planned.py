"""`pk.plans`: what a call would run is what it then runs, and until then nothing happens."""

import threading

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cli
from private_keras import cluster as clusters
from private_keras.errors import FileError, InputError, UnsupportedError
from private_keras.models import execution
from private_keras.plan.plan import Plan

RNG = np.random.default_rng(5)
X = RNG.uniform(-1, 1, (38, 6)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


class Watched(clusters.SimulatedCluster):
    """Keeps the digests of what it runs, and counts what is shared."""

    def __init__(self):
        super().__init__()
        self.ran, self.shared = [], 0

    def run(self, plan, *args, **kwargs):
        self.ran.append(f"sha256:{plan.digest}")
        return super().run(plan, *args, **kwargs)

    def share(self, *args):
        self.shared += 1
        return super().share(*args)


@pytest.fixture
def cluster():
    with Watched() as made:
        yield made


def network(optimizer="adam", **options):
    model = pk.Sequential([
        pk.Input((6,)), pk.layers.Dense(3, "relu"), pk.layers.Dropout(0.2), pk.layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **options)
    return model


def values(model):
    held = [*model.weights, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in held]


def same(cluster, call, *args, **kwargs):
    """Plans a call, then makes it: what ran is what was planned."""
    before, shared, ran = list(cluster.ran), cluster.shared, len(cluster.ran)
    plans = pk.plans(call, *args, **kwargs)
    assert (cluster.ran, cluster.shared) == (before, shared), "nothing runs and nothing is shared"
    call(*args, **kwargs)
    now = cluster.ran[ran:]
    assert plans.digests == list(dict.fromkeys(now))
    assert [item.jobs for item in plans.noted] == [now.count(digest) for digest in plans.digests]
    return plans


def test_predictions(cluster):
    model = network()
    assert len(same(cluster, model.predict, X, verbose=0)) == 2, "the last batch is smaller"
    x = pk.share(X)
    same(cluster, model.predict, x, verbose=0)
    same(cluster, model.predict_on_batch, X[:3])
    model.narrow(1.0)
    same(cluster, model.predict, X, 16, verbose=0)
    same(cluster, model.predict, pk.ops.concatenate([x[:30], pk.share(X)], axis=0) * 0.5, verbose=0)
    centred = x - pk.ops.mean(x, axis=0)
    first = same(cluster, model.predict, centred, verbose=0)
    assert [plan.kind for plan in first] == ["compute", "predict", "predict"], "what needs all rows is a plan before"
    assert "compute" not in [plan.kind for plan in same(cluster, model.predict, centred, verbose=0)], "it is kept"
    same(cluster, pk.ops.matmul(x, RNG.normal(size=(6, 2))).reveal)


@pytest.mark.parametrize("optimizer", [
    "adam", "nadam", keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
    keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
], ids=["adam", "nadam", "averages", "schedule"])  # fmt: skip
def test_training(cluster, optimizer):
    model = network(optimizer)
    x, y = pk.share(X), pk.share(Y)
    same(cluster, model.evaluate, x, y, verbose=0)
    before = values(model)
    plans = pk.plans(model.fit, x, y, epochs=2, batch_size=16, validation_split=0.3)
    for ours, theirs in zip(before, values(model), strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert not hasattr(model, "history") and int(model.optimizer.iterations) == 0
    assert same(cluster, model.fit, x, y, epochs=2, batch_size=16, validation_split=0.3, verbose=0) == plans
    assert int(model.optimizer.iterations) == 4
    history = model.history
    same(cluster, model.fit, x, y, batch_size=10, verbose=0)
    pk.plans(model.fit, x, y)
    assert int(model.optimizer.iterations) == 8 and model.history is not history
    for call in ((model.predict, x), (model.train_on_batch, X, Y), (model.test_on_batch, X, Y), (model.evaluate, x, y)):
        same(cluster, *call)
    same(cluster, model.get_weights)
    assert np.isfinite(same(cluster, model.reveal) and model.reveal().get_weights()[0]).all()


def test_saved_models_and_public_layers(cluster):
    model = network()
    model.layers[0].public, model.layers[0].trainable = True, False
    model.fit(X, Y, verbose=0)
    model.save_shares("m")
    held = len(cluster._stored)
    assert [plan.kind for plan in pk.plans(pk.models.load_shares, "m")] == ["reveal"]
    assert len(cluster._stored) == held, "what was looked up is let go of"
    same(cluster, pk.models.load_shares, "m")
    same(cluster, pk.models.load_shares("m").predict, X, verbose=0)


def test_what_is_around_jobs_is_left_out(cluster, tmp_path):
    model = network()
    stops = keras.callbacks.EarlyStopping("loss", patience=0)
    saves = keras.callbacks.ModelCheckpoint(str(tmp_path / "m.keras"))
    plans = pk.plans(model.fit, X, Y, epochs=3, callbacks=[stops, saves], checkpoint="c")
    assert plans.noted[0].jobs == 3 and not list(tmp_path.iterdir()) and not cluster.saved()
    with pytest.raises(InputError, match="as many targets as inputs"):
        pk.plans(model.fit, X[:5], Y)
    assert pk.plans(network().fit, X, Y) and not cluster.ran


@pytest.mark.parametrize("call", [print, "fit", keras.Sequential().predict])
def test_other_calls_are_refused(cluster, call):
    with pytest.raises(InputError, match="pk.plans.model.fit, x, y"):
        pk.plans(call)


def test_arguments_that_a_call_does_not_have(cluster):
    with pytest.raises(InputError, match="predict: .*'y'"):
        pk.plans(network().predict, X, y=Y)


def test_a_planned_call_changes_nothing_on_the_servers(cluster):
    model = network()

    class Saves(type(model)):
        def predict(self, x):
            self.save_shares("m")

    model.__class__ = Saves
    with pytest.raises(UnsupportedError, match="save changes what is on the servers"):
        pk.plans(model.predict, X)
    assert not cluster.saved()


def test_other_threads_do_what_they_say(cluster, monkeypatch):
    model, seen = network(), []
    made = execution.Execution._run

    def run(self, *args):
        if not seen:
            seen.append("planning")
            other = threading.Thread(target=lambda: seen.append(model.predict(X[:4], verbose=0)))
            other.start()
            other.join(30)
        return made(self, *args)

    monkeypatch.setattr(execution.Execution, "_run", run)
    plans = pk.plans(model.predict, X[:4])
    assert len(plans) == 1 and cluster.ran == plans.digests, "the other thread's prediction alone ran"
    np.testing.assert_allclose(seen[1], keras.ops.convert_to_numpy(model(X[:4])), atol=1e-3)


def test_files_for_owners(cluster, tmp_path, capsys):
    plans = pk.plans(network().fit, X, Y)
    assert str(plans).count("sha256:") == len(plans) and "takes shares of" in plans._repr_html_()
    paths = plans.save(tmp_path / "new" / "plans")
    assert [path.name[:8] for path in paths] == ["01-train", "02-train", "03-evalu"]
    assert [Plan.from_json(path.read_text()).digest for path in paths] == [plan.digest for plan in plans]
    assert cli.main(["inspect", *map(str, paths)]) == 0
    assert capsys.readouterr().out == plans.describe() + "\n"
    assert "Shows, where a job takes rows" in plans.describe() and "rounds" in plans.describe()
    with pytest.raises(FileError, match="cannot write a plan"):
        plans.save(tmp_path / "new" / "plans")


def test_commands_write_plans_and_run_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = network()
    model.save("m.keras")
    np.save("x.npy", X)
    np.save("y.npy", Y)
    with Watched() as cluster:
        for command in ("fit", "predict"):
            monkeypatch.setattr(f"private_keras.cli.{command}.connect", lambda *a, **k: cluster)
        monkeypatch.setattr(cluster, "close", lambda: None)
        assert cli.main(["fit", "m.keras", "x.npy", "y.npy", "--batch-size", "19", "--plans", "fit"]) == 0
        assert cli.main(["predict", "m.keras", "x.npy", "--to", "clinic", "--plans", "predict"]) == 0
        printed = capsys.readouterr().out
        assert "fit/01-train-" in printed and "predict/02-predict-" in printed and not cluster.ran
        found = [Plan.from_json(path.read_text()) for path in sorted((tmp_path / "predict").iterdir())]
        assert [plan.outputs[0].receivers for plan in found] == [("clinic",)] * 2
