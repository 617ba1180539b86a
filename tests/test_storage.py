"""Shares on disk: whole or not at all, for their owner alone, found again after a restart, and never trusted."""

import os
import random
import re
import secrets
import stat
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.cluster import LocalCluster, SimulatedCluster, connect
from private_keras.cluster.client import ServerClient
from private_keras.cluster.local import _default_storage
from private_keras.errors import ClusterError, FileError, HandleNotFound, InputError, PrivateKerasError, SecurityError
from private_keras.ring import default_kernel
from private_keras.server import catalogue, keyfile, limits, storage
from private_keras.server.entries import SavedTensor
from private_keras.server.material import Material
from private_keras.server.policy import Policy
from private_keras.server.saving import loaded_handle
from private_keras.server.storage import Generation, Storage
from private_keras.server.store import Kept, Store
from private_keras.server.vault import NoStorage
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, saving_of
from tests.crashes import Crash, crashing
from tests.loops import Held, revealed


def generation(name="model", number=1):
    return Generation(name, number, secrets.token_bytes(8))


def tensors(party, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for label, shape in (("w", (3, 4)), ("b", ()), ("odd label: ä", (1, 1, 7))):
        item = SavedTensor(label, shape, 18)
        words = [rng.integers(0, 2**64, item.size, np.uint64) for _ in range(2)]
        made.append((item, Material(*words, ties_for(party))))
    return made


def ties_for(party):
    return {peer: secrets.token_bytes(32) for peer in {0, 1, 2} - {party}}


def save(disk, owner, which, about, items, policy=Policy()):  # noqa: B008
    ties = [part.ties for _, part in items]
    with disk.writing(owner, which, about, [item for item, _ in items], policy, ties) as writer:
        for _, part in items:
            for piece in part.pieces():
                writer.feed(piece)


def found(disk, owner, name=""):
    return [(storage.generation_of(row.source), row.state == catalogue.COMMITTED) for row in disk.saved(owner, name)]


def files(directory):
    return list(directory.rglob("*.sealed"))


def read(disk, owner, which):
    opened = disk.opened(owner, which)
    parts = [part.whole() for part in opened.tensors(default_kernel(1))]
    return opened.row.about, list(zip(opened.row.entries, parts, strict=True))


def same(given, wanted):
    assert [item for item, _ in given] == [item for item, _ in wanted]
    for (_, a), (_, b) in zip(given, wanted, strict=True):
        assert np.array_equal(a.mask, b.mask) and not a.mask.flags.writeable
        assert np.array_equal(a.words, b.words)


def saved(directory, party=0, owner="alice", about="", seed=0):
    disk, which = Storage(directory, "trio", party), generation()
    save(disk, owner, which, about, tensors(party, seed))
    disk.commit(owner, which)
    return disk, which


@pytest.mark.parametrize("party", [0, 1, 2])
def test_what_is_saved_is_found_by_another_process(tmp_path, party):
    _, which = saved(tmp_path, party, about="what it is: ☃")
    again = Storage(tmp_path, "trio", party)
    assert found(again, "alice") == found(again, "alice", "model") == [(which, True)]
    about, tensors_ = read(again, "alice", which)
    assert about == "what it is: ☃"
    same(tensors_, tensors(party))
    assert again.forget("alice", [which, which]) == 1 and found(again, "alice") == []


def test_files_are_for_the_servers_user_alone(tmp_path):
    saved(tmp_path)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    os.chmod(tmp_path / "trio-server0", 0o755)
    disk = Storage(tmp_path, "trio", 0)
    for use in (lambda: found(disk, "alice"), lambda: save(disk, "alice", generation(number=2), "", tensors(0))):
        with pytest.raises(SecurityError, match="own directory.*mode 0700"):
            use()


def test_nothing_is_made_before_something_is_saved(tmp_path):
    disk = Storage(tmp_path / "a" / "b", "trio", 0)
    assert found(disk, "alice") == [] and disk.forget("alice", [generation()]) == 0
    with pytest.raises(HandleNotFound):
        disk.opened("alice", generation())
    assert not (tmp_path / "a").exists()


def test_a_server_without_a_directory_says_what_to_do():
    disk = Storage(None, "trio", 0)
    for call in (lambda: save(disk, "a", generation(), "", []), lambda: found(disk, "a"),
                 lambda: disk.commit("a", generation())):  # fmt: skip
        with pytest.raises(NoStorage, match="--storage DIRECTORY"):
            call()


@pytest.mark.parametrize("stranger", ["bob", "", "../alice", "ALICE", "alice.", "alic"])
def test_another_identity_finds_nothing_and_removes_nothing(tmp_path, stranger):
    disk, which = saved(tmp_path)
    assert found(disk, stranger) == [] and disk.forget(stranger, [which]) == 0
    for call in (lambda: disk.commit(stranger, which), lambda: read(disk, stranger, which)):
        with pytest.raises(HandleNotFound):
            call()
    # Nor where somebody moves the file to them: it is bound to whose it is.
    (path,) = files(tmp_path)
    save(disk, stranger, which, "", tensors(0))
    disk.commit(stranger, which)
    (target,) = set(files(tmp_path)) - {path}
    os.replace(path, target)
    with pytest.raises(FileError, match="damaged, or not sealed by this server's key"):
        read(disk, stranger, which)


@pytest.mark.parametrize(
    "change",
    [
        "owner = 'bob'", "name = 'other'", "number = '0000000000000002'", "nonce = '0011223344556677'",
        "about = 'another'", "entries = replace(entries, '[3,4]', '[4,3]')", "entries = replace(entries, '18', '17')",
        "entries = replace(entries, 'odd', 'even')",
    ],
)  # fmt: skip
def test_a_file_is_bound_to_what_the_catalogue_says_of_it(tmp_path, change):
    """Whoever can write to the disk, but does not have the key, cannot give shares another owner, name or form."""
    disk, which = saved(tmp_path)
    with disk.catalogue.transaction() as database:
        database.execute(f"UPDATE snapshots SET {change}")
        owner, name, number, nonce = database.execute("SELECT owner, name, number, nonce FROM snapshots").fetchone()
    with pytest.raises(FileError, match="damaged, or not sealed by this server's key"):
        read(disk, owner, Generation(name, int(number, 16), bytes.fromhex(nonce)))


@pytest.mark.parametrize("party", [0, 1])
def test_a_file_of_another_server_is_refused(tmp_path, party):
    """Even where both have the same key."""
    saved(tmp_path / "a", party=party)
    (key,) = (tmp_path / "a.keys").iterdir()
    (tmp_path / "b.keys").mkdir(0o700)
    (tmp_path / "b.keys" / f"server{1 - party}.store").write_bytes(key.read_bytes())
    (tmp_path / "b.keys" / f"server{1 - party}.store").chmod(0o600)
    disk, other = saved(tmp_path / "b", party=1 - party)
    os.replace(*files(tmp_path / "a"), *files(tmp_path / "b"))
    with pytest.raises(FileError, match="damaged"):
        read(disk, "alice", other)


def test_what_was_written_without_ties_is_not_read(tmp_path):
    """By a server of before: it could not tell whether the others have the parts that belong to these."""
    disk, which = saved(tmp_path)
    with disk.catalogue.transaction() as database:
        database.execute("UPDATE snapshots SET ties = x''")
    with pytest.raises(FileError, match="share them again"):
        disk.opened("alice", which)


# --- the key ----------------------------------------------------------------------------------------------------------
def test_nothing_on_disk_says_what_was_shared(tmp_path):
    disk, which = generation_with_pattern(tmp_path / "disk")
    for path in [*(tmp_path / "disk").rglob("*")]:
        assert path.is_dir() or PATTERN not in path.read_bytes()
    assert read(disk, "alice", which)[1][0][1].mask.tobytes() == PATTERN


PATTERN = b"words of a share" * 100


def generation_with_pattern(directory):
    words = np.frombuffer(PATTERN, np.uint64)
    disk, which = Storage(directory, "trio", 2), generation()
    save(disk, "alice", which, "", [(SavedTensor("w", words.shape, 0), Material(words, words, ties_for(2)))])
    disk.commit("alice", which)
    return disk, which


def test_without_its_key_a_storage_gives_nothing_and_takes_nothing(tmp_path):
    _, which = saved(tmp_path / "disk")
    (path,) = (tmp_path / "disk.keys").iterdir()
    assert path.name == "server0.store" and stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_bytes()
    assert len(key) == 32

    def refused(error, message):
        disk = Storage(tmp_path / "disk", "trio", 0)
        for use in (lambda: read(disk, "alice", which), lambda: save(disk, "alice", generation(), "", tensors(0))):
            with pytest.raises(error, match=message):
                use()
        assert len(files(tmp_path)) == 1 and re.search(message, disk.vault.problem())

    assert Storage(tmp_path / "disk", "trio", 0).vault.problem() == Storage(None, "trio", 0).vault.problem() == ""
    path.unlink()
    refused(ClusterError, "key that seals this server's storage.*is missing: put it back")
    assert not path.exists(), "another key must not be made in place of one that is lost"
    keyfile.make_key(path)
    refused(ClusterError, "is not the key that this server's storage was sealed with")
    path.write_bytes(key[:-1])
    refused(ClusterError, "expected a key of 32 bytes")
    path.write_bytes(key)
    path.chmod(0o640)
    refused(SecurityError, "mode 0600. Received: owner .*, mode 0640")
    path.chmod(0o600)
    same(read(Storage(tmp_path / "disk", "trio", 0), "alice", which)[1], tensors(0))


def test_two_servers_that_make_a_key_at_once_have_the_same_one(tmp_path):
    path = tmp_path / "keys" / "server0.store"
    threads = [threading.Thread(target=keyfile.make_key, args=(path,)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    key = keyfile.read_key(path)
    keyfile.make_key(path)
    assert keyfile.read_key(path) == key and list(path.parent.iterdir()) == [path]


def test_where_no_key_can_be_made_it_says_how_to_make_one(tmp_path):
    (tmp_path / "file").touch()
    disk = Storage(tmp_path / "disk", "trio", 0, tmp_path / "file" / "keys")
    with pytest.raises(ClusterError, match=r"server0.store, cannot be made: .*head -c 32 /dev/urandom > server0.store"):
        save(disk, "alice", generation(), "", tensors(0))
    assert not files(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a b", "a\0", "ä", "x" * 81, "-x", 3, None])
def test_names_that_could_lead_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="expected a name of 1 to 80"):
        storage.check_name(name)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.from_regex(storage.NAME, fullmatch=True), min_size=1, max_size=6, unique=True))
def test_any_names_live_side_by_side(tmp_path_factory, names):
    disk = Storage(tmp_path_factory.mktemp("names"), "trio", 2)
    made = {name: generation(name) for name in names}
    for which in made.values():
        save(disk, "alice", which, which.name, tensors(2)[:1])
        disk.commit("alice", which)
    assert {which for which, _ in found(disk, "alice")} == set(made.values())
    for name, which in made.items():
        assert found(disk, "alice", name) == [(which, True)] and read(disk, "alice", which)[0] == name


# --- crashes ----------------------------------------------------------------------------------------------------------
def test_a_crash_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """Each server is stopped at every single call; what can be loaded afterwards is whole, and of one generation."""
    at, outcomes = 0, []
    while True:
        root = tmp_path / str(at)
        disks = [Storage(root, "trio", party) for party in range(3)]
        old, new = generation(number=1), generation(number=2)
        for party, disk in enumerate(disks):
            save(disk, "alice", old, "old", tensors(party))
            disk.commit("alice", old)
        with monkeypatch.context() as patch:
            count = crashing(patch, at)
            with suppress(Crash):
                for party, disk in enumerate(disks):
                    save(disk, "alice", new, "new", tensors(party, seed=1))
                for disk in disks:
                    disk.commit("alice", new)
                for disk in disks:
                    disk.forget("alice", [old])
                    disk.forget("alice", [old])
            finished = count[0] <= at
        for disk in disks:
            disk.catalogue.close()
        again = [Storage(root, "trio", party) for party in range(3)]
        rows = [disk.catalogue.names.files() for disk in again]
        assert sorted(path.name for path in files(root)) == sorted(name for names in rows for name in names)
        assert all(state in ("written", "committed") for names in rows for state in names.values()), "half is left"
        common = set.intersection(*({g for g, done in found(disk, "alice") if done} for disk in again))
        newest = max(common)
        for party, disk in enumerate(again):
            about, words = read(disk, "alice", newest)
            assert about == ("new" if newest == new else "old")
            same(words, tensors(party, seed=1 if newest == new else 0))
        outcomes.append(newest == new)
        if finished:
            break
        at += 1
    assert outcomes == sorted(outcomes) and outcomes[-1] and not outcomes[0] and len(outcomes) > 15


def test_files_in_use_are_not_swept(tmp_path):
    """Another server with the same directory may be writing one."""
    disk, which = saved(tmp_path)
    with disk.writing("alice", generation(number=2), "", [SavedTensor("w", (3,), 0, "", True)], Policy()) as writer:
        writer.feed(bytes(8))
        other = Storage(tmp_path, "trio", 0)
        assert len(files(tmp_path)) == 2
        writer.feed(bytes(writer.left))
    assert found(other, "alice") == [(which, True), (generation_at(disk, 1), False)]


def generation_at(disk, index):
    return found(disk, "alice")[index][0]


def test_what_no_client_came_back_for_goes_after_days_and_what_the_catalogue_does_not_know_stays(tmp_path):
    disk, which = saved(tmp_path)
    save(disk, "alice", generation(number=2), "", tensors(0))
    (directory,) = {path.parent for path in files(tmp_path)}
    (directory / "unknown.sealed").write_bytes(b"of a catalogue that was lost")
    (directory / "empty.sealed").touch()
    assert len(found(Storage(tmp_path, "trio", 0), "alice")) == 2
    with disk.catalogue.transaction() as database:
        database.execute("UPDATE snapshots SET created = created - ?", (3 * limits.MAX_SECONDS,))
    again = Storage(tmp_path, "trio", 0)
    assert found(again, "alice") == [(which, True)]
    assert len(files(tmp_path)) == 2 and (directory / "unknown.sealed").exists()


@pytest.mark.parametrize("call", ["fsync", "posix_fallocate"])
def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, call):
    disk, which = saved(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(ClusterError, match="disk refuses: No space left"):
        save(disk, "alice", generation(number=2), "", tensors(0))
    assert found(disk, "alice") == [(which, True)]
    assert len(files(tmp_path)) == len(disk.catalogue.names.files()) == 1


def test_a_catalogue_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    disk, which = saved(tmp_path)
    with disk.catalogue.transaction() as database:
        database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(ClusterError, match="disk refuses: catalogue: database or disk is full"):
        save(disk, "alice", generation(number=2), "x" * 100_000, tensors(0))
    assert found(disk, "alice") == [(which, True)] and len(files(tmp_path)) == 1


def test_the_disk_has_a_quota(tmp_path, monkeypatch):
    disk, which = saved(tmp_path)
    monkeypatch.setattr(limits, "STORAGE_BYTES", next(disk.saved("alice")).bytes + 100)
    with pytest.raises(ClusterError, match="no room for .* bytes more on disk: .* of all are taken"):
        save(disk, "alice", generation(number=2), "", tensors(0))
    monkeypatch.undo()
    monkeypatch.setattr(limits, "OWNER_MAX_SAVED", 1)
    with pytest.raises(ClusterError, match="1 of 1 files of this owner"):
        save(disk, "alice", generation(number=2), "", tensors(0))
    save(disk, "bob", generation(number=2), "", tensors(0))
    disk.forget("alice", [which])
    monkeypatch.setattr(limits, "MAX_SAVED", 2)
    save(disk, "alice", generation(number=2), "", tensors(0))
    with pytest.raises(ClusterError, match="2 of 2 files of all"):
        save(disk, "carol", generation(number=3), "", tensors(0))
    monkeypatch.undo()
    with pytest.raises(InputError, match="saved already"):
        save(disk, "alice", which, "", tensors(0))


# --- files that somebody wrote ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    _, which = saved(directory)
    (path,) = files(directory)
    return directory, which, path, path.read_bytes()


def refused(original, data):
    directory, which, path, _ = original
    path.write_bytes(data)
    with pytest.raises(FileError, match="saved shares 'model'"):
        read(Storage(directory, "trio", 0), "alice", which)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_file_with_any_byte_changed_is_refused(original, data):
    at, flip = data.draw(st.integers(0, len(original[3]) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(original[3])
    changed[at] ^= flip
    refused(original, bytes(changed))


@settings(max_examples=80, deadline=None)
@given(cut=st.integers(0, 2000), extra=st.binary(max_size=20))
def test_a_file_that_is_cut_or_longer_is_refused(original, cut, extra):
    data = original[3][: max(0, len(original[3]) - 1 - cut)] + extra
    if data != original[3]:
        refused(original, data)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(original, data):
    refused(original, data)


def test_a_file_that_is_gone_is_an_error_of_the_server(tmp_path):
    disk, which = saved(tmp_path)
    files(tmp_path)[0].unlink()
    with pytest.raises(ClusterError, match="the file is gone"):
        read(disk, "alice", which)


def test_what_was_opened_stays_readable_when_it_is_forgotten(tmp_path):
    disk, which = saved(tmp_path)
    parts = disk.opened("alice", which).tensors(default_kernel(1))
    disk.forget("alice", [which])
    same([(item, part.whole()) for (item, _), part in zip(tensors(0), parts, strict=True)], tensors(0))
    assert not files(tmp_path)


# --- calls ------------------------------------------------------------------------------------------------------------
def save_request(store, which, labels=("w",), shape=(4,), fraction=18, owner="alice"):
    entries = []
    for label in labels:
        handle = secrets.token_bytes(16)
        part = Material(np.zeros(4, np.uint64), np.ones(4, np.uint64), ties_for(0))
        with store.room(64) as room:
            store.put(owner, [Kept(handle, part, 64)], room)
        entries.append(wire.Entry(label=label, handle=handle, shape=shape, fraction=fraction))
    return wire.SaveRequest(snapshot=snapshot(which), entries=entries)


def snapshot(which):
    return wire.Snapshot(name=which.name, number=which.number, nonce=which.nonce)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": ("w", "w")}, InputError, "'w' twice"),
        ({"labels": ()}, InputError, "at least one tensor"),
        ({"shape": (5,)}, InputError, "expected shape .5,. with 5 elements. Received: shares of 4"),
        ({"shape": (2**20, 2**20)}, InputError, "shape of a saved tensor"),
        ({"shape": (0,)}, InputError, "shape of a saved tensor"),
        ({"fraction": 100}, InputError, "fraction of a saved tensor"),
        ({"labels": ("a\nb",)}, InputError, "label of a saved tensor"),
        ({"owner": "bob"}, HandleNotFound, "shares of 'w'"),
    ],
)
def test_saves_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, changes, error, message):
    store = Store()
    saving = saving_of(Storage(tmp_path, "trio", 0), store, default_kernel(1))
    with pytest.raises(error, match=message):
        saving.save(save_request(store, generation(), **changes), iter([]), "alice")
    assert not files(tmp_path)


def test_loading_takes_room_first_and_gives_it_back(tmp_path):
    store = Store(quota=300)
    saving, which = saving_of(Storage(tmp_path, "trio", 0), store, default_kernel(1)), generation()
    saving.save(save_request(store, which, ("a", "b")), iter([]), "alice")
    saving.commit(wire.CommitRequest(snapshot=snapshot(which)), "alice")
    before, base = store.nbytes, secrets.token_bytes(16)
    load = wire.LoadRequest(snapshot=snapshot(which), base=base)
    replies = saving.load(load, "alice")
    assert [entry.label for entry in next(replies).entries] == ["a", "b"] and store.nbytes == before + 128
    replies.close()  # the client is gone
    assert store.nbytes == before
    list(saving.load(load, "alice"))
    assert store.get(loaded_handle(base, 1), "alice", "b").mask.tolist() == [1] * 4
    with pytest.raises(SecurityError, match="taken"):
        list(saving.load(load, "alice"))
    with pytest.raises(ClusterError, match="no room"):
        list(saving.load(wire.LoadRequest(snapshot=snapshot(which), base=bytes(16)), "alice"))
    assert store.nbytes == before + 128


# --- clusters ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with LocalCluster(storage=tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture(params=["simulated", "local"])
def cluster(request):
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with SimulatedCluster() as made:
            yield made


STATE = {"w/kernel": (np.arange(6).reshape(2, 3) / 7, 18), "steps": (np.float64(12), 0), "v": (np.full(5, -1e-7), 40)}


def share(held, scale=1):
    return {name: held.share(values * scale, fraction) for name, (values, fraction) in STATE.items()}


def check(cluster, held, name, scale=1):
    handles, about = cluster.load(name)
    held.own(handles)
    assert {key: (h.name, h.shape, h.fraction) for key, h in handles.items()} == {
        key: (key, np.shape(values), fraction) for key, (values, fraction) in STATE.items()
    }
    scale = int(about) + 1 if scale is None else scale
    for key, value in revealed(cluster, handles).items():
        np.testing.assert_allclose(value, STATE[key][0] * scale, atol=2.0 ** -STATE[key][1])
    return about


def test_what_is_saved_comes_back_with_shapes_and_scales(cluster):
    with Held(cluster) as held:
        cluster.save("model/a", share(held), "first")
        cluster.save("other", {"w": held.share(np.ones(2))})
        assert cluster.saved() == ["model/a", "other"]
        assert check(cluster, held, "model/a") == "first"
        cluster.save("model/a", share(held, 2), "second")
        for _ in range(2):
            assert check(cluster, held, "model/a", 2) == "second"
        cluster.forget("model/a")
        cluster.forget("model/a")
        assert cluster.saved() == ["other"]
        with pytest.raises(HandleNotFound, match="'model/a'"):
            cluster.load("model/a")
        cluster.forget("other")


def test_saved_shares_outlive_servers_and_clients(tmp_path):
    with LocalCluster(storage=tmp_path) as first, Held(first) as held:
        first.save("m", share(held), "x" * 1000)
        os.kill(first.pids[1], 9)
        # All servers are started anew, and the handles from before are gone.
        with suppress(PrivateKerasError):
            first.saved()
        assert check(first, Held(first), "m") == "x" * 1000
        held.handles, held.before = [], [c.health().stored_bytes for c in first._clients]
    with LocalCluster(storage=tmp_path) as second, Held(second) as held:
        assert second.saved() == ["m"] and check(second, held, "m") == "x" * 1000
        assert len(files(tmp_path)) == 3


def test_a_server_killed_while_saving_leaves_the_old_or_the_new(tmp_path):
    """Real processes, killed at any moment of a save; `load` gives one state, the last or the one before."""
    generator = random.Random(7)
    with LocalCluster(storage=tmp_path) as cluster:
        for last in (0, 1):
            began = time.monotonic()
            cluster.save("m", share(Held(cluster), last + 1), str(last))
            took = time.monotonic() - began
        for turn in range(2, 6):
            handles = share(Held(cluster), turn + 1)
            killer = threading.Timer(generator.uniform(0, 1.5 * took), os.kill, (cluster.pids[turn % 3], 9))
            killer.start()
            try:
                cluster.save("m", handles, str(turn))
                attempts = [turn]
            except ClusterError:
                attempts = [last, turn]
            killer.join()
            with suppress(PrivateKerasError):
                cluster.saved()  # notices the loss
            last = int(check(cluster, Held(cluster), "m", None))
            assert last in attempts
        assert len(files(tmp_path)) <= 6, "half of a file is left"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (("..", {"w": 1}, ""), InputError, "expected a name"),
        (("m", {}, ""), InputError, "handles of tensors to save"),
        (("m", {"w": np.ones(3)}, ""), InputError, "Received: 1 items of .'ndarray'"),
        (("m", None, 3), InputError, "about: expected text"),
        (("m", None, "x" * (limits.ABOUT_BYTES + 1)), InputError, "about: expected text of at most 1048576 bytes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(cluster, given, error, message):
    name, handles, about = given
    with Held(cluster) as held, pytest.raises(error, match=message):
        cluster.save(name, {"w": held.share(np.ones(2))} if handles is None else handles, about)


def test_shares_that_are_gone_cannot_be_saved(local):
    with Held(local) as held:
        good, gone = share(held), local.share(np.ones(2), 18, "gone")
        local.delete(gone)
        with pytest.raises(HandleNotFound, match="'gone/label'"):
            local.save("m", {**good, "gone/label": gone})
        assert local.saved() == []


@pytest.mark.parametrize("call", ["save", "commit", "forget"])
@pytest.mark.parametrize("party", [0, 1, 2])
def test_a_save_that_fails_on_one_server_leaves_what_was_saved_before(local, monkeypatch, party, call):
    honest = getattr(ServerClient, call)
    failed = []

    def failing(self, *given):
        if self.name == f"server{party}" and not failed:
            failed.append(call)
            raise ClusterError("the server's disk refuses: it broke")
        return honest(self, *given)

    with Held(local) as held:
        local.save("m", share(held), "old")
        monkeypatch.setattr(ServerClient, call, failing)
        new = share(held, 2)
        if call == "forget":  # the new one is safe by then; what is left of the old one goes with the next
            local.save("m", new, "new")
        else:
            with pytest.raises(ClusterError, match="it broke"):
                local.save("m", new, "new")
        assert failed
        expected = ("new", 2) if call == "forget" else ("old", 1)
        assert check(local, held, "m", expected[1]) == expected[0]
        local.save("m", share(held, 3), "third")
        assert check(local, held, "m", 3) == "third"
        assert len(files(local._storage)) == 3
        local.forget("m")


def test_a_reply_that_is_lost_after_all_have_committed_leaves_the_old_or_the_new(local, monkeypatch):
    honest = ServerClient.commit

    def lost(self, *given):
        honest(self, *given)
        raise ClusterError("lost")

    with Held(local) as held:
        local.save("m", share(held), "old")
        with monkeypatch.context() as patch:
            patch.setattr(ServerClient, "commit", lost)
            with pytest.raises(ClusterError, match="lost"):
                local.save("m", share(held, 2), "new")
        assert check(local, held, "m", 1) == "old"
        local.forget("m")


def test_a_damaged_file_is_an_error_that_names_the_server_and_leaves_nothing_in_the_stores(local):
    with Held(local) as held:
        local.save("m", share(held))
        (path,) = files(local._storage / "trio-server1")
        data = bytearray(path.read_bytes())
        data[-40] ^= 1
        path.write_bytes(data)
        before = [c.health().stored_bytes for c in local._clients]
        with pytest.raises(FileError, match="server1: saved shares 'm': damaged"):
            local.load("m")
        assert [c.health().stored_bytes for c in local._clients] == before
        local.forget("m")


def test_servers_without_a_directory_refuse_and_identities_do_not_mix(tmp_path):
    with TlsServers(tmp_path) as servers, connect(servers.config, identity="analyst") as analyst:
        with Held(analyst) as held, pytest.raises(ClusterError, match="server0: .*--storage DIRECTORY"):
            analyst.save("m", share(held))
        for party in range(3):
            servers.stop(party)
            servers.start(party, storage=tmp_path / f"disk{party}")
        for party in range(3):
            servers.wait_listening(party, starts=2)
        # New connections: those from before may still be backing off.
        with connect(servers.config, identity="analyst") as owner, connect(servers.config, identity="other") as other:
            with Held(owner) as held:
                owner.save("m", share(held), "mine")
                with pytest.raises(HandleNotFound):
                    other.load("m")
                assert other.saved() == []
                other.forget("m")
                assert owner.saved() == ["m"] and check(owner, held, "m") == "mine"


def test_many_tensors_go_in_pieces(local, monkeypatch):
    monkeypatch.setattr("private_keras.server.saving.ENTRIES", 2)
    with Held(local) as held:
        local.save("m", share(held), "in pieces")
        assert check(local, held, "m") == "in pieces"
        local.forget("m")


def test_the_default_directory_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert _default_storage() == tmp_path / "private_keras" / "local"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _default_storage() == tmp_path / "home" / ".local" / "share" / "private_keras" / "local"

