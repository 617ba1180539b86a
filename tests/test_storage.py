"""Shares on disk: whole or not at all, for their owner alone, found again after a restart, and never trusted."""

import hashlib
import json
import os
import random
import secrets
import stat
import struct
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
from private_keras.server import limits, storage
from private_keras.server.material import Material
from private_keras.server.saving import Saving, loaded_handle
from private_keras.server.snapshot import MAGIC, SavedTensor
from private_keras.server.storage import COMMITTED, Generation, NoStorage, Storage
from private_keras.server.store import Kept, Store
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers
from tests.loops import Held, revealed


def generation(name="model", number=1):
    return Generation(name, number, secrets.token_bytes(8))


def tensors(party, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for label, shape in (("w", (3, 4)), ("b", ()), ("odd label: ä", (1, 1, 7))):
        item = SavedTensor(label, shape, 18)
        words = [rng.integers(0, 2**64, item.size, np.uint64) for _ in range(2)]
        made.append((item, Material(None if party == 2 else words[0], words[1])))
    return made


def read(disk, owner, which):
    with disk.opened(owner, which) as opened:
        return opened.head.about, list(zip(opened.head.entries, opened.read(), strict=True))


def same(found, wanted):
    assert [item for item, _ in found] == [item for item, _ in wanted]
    for (_, a), (_, b) in zip(found, wanted, strict=True):
        assert np.array_equal(a.mask, b.mask) and not a.mask.flags.writeable
        assert (a.masked is None) == (b.masked is None)
        assert a.masked is None or np.array_equal(a.masked, b.masked)


def saved(directory, party=0, owner="alice", about="", seed=0):
    disk, which = Storage(directory, "trio", party), generation()
    disk.save(owner, which, about, tensors(party, seed))
    disk.commit(owner, which)
    return disk, which


@pytest.mark.parametrize("party", [0, 1, 2])
def test_what_is_saved_is_found_by_another_process(tmp_path, party):
    _, which = saved(tmp_path, party, about="what it is: ☃")
    again = Storage(tmp_path, "trio", party)
    assert again.saved("alice") == again.saved("alice", "model") == [(which, True)]
    about, found = read(again, "alice", which)
    assert about == "what it is: ☃"
    same(found, tensors(party))
    assert again.forget("alice", [which, which]) == 1 and again.saved("alice") == []


def test_files_are_for_the_servers_user_alone(tmp_path):
    saved(tmp_path)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    os.chmod(tmp_path / "trio-server0", 0o755)
    disk = Storage(tmp_path, "trio", 0)
    for use in (lambda: disk.saved("alice"), lambda: disk.save("alice", generation(number=2), "", tensors(0))):
        with pytest.raises(SecurityError, match="own directory.*mode 0700"):
            use()


def test_nothing_is_made_before_something_is_saved(tmp_path):
    disk = Storage(tmp_path / "a" / "b", "trio", 0)
    assert disk.saved("alice") == [] and disk.forget("alice", [generation()]) == 0
    with pytest.raises(HandleNotFound), disk.opened("alice", generation()):
        pass
    assert not (tmp_path / "a").exists()


def test_a_server_without_a_directory_says_what_to_do():
    disk = Storage(None, "trio", 0)
    for call in (lambda: disk.save("a", generation(), "", []), lambda: disk.saved("a"),
                 lambda: disk.commit("a", generation())):  # fmt: skip
        with pytest.raises(NoStorage, match="--storage DIRECTORY"):
            call()


@pytest.mark.parametrize("stranger", ["bob", "", "../alice", "ALICE", "alice.", "alic"])
def test_another_identity_finds_nothing_and_removes_nothing(tmp_path, stranger):
    disk, which = saved(tmp_path)
    assert disk.saved(stranger) == [] and disk.forget(stranger, [which]) == 0
    for call in (lambda: disk.commit(stranger, which), lambda: read(disk, stranger, which)):
        with pytest.raises(HandleNotFound):
            call()
    # Nor where somebody moves the file to them: it says whose it is.
    (path,) = tmp_path.glob(f"*/*/*/*{COMMITTED}")
    disk.save(stranger, which, "", tensors(0))
    disk.commit(stranger, which)
    (target,) = set(tmp_path.glob(f"*/*/*/*{COMMITTED}")) - {path}
    os.replace(path, target)
    with pytest.raises(FileError, match="another owner"):
        read(disk, stranger, which)


def test_a_file_of_another_server_or_generation_is_refused(tmp_path):
    _, which = saved(tmp_path / "a", party=0)
    disk, other = saved(tmp_path / "b", party=1)
    (path,) = (tmp_path / "a").rglob(f"*{COMMITTED}")
    (target,) = (tmp_path / "b").rglob(f"*{COMMITTED}")
    os.replace(path, target)
    with pytest.raises(FileError, match="another owner, server or generation"):
        read(disk, "alice", other)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a b", "a\0", "ä", "x" * 81, "-x", 3, None])
def test_names_that_could_lead_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="expected a name of 1 to 80"):
        storage.check_name(name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.from_regex(storage.NAME, fullmatch=True), min_size=1, max_size=6, unique=True))
def test_any_names_live_side_by_side(tmp_path_factory, names):
    disk = Storage(tmp_path_factory.mktemp("names"), "trio", 2)
    made = {name: generation(name) for name in names}
    for which in made.values():
        disk.save("alice", which, which.name, tensors(2)[:1])
        disk.commit("alice", which)
    assert {which for which, _ in disk.saved("alice")} == set(made.values())
    for name, which in made.items():
        assert disk.saved("alice", name) == [(which, True)] and read(disk, "alice", which)[0] == name


# --- crashes ----------------------------------------------------------------------------------------------------------
class Crash(BaseException):
    """The process dies here: nothing after it runs, but for what `finally` would do in this test's process."""


CALLS = ["open", "rename", "fsync", "mkdir", "unlink"]


def crashing(monkeypatch, at):
    """Lets the `at`-th call of the file system fail, and every later one; returns how many there were."""
    count = [0]

    def wrap(honest):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] > at:
                raise Crash
            return honest(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(storage.os, name, wrap(getattr(os, name)))
    return count


def test_a_crash_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """Each server is stopped at every single call; what can be loaded afterwards is whole, and of one generation."""
    at, outcomes = 0, []
    while True:
        root = tmp_path / str(at)
        disks = [Storage(root, "trio", party) for party in range(3)]
        old, new = generation(number=1), generation(number=2)
        for party, disk in enumerate(disks):
            disk.save("alice", old, "old", tensors(party))
            disk.commit("alice", old)
        with monkeypatch.context() as patch:
            count = crashing(patch, at)
            with suppress(Crash):
                for party, disk in enumerate(disks):
                    disk.save("alice", new, "new", tensors(party, seed=1))
                for disk in disks:
                    disk.commit("alice", new)
                for disk in disks:
                    disk.forget("alice", [old])
            finished = count[0] <= at
        again = [Storage(root, "trio", party) for party in range(3)]
        assert not list(root.glob(f"*/*/*/*{storage.TEMPORARY}")), "half of a file is left"
        common = set.intersection(*({g for g, done in disk.saved("alice") if done} for disk in again))
        newest = max(common)
        for party, disk in enumerate(again):
            about, found = read(disk, "alice", newest)
            assert about == ("new" if newest == new else "old")
            same(found, tensors(party, seed=1 if newest == new else 0))
        outcomes.append(newest == new)
        if finished:
            break
        at += 1
    assert outcomes == sorted(outcomes) and outcomes[-1] and not outcomes[0] and len(outcomes) > 15


def test_files_in_use_are_not_swept(tmp_path):
    """Another server with the same directory may be writing one."""
    saved(tmp_path)
    (path,) = tmp_path.rglob(f"*{COMMITTED}")
    left, used = path.with_suffix(".left.tmp"), path.with_suffix(".used.tmp")
    left.write_bytes(b"half")
    with open(used, "wb") as file:
        storage.fcntl.flock(file, storage.fcntl.LOCK_EX)
        Storage(tmp_path, "trio", 0)
        assert used.exists() and not left.exists() and path.exists()


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    disk, which = saved(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(ClusterError, match="disk refuses: No space left"):
        disk.save("alice", generation(number=2), "", tensors(0))
    assert disk.saved("alice") == [(which, True)]
    assert len(list(tmp_path.glob("*/*/*/*"))) == 1


def test_the_disk_has_a_quota(tmp_path, monkeypatch):
    disk, which = saved(tmp_path)
    (path,) = tmp_path.rglob(f"*{COMMITTED}")
    monkeypatch.setattr(limits, "STORAGE_BYTES", path.stat().st_size + 100)
    with pytest.raises(ClusterError, match="no room for 320 bytes more on disk"):
        disk.save("alice", generation(number=2), "", tensors(0))
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MAX_SAVED", 1)
    with pytest.raises(ClusterError, match="1 of 1 files"):
        disk.save("alice", generation(number=2), "", tensors(0))
    with pytest.raises(InputError, match="saved already"):
        monkeypatch.undo()
        disk.save("alice", which, "", tensors(0))


# --- files that somebody wrote ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    disk, which = saved(directory)
    (path,) = directory.rglob(f"*{COMMITTED}")
    return disk, which, path, path.read_bytes()


def refused(original, data):
    disk, which, path, _ = original
    path.write_bytes(data)
    with pytest.raises(FileError, match="saved shares 'model'"):
        read(disk, "alice", which)


@settings(max_examples=150, deadline=None)
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


def file_of(document, words=b"", magic=MAGIC, length=None):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    data = struct.pack("<16sQ", magic, len(text) if length is None else length) + text + words
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"entries": [["w", [2**28, 2**28], 18]]}, {"entries": [["w", [0], 18]]}, {"entries": [["w", [-1], 18]]},
        {"entries": [["w", [True], 18]]}, {"entries": [["w", "11", 18]]}, {"entries": [["w\n", [1], 18]]},
        {"entries": [["w", [1]]]}, {"entries": [5]}, {"entries": {}}, {"entries": [["w", [1], 1.5]]},
        {"entries": [["w", [1], 1000]]}, {"entries": [["w", [1] * 9, 18]]}, {"party": "0"}, {"party": -1},
        {"party": True}, {"number": 1 << 64}, {"number": 1.0}, {"owner": None}, {"about": 3}, {"nonce": []},
        {"more": 1}, {"entries": [["w", [2**28], 18]] * 1000},
    ],
)  # fmt: skip
def test_headers_with_right_checksums_and_wrong_contents_are_refused(original, change):
    length = struct.unpack_from("<Q", original[3], 16)[0]
    document = {**json.loads(original[3][24 : 24 + length]), **change}
    refused(original, file_of(document, original[3][24 + length : -32]))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", file_of(b"{}", magic=b"other"), file_of(b"{}", length=1 << 62), file_of(b"[" * 200_000),
        file_of(b"null"), file_of(b"\xff"), file_of(b'{"party": ' + b"9" * 5000 + b"}"), file_of(b"{}", length=0),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_refused(original, data):
    refused(original, data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(original, data):
    refused(original, data)
    refused(original, file_of(data))


# --- calls ------------------------------------------------------------------------------------------------------------
def save_request(store, which, labels=("w",), shape=(4,), fraction=18, owner="alice"):
    entries = []
    for label in labels:
        handle = secrets.token_bytes(16)
        part = Material(np.zeros(4, np.uint64), np.ones(4, np.uint64))
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
    saving = Saving(Storage(tmp_path, "trio", 0), store)
    with pytest.raises(error, match=message):
        saving.save(save_request(store, generation(), **changes), iter([]), "alice")
    assert not list(tmp_path.rglob("*.written"))


def test_loading_takes_room_first_and_gives_it_back(tmp_path):
    store = Store(quota=300)
    saving, which = Saving(Storage(tmp_path, "trio", 0), store), generation()
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
        assert len(list(tmp_path.rglob(f"*{COMMITTED}"))) == 3


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
        assert not list(tmp_path.rglob(f"*{storage.TEMPORARY}"))


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
        assert len(list(local._storage.rglob(f"*{COMMITTED}"))) == 3
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
        (path,) = local._storage.glob(f"trio-server1/*/*/*{COMMITTED}")
        data = bytearray(path.read_bytes())
        data[-40] ^= 1
        path.write_bytes(data)
        before = [c.health().stored_bytes for c in local._clients]
        with pytest.raises(FileError, match="server1: saved shares 'm': the checksum is wrong"):
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

