"""Predictions that several threads ask of one model: jobs that they share, and answers that nobody shares."""

import threading

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.errors import InputError, PeerLost
from private_keras.models.rows import rows_apart
from private_keras.models.together import Call, Together
from private_keras.tracing import trace
from tests.test_faults import eventually


class Model:
    """Adds 1 to each row, and waits for the test before each job."""

    def __init__(self, most=64):
        self.jobs = []
        self.go = threading.Semaphore(0)
        self.error = None
        self.together = Together(self._predict, lambda call: most)

    def _predict(self, arrays):
        assert self.go.acquire(timeout=60)
        self.jobs.append([array.copy() for array in arrays])
        if self.error is not None and (arrays[0] == 13).any():
            raise self.error
        return {"y": arrays[0] + 1}

    def ask(self, rows):
        """A thread that asks, with what it gets."""
        got = []

        def work():
            try:
                got.append(self.together.run(Call([np.asarray(rows)])))
            except Exception as error:
                got.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread, got

    def waiting(self, count):
        assert eventually(lambda: len(self.together._waiting) == count)


def ended(*asked):
    for thread, _ in asked:
        thread.join(60)
        assert not thread.is_alive()
    return [got[0] for _, got in asked]


def begun(model, *rows):
    """The first asks and computes; the others wait, in this order."""
    asked = [model.ask(rows[0])]
    assert eventually(lambda: model.together._busy)
    for count, more in enumerate(rows[1:], 1):
        asked.append(model.ask(more))
        model.waiting(count)
    return asked


def test_what_waits_goes_together_in_order_and_is_cut_apart_exactly():
    model = Model()
    asked = begun(model, [[0.0]], [[1.0], [2.0]], [[3.0]], [[4.0], [5.0]])
    model.go.release(2)
    results = ended(*asked)
    assert len(model.jobs) == 2
    assert model.jobs[1][0].ravel().tolist() == [1, 2, 3, 4, 5, 1, 1, 1], "filled up with a row of the first one's own"
    for (_, got), rows in zip(asked, ([[0]], [[1], [2]], [[3]], [[4], [5]]), strict=True):
        np.testing.assert_array_equal(got[0]["y"], np.array(rows) + 1)
    held = [result["y"] for result in results[1:]]
    assert not any(np.shares_memory(a, b) for a in held for b in held if a is not b)
    assert all(a.base is None for a in held)


def test_only_alike_and_small_ones_go_together_and_nobody_is_passed_over():
    model = Model(most=4)
    asked = begun(model, [[0.0]], [[1.0]], [[2]], np.zeros((40, 1)), [[3.0, 3.0]], [[4.0]], np.zeros((3, 1)))
    model.go.release(10)
    ended(*asked)
    first = [job[0].ravel()[0] for job in model.jobs]
    assert [len(job[0]) for job in model.jobs] == [1, 2, 1, 40, 1, 3]
    assert first[:3] == [0, 1, 2] and model.jobs[1][0].ravel().tolist() == [1, 4]


def test_an_error_is_of_who_caused_it():
    model = Model()
    model.error = InputError("13 is too much")
    asked = begun(model, [[0.0]], [[1.0]], [[13.0]], [[3.0]])
    model.go.release(5)
    results = ended(*asked)
    assert isinstance(results[2], InputError)
    assert [results[i]["y"].item() for i in (0, 1, 3)] == [1, 2, 4]
    assert len(model.jobs) == 5


def test_a_lost_server_is_told_to_all_and_not_tried_again_for_each():
    model = Model()
    model.error = PeerLost("server1 was lost")
    asked = begun(model, [[0.0]], [[1.0]], [[13.0]], [[3.0]])
    model.go.release(2)
    results = ended(*asked)
    assert all(isinstance(result, PeerLost) for result in results[1:]) and len({id(r) for r in results}) == 4
    assert len(model.jobs) == 2


def test_whoever_leads_and_is_interrupted_leaves_the_others_their_turn():
    model = Model()
    model.error = KeyboardInterrupt()
    hook = threading.excepthook
    threading.excepthook = lambda given: None
    try:
        asked = begun(model, [[0.0]], [[13.0]], [[2.0]], [[3.0]])
        model.go.release(10)
        for thread, _ in asked:
            thread.join(60)
        assert [got[0]["y"].item() for _, got in asked if got] == [1, 3, 4]
        assert not model.together._busy and not model.together._waiting
    finally:
        threading.excepthook = hook


def test_turns_exclude_each_other_and_jobs():
    model = Model()
    order = []
    (asked,) = begun(model, [[0.0]])

    def take(name):
        with model.together.turn():
            order.append(name)
            order.append(name)

    threads = []
    for count, name in enumerate("abc", 1):
        threads.append(threading.Thread(target=take, args=(name,)))
        threads[-1].start()
        model.waiting(count)
    assert not order
    model.go.release()
    for thread in threads:
        thread.join(60)
    assert "".join(order) == "aabbcc"
    ended(asked)


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)])


def predict_at_once(model, batches):
    results = [None] * len(batches)
    barrier = threading.Barrier(len(batches))

    def ask(i):
        barrier.wait(60)
        try:
            results[i] = model.predict(batches[i], verbose=0)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def hold_the_first(cluster, model, monkeypatch):
    """The first job from now on lasts until two wait for it to end, who can share the next one; or 5 s, since all may
    be part of this one already.
    """
    honest, held = cluster.run, []

    def run(*given, **options):
        if not held:
            held.append(True)
            eventually(lambda: len(model._execution_on_shares._together._waiting) > 1, 5)
        return honest(*given, **options)

    monkeypatch.setattr(cluster, "run", run)


def test_threads_predict_with_one_model_each_gets_its_own_and_jobs_are_fewer(small, monkeypatch):
    rng = np.random.default_rng(1)
    batches = [rng.uniform(-1, 1, (1 + i % 3, 6)).astype("float32") for i in range(24)]
    with pk.LocalCluster() as cluster:
        model = pk.convert(small)
        model.predict(batches[0], verbose=0)
        before = cluster.stats.total.runs
        hold_the_first(cluster, model, monkeypatch)
        results = predict_at_once(model, batches)
        assert cluster.stats.total.runs - before < 24
    for batch, result in zip(batches, results, strict=True):
        assert result.shape == (len(batch), 3)
        np.testing.assert_allclose(result, small.predict(batch, verbose=0), atol=1e-3)


def test_a_batch_that_is_refused_spoils_nobody_elses(small):
    batches = [np.full((1, 6), i / 10, "float32") for i in range(8)]
    batches[3] = np.full((1, 6), 2.0**19, "float32")
    batches[3][0, 0] = np.nan
    batches[5] = np.ones((1, 7), "float32")
    with pk.LocalCluster():
        model = pk.convert(small)
        model.predict(batches[0], verbose=0)
        results = predict_at_once(model, batches)
    for i, (batch, result) in enumerate(zip(batches, results, strict=True)):
        if i in (3, 5):
            assert isinstance(result, InputError)
        else:
            np.testing.assert_allclose(result, small.predict(batch, verbose=0), atol=1e-3)


class Mixing(keras.layers.Layer):
    """Computes across the rows of a batch."""

    def __init__(self, how, **given):
        super().__init__(**given)
        self.how = how

    def get_config(self):
        return {**super().get_config(), "how": self.how}

    def call(self, x):
        if self.how == "mean":
            return x - keras.ops.mean(x, axis=0, keepdims=True)
        if self.how == "flip":
            return x + keras.ops.flip(x, axis=0)
        return keras.ops.matmul(keras.ops.softmax(keras.ops.matmul(x, keras.ops.transpose(x))), x)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize("how", ["mean", "flip", "attend"])
def test_rows_that_depend_on_each_other_are_noticed(how):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), Mixing(how)])
    assert not rows_apart(trace(model, 2))


def test_rows_that_do_not_are_too(small):
    assert rows_apart(trace(small, 2))
    image = keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.BatchNormalization(),
        keras.layers.MaxPooling2D(), keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax"),
    ])  # fmt: skip
    assert rows_apart(trace(image, 2))
    words = keras.Sequential([
        keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 4), keras.layers.LSTM(3), keras.layers.Dense(1),
    ])  # fmt: skip
    assert rows_apart(trace(words, 3))
    a, b = keras.Input((3,)), keras.Input((3,))
    two = keras.Model([a, b], [keras.layers.Dense(2)(a), keras.layers.Multiply()([a, b])])
    assert rows_apart(trace(two, 2))


def test_a_model_whose_rows_depend_on_each_other_shares_no_job():
    """Each caller gets what it would get alone."""
    model = keras.Sequential([keras.Input((4,)), Mixing("mean")])
    batches = [np.full((2, 4), i, "float32") + np.array([[0], [1]]) for i in range(8)]
    with pk.LocalCluster() as cluster:
        private = pk.convert(model)
        private.predict(batches[0], verbose=0)
        before = cluster.stats.total.runs
        results = predict_at_once(private, batches)
        assert cluster.stats.total.runs - before == 8
    for result in results:
        np.testing.assert_allclose(result, [[-0.5] * 4, [0.5] * 4], atol=1e-3)


def test_models_that_were_trained_on_shares_share_jobs_too(monkeypatch):
    keras.utils.set_random_seed(1)
    model = pk.Sequential([pk.layers.Input((4,)), pk.layers.Dense(3, activation="tanh"), pk.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.linspace(-1, 1, 64).reshape(16, 4).astype("float32")
    with pk.LocalCluster() as cluster:
        model.fit(x, x.sum(1, keepdims=True), epochs=1, batch_size=8, verbose=0)
        model.predict(x[:1], verbose=0)
        before = cluster.stats.total.runs
        hold_the_first(cluster, model, monkeypatch)
        results = predict_at_once(model, [x[i : i + 1] for i in range(16)])
        assert cluster.stats.total.runs - before < 16
        np.testing.assert_allclose(np.concatenate(results), model.reveal().predict(x, verbose=0), atol=1e-3)
