"""Results that wait for receivers: each for its own, bounded in number, size and age."""

import numpy as np
import pytest

from private_keras.errors import HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.server.outbox import Delivery, Opened, Outbox
from private_keras.server.store import Store, StoreFull


class Clock:
    def __init__(self):
        self.seconds = 1e9

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return Store(quota=10_000)


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, clock)


def put(outbox, store, number=0, receivers=("receiver",), sender="analyst", words=10, created=None):
    job = number.to_bytes(16, "big")
    outputs = (Opened("y", (words,), 0, np.ones(words, np.uint64)), Opened("z", (3,), 0, None))
    made = [
        Delivery(job, sender, receiver, "scores", "d", 3, outputs, outbox._now() if created is None else created)
        for receiver in receivers
    ]
    with store.room(sum(delivery.nbytes for delivery in made) + 5, sender) as room:
        outbox.put(made, room)
    return job


def test_a_result_is_for_its_receiver_until_it_is_forgotten(outbox, store):
    job = put(outbox, store, receivers=("receiver", "auditor"))
    assert store.nbytes == 160 and [d.receiver for d in outbox.listed("receiver")] == ["receiver"]
    assert outbox.get(job, "receiver").outputs[0].words.tolist() == [1] * 10
    for other in ("analyst", "other"):
        assert outbox.listed(other) == [] and outbox.forget(job, other) is None
        with pytest.raises(HandleNotFound, match="for another receiver"):
            outbox.get(job, other)
    assert outbox.forget(job, "receiver").name == "scores" and outbox.forget(job, "receiver") is None
    assert store.nbytes == 80 and len(outbox.listed("auditor")) == 1
    with pytest.raises(HandleNotFound, match="received before"):
        outbox.get(job, "receiver")


def test_a_job_with_an_id_of_another_takes_no_result_away(outbox, store):
    job = put(outbox, store, 1)
    with pytest.raises(SecurityError, match="wait already"):
        outbox.check_free(job, "other", ["receiver"])
    outbox.check_free(job, "other", ["auditor"])


def test_results_grow_old(outbox, store, clock):
    old = put(outbox, store, 1)
    clock.seconds += limits.DELIVERY_SECONDS - 1
    put(outbox, store, 2)
    assert [d.id[-1] for d in outbox.listed("receiver")] == [1, 2]
    clock.seconds += 2
    assert [d.id[-1] for d in outbox.listed("receiver")] == [2] and store.nbytes == 80
    with pytest.raises(HandleNotFound, match="7 days"):
        outbox.get(old, "receiver")


def test_their_number_is_bounded(outbox, store, clock, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DELIVERIES_EACH", 3)
    monkeypatch.setattr(limits, "MAX_DELIVERIES", 5)
    for number in range(3):
        outbox.check_free(b"f" * 16, "analyst", ["receiver"])
        put(outbox, store, number, words=1)
    with pytest.raises(StoreFull, match="3 results of this client wait"):
        outbox.check_free(b"f" * 16, "analyst", ["receiver"])
    outbox.check_free(b"f" * 16, "other", ["a", "b"])
    with pytest.raises(StoreFull, match="3 of all clients"):
        outbox.check_free(b"f" * 16, "other", ["a", "b", "c"])
    clock.seconds += limits.DELIVERY_SECONDS + 1
    outbox.check_free(b"f" * 16, "analyst", ["receiver"])
    assert store.nbytes == 0


def test_their_size_is_of_the_senders_room(outbox, store):
    with pytest.raises(StoreFull):
        put(outbox, store, words=2000)
    put(outbox, store, 1, words=1000)
    with pytest.raises(StoreFull):
        put(outbox, store, 2, words=1000)
    assert outbox.withdraw([(1).to_bytes(16, "big")], "other") == 0
    assert outbox.withdraw([(1).to_bytes(16, "big")], "analyst") == 1
    put(outbox, store, 2, words=1000)
    assert len(outbox) == 1
