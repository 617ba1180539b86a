"""Secret tensors: what `share` refuses and keeps, that nothing shows a value, models that take them for arrays."""

import copy
import gc
import os
import pickle
import signal

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.cluster.display import as_html, as_text
from private_keras.cluster.handle import Stats
from private_keras.errors import ClusterError, HandleNotFound, InputError, PrivateKerasError, UnsupportedError
from tests.training import Events, assert_alike, distance, logistic, pair, two_classes


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


# --- share and reveal -------------------------------------------------------------------------------------------------
ARRAYS = st.one_of(
    hnp.arrays(st.sampled_from([np.float64, np.float32, np.float16]), hnp.array_shapes(min_dims=0, max_dims=4),
               elements=st.floats(-1000, 1000, width=16)),
    hnp.arrays(st.sampled_from([np.int8, np.uint8, np.int32, np.uint64, np.bool_]), hnp.array_shapes(max_dims=3),
               elements=st.integers(0, 1)),
    hnp.arrays(np.int64, hnp.array_shapes(max_dims=3), elements=st.integers(1 - 2**30, 2**30 - 1)),
)  # fmt: skip


@given(ARRAYS)
@settings(max_examples=60, deadline=None)
def test_reveal_gives_back_what_was_shared(array):
    tensor = pk.share(array, "x")
    assert (tensor.shape, tensor.dtype, tensor.ndim, tensor.size) == (array.shape, array.dtype, array.ndim, array.size)
    assert tensor.fraction == (18 if array.dtype.kind == "f" else 0) and tensor.owner == "client"
    value = tensor.reveal()
    assert value.dtype == array.dtype and value.shape == array.shape
    if array.dtype.kind == "f":
        np.testing.assert_allclose(value.astype(float), array.astype(float), atol=2**-19, rtol=2**-11)
    else:
        np.testing.assert_array_equal(value, array)


@pytest.mark.parametrize("given, dtype, fraction", [
    ([[1, 2], [3, 4]], "int64", 0), ([[1.0, 2], [3, 4]], "float64", 18), ([True, False], "bool", 0),
    (keras.ops.ones((2, 3)), "float32", 18), (keras.ops.cast([1, 2], "bfloat16"), "bfloat16", 18),
    (np.ma.masked_array([1.0, 2.0], [False, False]), "float64", 18),
])  # fmt: skip
def test_what_is_an_array(given, dtype, fraction):
    tensor = pk.share(given)
    assert (str(tensor.dtype), tensor.fraction, tensor.name) == (dtype, fraction, "tensor")
    np.testing.assert_array_equal(tensor.reveal().astype(float), np.asarray(given).astype(float))


@pytest.mark.parametrize("array, expected", [
    ([1.0, np.nan], "finite"), ([np.inf], "finite"), ([2.0**20], r"below 2\^20"), ([-(2.0**20)], r"below 2\^20"),
    ([2**30], r"integers below 2\^30"), (np.array([2**64 - 1], np.uint64), r"below 2\^30"),
    (["a"], "text"), ([1j], "numbers"), (np.zeros((0, 3)), "at least one"), ([[1], [2, 3]], "numbers"),
    (np.array(["2020-01-01"], "datetime64[D]"), "numbers"), (object(), "numbers"), (None, "numbers"),
    (np.ma.masked_array([1.0, 2.0], [False, True]), "masked"), ((i for i in range(3)), "numbers"),
])  # fmt: skip
def test_refused_before_anything_is_shared(array, expected, events):
    with pytest.raises(InputError, match=expected):
        pk.share(array, "x")
    assert events.names == []


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", 3, "\x1b[2J"])
def test_names(name):
    with pytest.raises(InputError, match="name"):
        pk.share([1], name)


def test_a_secret_tensor_is_not_shared_again():
    with pytest.raises(InputError, match="already"):
        pk.share(pk.share([1.0]))


# --- rows -------------------------------------------------------------------------------------------------------------
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_those_of_numpy(data):
    array = np.arange(21).reshape(7, 3)
    tensor = pk.share(array)
    for _ in range(data.draw(st.integers(1, 3))):
        n = len(array)
        key = data.draw(st.one_of(
            st.slices(n), st.lists(st.integers(-n, n - 1), min_size=1, max_size=5),
            hnp.arrays(bool, n),
        ))  # fmt: skip
        if not len(array[key]):
            with pytest.raises(InputError, match="at least one row"):
                tensor[key]
            continue
        array, tensor = array[key], tensor[key]
        assert tensor.shape == array.shape and len(tensor) == len(array)
    np.testing.assert_array_equal(tensor.reveal(), array)


@pytest.mark.parametrize("key", [
    3, np.int64(2), ..., None, "a", 1.5, [7], [[0, 1]], np.ones(6, bool), [0.5], (0, 3), (slice(0, 0), 0), (7, 0),
    (slice(None), [0, 1]), (0, 0, 0), (slice(None), "a"),
])  # fmt: skip
def test_what_is_no_index(key):
    with pytest.raises(InputError, match="expected"):
        pk.share(np.zeros((7, 3)))[key]


def test_rows_are_public():
    x = pk.share([1, 2, 3])
    with pytest.raises(InputError, match="public rows"):
        x[x]


def test_rows_share_nothing(events):
    x = pk.share(np.zeros((7, 3)))
    x[2:5][[0, 1]]
    assert events.names == ["share"]


# --- it is no array ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("use", [
    np.asarray, np.sum, bool, float, int, complex, hex, keras.ops.convert_to_tensor, pickle.dumps, copy.copy,
    copy.deepcopy, lambda x: x == 1, lambda x: x != x, lambda x: 1 in x, lambda x: [1, 2][x],
    lambda x: np.array([x, x]), np.exp, lambda x: pk.layers.Dense(2)(x), keras.ops.sum, np.add.reduce,
    lambda x: np.add(x, 1, dtype="float32"),
])  # fmt: skip
def test_using_it_as_an_array_says_what_to_do(use):
    with pytest.raises(UnsupportedError, match="known here|copied"):
        use(pk.share(np.array([[1.0, 2.0]])))


@pytest.mark.parametrize("use", [iter, list, round])
def test_it_is_no_sequence(use):
    with pytest.raises(TypeError):
        use(pk.share([1.0, 2.0]))


def test_it_is_found_in_dicts_and_lists():
    x, y = pk.share([1.0]), pk.share([1.0])
    assert {x: 1, y: 2}[y] == 2 and x in [x]
    with pytest.raises(TypeError, match="no rows"):
        len(pk.share(3.5))


# --- where it is ------------------------------------------------------------------------------------------------------
def test_shares_end_with_the_last_that_refers_to_them(cluster):
    x = pk.share(np.zeros((4, 3), "uint8"))
    model, _ = pair(("Dense", 1), shape=(3,), loss="mse", metrics=())
    rows = x[:2]
    model.predict(rows, verbose=0)
    before = len(cluster._stored)
    del x
    gc.collect()
    kept = [pk.share([1])]
    assert len(cluster._stored) == before + 1, "a view keeps the shares"
    del rows
    gc.collect()
    kept.append(pk.share([1]))
    assert len(cluster._stored) == before + 2 - 1, "the integers are gone"


def test_another_cluster():
    x, y = two_classes(8)
    tensor = pk.share(x, "patients")
    model, _ = logistic()
    with clusters.SimulatedCluster():
        for use in (lambda: model.predict(tensor, verbose=0), lambda: model.fit(tensor, y, verbose=0)):
            with pytest.raises(HandleNotFound, match="'patients' is not on the cluster in use.*pk.share"):
                use()
        np.testing.assert_allclose(tensor.reveal(), x, atol=2**-18)  # its own cluster is there


def test_a_closed_cluster():
    with clusters.SimulatedCluster():
        tensor = pk.share([1.0])
    with pytest.raises(ClusterError, match="closed"):
        tensor.reveal()
    gc.collect()
    with pytest.raises(ClusterError, match="closed"):
        tensor.reveal()


# --- models -----------------------------------------------------------------------------------------------------------
def test_training_is_that_of_arrays(cluster, monkeypatch):
    x, y = two_classes(100)
    private, plain = logistic()
    options = {"batch_size": 32, "epochs": 3, "shuffle": False, "verbose": 0}
    expected = plain.fit(x, y, validation_split=0.2, **options)
    sx, sy = pk.share(x, "x"), pk.share(y, "y")
    shapes, original = [], cluster.share
    monkeypatch.setattr(cluster, "share", lambda values, *rest: shapes.append(values.shape) or original(values, *rest))
    history = private.fit(sx, sy, validation_split=0.2, **options)
    assert_alike(history, expected)
    assert shapes and not any(shape[:1] >= (20,) for shape in shapes), "weights and metrics are shared, no data"
    np.testing.assert_allclose(private.evaluate(sx, sy, verbose=0), plain.evaluate(x, y, verbose=0), atol=1e-3)
    np.testing.assert_allclose(private.predict(sx[90:], verbose=0), plain.predict(x[90:], verbose=0), atol=1e-3)
    np.testing.assert_allclose(private.predict_on_batch(sx[:3]), plain.predict_on_batch(x[:3]), atol=1e-3)
    np.testing.assert_allclose(private.train_on_batch(sx[:9], sy[:9]), plain.train_on_batch(x[:9], y[:9]), atol=1e-3)
    np.testing.assert_allclose(private.test_on_batch(sx[:9], y[:9]), plain.test_on_batch(x[:9], y[:9]), atol=1e-3)
    assert distance(private, plain) < 1e-3


def test_shuffled_rows_are_those_of_arrays():
    x, y = two_classes(50)
    runs = [logistic()[0] for _ in range(2)]
    for model, (a, b) in zip(runs, [(x, y), (pk.share(x)[::-1][::-1], pk.share(y))], strict=True):
        model.fit(a, b, batch_size=8, epochs=2, seed=5, verbose=0)
    assert distance(*runs) < 1e-4


def test_validation_and_sample_weights():
    x, y = two_classes(60)
    weights = np.linspace(0, 2, 60)
    private, plain = logistic()
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    expected = plain.fit(x[:40], y[:40], sample_weight=weights[:40], validation_data=(x[40:], y[40:]), **options)
    sx, sy, sw = pk.share(x), pk.share(y), pk.share(weights[:, None])
    history = private.fit(sx[:40], sy[:40], sample_weight=sw[:40], validation_data=(sx[40:], y[40:]), **options)
    assert_alike(history, expected)
    counts = np.arange(60) % 3
    results = [m.evaluate(x, y, sample_weight=w, verbose=0) for m, w in ((private, pk.share(counts)), (plain, counts))]
    np.testing.assert_allclose(*results, atol=1e-3)


def two_inputs(kind):
    a, b = kind.layers.Input((3,), name="a"), kind.layers.Input((2,), name="b")
    joined = kind.layers.Concatenate()([kind.layers.Dense(2)(a), b])
    return kind.Model({"a": a, "b": b}, kind.layers.Dense(1, name="out")(joined))


def test_dicts_mix_secret_and_plain():
    rng = np.random.default_rng(1)
    data = {"a": rng.normal(size=(20, 3)), "b": rng.normal(size=(20, 2))}
    y = rng.normal(size=(20, 1))
    private, plain = two_inputs(pk), two_inputs(keras)
    plain.set_weights(private.get_weights())
    mixed = {"a": pk.share(data["a"], "a"), "b": data["b"]}
    np.testing.assert_allclose(
        private.predict(mixed, batch_size=8, verbose=0), plain.predict(data, verbose=0), atol=1e-4
    )
    for model in (private, plain):
        model.compile("sgd", "mse")
    results = [
        m.fit(d, y, validation_split=0.25, batch_size=4, shuffle=False, verbose=0).history
        for m, d in ((private, mixed), (plain, data))
    ]
    assert results[0].keys() == results[1].keys() == {"loss", "val_loss"}
    for name, values in results[1].items():
        np.testing.assert_allclose(results[0][name], values, rtol=1e-3, err_msg=name)
    as_list = [mixed["a"], mixed["b"]]
    np.testing.assert_allclose(private.predict(as_list, verbose=0), plain.predict(data, verbose=0), atol=1e-3)
    with pytest.raises(InputError, match="as many rows"):
        private.predict({"a": mixed["a"][:5], "b": data["b"]}, verbose=0)
    with pytest.raises(InputError, match="as many targets"):
        private.fit(mixed, pk.share(y)[:7], verbose=0)


def test_integers_become_real_numbers_on_the_servers(events):
    rng = np.random.default_rng(2)
    x = rng.integers(0, 255, (30, 4)).astype("uint8")
    private, plain = pair(("Rescaling", 1 / 255), ("Dense", 3, "softmax"), shape=(4,),
                          loss="sparse_categorical_crossentropy")  # fmt: skip
    y = rng.integers(0, 3, 30)
    sx, sy = pk.share(x), pk.share(y)
    results = [m.fit(a, b, shuffle=False, epochs=2, verbose=0) for m, a, b in ((private, sx, sy), (plain, x, y))]
    assert_alike(*results)
    np.testing.assert_allclose(private.predict(sx, verbose=0), plain.predict(x, verbose=0), atol=1e-3)
    assert not [plan for plan in events.plans if plan.kind == "compute"], "no job of its own"
    assert all(plan.inputs[0].type.fraction == 0 for plan in events.plans if plan.kind == "train")


def test_embedding_takes_integers_alone():
    model = pk.Sequential([pk.layers.Input((2,)), pk.layers.Embedding(5, 3), pk.layers.Flatten(), pk.layers.Dense(1)])
    x = np.array([[0, 4], [3, 1]])
    np.testing.assert_allclose(model.predict(pk.share(x), verbose=0), model.predict(x, verbose=0), atol=1e-4)
    with pytest.raises(InputError, match="whole numbers.*as integers"):
        model.predict(pk.share(x.astype("float32")), verbose=0)


def test_large_integers_are_no_real_numbers():
    model, _ = pair(("Dense", 1), shape=(2,), loss="mse", metrics=())
    with pytest.raises(InputError, match="larger integers"):
        model.predict(pk.share([[1, 2**20]]), verbose=0)


def test_an_axis_of_one_is_as_in_keras():
    x = np.linspace(-1, 1, 6)
    model, plain = pair(("Dense", 1), shape=(1,), loss="mse", metrics=())
    np.testing.assert_allclose(model.predict(pk.share(x), verbose=0), plain.predict(x, verbose=0), atol=1e-4)
    loss = [m.evaluate(a, b, verbose=0) for m, a, b in ((model, pk.share(x), pk.share(x)), (plain, x, x))]
    np.testing.assert_allclose(*loss, atol=1e-4)


@pytest.mark.parametrize("arguments, expected", [
    (lambda x, y: {"x": pk.share(x), "y": pk.share(y), "class_weight": {0: 1.0, 1: 2.0}}, "sample_weight=pk.share"),
    (lambda x, y: {"x": pk.share(x[:, :4]), "y": y}, "shape"),
    (lambda x, y: {"x": pk.share(3.0), "y": y}, "a single number"),
    (lambda x, y: {"x": pk.share(x), "y": pk.share(y), "validation_split": 0.99}, "at least one row on each side"),
    (lambda x, y: {"x": pk.share(x), "y": pk.share(np.ones((8, 3)))}, "targets of shape"),
    (lambda x, y: {"x": [pk.share(x), x], "y": y}, "1 input"),
])  # fmt: skip
def test_data_that_do_not_fit(arguments, expected):
    x, y = two_classes(8)
    model, _ = logistic()
    with pytest.raises(PrivateKerasError, match=expected):
        model.fit(**arguments(x, y), verbose=0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.data = x, y

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.data


def test_streams_and_ranges_need_arrays():
    x, y = two_classes(8)
    model, _ = logistic()
    with pytest.raises(PrivateKerasError, match="secret tensors|known here"):
        model.fit(Batches(pk.share(x), y), verbose=0)
    report = model.check(pk.share(x))
    assert not report.ok and "in the clear" in str(report)


# --- nothing shows a value --------------------------------------------------------------------------------------------
MARK = 54.321  # printed whole or in parts by whatever prints values


def texts(item):
    return [text for text in (repr(item), str(item), f"{item}", getattr(item, "_repr_html_", str)()) if text]


def assert_silent(item):
    for text in texts(item):
        assert "54.3" not in text and "54321" not in text, type(item).__name__


@pytest.mark.parametrize("where", ["simulate", "trio"])
def test_no_text_of_anything_shows_a_value(where, cluster, tmp_path):
    if where == "trio":
        clusters.disconnect()
        cluster = pk.connect()
    x, y = np.full((8, 5), MARK), np.full((8, 1), MARK)
    model, _ = pair(("Dense", 2), ("Dense", 1), loss="mse", metrics=(), optimizer=lambda: keras.optimizers.SGD(0.0))
    model.set_weights([np.full(w.shape, MARK / 100 if w.ndim == 1 else 0.0) for w in model.get_weights()])
    sx, sy = pk.share(x, "patients"), pk.share(np.full(8, 54321), "labels")
    assert "54.3" in str(sx.reveal()), "a value would be found"
    items = [sx, sx[:3], sy, model, cluster, cluster.stats, model.plan(4), model.cost(4), model.check()]
    for item in items:
        assert_silent(item)
    model.fit(sx, y, verbose=0)
    for item in (model, cluster, model.plan(4), model.cost(4), model.check(sx), sx):
        assert_silent(item)
    for use in (lambda: float(sx), lambda: np.asarray(sx), lambda: sx[99:], lambda: model.predict(sx[:, 0]),
                lambda: model.fit(sy, y, verbose=0), lambda: model.predict(pk.share(np.full((2, 7), MARK))),
                lambda: pk.share([MARK, np.nan]), lambda: pk.share([MARK, 2.0**21])):  # fmt: skip
        with pytest.raises(PrivateKerasError) as error:
            use()
        assert_silent(error.value)


def test_text_of_a_tensor():
    x = pk.share(np.zeros((3, 2), "float32"), "<b>x</b>")
    assert repr(x) == "<SecretTensor '<b>x</b>', shape (3, 2), float32, of client>"
    text = x._repr_html_()
    assert "<b>" not in text and "&lt;b&gt;" in text and "(3, 2)" in text and "float32" in text


def test_html_of_a_model_says_where_weights_are():
    model, _ = pair(("Dense", 4), ("BatchNormalization",), ("Dense", 1), loss="mse", metrics=())
    model.layers[0].trainable = False
    model.layers[0].public = True
    model.compile("sgd", "mse")
    text = model._repr_html_()
    assert text.count("<td>(None, 1)</td>") == 2, "of the last layer, and of the model"
    assert "(None, 4)" in text and "at the client" in text and "on the servers" not in text and "compiled" in text
    assert ">2 public<" not in text and ">public<" in text
    x, _ = two_classes(8)
    model.fit(x, np.ones((8, 1)), verbose=0)
    text = model._repr_html_()
    assert text.count(">on the servers, as shares<") == 2 and "6 on the servers, as shares" in text
    assert "2 public" in text and "at the client" not in text
    model.set_weights(model.get_weights())
    assert "on the servers" not in model._repr_html_()


def test_html_of_models_is_escaped_and_needs_no_shapes():
    class Own(pk.Model):
        def __init__(self):
            super().__init__(name="<script>own")
            self.inner = pk.layers.Dense(3, name="<i>")

        def call(self, x):
            return self.inner(x)

    for model in (Own(), pk.Sequential([pk.layers.Dense(2)], name="<script>new"), pk.Sequential()):
        text = model._repr_html_()
        assert "<script>" not in text and "<i>" not in text and "not built" in text


def test_text_of_clusters(cluster):
    assert repr(cluster) == "<SimulatedCluster: protocol simulate; state in this process, without secrecy>"
    assert "last run" in cluster._repr_html_() and "simulate" in cluster._repr_html_()
    cluster.close()
    assert "closed" in repr(cluster)
    assert as_text("A", [("a", "b"), ("c", "d")]) == "<A: a b; c d>"
    text = as_html("<A>", [("<s>", "<t>")], Stats())
    assert not any(tag in text for tag in ("<A>", "<s>", "<t>")) and "&lt;t&gt;" in text


# --- three servers ----------------------------------------------------------------------------------------------------
def test_on_servers_and_after_a_restart(tmp_path):
    x, y = two_classes(60)
    private, plain = logistic()
    with pk.LocalCluster(storage=tmp_path) as cluster:
        sx, sy = pk.share(x, "x"), pk.share((y > 0).astype("uint8"), "y")
        np.testing.assert_allclose(sx[[5, 3]].reveal(), x[[5, 3]], atol=2**-18)
        np.testing.assert_array_equal(sy.reveal(), y)
        np.testing.assert_allclose(private.predict(sx, verbose=0), plain.predict(x, verbose=0), atol=1e-3)
        options = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0, "validation_split": 0.2}
        histories = [private.fit(sx, sy, **options), plain.fit(x, y, **options)]
        assert_alike(*histories, 0.05)  # a prediction near 0.5 may fall on the other side
        np.testing.assert_allclose(*(h.history["loss"] for h in histories), atol=2e-3)
        np.testing.assert_allclose(private.evaluate(sx, sy, verbose=0), plain.evaluate(x, y, verbose=0), atol=2e-3)
        text = cluster._repr_html_()
        assert "connected" in text and "server2" in text and "trio" in text
        untrained, _ = logistic()
        os.kill(cluster.pids[1], signal.SIGKILL)
        with pytest.raises(HandleNotFound, match="'x' were lost.*pk.share"):
            for _ in range(100):  # the first use may come before the process can be seen to have ended
                untrained.predict(sx, verbose=0)
        with pytest.raises(HandleNotFound, match="'y' were lost"):
            sy.reveal()
        np.testing.assert_allclose(pk.share(x).reveal(), x, atol=2**-18)
    assert "closed" in repr(cluster)
