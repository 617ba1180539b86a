"""`predict` on shares against Keras: forms of data and of model, errors before anything is shared, cached weights."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.cluster.shares import Shares
from private_keras.errors import FileError, HandleNotFound, InputError, UnsupportedError
from private_keras.ring.fixedpoint import decode

RNG = np.random.default_rng(11)
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def simulated():
    """The same plan and arithmetic as on servers, in this process."""
    with_cluster = pk.connect(protocol="simulate")
    yield with_cluster
    clusters.disconnect()


@pytest.fixture
def shared(simulated, monkeypatch) -> list:
    """Names of all that is shared or run, as it happens."""
    events = []
    for name in ("share", "run", "delete"):
        original = getattr(simulated, name)
        monkeypatch.setattr(simulated, name, lambda *a, _o=original, _n=name, **k: events.append(_n) or _o(*a, **k))
    return events


def mlp() -> keras.Model:
    return pk.Sequential([pk.Input((5,)), pk.layers.Dense(4, "relu"), pk.layers.Dense(3)])


def two_by_two() -> keras.Model:
    image, age = pk.Input((4, 4, 1), name="image"), pk.Input((2,), name="age")
    x = pk.layers.Flatten()(pk.layers.Conv2D(2, 3, activation="relu")(image))
    x = pk.layers.concatenate([x, age])
    return pk.Model([image, age], {"score": pk.layers.Dense(2)(x), "latent": x})


def data(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype("float32")


def plain(model: keras.Model, x) -> object:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def close(a: object, b: object) -> None:
    keras.tree.assert_same_structure(a, b)
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        assert isinstance(x, np.ndarray) and x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=TOLERANCE)


# --- forms of data ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows, batch_size", [(1, None), (7, 3), (33, None), (6, 6), (5, 100)])
def test_arrays(rows, batch_size):
    model, x = mlp(), data(rows, 5)
    close(model.predict(x, batch_size=batch_size, verbose=0), plain(model, x))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool"])
def test_types_of_arrays(dtype):
    model, x = mlp(), RNG.integers(0, 2, (4, 5)).astype(dtype)
    close(model.predict(x, verbose=0), plain(model, x.astype("float32")))


def test_tensors_and_nested_lists():
    model, x = mlp(), data(3, 5)
    expected = plain(model, x)
    close(model.predict(tf.constant(x), verbose=0), expected)
    close(model.predict(x.tolist(), verbose=0), expected)
    close(model.predict_on_batch(x), expected)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, with_labels: bool):
        super().__init__()
        self.x, self.with_labels = x, with_labels

    def __len__(self):
        return 3

    def __getitem__(self, index):
        batch = self.x[index * 3 : index * 3 + 3]
        return (batch, np.zeros(len(batch))) if self.with_labels else (batch,)


@pytest.mark.parametrize("with_labels", [False, True])
def test_streams(with_labels):
    model, x = mlp(), data(7, 5)
    expected = plain(model, x)
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(7)) if with_labels else x).batch(3)
    close(model.predict(dataset, verbose=0), expected)
    close(model.predict(Batches(x, with_labels), verbose=0), expected)
    close(model.predict((b for b in Batches(x, with_labels)), verbose=0, steps=3), expected)
    close(model.predict(dataset.repeat(), verbose=0, steps=2), expected[:6])


def test_several_inputs_and_outputs():
    model, image, age = two_by_two(), data(5, 4, 4, 1), data(5, 2)
    expected = plain(model, [image, age])
    close(model.predict([image, age], batch_size=2, verbose=0), expected)
    close(model.predict((image, age), batch_size=2, verbose=0), expected)
    close(model.predict({"age": age, "image": image}, batch_size=2, verbose=0), expected)
    dataset = tf.data.Dataset.from_tensor_slices({"image": image, "age": age}).batch(2)
    close(model.predict(dataset, verbose=0), expected)
    close(
        model.predict([image[..., 0], age], verbose=0), expected
    )  # as in Keras, the last axis of length 1 may be left out


def test_dictionaries_as_structure():
    inputs = {"b": pk.Input((2,), name="b"), "a": pk.Input((3,), name="a")}
    model = pk.Model(inputs, pk.layers.Dense(2)(pk.layers.concatenate([inputs["b"], inputs["a"]])))
    x = {"a": data(4, 3), "b": data(4, 2)}
    close(model.predict(x, verbose=0), plain(model, x))


# --- forms of model ---------------------------------------------------------------------------------------------------
class Own(pk.Model):
    def __init__(self, units: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = pk.layers.Dense(units)

    def call(self, x, training=None):
        return keras.ops.relu(self.dense(x)) + 1.0

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class OwnPlain(keras.Model):
    def __init__(self, units: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x) * 2.0

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class FunctionalByInheritance(pk.Model):
    def __init__(self):
        x = pk.Input((3,))
        super().__init__(inputs=x, outputs=pk.layers.Dense(2)(x), name="inherited")


def test_subclassed_models():
    model, x = Own(), data(3, 3)
    model(x)
    close(model.predict(x, verbose=0), plain(model, x))
    first, second = FunctionalByInheritance(), FunctionalByInheritance()
    close(first.predict(x, verbose=0), plain(first, x))
    close(second.predict(x, verbose=0), plain(second, x))
    assert isinstance(first, FunctionalByInheritance) and FunctionalByInheritance.__bases__ == (pk.Model,)
    assert not hasattr(Own(), "_functional") and len(first.layers) == 2


def test_models_as_layers():
    inner = mlp()
    x = pk.Input((5,))
    model, values = pk.Model(x, pk.layers.Dense(2)(inner(x) + inner(2 * x))), data(3, 5)
    close(model.predict(values, verbose=0), plain(model, values))
    assert isinstance(model, pk.Model) and isinstance(model, keras.Model)


def test_saved_models_come_back_private(tmp_path):
    for model in (mlp(), two_by_two()):
        model.save(tmp_path / "m.keras")
        again = pk.models.load_model(tmp_path / "m.keras")
        assert type(again) is type(model) and again.layers[-1].__class__ is model.layers[-1].__class__
        for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


# --- conversion -------------------------------------------------------------------------------------------------------
def keras_models() -> dict:
    layers = keras.layers
    image = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(image))
    x = keras.ops.relu(layers.add([x, layers.Conv2D(3, 1)(image)]))[:, 1:]
    head = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)], name="head")
    pooled = layers.GlobalAveragePooling2D()(x)
    subclassed = OwnPlain()
    subclassed(np.zeros((1, 4)))
    shared = layers.Dense(4)
    a = keras.Input((4,))
    return {
        "sequential": keras.Sequential(
            [keras.Input((4,)), layers.Dense(3, "relu"), layers.Dropout(0.5), layers.Dense(2)]
        ),
        "functional": keras.Model(image, [head(pooled), head(pooled * 2)]),
        "subclassed": subclassed,
        "shared layer": keras.Model(a, shared(shared(a))),
        "wrapped": keras.Sequential([keras.Input((3, 4)), layers.TimeDistributed(layers.Dense(2))]),
    }


@pytest.mark.parametrize("kind", keras_models())
def test_convert(kind):
    model = keras_models()[kind]
    model.set_weights([RNG.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    before, config = model.get_weights(), None if kind == "subclassed" else model.get_config()
    private = pk.convert(model)
    shape = {"functional": (6, 6, 2), "wrapped": (3, 4)}.get(kind, (4,))
    x = data(3, *shape)
    close(private.predict(x, verbose=0), plain(model, x))
    private.set_weights([w * 0 for w in private.get_weights()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert config is None or model.get_config() == config
    assert private.name == model.name and pk.convert(private) is private
    assert all(
        type(layer).__module__.startswith("private_keras")
        for layer in private.layers
        if type(layer).__name__ == "Dense"
    )


def test_convert_brings_along_what_normalization_learnt():
    layer = keras.layers.Normalization()
    layer.adapt(RNG.normal(3.0, 2.0, (50, 5)).astype("float32"))
    model = keras.Sequential([keras.Input((5,)), layer, keras.layers.Dense(3)])
    x = RNG.normal(3.0, 2.0, (4, 5)).astype("float32")
    np.testing.assert_allclose(pk.convert(model).predict(x, verbose=0), plain(model, x), atol=TOLERANCE)


def test_convert_keeps_how_a_model_was_compiled():
    model = keras_models()["sequential"]
    model.compile(keras.optimizers.SGD(0.125), "mse", metrics=["mae"])
    private = pk.convert(model)
    assert private.loss == "mse" and float(private.optimizer.learning_rate.numpy()) == 0.125


def test_no_way_to_a_model_that_predicts_in_the_clear(tmp_path):
    """Whatever the face makes of a private model is private."""
    model = mlp()
    model.save(tmp_path / "m.keras")
    made = [
        pk.models.clone_model(model),
        pk.models.clone_model(two_by_two()),
        pk.models.model_from_json(model.to_json()),
        pk.saving.load_model(tmp_path / "m.keras"),
        pk.models.load_model(tmp_path / "m.keras"),
        pk.Sequential.from_config(model.get_config()),
        pk.Model.from_config(two_by_two().get_config()),
    ]
    assert all(isinstance(m, pk.models.PrivateModel) for m in made)
    plain_model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert isinstance(pk.models.model_from_json(plain_model.to_json()), pk.Sequential)
    model.save_weights(tmp_path / "m.weights.h5")
    pk.saving.load_weights(made[0], tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(made[0].get_weights()[0], model.get_weights()[0])


def test_convert_says_what_it_cannot_do():
    with pytest.raises(InputError, match="keras.Model.*list"):
        pk.convert([1])
    with pytest.raises(InputError, match="not built"):
        pk.convert(keras.Sequential([keras.layers.Dense(2)]))


# --- errors before anything is shared ---------------------------------------------------------------------------------
def bad_arrays() -> dict:
    good = np.zeros((3, 5))
    nan, infinite, huge = good.copy(), good.copy(), good.copy()
    nan[2, 4], infinite[1, 1], huge[0, 0] = np.nan, -np.inf, 1e12
    return {
        "nan": (nan, "NaN or infinity in 1 of 15"),
        "infinite": (infinite, "NaN or infinity"),
        "huge": (huge, "range|values from"),
        "rank": (np.zeros((3, 5, 2)), r"expected shape \(rows, 5\).*\(3, 5, 2\)"),
        "shape": (np.zeros((3, 4)), r"\(rows, 5\).*\(3, 4\)"),
        "vector": (np.zeros(5), "expected shape"),
        "number": (np.float32(3), "single number"),
        "empty": (np.zeros((0, 5)), "at least one row"),
        "text": (np.array([["a"] * 5]), "numbers"),
        "objects": (np.array([[None] * 5]), "numbers"),
        "complex": (np.zeros((3, 5), complex), "numbers"),
        "two": ([good, good], "1 input"),
        "none": (None, "numbers"),
        "word": ("data", "numbers"),
        "keys": ({"x": good}, "inputs"),
        "ragged": ([[1.0, 2.0], [3.0]], "array"),
    }


@pytest.mark.parametrize("case", bad_arrays())
def test_bad_data(case, shared):
    x, match = bad_arrays()[case]
    with pytest.raises(InputError, match=match) as raised:
        mlp().predict(x, verbose=0)
    assert "1e+12" not in str(raised.value) and "1000000000000" not in str(raised.value)
    assert shared == []


def test_bad_rows_are_found_before_the_first_batch(shared):
    x = data(100, 5)
    x[99, 0] = np.nan
    with pytest.raises(InputError):
        mlp().predict(x, batch_size=10, verbose=0)
    assert shared == []


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"steps": 0}, {"batch_size": True}]
)
def test_bad_arguments(arguments, shared):
    with pytest.raises(InputError, match="at least 1"):
        mlp().predict(data(3, 5), verbose=0, **arguments)
    assert shared == []


def test_different_numbers_of_rows(shared):
    with pytest.raises(InputError, match="as many rows"):
        two_by_two().predict([data(3, 4, 4, 1), data(2, 2)], verbose=0)
    with pytest.raises(InputError, match="'age'.*'image'.*'size'"):
        two_by_two().predict({"image": data(3, 4, 4, 1), "size": data(3, 2)}, verbose=0)
    assert shared == []


def test_indices(shared):
    model = pk.Sequential([pk.Input((3,)), pk.layers.Embedding(5, 2)])
    good = np.array([[0, 4, 2]])
    close(model.predict(good, verbose=0), plain(model, good))
    del shared[:]
    for bad in ([[0, 5, 1]], [[-1, 0, 0]], [[0.5, 1.0, 2.0]]):
        with pytest.raises(InputError, match="expected"):
            model.predict(np.array(bad), verbose=0)
    assert shared == []


def test_models_that_are_not_built(shared):
    with pytest.raises(InputError, match="not built.*keras.Input"):
        pk.Sequential([pk.layers.Dense(2)], name="unbuilt").predict(data(2, 3), verbose=0)
    assert shared == []


def test_layers_that_cannot_run(shared):
    model = pk.Sequential(
        [pk.Input((3,)), pk.layers.Dense(2), pk.layers.Lambda(lambda x: tf.cumsum(x), output_shape=(2,), name="mine")]
    )
    with pytest.raises(UnsupportedError, match="mine"):
        model.predict(data(2, 3), verbose=0)
    assert not model.check().ok and "mine" in str(model.check())
    assert shared == []


def test_safe_mode_and_weights_files(tmp_path):
    model = mlp()
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match="safe_mode"):
        pk.models.load_model(tmp_path / "m.keras", safe_mode=False)
    model.save_weights(tmp_path / "m.weights.h5")
    other = mlp()
    other.load_weights(tmp_path / "m.weights.h5")
    close(other.predict(np.ones((1, 5)), verbose=0), plain(model, np.ones((1, 5))))
    (tmp_path / "m.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\nrubbish")
    with pytest.raises(FileError, match="m.weights.h5"):
        other.load_weights(tmp_path / "m.weights.h5")


# --- weights on the servers -------------------------------------------------------------------------------------------
def test_weights_are_shared_once_and_again_when_they_change(shared):
    model, x = mlp(), data(3, 5)
    model.predict(x, verbose=0)
    assert shared.count("share") >= 4
    del shared[:]
    model.predict(x, verbose=0)
    model.predict(data(2, 5), verbose=0)
    assert "share" not in shared and shared.count("run") == 2
    model.layers[0].kernel.assign(model.layers[0].kernel + 1)
    close(model.predict(x, verbose=0), plain(model, x))
    assert "share" in shared and "delete" in shared
    model.set_weights([w / 2 for w in model.get_weights()])
    close(model.predict(x, verbose=0), plain(model, x))


def test_weights_of_forgotten_models_are_deleted(simulated, shared):
    model = mlp()
    model.predict(data(1, 5), verbose=0)
    count = len(simulated._stored)
    del model
    gc.collect()
    other = mlp()
    other.predict(data(1, 5), verbose=0)
    assert "delete" in shared and len(simulated._stored) == count


def test_another_cluster_gets_the_weights_again():
    model, x = mlp(), data(3, 5)
    model.predict(x, verbose=0)
    pk.connect(protocol="simulate")
    close(model.predict(x, verbose=0), plain(model, x))


def test_lost_shares_are_shared_again_once(simulated, shared, monkeypatch):
    model, x = mlp(), data(3, 5)
    model.predict(x, verbose=0)
    simulated._stored.clear()
    close(model.predict(x, verbose=0), plain(model, x))
    monkeypatch.setattr(simulated, "run", lambda *_, **__: (_ for _ in ()).throw(HandleNotFound("gone")))
    with pytest.raises(HandleNotFound):
        model.predict(x, verbose=0)


def test_shares_know_their_cluster(simulated):
    shares = Shares(simulated)
    assert shares.live(simulated) and not shares.live(clusters.SimulatedCluster())
    simulated._incarnation = "anew"
    assert not shares.live(simulated)
    handle = Shares(simulated).handle("w", np.array([0.5]), 18, "label")
    assert decode(simulated._stored[handle.id], 18) == [0.5]


# --- callbacks and reports --------------------------------------------------------------------------------------------
class Recorder(keras.callbacks.Callback):
    def __init__(self, stop_after: int | None = None):
        super().__init__()
        self.seen, self.stop_after = [], stop_after

    def on_predict_begin(self, logs=None):
        self.seen.append("begin")

    def on_predict_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["outputs"].shape))
        if batch == self.stop_after:
            self.model.stop_predicting = True

    def on_predict_end(self, logs=None):
        self.seen.append("end")


def test_callbacks_and_progress_bar(capsys):
    model, x, recorder = mlp(), data(7, 5), Recorder()
    model.predict(x, batch_size=3, callbacks=[recorder])
    assert recorder.seen == ["begin", (0, (3, 3)), (1, (3, 3)), (2, (1, 3)), "end"]
    assert "3/3" in capsys.readouterr().out
    assert model.predict(x, batch_size=3, verbose=0, callbacks=[Recorder(stop_after=1)]).shape == (6, 3)
    assert capsys.readouterr().out == ""


def test_check(shared):
    model = mlp()
    report = model.check(data(4, 5))
    assert report.ok and bool(report) and report.error < TOLERANCE
    assert any("dense" in r.layer for r in report.ranges) and all(
        r.low <= r.high and 0 < r.headroom < 62 for r in report.ranges
    )
    assert "bits of headroom" in str(report) and "<pre>" in report._repr_html_()
    assert model.check().ranges == ()
    wrong = model.check(np.full((1, 5), np.nan))
    assert not wrong.ok and "NaN" in str(wrong)
    assert not pk.Sequential([pk.layers.Dense(1)]).check().ok
    assert shared == []


def test_check_sees_large_values_coming():
    model = mlp()
    calm = min(r.headroom for r in model.check(np.ones((1, 5))).ranges)
    wild = min(r.headroom for r in model.check(np.full((1, 5), 1e5)).ranges)
    assert wild < calm - 10


def test_cost_and_plan():
    model = mlp()
    one, many = model.cost(1, "lan"), model.cost(64, pk.Network(rtt=0.01, bandwidth=1e9))
    assert one.rounds == many.rounds and many.bytes > 10 * one.bytes and many.seconds > 0.01 / 2 * many.rounds
    assert 0 < one.ahead < one.bytes and sum(row.bytes for row in one.layers) == one.bytes
    text = model.plan(batch_size=2).describe()
    assert "client" in text and "model-owner" in text and "Opened" in text
    with pytest.raises(InputError, match="network"):
        model.cost(network=3)
    model.summary(print_fn=lambda *a, **k: None)


def test_errors_call_inputs_by_name_or_number():
    a, b = pk.Input((6,), name="age"), pk.Input((2,))
    model = pk.Model([a, b], pk.layers.Concatenate()([a, b]))
    x = np.zeros((4, 6))
    for given, told in (
        ([x[:, :1], x], r"input 'age': expected shape \(rows, 6\)"), ([x, x], r"input 2: expected shape \(rows, 2\)"),
        (x, r"expected 2 input\(s\) \(age\)"), ([x, None], "input 2: expected an array"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=told):
            model.predict(given)
