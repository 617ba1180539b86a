"""`model.prepare`: predictions from stock are those without, whatever happens to weights, batches and servers."""

import dataclasses
import gc
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.cluster import Item, LocalCluster, SimulatedCluster
from private_keras.cluster.shares import delete_abandoned
from private_keras.errors import ClusterError, InputError
from private_keras.models.stock import Job, Stock, StockReport
from tests.test_faults import eventually


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_to_delete():
    """What models of other tests have left on the servers does not go while one measures what is there."""
    gc.collect()
    delete_abandoned()


def small(name=None):
    keras.utils.set_random_seed(1)
    return pk.Sequential([keras.Input((8, 8, 1)), pk.layers.Conv2D(3, 3), pk.layers.BatchNormalization(),
                          pk.layers.ReLU(), pk.layers.MaxPooling2D(2), pk.layers.Flatten(),
                          pk.layers.Dense(5, activation="softmax")], name=name)  # fmt: skip


X = np.random.default_rng(0).uniform(0, 1, (10, 8, 8, 1))


def expected(model, x):
    return keras.ops.convert_to_numpy(model(x))


def held(cluster):
    """Bytes that each server holds."""
    return [client.health().stored_bytes for client in cluster._clients]


def from_stock(cluster):
    """Whether the last run used stock, and all of it: the helper was not there."""
    return bool(cluster.stats.last_ahead.runs) and cluster.stats.last.sent[2:] == ()


def test_predict_takes_what_is_ready_by_itself(cluster):
    model = small(name="ready")
    assert "Nothing is prepared" in str(model.stock())
    report = model.prepare(2, batch_size=4, verbose=0)
    row = report[4]
    assert (row.level, row.wanted, row.used, row.refill) == (2, 2, 0, False)
    assert row.stored[0] > 0 and row.stored[1] > model.cost(4).ahead and row.stored[2] == 0
    before = cluster.stats.total
    y = model.predict(X, batch_size=4, verbose=0)  # 4, 4 and 2
    np.testing.assert_allclose(y, expected(model, X), atol=2e-3)
    assert not from_stock(cluster)  # the last two rows
    assert model.stock()[4].level == 0 and model.stock()[4].used == 2
    spent = cluster.stats.total.sent[2] - before.sent[2] if len(before.sent) > 2 else cluster.stats.total.sent[2]
    assert spent == model.cost(2).ahead  # of the helper, for all three batches
    model.prepare(1, batch_size=4, verbose=0)
    model.predict(X[:4], verbose=0)
    assert from_stock(cluster)
    assert cluster.stats.last_ahead.sent[2] == model.cost(4).ahead and cluster.stats.last_ahead.computing > 0
    model.predict(X[:4], verbose=0)
    assert not from_stock(cluster)


def test_count_is_the_level(cluster):
    model = small()
    made = cluster.stats.ahead.runs
    model.prepare(2, batch_size=1, verbose=0)
    model.prepare(3, batch_size=1, verbose=0)
    assert cluster.stats.ahead.runs - made == 3
    assert model.prepare(3, batch_size=1, verbose=0)[1].level == 3 and cluster.stats.ahead.runs - made == 3
    assert model.prepare(1, batch_size=1, verbose=0)[1].level == 1
    stored = [client.health().stored_bytes for client in cluster._clients]
    assert model.prepare(0, batch_size=1, verbose=0)[1].level == 0
    left = [client.health().stored_bytes for client in cluster._clients]
    assert stored[1] - left[1] == model.stock()[1].stored[1] > model.cost(1).ahead and stored[2] == left[2]
    assert model.prepare(verbose=0)[32].level == 1  # as predict: 32 rows


def test_what_was_used_is_made_anew_in_the_background(cluster):
    model = small()
    model.prepare(2, batch_size=1, refill=True, verbose=0)
    for _ in range(4):
        np.testing.assert_allclose(model.predict(X[:1], verbose=0), expected(model, X[:1]), atol=2e-3)
        assert eventually(lambda: model.stock()[1].level == 2)
    row = model.stock()[1]
    assert row.used == 4 and row.refill and not row.trouble
    model.prepare(2, batch_size=1, verbose=0)
    model.predict(X[:1], verbose=0)
    time.sleep(0.3)
    assert model.stock()[1].level == 1


def test_other_weights_need_other_stock(cluster):
    model = small()
    model.prepare(2, batch_size=2, verbose=0)
    model.set_weights([w + 0.125 for w in model.get_weights()])
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected(model, X[:2]), atol=2e-3)
    assert not from_stock(cluster)
    assert model.stock()[2].level == 0 and model.stock()[2].used == 0
    model.prepare(1, batch_size=2, refill=True, verbose=0)
    model.layers[0].kernel.assign(model.layers[0].kernel * 0.5)
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected(model, X[:2]), atol=2e-3)
    assert not from_stock(cluster)
    assert eventually(lambda: model.stock()[2].level == 1)  # for the new weights
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected(model, X[:2]), atol=2e-3)
    assert from_stock(cluster)


def test_weights_that_were_trained_on_the_servers(cluster):
    keras.utils.set_random_seed(3)
    model = pk.Sequential([keras.Input((4,)), pk.layers.Dense(3, activation="relu"), pk.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(1).normal(size=(8, 4)), np.ones((8, 1))
    model.prepare(1, batch_size=8, verbose=0)
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    assert model.stock()[8].level == 0
    whole = model.predict(x, verbose=0)
    assert not from_stock(cluster)
    model.prepare(2, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), whole, atol=1e-3)
    assert from_stock(cluster)
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    assert model.stock()[8].level == 0
    trained = model.predict(x, verbose=0)
    assert not from_stock(cluster) and np.abs(trained - whole).max() > 1e-3
    opened = model.reveal()
    np.testing.assert_allclose(trained, expected(opened, x), atol=1e-3)


def test_data_that_are_on_the_servers_run_as_ever(cluster):
    model = small()
    model.prepare(1, batch_size=4, verbose=0)
    np.testing.assert_allclose(model.predict(pk.share(X[:4]), verbose=0), expected(model, X[:4]), atol=2e-3)
    assert not from_stock(cluster) and model.stock()[4].level == 1


def test_a_batch_that_is_refused_uses_nothing(cluster):
    model = small()
    model.prepare(1, batch_size=1, verbose=0)
    for wrong in (np.full((1, 8, 8, 1), np.nan), np.zeros((1, 7, 8, 1))):
        with pytest.raises(InputError):
            model.predict(wrong, verbose=0)
    assert model.stock()[1].level == 1 and model.stock()[1].used == 0


def test_nothing_is_left_on_the_servers_when_the_model_is_gone(cluster):
    before = held(cluster)
    model = small()
    model.prepare(3, batch_size=1, verbose=0)
    assert all(now > then for now, then in zip(held(cluster), before, strict=True))
    del model
    gc.collect()
    delete_abandoned()
    assert held(cluster) == before


def test_a_batch_beyond_what_the_model_is_narrowed_to_leaves_the_stock_alone(cluster):
    model = small()
    model.narrow(1.0)
    model.prepare(2, batch_size=1, refill=True, verbose=0)
    full, made = held(cluster), cluster.stats.ahead.runs
    wide = X[:1] + 1.0
    for _ in range(3):
        np.testing.assert_allclose(model.predict(wide, verbose=0), expected(model, wide), atol=2e-3)
        assert not from_stock(cluster)
        assert (held(cluster), cluster.stats.ahead.runs, model.stock()[1].level) == (full, made, 2)
    model.narrow(1.0)  # again: nothing changes
    assert model.stock()[1].level == 2
    np.testing.assert_allclose(model.predict(X[:1], verbose=0), expected(model, X[:1]), atol=2e-3)
    assert from_stock(cluster)
    assert eventually(lambda: held(cluster) == full)


def test_items_for_another_plan_are_deleted_on_the_servers(cluster):
    """The weights' shares stay, so that nothing else would take the items along."""
    model = small()
    model.narrow(1.0)
    model.prepare(1, batch_size=1, verbose=0)
    model.prepare(0, batch_size=1, verbose=0)
    empty = held(cluster)
    for largest in (1.0, 2.0, None, 1.0):
        model.narrow(largest)
        assert held(cluster) == empty
        model.prepare(3, batch_size=1, verbose=0)
    model.narrow(None)
    assert held(cluster) == empty


def test_servers_that_cannot_delete_do_not_stop_the_model(cluster, monkeypatch):
    model = small()
    model.prepare(1, batch_size=1, verbose=0)

    def failing(*_):
        raise ClusterError("not there")

    monkeypatch.setattr(cluster, "delete", failing)
    model.narrow(1.0)
    assert model.stock()[1].level == 0
    monkeypatch.undo()
    gc.collect()


class Slow:
    """A cluster that makes items when it is let, and counts them."""

    incarnation = "1"

    def __init__(self):
        self.made = self.deleted = 0
        self.begun, self.let = threading.Semaphore(0), threading.Semaphore(0)

    def prepare(self, plan, known):
        self.begun.release()
        assert self.let.acquire(timeout=60)
        self.made += 1
        return Item(bytes(16), "1", b"", {})

    def delete(self, *items):
        self.deleted += len(items)


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr("private_keras.models.stock.about", lambda plan, known: plan)
    return Slow()


def begin_refill(stock, slow, job, count):
    """A shelf that is full but for one item, which is being made in the background."""
    slow.let.release(count)
    stock.fill(1, job, count, True, lambda done: None)
    for _ in range(count):
        assert slow.begun.acquire(timeout=60)
    assert stock.take(1, job) is not None
    stock.replace(1, job)
    assert slow.begun.acquire(timeout=60)


def test_filling_beside_a_refill_makes_no_more_than_wanted(slow):
    stock, job = Stock(), Job(slow, b"plan", {})
    begin_refill(stock, slow, job, 2)
    thread = threading.Thread(target=stock.fill, args=(1, job, 2, True, lambda done: None))
    thread.start()
    slow.let.release(5)
    thread.join(60)
    assert eventually(lambda: not any(t.name == "stock" for t in threading.enumerate()))
    assert (stock.report("m")[1].level, slow.made) == (2, 3)


def test_filling_without_refill_ends_the_refill(slow):
    stock, job = Stock(), Job(slow, b"plan", {})
    begin_refill(stock, slow, job, 3)
    assert stock.take(1, job) is not None  # two are missing, one of them is being made
    thread = threading.Thread(target=stock.fill, args=(1, job, 1, False, lambda done: None))
    thread.start()
    assert eventually(lambda: not stock.report("m")[1].refill)
    slow.let.release(5)
    thread.join(60)
    assert eventually(lambda: not any(t.name == "stock" for t in threading.enumerate()))
    # What was being made when the level fell is too much.
    assert (stock.report("m")[1].level, slow.made, slow.deleted) == (1, 4, 1)


def test_what_is_used_while_the_refill_ends_is_made_too(slow, monkeypatch):
    """The thread has seen that nothing is missing, and is not over yet."""
    stock, job, uses = Stock(), Job(slow, b"plan", {}), []
    make = Stock._make

    def late(self, *rest):
        make(self, *rest)
        if threading.current_thread().name == "stock" and not uses:
            uses.append(stock.take(1, job))
            stock.replace(1, job)

    monkeypatch.setattr(Stock, "_make", late)
    slow.let.release(10)
    stock.fill(1, job, 1, True, lambda done: None)
    assert stock.take(1, job) is not None
    stock.replace(1, job)
    assert eventually(lambda: uses and slow.made == 3)
    assert uses[0] is not None and eventually(lambda: stock.report("m")[1].level == 1)


def test_the_servers_are_asked_outside_the_lock(slow, monkeypatch):
    stock, job = Stock(), Job(slow, b"plan", {})
    slow.let.release(3)
    stock.fill(1, job, 1, True, lambda done: None)
    monkeypatch.setattr(Slow, "incarnation", property(lambda self: str(len(stock.report("m").rows))))
    other = threading.Thread(target=lambda: (stock.missing(1, Job(slow, b"plan", {}), 1),
                                             stock.take(1, Job(slow, b"plan", {})),
                                             stock.replace(1, Job(slow, b"plan", {}))), daemon=True)  # fmt: skip
    other.start()
    other.join(60)
    assert not other.is_alive()


def test_a_server_that_was_started_anew_has_no_stock():
    with LocalCluster() as cluster:
        model = small()
        model.prepare(2, batch_size=1, refill=True, verbose=0)
        os.kill(cluster.pids[1], signal.SIGKILL)
        assert eventually(cluster._dead)
        np.testing.assert_allclose(model.predict(X[:1], verbose=0), expected(model, X[:1]), atol=2e-3)
        assert not from_stock(cluster)
        assert eventually(lambda: model.stock()[1].level == 2)
        np.testing.assert_allclose(model.predict(X[:1], verbose=0), expected(model, X[:1]), atol=2e-3)
        assert from_stock(cluster)


def test_trouble_in_the_background_is_told_and_predictions_go_on(cluster, monkeypatch):
    model = small()
    model.prepare(1, batch_size=1, refill=True, verbose=0)

    def failing(*_, **__):
        raise InputError("no such luck")

    monkeypatch.setattr(cluster, "prepare", failing)
    model.predict(X[:1], verbose=0)
    assert eventually(lambda: "no such luck" in model.stock()[1].trouble)
    assert "InputError: no such luck" in str(model.stock())
    np.testing.assert_allclose(model.predict(X[:1], verbose=0), expected(model, X[:1]), atol=2e-3)
    monkeypatch.undo()
    model.predict(X[:1], verbose=0)
    assert eventually(lambda: model.stock()[1].level == 1) and not model.stock()[1].trouble


def test_arguments_are_checked(cluster):
    model = small()
    for arguments, said in (
        ({"count": -1}, "count: expected"), ({"count": 1.5}, "count: expected"), ({"count": True}, "count: expected"),
        ({"batch_size": 0}, "batch_size: expected"), ({"refill": 3}, "refill: expected True or False"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            model.prepare(**arguments)
    with pytest.raises(InputError, match="not built"):
        pk.Sequential([pk.layers.Dense(3)]).prepare()


def test_a_progress_bar_counts_what_is_made(cluster, capsys):
    model = small()
    model.prepare(2, batch_size=1)
    assert "2/2" in capsys.readouterr().out
    model.prepare(2, batch_size=1)
    assert not capsys.readouterr().out


def test_in_simulation():
    with SimulatedCluster() as cluster:
        model = small()
        assert model.prepare(1, batch_size=2, verbose=0)[2].level == 1
        np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected(model, X[:2]), atol=2e-3)
        assert cluster.stats.last_ahead.runs == 1 and model.stock()[2].level == 0


def test_reports_print_as_tables(cluster):
    model = small(name="tabled")
    report = model.prepare(1, batch_size=2, verbose=0)
    assert isinstance(report, StockReport) and repr(report) == str(report)
    lines = str(report).splitlines()
    assert len(lines) == 3 and "1 of 1" in lines[2] and f"{report[2].stored[1]:,}" in lines[2]
    with pytest.raises(KeyError):
        report[77]
    row = dataclasses.replace(report[2], trouble="<b>bold</b>")
    table = StockReport("tabled", (row,))._repr_html_()
    assert "<td>1 of 1</td>" in table and "<b>" not in table
