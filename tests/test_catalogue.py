"""The catalogue: what is acknowledged stays, limits hold, and damage is told from absence."""

import hashlib
import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
import time
import tracemalloc

import pytest

from private_keras.errors import ClusterError, FileError, InputError, PlanError, SecurityError
from private_keras.plan.provenance import Level
from private_keras.server import entries, limits
from private_keras.server.catalogue import COMMITTED, FORGOTTEN, ROW_BYTES, WRITING, WRITTEN, Catalogue, database
from private_keras.server.chain import START, chained
from private_keras.server.entries import SavedTensor
from private_keras.server.policy import Policy
from private_keras.server.terms import Shows, Source, Terms

TENSORS = (SavedTensor("x", (3, 4), 18, "float32", True), SavedTensor("y", (), 0))


def source(name="data", number=1, owner="alice", nonce="00" * 8):
    return Source(owner, name, number, nonce)


def made(catalogue, which, policy=Policy(), file="f", commit=True):  # noqa: B008
    row = catalogue.names.begin(which, "about", TENSORS, policy, 100, file)
    catalogue.names.finish(row, b"")
    if commit:
        assert catalogue.names.commit(which)
    return which


@pytest.fixture(params=["memory", "disk"])
def catalogue(request, tmp_path):
    made = Catalogue(tmp_path if request.param == "disk" else None)
    yield made
    made.close()


def test_rows_are_read_one_after_the_other(catalogue):
    for number in range(20):
        row = catalogue.names.begin(source(number=number), "a" * (1 << 20), (), Policy(), 1, str(number))
        catalogue.names.finish(row, b"")
    tracemalloc.start()
    try:
        assert sum(len(row.about) for row in catalogue.names.listed("alice")) == 20 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        rows = catalogue.names.listed("alice")
        catalogue.names.forget(next(rows).source)
        catalogue.names.forget(source(number=1))
        assert next(rows).source.number == 2
    finally:
        tracemalloc.stop()


def test_rows_go_from_writing_to_forgotten(catalogue):
    which = source(number=(1 << 64) - 1)
    assert catalogue.names.find(which) is None and not catalogue.names.commit(which)
    assert catalogue.names.forget(which) is None
    row = catalogue.names.begin(which, "about ☃", TENSORS, Policy(), 100, "file")
    assert catalogue.names.find(which).state == WRITING and not catalogue.names.commit(which)
    assert not list(catalogue.names.listed("alice"))
    assert catalogue.names.forget(which) is None
    catalogue.names.finish(row, b"")
    assert catalogue.names.find(which).state == WRITTEN
    assert catalogue.names.commit(which) and catalogue.names.commit(which)
    (found,) = catalogue.names.listed("alice", "data")
    assert (found.state, found.source, found.about, found.entries) == (COMMITTED, which, "about ☃", TENSORS)
    assert found.bytes > 100 + ROW_BYTES and catalogue.names.files() == {"file": COMMITTED}
    assert catalogue.names.forget(which) == "file" and catalogue.names.forget(which) is None
    assert not list(catalogue.names.listed("alice"))
    assert list(catalogue.names.files()) == ["file"]
    catalogue.names.removed("file")
    left = catalogue.names.find(which)
    assert (left.state, left.entries, left.file, left.about) == (FORGOTTEN, (), "", "") and left.bytes < 2 * ROW_BYTES
    with pytest.raises(InputError, match="saved already"):
        catalogue.names.begin(which, "", TENSORS, Policy(), 100, "again")
    with pytest.raises(ClusterError, match="removed meanwhile"):
        catalogue.names.finish(row, b"")


def test_numbers_keep_their_order(catalogue):
    numbers = [1, 2, 15, 16, 1 << 63, (1 << 64) - 1]
    for number in reversed(numbers):
        made(catalogue, source(number=number))
    assert [row.source.number for row in catalogue.names.listed("alice")] == numbers


def test_what_was_never_acknowledged_can_be_dropped_and_nothing_else(catalogue):
    row = catalogue.names.begin(source(), "", TENSORS, Policy(), 100, "file")
    catalogue.names.drop(row)
    assert catalogue.names.find(source()) is None
    row = catalogue.names.begin(source(), "", TENSORS, Policy(), 100, "file")
    catalogue.names.finish(row, b"")
    catalogue.names.drop(row)
    assert catalogue.names.find(source()).state == WRITTEN


def test_room_is_counted_for_each_owner_and_for_all(catalogue, monkeypatch):
    monkeypatch.setattr(limits, "OWNER_MAX_SAVED", 2)
    made(catalogue, source("a"))
    catalogue.names.begin(source("b"), "", TENSORS, Policy(), 100, "b")  # not finished: its room is taken all the same
    with pytest.raises(ClusterError, match="2 of 2 files of this owner"):
        catalogue.names.begin(source("c"), "", TENSORS, Policy(), 100, "c")
    made(catalogue, source("c", owner="bob"))
    monkeypatch.setattr(limits, "MAX_SAVED", 3)
    with pytest.raises(ClusterError, match="3 of 3 files of all"):
        catalogue.names.begin(source("d", owner="bob"), "", TENSORS, Policy(), 100, "d")
    catalogue.names.forget(source("a"))
    monkeypatch.setattr(limits, "OWNER_STORAGE_BYTES", catalogue.names.find(source("b")).bytes + 2 * ROW_BYTES + 500)
    with pytest.raises(ClusterError, match="no room for .* of this owner are taken; forget"):
        catalogue.names.begin(source("d"), "", TENSORS, Policy(), 100_000, "d")
    made(catalogue, source("d"))


def test_policies_rule_forgotten_generations_too(catalogue):
    policy = Policy(use=["bob"], plans=["fit"], uses=2)
    made(catalogue, source(), policy)
    made(catalogue, source(number=2), commit=False)
    made(catalogue, source("other"), policy)
    assert catalogue.names.policy(source()) == policy and catalogue.names.policy(source("unknown")) is None
    catalogue.names.forget(source())
    assert catalogue.names.policy(source()) == policy
    assert catalogue.names.set_policy("alice", "data", Policy()) == 2
    assert catalogue.names.set_policy("bob", "data", policy) == 0
    assert catalogue.names.policy(source()) == catalogue.names.policy(source(number=2)) == Policy()
    assert catalogue.names.policy(source("other")) == policy
    with catalogue.transaction() as database:
        total = database.execute("SELECT sum(bytes) FROM snapshots").fetchone()[0]
    catalogue.names.set_policy("alice", "data", policy)
    catalogue.names.set_policy("alice", "data", Policy())
    with catalogue.transaction() as database:
        assert database.execute("SELECT sum(bytes) FROM snapshots").fetchone()[0] == total


def test_others_find_what_names_them(catalogue):
    made(catalogue, source("a"), Policy(use=["bob", "carol"], plans=["fit"]))
    made(catalogue, source("b"), Policy(use=["bobby"], plans=["fit"]))
    made(catalogue, source("c"), Policy(use=["bob"], plans=["fit"]), commit=False)
    made(catalogue, source("d", owner="bob"), Policy(use=["bob"], plans=["fit"]))
    assert [row.source.name for row in catalogue.names.usable("bob")] == ["a"]
    assert list(catalogue.names.usable("bob", "b")) == [] and list(catalogue.names.usable("bo%")) == []


def test_uses_end_at_the_policys_number_whoever_asks_at_once(catalogue):
    made(catalogue, source(), Policy(use=["bob"], plans=["fit"], uses=5))
    refused = []

    def use():
        for _ in range(4):
            try:
                catalogue.names.count_use(source())
            except SecurityError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(refused) == 7 and all("as often as its owner allows" in text for text in refused)
    catalogue.names.forget(source())
    with pytest.raises(SecurityError, match="used 5 times"):
        catalogue.names.count_use(source())
    with pytest.raises(SecurityError, match="does not know"):
        catalogue.names.count_use(source("other"))


def test_the_audit_log_is_a_chain(catalogue):
    texts = ["a", "", "ä" * 1000, '{"b": 1}']
    assert [catalogue.log.append(text) for text in texts] == [0, 1, 2, 3]
    chain = bytes(32)
    for row, text in zip(catalogue.log.read(), texts, strict=True):
        content = hashlib.sha256(text.encode()).digest()
        chain = hashlib.sha256(chain + content).digest()
        assert (row.text, row.content, row.chain) == (text, content, chain)
    assert [row.number for row in catalogue.log.read(1, 2)] == [1, 2]


def test_facts_cannot_be_changed(catalogue):
    assert catalogue.fact("key") is None
    catalogue.remember("key", b"1")
    catalogue.remember("key", b"1")
    with pytest.raises(ClusterError, match="another key"):
        catalogue.remember("key", b"2")
    assert catalogue.fact("key") == b"1"


def test_a_transaction_is_all_or_nothing(catalogue):
    with pytest.raises(KeyError), catalogue.transaction():
        made(catalogue, source())
        raise KeyError
    assert catalogue.names.find(source()) is None


def test_reading_makes_no_file_and_writing_one_for_this_user_alone(tmp_path):
    catalogue = Catalogue(tmp_path / "a" / "b")
    assert list(catalogue.names.listed("alice")) == [] and catalogue.log.read() == [] and not list(tmp_path.iterdir())
    catalogue.log.append("x")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    other = Catalogue(tmp_path / "a" / "b")
    assert other.log.append("y") == 1 and len(catalogue.log.read()) == 2
    catalogue.close()
    other.close()
    # Not through a link that somebody put there.
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "sub").mkdir(0o700)
    (tmp_path / "sub" / "catalogue.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="symbolic"):
        Catalogue(tmp_path / "sub").log.append("x")
    (tmp_path / "sub").chmod(0o750)
    with pytest.raises(SecurityError, match="mode 0700"):
        Catalogue(tmp_path / "sub").log.append("x")


@pytest.mark.parametrize("data", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_damaged_catalogue_is_an_error(tmp_path, data):
    (tmp_path / "catalogue.db").write_bytes(data)
    with pytest.raises(FileError, match="catalogue is damaged"):
        Catalogue(tmp_path).names.listed("alice")


def test_a_catalogue_of_another_release_is_refused(tmp_path):
    database = sqlite3.connect(tmp_path / "catalogue.db")
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(FileError, match="Received: format 7"):
        Catalogue(tmp_path).names.listed("alice")


def test_a_catalogue_of_an_earlier_format_is_brought_up_to_date(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(database, "_FORMATS", database._FORMATS[:1])
        patch.setattr(database, "VERSION", 1)
        old = Catalogue(tmp_path)
        texts = COMMITTED, "", entries.to_json(TENSORS), Policy().to_json()
        row = ("alice", "data", f"{1:016x}", "00" * 8, *texts, 9, 1.0)
        with old.transaction() as opened:
            columns = "owner, name, number, nonce, state, about, entries, policy, bytes, created, file"
            opened.execute(f"INSERT INTO snapshots ({columns}) VALUES ({'?, ' * 10}'f')", row)
            content = hashlib.sha256(b"x").digest()
            opened.execute("INSERT INTO audit VALUES (0, 'x', ?, ?)", (content, chained(START, content)))
        old.close()
    # Two processes at once, of which one is first.
    news = [Catalogue(tmp_path) for _ in range(2)]
    threads = [threading.Thread(target=new.names.find, args=(source(),)) for new in news]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for new in news:
        assert new.names.find(source()).entries == TENSORS and len(new.log.read()) == 1
        assert not list(new.deliveries.of("bob")) and new.log.segments() == []
    # Of what was there before nobody knows whether others have it.
    news[0].names.removed(news[0].names.forget(source()))
    with news[0].transaction() as opened:
        assert opened.execute("SELECT lent FROM snapshots").fetchall() == [(1,)]
    [new.close() for new in news]


@pytest.mark.parametrize(
    "text", ["{", "3", "[[1]]", '[["x", [0], 1, "", true, []]]', '[["x", [1], 1, "", 1, []]]', "["]
)
def test_damaged_entries_are_an_error(text):
    with pytest.raises(FileError, match="damaged"):
        entries.from_json(text)


def test_entries_come_back_with_their_terms():
    shown = Shows(Level.RAW, True, frozenset({"train"}))
    terms = Terms(frozenset({(source(), Shows(Level.ROWS)), (source("b"), shown)}))
    tensors = (*TENSORS, SavedTensor("z", (2,), 3, "int8", False, terms))
    assert entries.from_json(entries.to_json(tensors)) == tensors
    for bad in ("float32\n", "x" * 21, 3, "ä"):
        with pytest.raises(PlanError, match="dtype"):
            entries.checked("x", [1], 0, bad)
    with pytest.raises(PlanError, match="elements"):
        entries.checked("x", [limits.SAVED_ELEMENTS, 2], 0)


def _writes(directory, line):
    catalogue = Catalogue(directory)
    while True:
        line.send(catalogue.log.append("x" * 3000))


@pytest.mark.parametrize("turn", range(3))
def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path, turn):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_writes, args=(tmp_path, theirs))
    process.start()
    theirs.close()
    try:
        last = [ours.recv() for _ in range(20 + 7 * turn)][-1]
        os.kill(process.pid, signal.SIGKILL)
        while True:
            last = ours.recv()
    except EOFError:
        pass
    process.join()
    catalogue = Catalogue(tmp_path)
    assert len(catalogue.log.read()) in (last + 1, last + 2) and catalogue.log.append("on") >= last + 1
    catalogue.close()


def test_writers_take_turns_however_slow_the_disk(tmp_path, monkeypatch):
    """Between two transactions of one that writes all the time are moments only: whoever waits must be next."""
    there, commit, done = [0], database._commit, threading.Event()

    def slowly(connection):
        time.sleep(0.03)
        commit(connection)

    def write():
        other = Catalogue(tmp_path)
        while not done.is_set():
            with other.transaction():
                there[0] += 1
        other.close()

    monkeypatch.setattr(database, "_commit", slowly)
    thread = threading.Thread(target=write)
    thread.start()
    mine, between = Catalogue(tmp_path), []
    try:
        while not there[0] and thread.is_alive():
            time.sleep(0.01)
        for _ in range(20):
            before = there[0]
            with mine.transaction():
                between.append(there[0] - before)
    finally:
        done.set()
        thread.join()
        mine.close()
    assert 10 <= sum(between) <= 100, between
