"""Where weights live: on the servers from the first fit on; assignments, plain files, saved shares, resuming."""

import copy

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.errors import DivergenceError, FileError, HandleNotFound, InputError, UnsupportedError
from private_keras.models.training import checkpoint
from tests.training import Events, distance, logistic, pair, two_classes

X, Y = two_classes(48)


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def trained(**options):
    private, plain = logistic(**options)
    for model in (private, plain):
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return private, plain


def adam():
    return keras.optimizers.Adam(0.02)


def close(a, b, tolerance=1e-3):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance)


# --- secret weights ---------------------------------------------------------------------------------------------------
def test_nothing_in_the_clear_holds_old_or_new_weights(events):
    private, _ = trained()
    assert all(np.isnan(w.numpy()).all() for w in private.weights)
    assert all(np.isnan(w).all() for layer in private.layers for w in layer.get_weights())
    with pytest.raises(UnsupportedError, match="predict.*reveal"):
        private(X)
    part = pk.Sequential([pk.Input((5,)), private.layers[0]])
    with pytest.raises(InputError, match="finite.*reveal"):
        part.predict(X, verbose=0)
    assert not any(plan.kind == "reveal" for plan in events.plans)


def test_weights_are_revealed_through_a_plan_that_says_so(events):
    private, plain = trained()
    values = private.get_weights()
    assert events.plans[-1].kind == "reveal" and events.plans[-1].steps == ()
    close(values, plain.get_weights())
    assert all(np.isnan(w.numpy()).all() for w in private.weights)
    assert [v.dtype for v in values] == [v.dtype for v in plain.get_weights()]


def test_untrained_models_reveal_nothing_and_predict_as_before(events):
    private, plain = logistic()
    close(private.get_weights(), plain.get_weights(), 0)
    private.evaluate(X, Y, verbose=0)
    close(private.get_weights(), plain.get_weights(), 0)
    assert "reveal" not in [plan.kind for plan in events.plans]
    np.testing.assert_array_equal(private.layers[0].kernel.numpy(), plain.layers[0].kernel.numpy())


def test_predictions_use_trained_weights(events):
    private, plain = trained()
    np.testing.assert_allclose(private.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-3)
    np.testing.assert_allclose(private.predict_on_batch(X[:3]), plain.predict_on_batch(X[:3]), atol=1e-3)
    assert private.plan(4).kind == "predict" and private.cost(4).rounds >= 1
    assert not private.check(X[:4]).ok and private.check().ok
    assert "reveal" not in [plan.kind for plan in events.plans]


# --- assignments ------------------------------------------------------------------------------------------------------
def test_assigned_weights_count_and_the_others_stay():
    private, plain = trained()
    kernel = np.full((5, 4), 0.25, "float32")
    for model in (private, plain):
        model.layers[0].kernel.assign(kernel)
    np.testing.assert_allclose(private.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-3)
    for model in (private, plain):
        model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    assert distance(private, plain) < 1e-3


def test_old_weights_can_be_put_back():
    private, _ = logistic()
    before = private.get_weights()
    expected = private.predict(X, verbose=0)
    private.fit(X, Y, verbose=0)
    private.set_weights(before)
    close(private.get_weights(), before, 0)
    np.testing.assert_allclose(private.predict(X, verbose=0), expected, atol=1e-3)


def test_recompiling_keeps_weights_and_begins_a_new_optimiser():
    private, plain = trained(optimizer=adam)
    for model in (private, plain):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert distance(private, plain) < 1e-3


def test_optimiser_state_lasts_from_fit_to_fit():
    private, plain = pair(("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))
    for model in (private, plain):
        for _ in range(3):
            model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    assert distance(private, plain) < 1e-3 and int(private.optimizer.iterations) == 9


def test_weights_and_optimiser_of_an_earlier_step_can_be_loaded(tmp_path):
    private, plain = pair(("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.Nadam(0.05))
    for model, name in ((private, "a.weights.h5"), (plain, "b.weights.h5")):
        model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
        model.save_weights(tmp_path / name)
        model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        model.load_weights(tmp_path / name)
        model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    assert int(private.optimizer.iterations) == int(plain.optimizer.iterations) == 9
    assert distance(private, plain) < 2e-3


def test_frozen_layers_stay():
    private, plain = logistic()
    for model in (private, plain):
        model.layers[0].trainable = False
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    before = private.layers[0].get_weights()
    for model in (private, plain):
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    close(private.layers[0].get_weights(), before, 0)  # still known, since no step has changed them
    assert distance(private, plain) < 1e-3


def test_public_layers_are_public_inputs(events):
    private, plain = logistic()
    private.layers[0].public = True
    with pytest.raises(UnsupportedError, match="trainable=False"):
        private.fit(X, Y, verbose=0)
    with pytest.raises(InputError, match="True or False"):
        private.layers[0].public = 1
    for model in (private, plain):
        model.layers[0].trainable = False
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    train = next(plan for plan in events.plans if plan.kind == "train")
    assert sum(item.public and "kernel" in item.name for item in train.inputs) == 1
    assert distance(private, plain) < 1e-3


def test_averages_become_the_weights_at_the_end():
    private, plain = pair(
        ("Dense", 1, "sigmoid"), optimizer=lambda: keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.8)
    )
    for model in (private, plain):
        model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert distance(private, plain) < 1e-3


# --- plain models and files -------------------------------------------------------------------------------------------
def test_reveal_gives_keras_own_classes_with_the_optimiser():
    private, plain = trained(optimizer=adam)
    revealed = private.reveal()
    assert type(revealed) is keras.Sequential
    assert [type(layer).__module__.split(".")[0] for layer in revealed.layers] == ["keras"] * 2
    close(revealed.get_weights(), plain.get_weights())
    assert int(revealed.optimizer.iterations) == int(plain.optimizer.iterations)
    close([v.numpy() for v in revealed.optimizer.variables], [v.numpy() for v in plain.optimizer.variables])
    # Trained on in the clear, both go the same way.
    for model in (revealed, plain):
        model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    close(revealed.get_weights(), plain.get_weights(), 2e-3)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_saved_files_open_in_plain_keras(tmp_path, name):
    private, plain = trained(optimizer=adam)
    private.save(tmp_path / name)
    opened = keras.saving.load_model(tmp_path / name)
    assert type(opened) is keras.Sequential
    close(opened.get_weights(), plain.get_weights())
    assert int(opened.optimizer.iterations) == 6
    np.testing.assert_allclose(opened.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-3)
    again = pk.models.load_model(tmp_path / name)
    assert isinstance(again, pk.Sequential)
    close(again.get_weights(), plain.get_weights())


def test_weights_files_both_ways(tmp_path):
    private, plain = trained(optimizer=adam)
    private.save_weights(tmp_path / "m.weights.h5")
    assert all(np.isnan(w.numpy()).all() for w in private.weights)
    fresh = logistic(optimizer=adam)[0]
    fresh.optimizer.build(fresh.trainable_variables)  # as Keras wants it
    fresh.load_weights(tmp_path / "m.weights.h5")
    close(fresh.get_weights(), plain.get_weights())
    private.fit(X, Y, verbose=0)
    private.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(private.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-3)


def test_every_way_into_a_file_opens_the_weights(tmp_path):
    private, plain = trained()
    pk.models.save_model(private, tmp_path / "a.keras")
    pk.saving.save_model(private, tmp_path / "b.keras")
    for name in ("a", "b"):
        close(keras.saving.load_model(tmp_path / f"{name}.keras").get_weights(), plain.get_weights())
    pk.saving.save_weights(private, tmp_path / "c.weights.h5")
    plain.load_weights(tmp_path / "c.weights.h5")
    close(copy.deepcopy(private).get_weights(), plain.get_weights(), 1e-5)
    assert all(np.isnan(w.numpy()).all() for w in private.weights)


def test_plain_models_go_on_training_on_shares():
    _, plain = trained(optimizer=adam)
    private = pk.convert(plain)
    for model in (private, plain):
        model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    assert distance(private, plain) < 2e-3 and int(private.optimizer.iterations) == 9
    plain.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    with pytest.warns(UserWarning, match="without being compiled"):
        assert not pk.convert(plain).compiled


def test_reveal_of_models_in_models_wrappers_and_own_layers():
    inner = pk.Sequential([pk.Input((4,)), pk.layers.Dense(3, "relu")], name="inner")
    x = pk.Input((2, 4))
    y = pk.layers.TimeDistributed(inner)(x)
    y = pk.layers.TimeDistributed(pk.layers.Dense(2))(y)
    y = pk.layers.Sigmoid()(pk.layers.Flatten()(y))
    model = pk.Model(x, pk.layers.Dense(1)(y))
    plain = model.reveal()
    assert type(plain).__module__.startswith("keras.")
    flat = [type(layer) for layer in plain._flatten_layers()]
    ours = [cls.__name__ for cls in flat if cls.__module__.startswith("private_keras")]
    assert ours == ["Sigmoid"]
    data = np.random.default_rng(0).normal(size=(3, 2, 4)).astype("float32")
    np.testing.assert_allclose(plain(data), model(data), atol=1e-6)


class Own(pk.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = pk.layers.Dense(1, "sigmoid")

    def call(self, x):
        return self.dense(x)


def test_subclassed_models_train_and_say_that_they_have_no_plain_class(tmp_path):
    model = Own()
    model(X)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    with pytest.raises(UnsupportedError, match="get_weights"):
        model.reveal()
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    model.save_weights(tmp_path / "m.weights.h5")
    model.save_shares("own")
    with pytest.raises(FileError, match="custom_objects"):
        pk.models.load_shares("own")
    again = pk.models.load_shares("own", custom_objects={"Own": Own})
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-3)


# --- saved shares -----------------------------------------------------------------------------------------------------
def test_saved_shares_give_the_model_with_its_optimiser(events):
    private, plain = trained(optimizer=adam)
    private.save_shares("models/one")
    again = pk.models.load_shares("models/one")
    assert "reveal" not in [plan.kind for plan in events.plans]
    assert type(again) is pk.Sequential and again.name == private.name
    close(again.get_weights(), plain.get_weights())
    for model in (again, plain):
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert distance(again, plain) < 2e-3
    assert int(again.optimizer.iterations) == int(plain.optimizer.iterations)


def test_saved_shares_of_a_compiled_model_whose_optimiser_has_not_begun():
    private, plain = logistic(optimizer=adam)
    private.save_shares("new")
    again = pk.models.load_shares("new")
    for model in (again, plain):
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert distance(again, plain) < 2e-3


def test_saved_shares_of_untrained_and_just_loaded_models():
    private, plain = logistic()
    private.save_shares("one")
    once = pk.models.load_shares("one")
    once.save_shares("two")
    close(pk.models.load_shares("two").get_weights(), plain.get_weights(), 1e-5)


def test_just_loaded_models_keep_their_optimiser_when_saved_again():
    private, plain = trained(optimizer=adam)
    private.save_shares("one")
    pk.models.load_shares("one").save_shares("two")
    again = pk.models.load_shares("two")
    for model in (again, plain):
        model.fit(X, Y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    assert distance(again, plain) < 2e-3


def test_public_layers_come_back_public_and_known():
    private, plain = logistic()
    private.layers[0].public = True
    private.layers[0].trainable = False
    private.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    private.fit(X, Y, verbose=0)
    private.save_shares("one")
    again = pk.models.load_shares("one")
    assert again.layers[0].public and not again.layers[1].public
    close(again.layers[0].get_weights(), plain.layers[0].get_weights(), 1e-5)
    assert np.isnan(again.layers[1].get_weights()[0]).all()
    again.fit(X, Y, verbose=0)


def test_what_servers_say_about_shares_is_not_trusted(cluster):
    private, _ = logistic()
    private.save_shares("one")
    handles, about = cluster.load("one")
    changed = [('"progress": null', '"progress": 3'), ("private_keras>Dense", "os.system")]
    changed.append(('"optimizer": [', '"optimizer": ["a", '))
    for text in ("", "{", "[]", "{}", '{"format": "other"}', *(about.replace(*change) for change in changed)):
        cluster.save("bad", handles, text)
        with pytest.raises(FileError):
            pk.models.load_shares("bad")
    cluster.save("few", {"weight/0": handles["weight/0"]}, about)
    with pytest.raises(InputError, match="other shapes"):
        pk.models.load_shares("few")
    with pytest.raises(HandleNotFound, match="nothing"):
        pk.models.load_shares("nothing")


# --- resuming ---------------------------------------------------------------------------------------------------------
class Stop(Exception):
    pass


def interrupted(model, stop_after, **options):
    """A fit that ends by an exception after some jobs of training."""
    cluster = clusters.current()
    original, jobs = cluster.run, []

    def run(plan, *args, **kwargs):
        if plan.kind == "train":
            jobs.append(plan)
            if len(jobs) > stop_after:
                raise Stop
        return original(plan, *args, **kwargs)

    cluster.run = run
    try:
        with pytest.raises(Stop):
            model.fit(X, Y, verbose=0, **options)
    finally:
        cluster.run = original


@pytest.mark.parametrize("stop_after, every", [(0, None), (2, None), (3, 1), (5, 2)])
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(stop_after, every):
    layers = ("Dense", 6, "relu"), ("Dropout", 0.3), ("Dense", 1, "sigmoid")
    options = dict(batch_size=16, epochs=3, checkpoint="run", checkpoint_every=every)
    whole, _ = pair(*layers, optimizer=adam)
    history = whole.fit(X, Y, verbose=0, batch_size=16, epochs=3, seed=9)
    first, _ = pair(*layers, optimizer=adam)
    interrupted(first, stop_after, seed=9, **options)
    second, _ = pair(*layers, optimizer=adam, seed=99)
    if "run" not in clusters.current().saved():
        second, _ = pair(*layers, optimizer=adam)
        options["seed"] = 9
    resumed = second.fit(X, Y, verbose=0, resume=True, **options)
    close(second.get_weights(), whole.get_weights())
    np.testing.assert_allclose(resumed.history["loss"][-1], history.history["loss"][-1], atol=1e-3)
    assert resumed.epoch[-1] == 2 and int(second.optimizer.iterations) == 9
    done = second.fit(X, Y, verbose=0, resume=True, **options)
    assert done.epoch == []


def test_learning_rates_of_callbacks_are_in_the_checkpoint():
    private, _ = logistic()
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch == 1 else rate)
    private.fit(X, Y, epochs=2, verbose=0, callbacks=[halve], checkpoint="run")
    other, _ = logistic()
    other.fit(X, Y, epochs=2, verbose=0, checkpoint="run", resume=True)
    assert float(other.optimizer.learning_rate) == pytest.approx(0.05)


def test_checkpoints_of_other_models_are_refused():
    private, _ = logistic()
    private.fit(X, Y, verbose=0, checkpoint="run")
    other, _ = pair(("Dense", 1, "sigmoid"))
    with pytest.raises(InputError, match="other shapes"):
        other.fit(X, Y, verbose=0, checkpoint="run", resume=True)
    adaptive, _ = logistic(optimizer=adam)
    with pytest.raises(InputError, match="another optimizer"):
        adaptive.fit(X, Y, verbose=0, checkpoint="run", resume=True)
    private.save_shares("shares")
    with pytest.raises(InputError, match="load_shares"):
        private.fit(X, Y, verbose=0, checkpoint="shares", resume=True)


def test_lost_shares_put_back_what_the_client_knew():
    private, plain = logistic()
    before = private.get_weights()
    private.fit(X, Y, verbose=0, checkpoint="run")
    private.fit(X, Y, verbose=0, checkpoint="run", resume=True, epochs=2)  # takes the place of secret values
    pk.connect(protocol="simulate")
    with pytest.raises(HandleNotFound, match="resume=True.*load_shares"):
        private.predict(X, verbose=0)
    close(private.get_weights(), before, 0)
    np.testing.assert_allclose(private.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-3)
    assert int(private.optimizer.iterations) == 0
    private.fit(X, Y, verbose=0)


def test_values_on_another_cluster_stay_there():
    private, _ = logistic(optimizer=adam)
    private.fit(X, Y, verbose=0)
    trained = private.get_weights()
    with clusters.SimulatedCluster():
        for use in (lambda: private.predict(X, verbose=0), lambda: private.fit(X, Y, verbose=0), private.get_weights):
            with pytest.raises(HandleNotFound, match="another cluster"):
                use()
    close(private.get_weights(), trained, 0)
    private.fit(X, Y, verbose=0)


def counters(model):
    return {v.path: float(v) for v in model.optimizer.variables[1:] if not len(v.shape)}


def test_a_run_that_is_dropped_leaves_the_optimisers_counters_as_they_were(monkeypatch):
    private, plain = logistic(optimizer=lambda: keras.optimizers.Nadam(0.01))
    first = dict(verbose=0, batch_size=25, shuffle=False)
    private.fit(X, Y, **first)
    before = counters(private)
    with monkeypatch.context() as patched:
        patched.setattr("private_keras.models.training.jobs.LIMIT_BITS", -60)
        with pytest.raises(DivergenceError):
            private.fit(X, Y, **first)
    assert counters(private) == before and int(private.optimizer.iterations) == 2
    # The rate is so much smaller that the step is traced anew, from these counters.
    for model in (private, plain):
        if model is plain:
            model.fit(X, Y, **first)
        model.optimizer.learning_rate = 1e-3
        model.fit(X, Y, **first)
    assert distance(private, plain) < 1e-3
    pk.connect(protocol="simulate")
    with pytest.raises(HandleNotFound):
        private.predict(X, verbose=0)
    assert sorted(counters(private).values()) == [pytest.approx(1e-3), 1] and int(private.optimizer.iterations) == 0


def test_an_optimiser_that_is_set_back_begins_anew():
    """What users do between two runs; its slots on the servers count no longer."""
    private, plain = logistic(optimizer=adam)
    for model in (private, plain):
        model.fit(X, Y, verbose=0, shuffle=False)
        for variable in model.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape))
        model.fit(X, Y, verbose=0, shuffle=False)
    assert distance(private, plain) < 1e-3


def test_progress_is_read_strictly():
    for given in ({"epoch": -1}, {"position": [1]}, {"seed": "x"}, {"step": None}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            checkpoint._progress({"epoch": 0, "step": 0, "position": [0, 0], "seed": 1, **given})


def test_forgotten_values_are_deleted(cluster):
    private, _ = logistic(optimizer=adam)
    counts = []
    for _ in range(4):
        private.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        private.predict(X, verbose=0)
        counts.append(len(cluster._stored))
    assert counts[-1] == counts[1]
