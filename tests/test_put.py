"""Data that goes to the servers' disks as it comes, and jobs that read of it what they need."""

import os
import resource
import secrets
import subprocess
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.cluster import Column, LocalCluster, Loop, Rows, SimulatedCluster, connect, putting
from private_keras.cluster.client import ServerClient
from private_keras.errors import ClusterError, FileError, HandleNotFound, InputError, PrivateKerasError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.ring import default_kernel
from private_keras.server import limits, sealed
from private_keras.server.entries import SavedTensor
from private_keras.server.mapped import HANDLE_BYTES, Mapped, disk_bytes
from private_keras.server.material import Material, helper_material, masked_words, masks
from private_keras.server.policy import Policy
from private_keras.server.saving import loaded_handle
from private_keras.server.sealed import CHUNK_BYTES, Cache
from private_keras.server.sizes import material_bytes, seed_bytes
from private_keras.server.storage import Generation, Storage
from private_keras.server.store import Store
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import TlsServers, saving_of
from tests.loops import Held, revealed
from tests.test_faults import eventually

KERNEL = default_kernel(1)
RNG = np.random.default_rng(5)
# Larger than what is read when it is loaded, and than a chunk; rows that end nowhere near the end of a chunk.
LARGE = np.round(RNG.normal(size=(1501, 7, 13)) * 100) / 128
SMALL = RNG.integers(-5, 5, (1501,))


def column(array, fraction=18, rows=100):
    def blocks():
        for start in range(0, len(array), rows):
            yield array[start : start + rows]

    return Column(array.shape, fraction, str(array.dtype), blocks)


def columns():
    return {"x": column(LARGE), "y": column(SMALL, 0, 7)}


def files(directory):
    return list(directory.rglob("*.sealed"))


# --- one server -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[(party, seeded) for party in range(3) for seeded in (True, False)], ids=str)
def on_disk(request, tmp_path_factory):
    """A tensor in memory, and the same on disk after another one."""
    party, seeded = request.param
    words = RNG.integers(0, 2**64, 9 * CHUNK_BYTES // 8 + 31, np.uint64)
    seeds = secrets.token_bytes(seed_bytes(party))
    if seeded and party == 2:
        part = helper_material(KERNEL, seeds, words.size)
    else:
        mask = masks(KERNEL, seeds, words.size) if seeded else RNG.integers(0, 2**64, words.size, np.uint64)
        part = Material(words, mask)
    storage = Storage(tmp_path_factory.mktemp("disk"), "trio", party)
    which = Generation("x", 1, bytes(8))
    entries = [SavedTensor("before", (5,), 0), SavedTensor("x", words.shape, 0, "", seeded)]
    ties = [{peer: bytes([i, peer]) * 16 for peer in {0, 1, 2} - {party}} for i in range(2)]
    with storage.writing("alice", which, "", entries, Policy(), ties) as writer:
        writer.feed(bytes(disk_bytes(party, 5, False)))
        if seeded:
            writer.feed(seeds)
            writer.feed(b"" if party == 2 else words.tobytes())
        else:
            for piece in part.pieces():
                writer.feed(piece)
    storage.commit("alice", which)
    return part, storage.opened("alice", which).tensors(KERNEL)[1]


def same(a, b):
    assert np.array_equal(a.mask, b.mask) and not b.mask.flags.writeable
    assert np.array_equal(a.words, b.words) and not b.words.flags.writeable


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_of_a_tensor_on_disk_are_those_of_the_same_in_memory(on_disk, data):
    part, mapped = on_disk
    row = data.draw(st.sampled_from([1, 2, 3, 91, 4097, part.size]))
    size = part.size // row * row
    part = Material(part.words[:size], part.mask[:size])
    row_number = st.integers(0, size // row - 1)
    runs = data.draw(st.lists(st.tuples(row_number, st.integers(1, 40)), min_size=1, max_size=8))
    indices = np.concatenate([np.arange(a, min(a + n, size // row)) for a, n in runs]).astype(np.uint32)
    same(part.rows(indices, row), mapped.rows(indices, row))


def test_a_tensor_on_disk_can_be_read_whole_and_copied(on_disk):
    part, mapped = on_disk
    same(part, mapped.whole())
    assert mapped.whole().token is mapped.token and mapped.size == part.size
    data = b"".join(mapped.pieces())
    if not mapped.seeded:
        assert data == b"".join(part.pieces())
    assert mapped.memory_bytes == part.nbytes


def test_few_chunks_are_kept():
    cache = Cache(3 * CHUNK_BYTES)
    for index in range(5):
        cache.put(0, index, bytes([index]))
        assert cache.get(0, 0) == (b"\0" if index < 5 else None)
    assert [cache.get(0, index) is None for index in range(5)] == [False, True, True, False, False]
    assert cache.get(1, 4) is None


def test_masks_of_any_part_are_those_of_the_whole():
    seeds = secrets.token_bytes(32)
    whole = masks(KERNEL, seeds, 100)
    for start in range(7):
        assert np.array_equal(masks(KERNEL, seeds, 50, start), whole[start : start + 50])
    elements = np.arange(100, dtype=np.uint64)
    assert np.array_equal(masked_words(elements[3:], KERNEL, seeds, 3), (elements + whole)[3:])


@pytest.fixture
def saving(tmp_path):
    storage = Storage(tmp_path, "trio", 0)
    return saving_of(storage, Store(), KERNEL), storage


WHICH = Generation("data", 1, bytes(range(8)))


def head(which=WHICH, shape=(10,), **more):
    about = {"label": "x", "shape": shape, "fraction": 18, "dtype": "float32"}
    about |= {key: more.pop(key) for key in ("label", "fraction", "dtype") if key in more}
    snapshot = wire.Snapshot(name=which.name, number=which.number, nonce=which.nonce, owner=more.pop("owner", ""))
    return wire.PutRequest(snapshot=snapshot, entries=[wire.Entry(**about)], **more)


def stream(*pieces):
    return [wire.PutRequest(data=piece) for piece in pieces]


def put(saving, *requests, identity="alice"):
    requests = iter(requests)
    return saving.put(next(requests), requests, identity)


def test_pieces_of_any_size_are_one_stream(saving, tmp_path):
    service, storage = saving
    data = secrets.token_bytes(material_bytes(0, 10))
    reply = put(service, head(data=data[:1]), *stream(data[1:16], data[16:17], data[17:], b""))
    assert reply.stored == files(tmp_path)[0].stat().st_size
    storage.commit("alice", WHICH)
    (part,) = storage.opened("alice", WHICH).tensors(KERNEL)
    assert b"".join(part.pieces()) == data
    assert np.array_equal(part.whole().mask, masks(KERNEL, data[:16], 10))


ENTRY = wire.Entry(label="z", shape=[1], fraction=0)


@pytest.mark.parametrize(
    ("requests", "error", "message"),
    [
        ([head(), *stream(bytes(95))], InputError, "expected 96 bytes of material. Received: 95"),
        ([head(), *stream(bytes(97))], InputError, "expected 96 bytes more of material. Received: 97"),
        ([head(), *stream(bytes(96), b"x")], InputError, "expected 0 bytes more"),
        ([head()], InputError, "expected 96 bytes of material. Received: 0"),
        ([head(), *stream(bytes(5)), wire.PutRequest(entries=[ENTRY])], InputError, "before their material"),
        ([head(), head()], InputError, "'x' twice"),
        ([head(label="a\nb")], InputError, "label of a saved tensor"),
        ([head(dtype="x" * 30)], InputError, "dtype of a saved tensor"),
        ([head(fraction=99)], InputError, "fraction of a saved tensor"),
        ([head(shape=(limits.SAVED_ELEMENTS, 2))], InputError, "shape of a saved tensor: expected at most"),
        ([head(shape=(0,))], InputError, "each size"),
        ([head(shape=(1,) * 9)], InputError, "axes"),
        ([head(shape=(limits.SAVED_ELEMENTS,)), *stream(bytes(10))], ClusterError, "disk refuses|bytes"),
        ([head(policy="{")], InputError, "policy as JSON"),
        ([head(about="x" * (limits.ABOUT_BYTES + 1))], InputError, "description of at most"),
        ([head(Generation("../x", 1, bytes(8)))], InputError, "expected a name"),
        ([head(Generation("x", 1, bytes(7)))], InputError, "nonce of 8 bytes"),
        ([head(owner="bob")], SecurityError, "caller's own"),
        ([wire.PutRequest(snapshot=head().snapshot)], InputError, "at least one tensor"),
    ],
)  # fmt: skip
def test_streams_that_do_not_fit_leave_nothing(saving, tmp_path, monkeypatch, requests, error, message):
    service, storage = saving
    monkeypatch.setattr(limits, "OWNER_STORAGE_BYTES", 1 << 20)
    with pytest.raises(error, match=message):
        put(service, *requests)
    assert not files(tmp_path) and not storage.catalogue.names.files()
    if storage.catalogue.fact("key") is not None:
        put(service, head(), *stream(bytes(96)))  # nor anything in the way of the next one


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(
        st.builds(
            wire.PutRequest, data=st.binary(max_size=120), about=st.text(max_size=3), policy=st.text(max_size=3),
            entries=st.lists(st.builds(
                wire.Entry, label=st.text(max_size=3), shape=st.lists(st.integers(0, 2**32 - 1), max_size=3),
                fraction=st.integers(0, 70), handle=st.binary(max_size=16),
            ), max_size=2),
            snapshot=st.builds(wire.Snapshot, name=st.text(max_size=3), nonce=st.binary(min_size=7, max_size=8)),
        ), min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_messages_are_taken_whole_or_refused(tmp_path_factory, requests):
    directory = tmp_path_factory.mktemp("fuzz")
    storage = Storage(directory, "trio", 0)
    try:
        put(saving_of(storage, Store(), KERNEL), *requests)
    except PrivateKerasError:
        assert not files(directory)
    else:
        assert len(files(directory)) == 1
    storage.catalogue.close()


def test_a_replayed_upload_is_refused_for_ever(saving, tmp_path):
    service, storage = saving
    upload = [head(), *stream(bytes(96))]
    put(service, *upload)
    for step in (lambda: None, lambda: storage.commit("alice", WHICH), lambda: storage.forget("alice", [WHICH])):
        step()
        with pytest.raises(InputError, match="this generation is saved already"):
            put(service, *upload)
    assert not files(tmp_path)
    put(service, *upload, identity="bob")


def test_a_client_that_is_gone_in_the_middle_leaves_nothing(saving, tmp_path):
    class Gone(Exception):
        pass

    def requests():
        yield head()
        yield wire.PutRequest(data=bytes(50))
        assert len(files(tmp_path)) == 1
        raise Gone

    service, storage = saving
    with pytest.raises(Gone):
        rest = requests()
        service.put(next(rest), rest, "alice")
    assert not files(tmp_path) and not storage.catalogue.names.files()


def test_large_tensors_take_no_memory_until_they_are_wanted_whole(saving):
    service, storage = saving
    store = service._store
    data = secrets.token_bytes(material_bytes(0, 10**5))
    put(service, head(shape=(10**5,)), *stream(data))
    storage.commit("alice", WHICH)
    base = secrets.token_bytes(16)
    list(service.load(wire.LoadRequest(snapshot=head().snapshot, base=base), "alice"))
    handle = loaded_handle(base, 0)
    assert store.nbytes == HANDLE_BYTES and isinstance(store.get(handle, "alice", "x"), Mapped)
    token = store.get(handle, "alice", "x").token
    with pytest.raises(HandleNotFound):
        store.whole(handle, "bob", "x")
    whole = store.whole(handle, "alice", "x")
    assert store.get(handle, "alice", "x") is whole and store.whole(handle, "alice", "x") is whole
    assert store.nbytes == HANDLE_BYTES + whole.nbytes and whole.token is token
    weighted = store.with_operand(handle, "alice", "x")
    assert np.array_equal(weighted.operand, whole.words - whole.mask - whole.mask) and weighted.token is token
    assert store.holds([(handle, weighted)], "alice") and store.nbytes == HANDLE_BYTES + whole.nbytes * 3 // 2
    store.delete([handle], "alice")
    assert store.nbytes == 0


def test_what_is_wanted_whole_takes_room_first(saving):
    service, storage = saving
    store = service._store = Store(quota=10**5)
    put(service, head(shape=(10**5,)), *stream(bytes(material_bytes(0, 10**5))))
    storage.commit("alice", WHICH)
    base = secrets.token_bytes(16)
    list(service.load(wire.LoadRequest(snapshot=head().snapshot, base=base), "alice"))
    with pytest.raises(ClusterError, match="no room for 1600000 bytes"):
        store.whole(loaded_handle(base, 0), "alice", "x")
    assert store.nbytes == HANDLE_BYTES


def test_what_was_loaded_can_be_saved_under_another_name_without_being_read_whole(saving):
    service, storage = saving
    data = secrets.token_bytes(material_bytes(0, 10**5))
    put(service, head(shape=(10**5,)), *stream(data))
    storage.commit("alice", WHICH)
    base = secrets.token_bytes(16)
    list(service.load(wire.LoadRequest(snapshot=head().snapshot, base=base), "alice"))
    other = Generation("copy", 1, bytes(8))
    entry = wire.Entry(label="y", handle=loaded_handle(base, 0), shape=[10, 10**4], fraction=3)
    snapshot = wire.Snapshot(name="copy", number=1, nonce=bytes(8))
    service.save(wire.SaveRequest(snapshot=snapshot, entries=[entry]), iter([]), "alice")
    storage.commit("alice", other)
    (part,) = storage.opened("alice", other).tensors(KERNEL)
    assert part.seeded and b"".join(part.pieces()) == data and service._store.nbytes == HANDLE_BYTES


def test_a_disk_that_fails_while_it_is_read_is_an_error_of_whoever_reads(on_disk, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    part, mapped = on_disk
    monkeypatch.setattr(mapped._sealed, "_cache", Cache(CHUNK_BYTES))
    monkeypatch.setattr(sealed.os, "pread", broken)
    if mapped.seeded and mapped._party == 2:  # the helper has its seeds since it loaded, and needs the disk no more
        np.testing.assert_array_equal(mapped.whole().mask, part.mask)
        return
    with pytest.raises(ClusterError, match="disk refuses: Input/output error"):
        mapped.whole()
    monkeypatch.setattr(sealed.os, "pread", lambda descriptor, count, start: b"")
    with pytest.raises(FileError, match="damaged"):
        mapped.whole()


# --- clusters ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def local(tmp_path_factory):
    with LocalCluster(storage=tmp_path_factory.mktemp("storage") / "disk") as made:
        yield made


@pytest.fixture(params=["simulated", "local"])
def cluster(request):
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with SimulatedCluster() as made:
            yield made


def rows_plan(rows, shape, fraction):
    b = PlanBuilder()
    x = b.input("x", (rows, *shape), fraction, "client", "rows")
    b.output(b.add("reduce_sum", x, axes=[0], keepdims=False), "sum", ["client"])
    b.output(x, "rows", ["client"])
    return b.build("rows", "reveal")


def check(cluster, name="data"):
    """Everything is there: some rows out of order, rows in another form, and the whole."""
    with Held(cluster) as held:
        handles, about = cluster.load(name)
        held.own(handles)
        x, y = handles["x"], handles["y"]
        assert (x.shape, x.fraction, x.dtype, x.owner) == (LARGE.shape, 18, "float64", "")
        assert (y.shape, y.fraction, y.dtype) == (SMALL.shape, 0, "int64")
        taken = np.array([[1500, 3, 4, 5, 0], [7, 7, 1, 900, 901]])
        plan = rows_plan(5, LARGE.shape[1:], 18)
        got = cluster.run(plan, {"x": Rows(x, taken)}, loop=Loop(2))
        np.testing.assert_array_equal(got["rows"], LARGE[taken[1]])
        got = cluster.run(rows_plan(5, (), 0), {"x": Rows(y, taken[:1])})
        np.testing.assert_array_equal(got["rows"], SMALL[taken[0]])
        whole = revealed(cluster, handles)
        np.testing.assert_array_equal(whole["x"], LARGE)
        np.testing.assert_array_equal(whole["y"], SMALL)
        np.testing.assert_array_equal(cluster.run(plan, {"x": Rows(x, taken[:1])})["rows"], LARGE[taken[0]])
    return about


def test_what_is_put_can_be_loaded_by_rows_and_whole(cluster):
    told = []
    cluster.put("data", columns(), "about it", progress=lambda *done: told.append(done))
    total = LARGE.size + SMALL.size
    assert told[-1] == (total, total) and told == sorted(told) and len(told) > 2
    assert cluster.saved() == ["data"] and check(cluster) == "about it"
    cluster.put("data", {"y": column(SMALL, 0)})
    handles, about = cluster.load("data")
    assert list(handles) == ["y"] and about == ""
    cluster.delete(*handles.values())
    cluster.forget("data")
    with pytest.raises(HandleNotFound):
        cluster.load("data")


def test_large_tensors_stay_on_the_disks_of_servers(local):
    before = [client.health().stored_bytes for client in local._clients]
    local.put("data", {"x": column(LARGE)})
    handles, _ = local.load("data")
    taken = np.arange(1500).reshape(15, 100)
    local.run(rows_plan(100, LARGE.shape[1:], 18), {"x": Rows(handles["x"], taken)}, loop=Loop(15))
    assert [client.health().stored_bytes for client in local._clients] == [n + HANDLE_BYTES for n in before]
    # 8 bytes an element on the disk of an evaluator, next to nothing on the helper's.
    sizes = [files(local._storage / f"trio-server{party}")[0].stat().st_size for party in range(3)]
    assert sizes[0] == sizes[1] < 8.1 * LARGE.size and sizes[2] < 150
    local.delete(*handles.values())
    local.forget("data")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Received: 0 items"), ({"x": LARGE}, "items of other types"),
        ({"x": Column((0, 2), 18, "f", lambda: iter([]))}, "each size"),
        ({"x": Column((2,), 18, "f" * 30, lambda: iter([]))}, "dtype"),
        ({"x": Column((3, 2), 18, "f", lambda: iter([np.ones((2, 2))]))}, "Received: 4 of 6 elements"),
        ({"x": Column((3, 2), 18, "f", lambda: iter([np.ones((2, 2))] * 2))}, "Received: more rows"),
        ({"x": Column((3, 2), 18, "f", lambda: iter([np.ones((3, 3))]))}, "a block of shape .3, 3."),
        ({"x": Column((3, 2), 18, "f", lambda: iter([np.ones(6)]))}, "a block of shape .6,."),
        ({"x": column(LARGE), "z": column(np.full(2000, np.nan))}, "z: 100 of 100 values are NaN"),
        ({"x": column(LARGE), "z": column(np.full(2000, 2.0**30))}, "z: some values are outside"),
        ({"x": column(np.array(["a"] * 3))}, "real numbers"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_refused_and_nothing_is_left(cluster, given, message):
    with pytest.raises(InputError, match=message):
        cluster.put("data", given)
    assert cluster.saved() == []
    if isinstance(cluster, LocalCluster):
        assert not files(cluster._storage)


def test_errors_of_whoever_reads_the_data_come_through(cluster):
    class Broken(Exception):
        pass

    def blocks():
        yield LARGE[:1000]
        raise Broken

    with pytest.raises(Broken):
        cluster.put("data", {"x": Column(LARGE.shape, 18, "float64", blocks)})
    assert cluster.saved() == []


def test_an_interrupt_in_the_middle_leaves_nothing_and_the_cluster_goes_on(local):
    def stop(done, total):
        if done > total / 3:
            raise KeyboardInterrupt

    local.put("data", columns(), "before")
    with pytest.raises(KeyboardInterrupt):
        local.put("data", columns(), "after", progress=stop)
    assert len(files(local._storage)) == 3 and check(local) == "before"
    local.forget("data")


def test_every_upload_has_fresh_masks(local, monkeypatch):
    """What the servers receive for the same data twice has nothing in common, and each alone is random words."""
    seen = []
    honest = ServerClient.put

    def watching(self, generation, entries, about, policy, data):
        pieces = list(data)
        seen.append((self.name, b"".join(pieces)))
        honest(self, generation, entries, about, policy, iter(pieces))

    monkeypatch.setattr(ServerClient, "put", watching)
    monkeypatch.setattr(putting, "AHEAD", 100)
    zeros = np.zeros(5000)
    for _ in range(2):
        local.put("data", {"x": column(zeros), "y": column(zeros)})
    local.forget("data")
    by_server = {name: [data for server, data in seen if server == name] for name in ("server0", "server1", "server2")}
    assert [len(data) for data in by_server["server2"]] == [64, 64]
    chunks = [data[i : i + 16] for data in by_server["server0"] for i in range(0, len(data), 16)]
    assert len(set(chunks)) == len(chunks)
    for first, second, both in zip(*by_server.values(), strict=True):
        size = material_bytes(0, 5000)
        for at, tensor in enumerate(first[i : i + size] for i in (0, size)):
            seeds = tensor[:16], second[at * size : at * size + 16]
            assert b"".join(seeds) == both[32 * at : 32 * at + 32]
            assert tensor[16:] == second[at * size + 16 : at * size + size]
            words = np.frombuffer(tensor[16:], np.uint64)
            assert np.array_equal(words, masks(KERNEL, seeds[0], 5000) + masks(KERNEL, seeds[1], 5000))
            assert 0.49 < np.unpackbits(np.frombuffer(tensor[16:], np.uint8)).mean() < 0.51


@pytest.mark.parametrize("party", range(3))
def test_a_full_disk_is_an_error_that_names_the_server_and_room_is_given_back(local, party):
    """A limit on the size of files stands for a disk without room."""
    none = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    full = 200 if party == 2 else 10**6
    tensors = {f"x{i}": column(LARGE[:600]) for i in range(10)}  # the helper stores 320 bytes of it
    resource.prlimit(local.pids[party], resource.RLIMIT_FSIZE, (full, none[1]))
    try:
        with pytest.raises(ClusterError, match=f"server{party}: .*disk refuses"):
            local.put("data", tensors)
    finally:
        resource.prlimit(local.pids[party], resource.RLIMIT_FSIZE, none)
    assert local.saved() == [] and not files(local._storage)
    local.put("data", columns())
    check(local)
    local.forget("data")


@pytest.mark.parametrize("party", range(3))
def test_a_server_killed_during_an_upload_leaves_nothing_half_written(tmp_path, party):
    disk = tmp_path / "disk"
    with LocalCluster(storage=disk) as cluster:
        cluster.put("old", columns(), "kept")

        def kill(done, total):
            if done > total / 2:
                with suppress(ProcessLookupError):
                    os.kill(cluster.pids[party], 9)

        with pytest.raises(ClusterError):
            cluster.put("data", columns(), progress=kill)
        with suppress(PrivateKerasError):
            cluster.saved()  # notices the loss
        assert cluster.saved() == ["old"] and check(cluster, "old") == "kept"
        # The helper's part is small: whole before the kill, maybe. The next upload of the name takes it away.
        alive = [path for path in files(disk) if f"server{party}" not in str(path.relative_to(disk))]
        assert len(alive) == 2, "room is given back at once"
        cluster.put("data", columns(), "again")
        assert len(files(disk)) == 6
        # What was acknowledged outlives a kill of all.
        for pid in cluster.pids:
            os.kill(pid, 9)
        with suppress(PrivateKerasError):
            cluster.saved()
        assert cluster.saved() == ["data", "old"] and check(cluster, "data") == "again"


@pytest.mark.parametrize(("party", "when"), [(0, "before"), (2, "before"), (1, "after")])
def test_a_server_killed_at_the_commit_leaves_the_old_or_the_new(tmp_path, monkeypatch, party, when):
    honest = ServerClient.commit

    with LocalCluster(storage=tmp_path / "disk") as cluster:
        cluster.put("data", columns(), "old")

        def dying(self, generation):
            if self.name == f"server{party}" and when == "before":
                os.kill(cluster.pids[party], 9)
            honest(self, generation)
            if self.name == f"server{party}":
                os.kill(cluster.pids[party], 9)

        with monkeypatch.context() as patch:
            patch.setattr(ServerClient, "commit", dying)
            if when == "before":
                with pytest.raises(ClusterError):
                    cluster.put("data", columns(), "new")
            else:
                cluster.put("data", columns(), "new")
        with suppress(PrivateKerasError):
            cluster.saved()  # notices the loss
        assert cluster.saved() == ["data"]
        assert check(cluster) == ("old" if when == "before" else "new")
        cluster.put("data", columns(), "last")
        assert check(cluster) == "last" and len(files(tmp_path / "disk")) == 3


@pytest.mark.parametrize("party", range(3))
def test_a_server_killed_in_a_job_on_data_on_disk_costs_no_second_upload(tmp_path, party):
    with LocalCluster(storage=tmp_path / "disk") as cluster:
        cluster.put("data", columns())
        handles, _ = cluster.load("data")
        plan, order = rows_plan(5, LARGE.shape[1:], 18), np.arange(10**5).reshape(-1, 5) % 1501
        kill = Loop(len(order), lambda done: os.kill(cluster.pids[party], 9) if 0 < done < len(order) else None)
        with pytest.raises(ClusterError, match=f"server{party}"):
            cluster.run(plan, {"x": Rows(handles["x"], order)}, loop=kill)
        with suppress(PrivateKerasError):
            cluster.saved()  # notices the loss
        assert cluster.saved() == ["data"]
        check(cluster)


def test_owners_data_over_tls_are_used_by_whom_they_name_and_by_nobody_else(tmp_path):
    with TlsServers(tmp_path, ("owner", "analyst", "other")) as servers:
        for party in range(3):
            servers.stop(party)
            servers.start(party, storage=tmp_path / f"disk{party}")
        for party in range(3):
            servers.wait_listening(party, starts=2)
        policy = Policy(use=["analyst"], plans=["evaluate"], reveal_to=["analyst"])
        with connect(servers.config, identity="owner") as owner:
            owner.put("data", columns(), "owned", policy)
            assert check(owner) == "owned"
        for party in range(3):
            key = tmp_path / "keys" / f"server{party}.store"
            assert key.stat().st_size == 32 and not list((tmp_path / f"disk{party}").rglob("*.store"))
        with connect(servers.config, identity="analyst") as analyst, connect(servers.config, identity="other") as other:
            handles, about = analyst.load("data", "owner")
            assert about == "owned" and handles["x"].owner == "owner" and handles["y"].dtype == "int64"
            b = PlanBuilder()
            x = b.input("x", (7, *LARGE.shape[1:]), 18, "owner", "rows")
            squares = b.add("truncate", b.add("multiply", x, x), bits=18)
            b.output(b.add("reduce_sum", squares, axes=[0, 1, 2], keepdims=False), "sum", ["client"])
            taken = np.arange(700, 707)[None]
            got = analyst.run(b.build("sum", "evaluate"), {"x": Rows(handles["x"], taken)})["sum"]
            np.testing.assert_allclose(got, (LARGE[700:707] ** 2).sum(), atol=0.01)
            analyst.delete(*handles.values())
            assert analyst.saved() == other.saved() == []
            for who, whose in ((other, "owner"), (other, None), (analyst, None), (analyst, "other")):
                with pytest.raises(HandleNotFound, match="'data'"):
                    who.load("data", whose)


def test_a_client_that_goes_away_during_an_upload_leaves_nothing(local):
    release = threading.Event()

    def slow():
        yield head(Generation("data", 1, secrets.token_bytes(8)), (10**6,))
        yield wire.PutRequest(data=bytes(100))
        release.wait(60)

    call = local._clients[0]._calls_to("Put")["stream_unary"].future(slow(), timeout=100)
    deadline = time.monotonic() + 60
    while not files(local._storage):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    call.cancel()
    release.set()
    while files(local._storage):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert local.saved() == []


def test_uploads_of_one_name_at_once_leave_one_of_them_whole(local):
    arrays = [np.full((3000, 50), float(value)) for value in range(3)]
    done = []

    def put_one(value):
        try:
            local.put("data", {"x": column(arrays[value])}, str(value))
            done.append(str(value))
        except HandleNotFound:
            pass  # one that began later, and came to its end before this one's commit, has taken its place

    threads = [threading.Thread(target=put_one, args=(value,)) for value in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with Held(local) as held:
        handles, about = local.load("data")
        assert about in done
        held.own(handles)
        np.testing.assert_array_equal(revealed(local, handles)["x"], arrays[int(about)])
    local.put("data", columns())
    assert len(files(local._storage)) == 3, "the next upload removes what is left of those before"
    local.forget("data")


def test_a_job_goes_on_with_data_that_are_replaced_or_forgotten_meanwhile(local):
    local.put("data", {"x": column(LARGE)})
    handles, _ = local.load("data")
    order = np.arange(20_000).reshape(-1, 5) % 1501
    told = []

    def replaced(done):
        if not told:
            local.put("data", {"x": column(-LARGE)})
            local.forget("data")
            assert not files(local._storage)
        told.append(done)

    plan = rows_plan(5, LARGE.shape[1:], 18)
    got = local.run(plan, {"x": Rows(handles["x"], order)}, loop=Loop(len(order), replaced))
    assert told[0] < len(order)
    np.testing.assert_array_equal(got["rows"], LARGE[order[-1]])
    local.delete(*handles.values())


def test_many_names_can_be_loaded_at_once(local):
    """Each is a file that stays open, shared by all of its handles, until the last of them is deleted."""
    for pid in local.pids:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert soft == hard

    def used():
        found = []
        for pid in local.pids:
            found.append(0)
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):  # closed meanwhile
                    found[-1] += ".sealed" in os.readlink(f"/proc/{pid}/fd/{number}")
        return found

    for number in range(5):
        local.put(f"data{number}", {"x": column(LARGE), "again": column(LARGE)})
    before = used()
    handles = [h for _ in range(3) for number in range(5) for h in local.load(f"data{number}")[0].values()]
    assert len(handles) == 30 and [after - n for after, n in zip(used(), before, strict=True)] == [5] * 3
    local.delete(*handles)
    assert eventually(lambda: used() == before)
    for number in range(5):
        local.forget(f"data{number}")


def test_damage_is_found_by_the_job_that_reads_it(local):
    local.put("data", {"x": column(LARGE)})
    handles, _ = local.load("data")
    path = files(local._storage / "trio-server1")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    plan = rows_plan(10, LARGE.shape[1:], 18)
    good = local.run(plan, {"x": Rows(handles["x"], np.arange(10)[None])})["rows"]
    np.testing.assert_array_equal(good, LARGE[:10])
    with pytest.raises(FileError, match="server1: saved shares 'data': damaged"):
        local.run(rows_plan(1501, LARGE.shape[1:], 18), {"x": Rows(handles["x"], np.arange(1501)[None])})
    local.delete(*handles.values())
    local.forget("data")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB, where this user may mount one."""
    place = tmp_path / "small"
    place.mkdir(0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_really_full_refuses_what_does_not_fit_and_keeps_what_it_has(small_disk):
    storage = Storage(small_disk / "disk", "trio", 0)
    service, kept = saving_of(storage, Store(), KERNEL), 0
    entry = {"shape": (40_000,)}
    upload = stream(bytes(material_bytes(0, 40_000)))
    with pytest.raises(ClusterError, match="disk refuses: .*(No space left|full)"):
        for kept in range(100):
            which = Generation(f"data{kept}", 1, bytes(8))
            put(service, head(which, **entry), *upload)
            storage.commit("alice", which)
    assert 5 < kept < 15 and len(files(small_disk)) == kept == len(list(storage.saved("alice")))
    with pytest.raises(ClusterError, match="disk refuses: .*(No space left|full)"):
        # Until the catalogue itself has no room.
        for number in range(10_000):
            put(service, head(Generation(f"small{number}", 1, bytes(8)), about="x" * 5000), *stream(bytes(96)))
    assert storage.vault.problem() == ""
    again = Storage(small_disk / "disk", "trio", 0)
    states = {row.source.name: row.state for row in again.saved("alice")}
    assert [states[f"data{i}"] for i in range(kept)] == ["committed"] * kept
    for i in range(kept):
        (part,) = again.opened("alice", Generation(f"data{i}", 1, bytes(8))).tensors(KERNEL)
        assert not part.whole().words.any()
    # What is forgotten makes room again, also where the catalogue has next to none.
    assert again.forget("alice", [Generation("data0", 1, bytes(8))]) == 1
    upload = stream(bytes(material_bytes(0, 20_000)))
    put(saving_of(again, Store(), KERNEL), head(Generation("new", 1, bytes(8)), (20_000,)), *upload)
