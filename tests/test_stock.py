"""Stock on real servers: each item serves one job of its owner, the one that it was made for, whatever goes wrong."""

import os
import secrets
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from private_keras.cluster import Item, LocalCluster, Loop, PublicValue, SimulatedCluster, connect, running
from private_keras.cluster.handle import Stats, Traffic
from private_keras.cluster.running import Inputs
from private_keras.errors import (
    ClusterError,
    HandleNotFound,
    InputError,
    PeerLost,
    SecurityError,
    VersionMismatch,
)
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.trio import Supply
from private_keras.ring.steps import Draw
from private_keras.server.allowance import Allowance
from private_keras.server.collect import Collected
from private_keras.server.jobs import Jobs
from private_keras.server.material import Material
from private_keras.server.metrics import Metrics
from private_keras.server.run import Outcome
from private_keras.server.service import Service
from private_keras.server.stock import Item as Stocked
from private_keras.server.stock import ItemNotFound, Stock
from private_keras.server.store import Kept, Store, StoreFull
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, dense_data, dense_plan, held_back
from tests.test_faults import eventually

PLAN, DATA = dense_plan(), dense_data()
RESULT = np.maximum(DATA["x"] @ DATA["w"], 0)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster() as made:
        yield made


@pytest.fixture
def weights(cluster):
    handle = cluster.share(DATA["w"], 18, "w")
    yield handle
    cluster.delete(handle)
    assert eventually(lambda: stored(cluster) == [0, 0, 0])


def stored(cluster):
    return [client.health().stored_bytes for client in cluster._clients]


def predict(cluster, weights, item=None, plan=PLAN, x=DATA["x"]):
    return cluster.run(plan, {"x": x, "w": weights}, deadline=30, item=item)["y"]


def again(item):
    """The item as a client would have it that has not noticed that it was used."""
    return Item(item.id, item.incarnation, item.content, item.seeds, item.made, item.stored)


def test_a_prediction_from_stock_is_the_same_and_leaves_the_helper_alone(cluster, weights):
    empty = stored(cluster)
    item = cluster.prepare(PLAN, {"w": weights})
    held = np.subtract(stored(cluster), empty)
    # What the helper dealt at server 1, and 256 bytes each: the item and its two inputs, three messages (two are of the
    # relu). Beside it the weights' operand at both evaluators, which stays.
    assert item.stored == (3 * 256, item.made.sent[2] + (3 + 3) * 256, 0)
    operand = 8 * DATA["w"].size
    assert held.tolist() == [item.stored[0] + operand, item.stored[1] + operand, 0]
    assert (item.made.rounds, item.made.sent[:2]) == (0, (0, 0))
    np.testing.assert_allclose(predict(cluster, weights, item), RESULT, atol=1e-4)
    prepared = cluster.stats.last
    assert cluster.stats.last_ahead == item.made
    np.testing.assert_allclose(predict(cluster, weights), RESULT, atol=1e-4)
    whole = cluster.stats.last
    assert cluster.stats.last_ahead == Traffic()
    assert prepared.rounds == whole.rounds and prepared.sent == whole.sent[:2]
    assert item.made.sent == (0, 0, whole.sent[2])
    assert (np.subtract(stored(cluster), empty)).tolist() == [operand, operand, 0]


def test_the_helper_can_be_away(tmp_path):
    with TlsServers(tmp_path) as servers, connect(servers.config, identity="analyst") as cluster:
        weights = cluster.share(DATA["w"], 18, "w")
        item = cluster.prepare(PLAN, {"w": weights})
        servers.stop(2)
        np.testing.assert_allclose(predict(cluster, weights, item), RESULT, atol=1e-4)


def test_the_client_refuses_to_use_an_item_twice(cluster, weights):
    item = cluster.prepare(PLAN, {"w": weights})
    predict(cluster, weights, item)
    with pytest.raises(SecurityError, match="used before"):
        predict(cluster, weights, item)


@pytest.mark.parametrize("party", [0, 1])
def test_a_server_refuses_an_item_the_second_time(cluster, weights, party):
    """Each evaluator by itself, whatever the other one and the client do."""
    item = cluster.prepare(PLAN, {"w": weights})
    predict(cluster, weights, item)
    with pytest.raises(running.CallFailed) as refused:
        raw(cluster, PLAN, {"x": DATA["x"], "w": weights}, item.id, [cluster._clients[party]])
    assert refused.value.kind == "ItemNotFound" and refused.value.error.args[0].startswith(f"server{party}")


def test_a_client_that_names_a_used_item_gets_its_result_under_fresh_masks(cluster, weights, monkeypatch):
    item = cluster.prepare(PLAN, {"w": weights})
    predict(cluster, weights, item)
    sent = []
    for client in cluster._clients:
        monkeypatch.setattr(client, "prepare", sent.append)
    np.testing.assert_allclose(predict(cluster, weights, again(item)), RESULT, atol=1e-4)
    assert cluster.stats.last_ahead == Traffic() and len(cluster.stats.last.sent) == 3
    assert not sent  # the plan is still there


def test_two_jobs_at_once_never_share_an_item(cluster, weights):
    """Both name it: at most one gets it, and no evaluator serves both; both clients get their result."""
    for _ in range(5):
        item = cluster.prepare(PLAN, {"w": weights})
        results = [None] * 4

        def one(i, item=item, results=results):
            results[i] = predict(cluster, weights, again(item))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert all(result is not None and np.allclose(result, RESULT, atol=1e-4) for result in results)


def test_an_item_is_taken_by_one_thread_of_many():
    store = Store()
    stock = Stock(store)
    for _ in range(20):
        item = put(store, stock, "alice")
        taken, refused = [], []

        def take(item=item, taken=taken, refused=refused):
            try:
                with stock.taken(item.id, "alice") as got:
                    taken.append(got)
            except ItemNotFound:
                refused.append(1)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert taken == [item] and len(refused) == 7 and not len(stock)


def put(store, stock, owner, handle=None):
    """An item of 80 bytes, and 512 beside them, for a stored tensor."""
    handle = handle or secrets.token_bytes(16)
    part = Material(np.zeros(2, np.uint64), np.zeros(2, np.uint64))
    if not store.holds([(handle, part)], owner):
        with store.room(32) as room:
            store.put(owner, [Kept(handle, part, 32)], room)
    supply = Supply(bytes(16), 1, np.zeros(10, np.uint64))
    item = Stocked(secrets.token_bytes(16), owner, bytes(32), {"w": part}, {"w": handle}, {}, supply, bytes(32))
    with store.room(1000) as room:
        stock.put(item, room)
    return item


def test_an_item_is_gone_after_an_error_and_its_room_is_free():
    store = Store()
    stock = Stock(store)
    item = put(store, stock, "alice")
    assert store.nbytes == 32 + 592
    with pytest.raises(KeyError), stock.taken(item.id, "alice"):
        assert store.nbytes == 32 + 592  # the job uses it
        raise KeyError
    assert store.nbytes == 32
    with pytest.raises(ItemNotFound, match="prepare another"), stock.taken(item.id, "alice"):
        pass


def test_another_identity_neither_gets_nor_spoils_an_item():
    store = Store()
    stock = Stock(store)
    item = put(store, stock, "alice")
    for wanted in (item.id, secrets.token_bytes(16)):
        with pytest.raises(ItemNotFound) as refused, stock.taken(wanted, "bob"):
            pass
        assert "another identity" in str(refused.value)
    assert stock.delete([item.id, *item.handles.values()], "bob") == 0
    with stock.taken(item.id, "alice") as got:
        assert got is item
    with pytest.raises(SecurityError, match="16 bytes"), stock.taken(b"short", "alice"):
        pass


def test_items_go_with_their_weights():
    store = Store()
    stock = Stock(store)
    first, second = put(store, stock, "alice"), put(store, stock, "alice")
    handle = first.handles["w"]
    store.delete([handle], "alice")
    assert stock.delete([handle], "alice") == 1 and len(stock) == 1
    with pytest.raises(HandleNotFound, match="deleted"), store.room(1000) as room:
        stock.put(first, room)  # its weights were deleted while it was made
    with pytest.raises(SecurityError, match="taken"), store.room(1000) as room:
        stock.put(second, room)
    assert stock.delete([second.id], "alice") == 1
    assert store.nbytes == 32


def test_an_item_needs_the_very_tensor_that_it_was_made_for():
    """Another one under the same handle: the first would stay in memory with the item, and count for nobody."""
    store = Store()
    stock = Stock(store)
    item = put(store, stock, "alice")
    handle = item.handles["w"]
    store.delete([handle], "alice")
    assert stock.delete([handle], "alice") == 1
    with store.room(32) as room:
        store.put("alice", [Kept(handle, Material(np.zeros(2, np.uint64), np.zeros(2, np.uint64)), 32)], room)
    with pytest.raises(HandleNotFound, match="deleted"), store.room(1000) as room:
        stock.put(item, room)
    assert store.nbytes == 32 and not len(stock)


def test_an_item_may_be_made_before_its_tensor_has_its_operand():
    store = Store()
    stock = Stock(store)
    item = put(store, stock, "alice")
    stock.delete([item.id], "alice")
    store.with_operand(item.handles["w"], "alice", "w")
    with store.room(1000) as room:
        stock.put(item, room)
    assert len(stock) == 1


def test_one_client_cannot_take_all_places():
    store = Store()
    stock = Stock(store, limit=3, each=2)
    for _ in range(2):
        stock.check_free("alice")
        put(store, stock, "alice")
    with pytest.raises(StoreFull, match="2 items of stock of this client"):
        stock.check_free("alice")
    with pytest.raises(StoreFull, match="2 items of stock of this client"):
        put(store, stock, "alice")
    stock.check_free("bob")
    put(store, stock, "bob")
    with pytest.raises(StoreFull, match="3 of all clients"):
        stock.check_free("bob")


def service(**parts):
    """Of a server that has nothing but these."""
    made = object.__new__(Service)
    vars(made).update({f"_{name}": part for name, part in parts.items()})
    return made


def test_a_full_stock_is_told_before_anything_is_done():
    """Neither inputs are taken nor steps walked; `collector` and `plans` are not even asked."""
    stock = Stock(Store(), each=0)
    abandoned = []
    full = service(stock=stock, runner=SimpleNamespace(abandon=abandoned.append))
    job = SimpleNamespace(owner="alice")
    with pytest.raises(StoreFull):
        next(full._outcome(job, wire.RunRequest(ahead=True), iter(())))
    assert abandoned == [job]


@pytest.mark.parametrize("there", [True, False])
def test_a_short_job_whose_client_is_gone_keeps_nothing(monkeypatch, there):
    """The call ends after the servers came to the end, before its reply is sent."""
    store = Store()
    stock = Stock(store)
    item = put(store, stock, "alice")
    handle = item.handles["w"]
    program = SimpleNamespace(plan=SimpleNamespace(outputs=[]))
    jobs = Jobs(lambda: None, Allowance())
    short = service(
        plans=SimpleNamespace(get=lambda digest: SimpleNamespace(program=program)), jobs=jobs, store=store,
        stock=stock, log=SimpleNamespace(write=lambda *_, **__: None), metrics=Metrics(False),
        oversight=SimpleNamespace(withdraw=lambda jobs, identity: 0),
    )  # fmt: skip

    def outcome(job, first, rest):
        yield wire.RunReply(steps=1)
        return Outcome({}, [handle, item.id], 1, [1], 1, 0.5), program

    monkeypatch.setattr(short, "_outcome", outcome)
    context = SimpleNamespace(add_callback=lambda call: None, is_active=lambda: there)
    reply = short.runshort(wire.RunRequest(job=secrets.token_bytes(16), seconds=5.0), "alice", context)
    assert reply.done.rounds == 1 and not len(jobs)
    assert (len(stock), store.nbytes > 0) == (there, there)


def test_an_item_of_many_small_messages_counts_what_memory_takes():
    """Words alone would be an eighth of it, and less."""
    part = Material(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    supply = Supply(bytes(16), 1, np.zeros(1000, np.uint64), tuple(range(1, 1001)))
    item = Stocked(bytes(16), "alice", bytes(32), {"w": part}, {"w": bytes(16)}, {"x": bytes(16)}, supply, bytes(32))
    assert item.nbytes == 8 * 1000 + 256 * (1000 + 1 + 2)


def test_stock_is_bounded():
    store = Store()
    stock = Stock(store, limit=2)
    put(store, stock, "alice")
    put(store, stock, "bob")
    with pytest.raises(StoreFull, match="2 of all clients"):
        put(store, stock, "bob")
    assert store.nbytes == 3 * 32 + 2 * 592


def test_an_item_takes_room_of_the_quota(cluster, weights):
    """What the helper deals is reserved before it comes: a plan whose stock does not fit makes none."""
    b = PlanBuilder()
    b.input("x", (1 << 20,), 18, "client")
    x = "x"
    for _ in range(320):
        x = b.add("relu", x)
    b.output(x, "y", ["client"])
    with pytest.raises(ClusterError, match="server1: no room for 19......... bytes"):
        cluster.prepare(b.build("large", "predict"), {}, deadline=20)
    size = 8 * DATA["w"].size
    assert eventually(lambda: stored(cluster) == [2 * size] * 3)


def other_plan(cluster, weights):
    return dense_plan(layers=2), {"x": DATA["x"], "w": weights}


def other_weights(cluster, weights):
    return PLAN, {"x": DATA["x"], "w": cluster.share(DATA["w"], 18, "w")}


def other_batch(cluster, weights):
    return dense_plan(batch=5), {"x": dense_data(5)["x"], "w": weights}


def stored_batch(cluster, weights):
    return PLAN, {"x": cluster.share(DATA["x"], 18, "x"), "w": weights}


def inline_weights(cluster, weights):
    return PLAN, {"x": DATA["x"], "w": DATA["w"]}


@pytest.mark.parametrize("other", [other_plan, other_weights, other_batch, stored_batch, inline_weights])
def test_an_item_serves_the_job_that_it_was_made_for_and_no_other(cluster, weights, other):
    item = cluster.prepare(PLAN, {"w": weights})
    plan, inputs = other(cluster, weights)
    with pytest.raises(InputError, match="prepare another item"):
        cluster.run(plan, inputs, item=item)
    with pytest.raises(InputError, match="prepare another item"):
        cluster.run(plan, inputs, loop=Loop(2), item=item)
    np.testing.assert_allclose(predict(cluster, weights, item), RESULT, atol=1e-4)  # it is not used up by that
    # A client that does not look: the servers do, and the item is gone.
    item = cluster.prepare(PLAN, {"w": weights})

    class Careless(Item):
        def use(self, incarnation, about):
            return dict.fromkeys(inputs, (bytes(16), bytes(16)))

    careless = Careless(item.id, item.incarnation, item.content, item.seeds)
    with pytest.raises(InputError, match="made for|expected words"):
        cluster.run(plan, inputs, item=careless)
    with pytest.raises(running.CallFailed) as gone:
        raw(cluster, plan, inputs, item.id)
    assert gone.value.kind == "ItemNotFound"
    cluster.delete(*(given for given in inputs.values() if not isinstance(given, np.ndarray) and given != weights))


def raw(cluster, plan, inputs, item, clients=None):
    """A job on both evaluators, or on these servers, that names an item, as a client without scruples would send it."""
    secret = {name: given if not isinstance(given, np.ndarray) else [(b"", np.zeros(given.size, np.uint64))] * 2
              for name, given in inputs.items()}
    given = running.Inputs(secret, {}, {}, {}, 1, item=item)
    clients = clients or cluster._clients[:2]
    try:
        running.run_job(clients, cluster._jobs, plan, given, 20.0, None, secrets.token_bytes(16))
    except Exception as error:
        raise error.__cause__ from None


@pytest.mark.parametrize("party", [0, 1])
def test_evaluators_that_were_told_different_items_do_not_start(cluster, weights, monkeypatch, party):
    items = [cluster.prepare(PLAN, {"w": weights}) for _ in range(2)]
    honest = running._requests

    def lying(to, *given):
        for request in honest(to, *given):
            if to == party and request.item:
                request.item = items[1].id
            yield request

    monkeypatch.setattr(running, "_requests", lying)
    with pytest.raises(VersionMismatch, match="digest"):
        predict(cluster, weights, items[0])
    monkeypatch.undo()
    # Both are burnt where they were named, and of no use any more.
    for item in items:
        np.testing.assert_allclose(predict(cluster, weights, again(item)), RESULT, atol=1e-4)
        assert cluster.stats.last_ahead == Traffic()


@pytest.mark.parametrize("change", ["item", "ahead", "seeds"])
def test_a_server_that_is_told_something_else_than_the_others_makes_no_item(cluster, weights, monkeypatch, change):
    honest = running._requests

    def lying(to, *given):
        for request in honest(to, *given):
            if to == 0:
                if change == "item":
                    request.item = secrets.token_bytes(16)
                elif change == "ahead":
                    request.ahead = False
                else:
                    request.inputs[0].seeds = b"short"
            yield request

    monkeypatch.setattr(running, "_requests", lying)
    with pytest.raises((InputError, VersionMismatch)):
        cluster.prepare(PLAN, {"w": weights}, deadline=20)
    monkeypatch.undo()
    # Server 1 has made the operand that products from stock start from.
    assert eventually(lambda: stored(cluster)[1:] == [24 * DATA["w"].size, 16 * DATA["w"].size])


def test_an_item_that_a_failed_job_has_named_is_burnt(cluster, weights, monkeypatch):
    """The job fails at one evaluator after the other has begun: both have let the item go."""
    item, never = cluster.prepare(PLAN, {"w": weights}), threading.Event()
    monkeypatch.setattr(cluster._clients[0], "run", held_back(cluster._clients[0], never))

    def interrupted():
        assert eventually(lambda: all(client.health().jobs for client in cluster._clients[:2]))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        cluster.run(PLAN, {"x": DATA["x"], "w": weights}, item=item)
    thread.join()
    never.set()
    monkeypatch.undo()
    with pytest.raises(running.CallFailed) as gone:
        raw(cluster, PLAN, {"x": DATA["x"], "w": weights}, item.id)
    assert gone.value.kind == "ItemNotFound"


def test_a_seed_of_a_batch_is_never_sent_twice(cluster, weights, monkeypatch):
    """Seeds go out ahead; with the batch go words alone, and after a failure the next try has seeds of its own."""
    sent = []
    honest = running._requests

    def watching(to, *given):
        for request in honest(to, *given):
            sent.append((to, request))
            yield request

    monkeypatch.setattr(running, "_requests", watching)
    item = cluster.prepare(PLAN, {"w": weights})
    ahead = {to: request.inputs[0].seeds for to, request in sent}
    assert ahead[0] + ahead[1] == ahead[2] and len(set(ahead.values())) == 3
    assert not any(request.pieces for _, request in sent)
    sent.clear()
    predict(cluster, weights, item)
    assert sorted(to for to, _ in sent) == [0, 1]
    words = {request.pieces[0].data for _, request in sent}
    assert len(words) == 1 and len(*words) == 8 * DATA["x"].size and not any(r.inputs[0].seeds for _, r in sent)
    sent.clear()
    predict(cluster, weights, again(item))
    late = {to: request.pieces[0].data[:16] for to, request in sent if not request.item}
    assert sorted(late) == [0, 1, 2] and not set(late.values()) & set(ahead.values())


@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_server_killed_between_takes_its_stock_along(party):
    with LocalCluster() as cluster:
        weights = cluster.share(DATA["w"], 18, "w")
        item = cluster.prepare(PLAN, {"w": weights})
        os.kill(cluster.pids[party], signal.SIGKILL)
        assert eventually(cluster._dead)
        with pytest.raises((HandleNotFound, PeerLost)):
            predict(cluster, weights, item)
        weights = cluster.share(DATA["w"], 18, "w")
        with pytest.raises(InputError, match="prepare another"):
            predict(cluster, weights, again(item))
        np.testing.assert_allclose(predict(cluster, weights), RESULT, atol=1e-4)


def test_another_clients_item_is_of_no_use(tmp_path):
    with TlsServers(tmp_path) as servers, connect(servers.config, identity="analyst") as cluster:
        weights = cluster.share(DATA["w"], 18, "w")
        item = cluster.prepare(PLAN, {"w": weights})
        with connect(servers.config, identity="other") as thief:
            own = thief.share(DATA["w"], 18, "w")
            predict(thief, own)  # the plan is there
            with pytest.raises(running.CallFailed) as refused:
                raw(thief, PLAN, {"x": DATA["x"], "w": own}, item.id)
            assert refused.value.kind == "ItemNotFound"
            thief.delete(item)
        np.testing.assert_allclose(predict(cluster, weights, item), RESULT, atol=1e-4)
        assert cluster.stats.last_ahead == item.made


def test_only_one_run_that_keeps_nothing_can_be_made_ahead(cluster):
    b = PlanBuilder()
    b.input("x", (4,), 18, "client")
    b.output(b.add("relu", "x"), "kept", [])
    with pytest.raises(InputError, match="keeps nothing|expected handles"):
        cluster.prepare(b.build("keeping", "compute"), {})


def test_public_values_belong_to_the_item(cluster):
    b = PlanBuilder()
    b.input("x", (4,), 18, "client")
    b.input("scale", (4,), 4, "client", public=True)
    b.output(b.add("truncate", b.add("multiply", "x", "scale"), bits=4), "y", ["client"])
    plan, x = b.build("scaled", "compute"), np.arange(4.0)
    item = cluster.prepare(plan, {"scale": PublicValue(np.full(4, 2.0))})
    with pytest.raises(InputError, match="public values"):
        cluster.run(plan, {"x": x, "scale": PublicValue(np.full(4, 3.0))}, item=item)
    y = cluster.run(plan, {"x": x, "scale": PublicValue(np.full(4, 2.0))}, item=item)["y"]
    np.testing.assert_allclose(y, 2 * x, atol=1e-4)


def test_a_program_that_prepares_runs_in_simulation():
    with SimulatedCluster() as cluster:
        weights = cluster.share(DATA["w"], 18, "w")
        item = cluster.prepare(PLAN, {"w": weights})
        np.testing.assert_allclose(predict(cluster, weights, item), RESULT, atol=1e-4)
        assert cluster.stats.ahead.runs == cluster.stats.last_ahead.runs == 1
        with pytest.raises(SecurityError, match="used before"):
            predict(cluster, weights, item)


def test_what_two_threads_count_at_once_is_counted_twice():
    stats, threads = Stats(), []

    class Interrupted(Traffic):
        """While it is being added, another thread counts."""

        @property
        def sent(self):
            if not threads:
                threads.append(threading.Thread(target=stats.add_ahead, args=(Traffic(1),)))
                threads[0].start()
                threads[0].join(0.2)
            return (5,)

        @sent.setter
        def sent(self, _):
            pass

    made = object.__new__(Interrupted)
    for name in ("runs", "rounds", "seconds", "computing"):
        object.__setattr__(made, name, 1)
    stats.add_ahead(made)
    threads[0].join(60)
    assert stats.ahead.runs == 2


def test_nothing_prints_a_key_or_a_seed(cluster, weights):
    item = cluster.prepare(PLAN, {"w": weights})
    seeds = [seed for pair in item.seeds.values() for seed in pair]
    supply = Supply(seeds[0], 1, np.frombuffer(seeds[1], np.uint64))
    stocked = Stocked(item.id, "alice", bytes(32), {}, {}, {"x": seeds[0]}, supply, bytes(32))
    draw = Draw(b"sixteen secret b", 1, 0, 4)
    material = Material(np.zeros(2, np.uint64), np.ones(2, np.uint64), operand=np.ones(2, np.uint64))
    collected = Collected(None, {"x": material}, None, None, {"x": seeds[0]})
    inputs = Inputs({"x": [(seeds[0], np.zeros(1, np.uint64))]}, {}, {}, {}, 1)
    for thing in (item, supply, stocked, draw, material, collected, inputs):
        text = repr(thing)
        assert "seed" not in text and "key" not in text and "array" not in text and "secret" not in text
