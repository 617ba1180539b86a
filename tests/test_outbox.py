"""Results that wait for receivers: each for its own, bounded in number, size and age; on disk whole or not at all."""

import os
import shutil
import sqlite3
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import ClusterError, FileError, HandleNotFound, SecurityError
from private_keras.server import limits
from private_keras.server.catalogue import Delivery, Output, database
from private_keras.server.contents import InMemory, OnDisk
from private_keras.server.outbox import Outbox
from private_keras.server.storage import Storage
from private_keras.server.store import Store, StoreFull
from tests.crashes import Crash, crashing


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


def on_disk(directory, clock, party=0):
    storage = Storage(directory, "trio", party)
    return Outbox(storage.catalogue, OnDisk(storage.vault, storage.place), clock)


@pytest.fixture(params=["memory", "disk"])
def outbox(request, store, clock, tmp_path):
    if request.param == "memory":
        made = Outbox(Storage(None, "trio", 0).catalogue, InMemory(store), clock)
    else:
        made = on_disk(tmp_path / "disk", clock)
    yield made
    made._catalogue.close()


def files(directory):
    return sorted(directory.rglob("*/deliveries/*"))


def id_of(number):
    return number.to_bytes(16, "big")


def made_of(number, receiver="receiver", sender="analyst", words=10, created=1e9):
    outputs = (Output("y", (words,), 3, True), Output("z", (3,), 0, False), Output("s", (), 0, True))
    delivery = Delivery(id_of(number), sender, receiver, "scores", "d", 3, outputs, created)
    return delivery, [np.arange(words, dtype=np.uint64) + number, np.array([number], np.uint64)]


def put(outbox, store, number=0, receivers=("receiver",), note=lambda: None, **how):
    made = [made_of(number, receiver, **({"created": outbox._now()} | how)) for receiver in receivers]
    with store.room(sum(delivery.nbytes for delivery, _ in made) + 5, made[0][0].sender) as room:
        outbox.put(made, room, note)
    return id_of(number)


def read(outbox, job, receiver="receiver"):
    """Words by output number."""
    whole = {}
    for index, piece in outbox.read(outbox.get(job, receiver)):
        whole[index] = whole.get(index, b"") + piece
    return {index: np.frombuffer(data, "<u8").tolist() for index, data in whole.items()}


def waiting(outbox, receiver="receiver"):
    return [found.id[-1] for found in outbox.listed(receiver)]


def forgotten(outbox, job, receiver="receiver"):
    told = []
    outbox.forget(job, receiver, told.append)
    return [found.name for found in told]


def test_a_result_is_for_its_receiver_until_it_is_forgotten(outbox, store):
    job = put(outbox, store, receivers=("receiver", "auditor"))
    assert [found.receiver for found in outbox.listed("receiver")] == ["receiver"]
    assert read(outbox, job) == {0: list(range(10)), 2: [0]}
    for other in ("analyst", "other"):
        assert not waiting(outbox, other) and not forgotten(outbox, job, other)
        with pytest.raises(HandleNotFound, match="for another receiver"):
            outbox.get(job, other)
    assert forgotten(outbox, job) == ["scores"] and not forgotten(outbox, job)
    assert not waiting(outbox) and waiting(outbox, "auditor") == [0]
    with pytest.raises(HandleNotFound, match="received before"):
        outbox.get(job, "receiver")


def test_large_contributions_go_in_pieces(outbox, monkeypatch):
    monkeypatch.setattr(limits, "CHUNK_BYTES", 1000)
    job = put(outbox, Store(), words=12_345)
    assert read(outbox, job)[0] == list(range(12_345)) and len(list(outbox.read(outbox.get(job, "receiver")))) > 90


def test_a_job_with_an_id_of_another_takes_no_result_away(outbox, store):
    job = put(outbox, store, 1)
    with pytest.raises(SecurityError, match="wait already"):
        outbox.check_free(job, "other", ["receiver"], 0)
    outbox.check_free(job, "other", ["auditor"], 0)
    with pytest.raises(SecurityError, match="wait already"):  # nor one that began before
        put(outbox, store, 1, ("auditor", "receiver"), sender="other")
    assert [found.sender for found in outbox.listed("receiver")] == ["analyst"] and not waiting(outbox, "auditor")
    assert read(outbox, job)[2] == [1]


def test_results_grow_old(outbox, store, clock):
    old = put(outbox, store, 1)
    clock.seconds += limits.DELIVERY_SECONDS - 1
    put(outbox, store, 2)
    assert waiting(outbox) == [1, 2]
    clock.seconds += 2
    assert waiting(outbox) == [2]
    with pytest.raises(HandleNotFound, match="7 days"):
        outbox.get(old, "receiver")


def test_their_number_is_bounded(outbox, store, clock, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DELIVERIES_EACH", 3)
    monkeypatch.setattr(limits, "MAX_DELIVERIES", 5)
    for number in range(3):
        outbox.check_free(b"f" * 16, "analyst", ["receiver"], 0)
        put(outbox, store, number, words=1)
    with pytest.raises(StoreFull, match="3 results of this client wait"):
        outbox.check_free(b"f" * 16, "analyst", ["receiver"], 0)
    with pytest.raises(StoreFull, match="3 results of this client wait"):
        put(outbox, store, 9)
    assert waiting(outbox) == [0, 1, 2]
    outbox.check_free(b"f" * 16, "other", ["a", "b"], 0)
    with pytest.raises(StoreFull, match="3 of all clients"):
        outbox.check_free(b"f" * 16, "other", ["a", "b", "c"], 0)
    clock.seconds += limits.DELIVERY_SECONDS + 1
    outbox.check_free(b"f" * 16, "analyst", ["receiver"], 0)


def test_their_size_is_bounded(outbox, store, monkeypatch):
    monkeypatch.setattr(limits, "DELIVERY_BYTES_EACH", 3000)
    monkeypatch.setattr(limits, "DELIVERY_BYTES", 5000)
    put(outbox, store, 1, words=200)
    for sender, message in (("analyst", "of this client .* take 2.*no room for"), ("other", "take 0 bytes, of all")):
        with pytest.raises(StoreFull, match=message):
            put(outbox, store, 2, words=350, sender=sender)
        with pytest.raises(StoreFull, match=message):
            outbox.check_free(b"f" * 16, sender, ["receiver"], 2900)
    assert outbox.withdraw([id_of(1)], "other") == 0
    assert outbox.withdraw([id_of(1), id_of(7)], "analyst") == 1
    put(outbox, store, 2, words=250)
    assert waiting(outbox) == [2]


def test_in_memory_they_are_of_the_senders_room(store, clock):
    outbox = Outbox(Storage(None, "trio", 0).catalogue, InMemory(store), clock)
    job = put(outbox, store, words=1000)
    assert store.nbytes == 8008
    with pytest.raises(StoreFull):
        put(outbox, store, 1, words=1000)
    forgotten(outbox, job)
    assert store.nbytes == 0
    put(outbox, store, 1, words=1000)
    with pytest.raises(SecurityError):
        put(outbox, store, 1, words=1)
    assert store.nbytes == 8008 and outbox.withdraw([id_of(1)], "analyst") == 1 and store.nbytes == 0


def test_on_disk_they_take_no_memory_and_a_restart_finds_them(tmp_path, store, clock):
    outbox = on_disk(tmp_path, clock)
    job, other = put(outbox, store, 1), put(outbox, store, 2)
    assert store.nbytes == 0 and len(files(tmp_path)) == 2
    again = on_disk(tmp_path, clock)
    assert waiting(again) == [1, 2] and read(again, job) == read(outbox, job) == {0: list(range(1, 11)), 2: [1]}
    assert forgotten(again, job) and waiting(on_disk(tmp_path, clock)) == [2] and len(files(tmp_path)) == 1
    clock.seconds += limits.DELIVERY_SECONDS + 1
    assert not waiting(on_disk(tmp_path, clock)) and not files(tmp_path)
    with pytest.raises(HandleNotFound, match="or for another receiver") as missing:
        outbox.get(other, "receiver")
    assert "restart" not in str(missing.value)


def test_where_a_server_contributes_nothing_there_is_no_file(tmp_path, store, clock):
    outbox = on_disk(tmp_path, clock)
    empty = Delivery(id_of(1), "analyst", "receiver", "scores", "d", 3, (Output("y", (4,), 0, False),), clock())
    with store.room(0, "analyst") as room:
        outbox.put([(empty, [])], room, lambda: None)
    assert read(on_disk(tmp_path, clock), id_of(1)) == {} and not files(tmp_path)
    assert forgotten(outbox, id_of(1)) == ["scores"]


def test_what_is_not_logged_is_not_kept_and_what_is_not_kept_is_not_logged(outbox, store):
    log = outbox._catalogue.log

    def broken():
        log.append("opened")
        raise ClusterError("the log cannot be written")

    with pytest.raises(ClusterError, match="the log"):
        put(outbox, store, note=broken)
    assert not waiting(outbox) and not log.read() and store.nbytes == 0
    job = put(outbox, store)
    outbox.forget(job, "receiver", lambda found: log.append(found.name))
    assert [row.text for row in log.read()] == ["scores"]


# --- crashes ----------------------------------------------------------------------------------------------------------
def test_a_crash_at_any_call_leaves_what_was_acknowledged_and_nothing_half(tmp_path, monkeypatch, clock):
    at, kept, gone = 0, [], []
    while True:
        root, acknowledged, forgot = tmp_path / str(at), [], []
        outbox = on_disk(root, clock)
        put(outbox, Store(), 1)
        with monkeypatch.context() as patch:
            count = crashing(patch, at)
            with suppress(Crash):
                put(outbox, Store(), 2, ("receiver", "auditor"))
                acknowledged.append(2)
                outbox.forget(id_of(1), "receiver", lambda found: None)
                forgot.append(1)
                outbox.withdraw([id_of(2)], "analyst")
                forgot.append(2)
            finished = count[0] <= at
        outbox._catalogue.close()
        again = on_disk(root, clock)
        there = waiting(again)
        # Acknowledged and not taken back: there. Forgotten and acknowledged: gone. What is there is whole.
        assert forgot or 1 in there or acknowledged == [2]
        assert 2 in there or not acknowledged or 1 in forgot
        assert not set(forgot) & set(there)
        assert (2 in there) == (2 in waiting(again, "auditor")) or forgot == [1], "both receivers' or none"
        for number in there:
            assert read(again, id_of(number)) == {0: list(range(number, number + 10)), 2: [number]}
        assert len(files(root)) == len(there) + len(waiting(again, "auditor")), "a file is left of what is not there"
        kept.append(2 in there)
        gone.append(1 not in there)
        if finished:
            break
        at += 1
    assert not kept[0] and any(kept) and not kept[-1] and gone == sorted(gone) and gone[-1] and len(kept) > 15


@pytest.mark.parametrize("call", ["fsync", "posix_fallocate"])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, store, clock, call):
    outbox = on_disk(tmp_path, clock)
    put(outbox, store, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ClusterError, match="disk refuses: No space left"):
            put(outbox, store, 2)
    assert waiting(outbox) == [1] and len(files(tmp_path)) == 1
    put(outbox, store, 2)


def test_where_the_catalogue_cannot_be_written_results_can_still_be_received_and_grow_old(
    tmp_path, store, clock, monkeypatch
):  # fmt: skip
    outbox = on_disk(tmp_path, clock)
    first, second = put(outbox, store, 1), put(outbox, store, 2)

    def full(_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(database, "_begin", full)
        assert read(outbox, first)[2] == [1]
        with pytest.raises(ClusterError, match="disk is full"):
            forgotten(outbox, first)
        assert len(files(tmp_path)) == 1, "a file that is no longer wanted makes room"
        clock.seconds += limits.DELIVERY_SECONDS + 1
        assert not waiting(outbox)
        with pytest.raises(HandleNotFound):
            outbox.get(second, "receiver")
    assert not waiting(outbox) and not files(tmp_path) and not list(outbox._waiting.of("receiver"))


def test_files_that_are_being_written_are_not_swept(tmp_path, store, clock):
    """Another server with the same directory may be writing one, and note it down after that one has looked."""
    outbox = on_disk(tmp_path, clock)
    others = []
    put(outbox, store, 1, note=lambda: others.append((on_disk(tmp_path, clock), len(files(tmp_path)))))
    assert others[0][1] == 1 and read(others[0][0], id_of(1))[2] == [1]


def test_files_that_nothing_is_noted_of_go(tmp_path, store, clock):
    outbox = on_disk(tmp_path, clock)
    put(outbox, store, 1)
    (path,) = files(tmp_path)
    shutil.copy(path, path.with_name("half.sealed"))
    on_disk(tmp_path, clock)
    assert files(tmp_path) == [path]


# --- what somebody else wrote -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        "receiver = 'mallory'", "sender = 'mallory'", "name = 'other'", "digest = 'e'", "servers = 2",
        "job = x'00000000000000000000000000000007'", "outputs = replace(outputs, '3', '4')",
        "outputs = replace(outputs, '[10]', '[5,2]')", "outputs = replace(outputs, 'y', 'x')",
    ],
)  # fmt: skip
def test_a_file_is_bound_to_what_is_noted_of_it(tmp_path, store, clock, change):
    """Whoever can write to the disk, but has no key, cannot give a result to somebody else, or out as another's."""
    outbox = on_disk(tmp_path, clock)
    put(outbox, store, 1)
    with outbox._catalogue.transaction() as opened:
        opened.execute(f"UPDATE deliveries SET {change}")
        job, receiver = opened.execute("SELECT job, receiver FROM deliveries").fetchone()
    with pytest.raises(FileError, match="damaged, or not sealed by this server's key|expected a file of"):
        read(outbox, job, receiver)


def test_files_cannot_be_exchanged(tmp_path, store, clock):
    """Parts of different jobs, of different receivers, or of different servers are never one for the other."""
    outbox = on_disk(tmp_path / "a", clock)
    put(outbox, store, 1, ("receiver", "auditor"))
    put(outbox, store, 2)
    paths = {found.file: found for who in ("receiver", "auditor") for found in outbox.listed(who)}
    contents = {path: path.read_bytes() for path in files(tmp_path / "a")}
    for target in contents:
        for source in contents:
            if source != target:
                target.write_bytes(contents[source])
                found = paths[target.name]
                with pytest.raises(FileError, match="damaged"):
                    read(outbox, found.id, found.receiver)
                target.write_bytes(contents[target])
    # Another server that has the same key, as after a mistake.
    shutil.copytree(tmp_path / "a.keys", tmp_path / "b.keys")
    os.rename(tmp_path / "b.keys/server0.store", tmp_path / "b.keys/server1.store")
    other = on_disk(tmp_path / "b", clock, party=1)
    put(other, store, 1)
    files(tmp_path / "b")[0].write_bytes(contents[next(p for p in contents if p.name in paths)])
    with pytest.raises(FileError, match="damaged"):
        read(other, id_of(1))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    put(on_disk(directory, Clock()), Store(), 1, words=3000)
    (path,) = files(directory)
    return directory, path, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_with_any_byte_changed_or_cut_is_refused(original, data):
    directory, path, content = original
    changed = bytearray(content)
    if data.draw(st.booleans()):
        changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        changed = changed[: data.draw(st.integers(0, len(content) - 1))]
    path.write_bytes(changed)
    with pytest.raises(FileError, match="the result 'scores' of analyst: "):
        read(on_disk(directory, Clock()), id_of(1))


def test_damaged_notes_are_an_error(tmp_path, store, clock):
    outbox = on_disk(tmp_path, clock)
    put(outbox, store, 1)
    for bad in ("{", "3", "[[1]]", '[["y", [0], 1, true]]', '[["y", [1], 1, 1]]', '[["y\\n", [1], 1, true]]'):
        with outbox._catalogue.transaction() as opened:
            opened.execute("UPDATE deliveries SET outputs = ?", (bad,))
        with pytest.raises(FileError, match="catalogue is damaged"):
            list(outbox.listed("receiver"))


def test_without_its_key_a_server_takes_no_job_for_others_and_gives_nothing(tmp_path, store, clock):
    put(on_disk(tmp_path / "disk", clock), store, 1)
    (key,) = (tmp_path / "disk.keys").iterdir()
    content = key.read_bytes()

    def refused(message):
        outbox = on_disk(tmp_path / "disk", clock)
        assert waiting(outbox) == [1]
        for use in (lambda: read(outbox, id_of(1)), lambda: put(outbox, store, 2),
                    lambda: outbox.check_free(id_of(2), "analyst", ["receiver"], 0)):  # fmt: skip
            with pytest.raises(ClusterError, match=message):
                use()
        assert len(files(tmp_path)) == 1 and (not key.exists() or key.read_bytes() != content)

    key.unlink()
    refused("is missing: put it back")
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    refused("not the key that this server's storage was sealed with")
    key.write_bytes(content)
    assert read(on_disk(tmp_path / "disk", clock), id_of(1))[2] == [1]


def test_no_two_files_share_a_key_and_no_word_is_in_the_clear(tmp_path, clock):
    outbox = on_disk(tmp_path, clock)
    pattern = np.frombuffer(b"words of a share" * 100, np.uint64)
    for number in range(3):
        delivery, parts = made_of(number, words=len(pattern))
        with Store().room(delivery.nbytes, "analyst") as room:
            outbox.put([(delivery, [pattern, parts[1]])], room, lambda: None)
    contents = [path.read_bytes() for path in files(tmp_path)]
    assert len({content[16:48] for content in contents}) == 3  # salts
    assert not any(b"words of a share" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
