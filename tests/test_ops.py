"""`private_keras.ops` on secret tensors: what Keras gives on the arrays, recorded until it is used."""

import gc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import private_keras as pk
from private_keras import cluster as clusters
from private_keras.cluster import Rows
from private_keras.errors import HandleNotFound, InputError, PrivateKerasError, UnsupportedError
from private_keras.models.training.shuffle import mixed
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.splice import splice
from private_keras.tensor import Column, spliced
from tests.training import Events, assert_alike, logistic, pair, two_classes

ROWS = 12


@pytest.fixture(autouse=True)
def cluster():
    yield pk.connect(protocol="simulate")
    clusters.disconnect()


@pytest.fixture
def events(cluster, monkeypatch):
    return Events(cluster, monkeypatch)


def people(seed=0):
    """Age, gender, income: columns of three owners, real numbers and integers."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, 1)), rng.integers(0, 2, (ROWS, 1)), rng.normal(size=(ROWS, 2))


def shared(*arrays):
    return [pk.share(array, f"column {i}") for i, array in enumerate(arrays)]


def dense():
    return pair(("Dense", 3, "relu"), ("Dense", 1), shape=(4,), loss="mse", metrics=())


# --- values -----------------------------------------------------------------------------------------------------------
W = np.random.default_rng(9).normal(size=(4, 3))
FUNCTIONS = {
    "concatenate": lambda ops, a, b, c: ops.concatenate([a, b, c], axis=1),
    "matmul": lambda ops, a, b, c: ops.matmul(ops.concatenate([a, b, c], axis=1), W) + 0.5,
    "operators": lambda ops, a, b, c: 2 * a - c / 4 + (1 - b) * a,
    "stack": lambda ops, a, b, c: ops.stack([a[:, 0], c[:, 1]], axis=1),
    "vstack": lambda ops, a, b, c: ops.concatenate([a, c[:, :1]], axis=0),
    "reshape": lambda ops, a, b, c: ops.reshape(c, (2, -1)),
    "transpose": lambda ops, a, b, c: ops.matmul(ops.transpose(c), a),
    "mean": lambda ops, a, b, c: ops.mean(c, axis=0),
    "sum": lambda ops, a, b, c: ops.sum(b),
    "standardised": lambda ops, a, b, c: (c - ops.mean(c, axis=0)) / 2.0,
    "relu": lambda ops, a, b, c: ops.relu(c),
    "sigmoid": lambda ops, a, b, c: ops.sigmoid(c),
    "where": lambda ops, a, b, c: ops.where(a > 0, c, -c),
    "split": lambda ops, a, b, c: ops.split(c, 2, axis=1)[1],
    "square": lambda ops, a, b, c: ops.square(a) + a**2,
    "take": lambda ops, a, b, c: ops.take(c, [3, 0, 3], axis=0),
    "one_hot": lambda ops, a, b, c: ops.one_hot(b[:, 0], 2),
    "maximum": lambda ops, a, b, c: ops.maximum(a, c[:, 1:]),
    "nested": lambda ops, a, b, c: ops.nn.softmax(ops.concatenate([a, c], axis=-1), axis=-1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_keras_gives_on_the_arrays(name):
    arrays = people()
    expected = np.asarray(FUNCTIONS[name](keras.ops, *map(np.asarray, arrays)))
    result = FUNCTIONS[name](pk.ops, *shared(*arrays))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.reveal(), expected, atol=3e-4)


def test_on_three_servers():
    clusters.disconnect()
    with clusters.LocalCluster():
        arrays = people()
        a, b, c = shared(*arrays)
        x = pk.ops.concatenate([a, b, c], axis=1)
        both = pk.ops.concatenate([x[:5], x[5:]], axis=0)
        plain = np.concatenate(arrays, axis=1)
        np.testing.assert_allclose((pk.ops.matmul(both, W) + 1)[3:9].reveal(), (plain @ W + 1)[3:9], atol=1e-4)
        private, theirs = dense()
        np.testing.assert_allclose(private.predict(both, batch_size=8, verbose=0), theirs.predict(plain, verbose=0),
                                   atol=1e-4)  # fmt: skip


OPERATIONS = st.sampled_from([
    ("columns", lambda ops, x, y: ops.concatenate([x, y], axis=1)[:, 1:5]),
    ("below", lambda ops, x, y: ops.concatenate([x, y], axis=0)[2 : ROWS + 2]),
    ("add", lambda ops, x, y: x + y),
    ("scale", lambda ops, x, y: 0.5 * x - 0.25),
    ("product", lambda ops, x, y: ops.matmul(x, W @ W.T / 8)),
    ("centre", lambda ops, x, y: x - ops.mean(y, axis=0)),
    ("backwards", lambda ops, x, y: x[::-1]),
    ("relu", lambda ops, x, y: ops.relu(y)),
    ("folded", lambda ops, x, y: ops.reshape(ops.reshape(x, (ROWS, 2, 2)) * 0.5, (ROWS, 4))),
])  # fmt: skip


@given(st.lists(OPERATIONS, min_size=1, max_size=5), st.data())
@settings(max_examples=25, deadline=None)
def test_rows_of_any_expression(operations, data):
    """Whatever is recorded, its rows are those of the array that Keras computes, alone and in a model's plan."""
    rng = np.random.default_rng(3)
    plain = [rng.uniform(-1, 1, (ROWS, 4)) for _ in range(2)]
    secret = shared(*plain)
    for _, function in operations:
        plain = [np.asarray(function(keras.ops, *plain)), plain[0]]
        secret = [function(pk.ops, *secret), secret[0]]
    numbers = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=7))
    np.testing.assert_allclose(secret[0][numbers].reveal(), plain[0][numbers], atol=1e-3)
    cluster = clusters.current()
    part = Column(secret[0].symbol, (2, 2), 18, np.arange(ROWS)).rows(cluster, np.asarray([numbers]))
    if isinstance(part, Rows):
        return
    kept = cluster.run(part.plan, part.given)["value"]
    found = cluster._stored[kept.id].astype(np.int64) / 2.0**18
    np.testing.assert_allclose(found, plain[0][numbers].reshape(-1, 2, 2), atol=1e-3)


# --- models -----------------------------------------------------------------------------------------------------------
def test_joint_prediction_is_one_plan(events):
    arrays = people()
    x = pk.ops.concatenate(shared(*arrays), axis=1)
    private, plain = dense()
    np.testing.assert_allclose(
        private.predict(x, batch_size=5, verbose=0), plain.predict(np.concatenate(arrays, 1), verbose=0), atol=1e-4
    )
    assert {plan.kind for plan in events.plans} == {"predict"}, "nothing is copied on the servers before"
    assert [item.label for item in events.plans[0].inputs[:3]] == ["column 0", "column 1", "column 2"]


def test_rows_of_several_owners_count_as_their_data(events):
    both = pk.ops.concatenate(shared(*people()[::2][:1], people()[0]), axis=0)
    for tensor in (both, both[3:], both[3:][:2] * 2.0):
        tensor.reveal()
    assert [plan.kind for plan in events.plans] == ["reveal"] * 3


def test_joint_training_takes_rows_of_both(events):
    x, y = two_classes(40)
    parts = slice(0, 25), slice(25, 40)
    joined = [pk.ops.concatenate([pk.share(array[part]) for part in parts], axis=0) for array in (x, y)]
    private, plain = logistic()
    options = {"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0}
    histories = private.fit(*joined, validation_split=0.2, **options), plain.fit(x, y, validation_split=0.2, **options)
    assert_alike(*histories)
    np.testing.assert_allclose(private.evaluate(*joined, verbose=0), plain.evaluate(x, y, verbose=0), atol=1e-3)
    assert not [plan for plan in events.plans if plan.kind == "compute"]
    steps = [plan for plan in events.plans if plan.kind == "train"]
    assert {len(plan.inputs) for plan in steps} == {len(steps[0].inputs), len(steps[0].inputs) + 2}
    losses = private.fit(*joined, batch_size=10, epochs=3, seed=5, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 9), st.sampled_from([True, False, "batch"]))
@settings(max_examples=60, deadline=None)
def test_batches_of_several_parts(parts, size, shuffle):
    parts = np.array(parts)
    found = mixed(parts, size, shuffle, 3, 1)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(parts)))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    for batch in found:
        assert (np.diff(parts[batch]) >= 0).all(), "in the order of the parts"
    if shuffle is True:
        for part in range(3):
            counts = [int((parts[batch] == part).sum()) for batch in found if len(batch) == size]
            assert max(counts, default=0) - min(counts, default=0) <= 2, "every batch has its share"
        forms = [parts[batch].tobytes() for batch in found]
        assert len(set(forms)) == 1 + sum(a != b for a, b in zip(forms, forms[1:], strict=False)), "together"


def test_rows_in_any_order_and_of_nested_parts():
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=(n, 4)) for n in (3, 5, 4)]
    a, b, c = shared(*arrays)
    plain = np.concatenate(arrays)
    nested = pk.ops.concatenate([pk.ops.concatenate([a, b], axis=0) * 2.0, c], axis=0)
    expected = np.concatenate([2 * plain[:8], plain[8:]])
    order = rng.permutation(12)
    np.testing.assert_allclose(nested[order].reveal(), expected[order], atol=1e-4)
    private, theirs = dense()
    np.testing.assert_allclose(
        private.predict(nested[order], batch_size=5, verbose=0), theirs.predict(expected[order], verbose=0), atol=1e-4
    )
    beside = pk.ops.concatenate([nested[:, :2], pk.ops.concatenate([c, b, a], axis=0)[:, 2:]], axis=1)
    beside_plain = np.concatenate([expected[:, :2], np.concatenate(arrays[::-1])[:, 2:]], axis=1)
    losses = [
        model.fit(x, np.ones((12, 1)), batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
        for model, x in ((private, beside), (theirs, beside_plain))
    ]
    np.testing.assert_allclose(*losses, atol=1e-3)


def test_steps_that_take_other_rows_of_each_part_are_refused():
    x = pk.ops.concatenate(shared(np.ones((4, 2)), np.ones((4, 2))), axis=0)
    with pytest.raises(InputError, match="as many rows of each"):
        Column(x.symbol, (2,), 18, np.arange(8)).rows(clusters.current(), np.array([[0, 1], [3, 4]]))


def test_what_needs_all_rows_is_computed_once(events):
    x, y = two_classes(32)
    secret = pk.share(x)
    centred = secret - pk.ops.mean(secret, axis=0)
    private, plain = logistic()
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    assert_alike(private.fit(centred, y, **options), plain.fit(x - x.mean(axis=0), y, **options))
    kept = [plan for plan in events.plans if plan.kind == "compute"]
    assert len(kept) == 1 and not any(output.receivers for output in kept[0].outputs)


def test_secret_weights_of_a_product():
    arrays = people()
    x, w = pk.ops.concatenate(shared(*arrays), axis=1), pk.share(W)
    y = pk.ops.matmul(x, w)
    np.testing.assert_allclose(y[4:6].reveal(), (np.concatenate(arrays, 1) @ W)[4:6], atol=1e-4)
    private, plain = pair(("Dense", 2), shape=(3,), loss="mse", metrics=())
    np.testing.assert_allclose(
        private.predict(y, batch_size=5, verbose=0), plain.predict(np.concatenate(arrays, 1) @ W, verbose=0), atol=1e-3
    )


def test_arrays_are_shared_and_not_written_into_the_plan(events):
    x = pk.share(people()[2])
    (x * np.full((1, 2), 0.515625)).reveal()
    (plan,) = events.plans
    assert not [step for step in plan.steps if step.op == "constant"] and "0.515625" not in plan.to_json()
    assert [item.owner for item in plan.inputs] == ["client", "client"]


# --- who owns what ----------------------------------------------------------------------------------------------------
def test_owners_stand_in_the_plan():
    b = PlanBuilder()
    y = b.add("matmul", b.input("x", (2, 3), 18, "client"), b.input("w", (3, 1), 18, "model-owner"))
    b.output(y, "y", ["client"])
    plan = b.build("m", "predict")
    cluster = clusters.current()
    mine, theirs = cluster.share(np.ones((3, 1)), 18, "w"), cluster.share(np.ones((2, 3)), 18, "x")
    theirs = clusters.Handle(theirs.name, theirs.shape, theirs.fraction, theirs.incarnation, theirs.id, "hospital-a")
    found, given_ = spliced(plan, {"x": theirs, "w": mine})
    assert [item.owner for item in found.inputs] == ["hospital-a", "model-owner"] and set(given_) == {"x", "w"}
    assert spliced(plan, {"x": theirs, "w": mine})[0] is found, "made once"
    assert spliced(plan, {"x": mine, "w": mine})[0] is plan


def test_splice_refuses_what_does_not_fit():
    def part(shape):
        b = PlanBuilder()
        b.output(b.add("negate", b.input("v0", shape, 18, "a")), "value", [])
        return b.build("part", "compute")

    plan = part((2,))
    joined = splice(plan, {"v0": plan})
    assert [step.op for step in joined.steps] == ["negate", "negate"] and joined.inputs[0].name == "v0/v0"
    with pytest.raises(PrivateKerasError, match="expected"):
        splice(plan, {"v0": part((3,))})
    with pytest.raises(PrivateKerasError, match="other"):
        splice(plan, {"other": plan})


# --- what goes wrong --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("use, error", [
    (lambda x: pk.ops.matmul(x, np.ones((3, 3))), InputError),
    (lambda x: pk.ops.concatenate([x, x[:, :1]], axis=0), InputError),
    (lambda x: x + "a", PrivateKerasError),
    (lambda x: pk.ops.sort(x), UnsupportedError),
    (lambda x: pk.ops.sin(x), UnsupportedError),
    (lambda x: pk.ops.nonzero(x), PrivateKerasError),
    (lambda x: pk.ops.convert_to_numpy(x), PrivateKerasError),
    (lambda x: x[x > 0], InputError),
    (lambda x: pk.ops.while_loop(lambda v: v < 1, lambda v: v + 1, (x,)), PrivateKerasError),
])  # fmt: skip
def test_refused_when_it_is_recorded(use, error, events):
    x = pk.share(np.full((5, 2), 54.321))
    events.names.clear()
    with pytest.raises(error) as caught:
        use(x)
    assert "54.3" not in str(caught.value) and events.names == []


def test_texts_show_no_value_and_name_what_it_is_of():
    x = pk.ops.concatenate(shared(np.full((3, 1), 54.321), np.full((3, 1), 54.321)), axis=1)
    assert repr(x) == "<SecretTensor 'concatenate(column 0, column 1)', shape (3, 2), float64, of client>"
    for item in (x, x + 1, x[:2]):
        assert "54" not in repr(item) + item._repr_html_()
    with pytest.raises(UnsupportedError, match="known here"):
        bool(x > 1)


def test_shapes_and_functions_of_plain_arrays_are_keras():
    x = pk.share(np.ones((5, 2)))
    assert pk.ops.shape(x) == (5, 2) and pk.ops.shape(x[1:]) == (4, 2)
    np.testing.assert_array_equal(pk.ops.add(np.ones(2), 1), [2, 2])
    assert pk.ops.image.resize.__doc__ == keras.ops.image.resize.__doc__
    assert set(pk.ops.__all__) == {name for name in dir(keras.ops) if not name.startswith("_")}
    assert x.T.shape == (2, 5) and x.reshape(10).shape == x.reshape((10,)).shape == (10,)
    assert x.astype("int32").dtype == np.int32


def test_results_end_with_what_refers_to_them(cluster):
    x = pk.share(np.ones((8, 4)))
    private, _ = dense()
    centred = x - pk.ops.mean(x, axis=0)
    private.predict(centred, verbose=0)
    before = len(cluster._stored)
    del centred
    gc.collect()
    private.predict(x, verbose=0)
    assert len(cluster._stored) == before - 1, "what the servers kept is gone"


def test_tensors_of_other_clusters():
    x = pk.share(np.ones((8, 4)))
    with clusters.SimulatedCluster():
        y = pk.share(np.ones((8, 4)))
        with pytest.raises(InputError, match="one cluster"):
            (x + y).reveal()
        private, _ = dense()
        with pytest.raises(HandleNotFound, match="cluster in use"):
            private.predict(x + y, verbose=0)
