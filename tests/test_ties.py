"""Parts of a tensor that do not belong together: what they would open, and that servers do not compute on them."""

import secrets
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_keras.cluster import LocalCluster, Loop, Rows
from private_keras.cluster import cluster as client_side
from private_keras.cluster.client import ServerClient
from private_keras.errors import SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.ring import default_kernel
from private_keras.ring.fixedpoint import encode
from private_keras.server.collect import Collected
from private_keras.server.material import Receiver, split
from private_keras.server.sizes import material_bytes
from private_keras.server.ties import (
    NO_TIE,
    TIE_BYTES,
    Tying,
    TyingMany,
    common,
    computed_ties,
    packed,
    seed_ties,
    unpacked,
)  # fmt: skip
from tests.clusters import dense_data, dense_plan
from tests.loops import reveal_plan
from tests.test_faults import eventually
from tests.test_put import column
from tests.trio import Session, ring, signed

PLAN, DATA = dense_plan(), dense_data()
RESULT = np.maximum(DATA["x"] @ DATA["w"], 0)
KERNEL = default_kernel()
PAIRS = [(0, 1), (0, 2), (1, 2)]


def test_parts_apart_would_open_what_a_mask_hides():
    """Why servers compare them: twice is enough to read y, and once with a server that passes on what it has."""
    x, y = ring([[3]]), ring([[1000]])

    def opened(party):
        seen = {}

        def twist(number, parts):
            if number == 0:
                m, mask = parts[party]
                parts[party] = m + np.uint64(1), mask
            else:
                seen["y"] = parts
            return parts

        result = Session(twist=twist).run(lambda p, a, b: p.bilinear(KERNEL.matmul, (1, 1), a, b, twice=True), x, y)
        return int(signed(result).reshape(())), seen["y"]

    for party, sign in ((0, -1), (1, 1)):
        value, ((_, l0), (_, l1), _) = opened(party)
        apart = int(signed(l0 - l1).reshape(()))  # s: neither server knows it, nor does the owner of x
        assert (value - 2 * 3 * 1000) % 2**64 == (1000 + sign * apart) % 2**64


# --- ties -------------------------------------------------------------------------------------------------------------
def parts_of(elements, seeds=None):
    """Each party's material as it is sent."""
    seeds = seeds or (secrets.token_bytes(16), secrets.token_bytes(16))
    values = np.random.default_rng(elements).integers(0, 2**64, elements, np.uint64)
    return [seed + words.tobytes() for seed, words in split(values, KERNEL, seeds)]


def ties_of(party, material, elements):
    tying = Tying(party, elements)
    tying.feed(material)
    return tying.ties()


@given(st.integers(1, 40), st.data())
def test_parts_that_belong_together_agree_in_each_pair_and_others_do_not(elements, data):
    parts = parts_of(elements)
    ties = [ties_of(party, parts[party], elements) for party in range(3)]
    assert all(ties[a][b] == ties[b][a] for a, b in PAIRS)
    assert len({tie for of in ties for tie in of.values()}) == 3
    party = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, len(parts[party]) - 1))
    changed = bytearray(parts[party])
    changed[place] ^= data.draw(st.integers(1, 255))
    other = ties_of(party, bytes(changed), elements)
    assert [other[peer] == ties[party][peer] for peer in other].count(False) == 1
    assert set(ties_of(party, parts[party], elements + 1).values()).isdisjoint(ties[party].values())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2), st.data())
def test_ties_do_not_depend_on_how_material_is_cut(sizes, party, data):
    materials = [parts_of(size)[party] for size in sizes]
    whole = b"".join(materials)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    many = TyingMany(party, [np.empty(size) for size in sizes])
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        many.feed(whole[start:end])
    expected = [ties_of(party, material, size) for material, size in zip(materials, sizes, strict=True)]
    assert many.ties() == expected
    assert unpacked(party, packed(expected)) == expected and len(packed(expected)) == 2 * TIE_BYTES * len(sizes)
    receiver = Receiver(party, sizes[0], "x")
    for byte in materials[0]:
        receiver.feed(bytes([byte]))
    assert receiver.finish(KERNEL).ties == expected[0]


def test_words_that_come_after_their_seeds_are_tied_as_if_they_had_come_together():
    for party, material in enumerate(parts_of(5)):
        seeds = material[: material_bytes(party, 5) - (0 if party == 2 else 40)]
        receiver = Receiver(party, 5, "x", seeds)
        receiver.feed(material[len(seeds) :])
        assert receiver.finish(KERNEL).ties == ties_of(party, material, 5)
        assert seed_ties(party, seeds, 5).items() <= ties_of(party, material, 5).items()


def test_results_are_tied_to_their_job_pair_and_place():
    names = {peer: secrets.token_bytes(32) for peer in (0, 1)}
    found = [computed_ties({peer: name}, index)[peer] for peer, name in names.items() for index in range(3)]
    assert len(set(found)) == 6 and found[:3] == [computed_ties(names, index)[0] for index in range(3)]


def test_what_is_compared_depends_on_each_tie_their_order_and_the_item():
    a, b, c = ({0: secrets.token_bytes(32), 1: secrets.token_bytes(32)} for _ in range(3))
    none = {0: NO_TIE, 1: NO_TIE}
    variants = [[a, b], [b, a], [a, c], [a], [a, b, none], [a, none, b]]
    named = [dict(zip("xyz", ties, strict=False)) for ties in variants]
    assert len({common(ties, peer).digest for ties in named for peer in (0, 1)}) == 12
    assert common(named[0], 0, secrets.token_bytes(32)).digest != common(named[0], 0).digest
    assert common(named[0], 0).apart(common(named[1], 0).ties) == ["x", "y"]
    assert common(named[0], 0, bytes(32)).apart(common(named[2], 0, b"1" * 32).ties) == ["what was made ahead", "y"]

    class Stocked:
        pair = b""

    item = Stocked()
    given_ = Collected(None, {}, None, item=item, ties=named[0])
    before = given_.common(1)
    item.pair = secrets.token_bytes(32)  # another job made it
    assert given_.common(1) != before


# --- servers ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with LocalCluster(storage=tmp_path_factory.mktemp("disk") / "storage") as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(cluster):
    yield
    assert cluster.run(PLAN, {"x": DATA["x"], "w": DATA["w"]})["y"] == pytest.approx(RESULT, abs=1e-3)
    assert eventually(lambda: [client.health().jobs for client in cluster._clients] == [0, 0, 0])


def flipped(data):
    return bytes([data[0] ^ 1]) + bytes(data[1:])


def words_at(party):
    def change(parts):
        seeds, words = parts[party]
        words = words.copy()
        words.reshape(-1)[-1] += np.uint64(1)
        parts[party] = seeds, words

    return change


def seed_at(party, which=0):
    def change(parts):
        seeds, words = parts[party]
        at = 16 * which
        parts[party] = seeds[:at] + flipped(seeds[at:]), words

    return change


SEEDS = {
    "seed at server 0": seed_at(0), "seed at server 1": seed_at(1),
    "first seed at the helper": seed_at(2), "second seed at the helper": seed_at(2, 1),
}  # fmt: skip
WORDS = {"words at server 0": words_at(0), "words at server 1": words_at(1)}
CHANGES = SEEDS | WORDS


@contextmanager
def sending(monkeypatch, change):
    """A client that changes what it sends for each tensor of the size of `w`."""

    def apart(elements, kernel, seeds):
        parts = [list(part) for part in split(elements, kernel, seeds)]
        if elements.size == DATA["w"].size:
            change(parts)
        return [tuple(part) for part in parts]

    with monkeypatch.context() as patch:
        patch.setattr(client_side, "split", apart)
        yield


@contextmanager
def refused():
    with pytest.raises(SecurityError, match="given of input 'w' does not belong together"):
        yield


@pytest.mark.parametrize("what", CHANGES)
def test_parts_apart_are_refused_with_a_job_or_stored_before(cluster, monkeypatch, what):
    with sending(monkeypatch, CHANGES[what]):
        with refused():
            cluster.run(PLAN, {"x": DATA["x"], "w": DATA["w"]})
        stored = cluster.share(DATA["w"], 18, "w")
    with refused():
        cluster.run(PLAN, {"x": DATA["x"], "w": stored})
    rows = reveal_plan(w=((2, 3), 18))
    with refused():
        cluster.run(rows, {"w": Rows(stored, np.array([[1, 2]]))}, loop=Loop(1))
    with refused():
        # Saved shares are what they were.
        cluster.save(f"apart/{secrets.token_hex(4)}", {"w": stored})
        (name,) = [name for name in cluster.saved() if name.startswith("apart/")]
        try:
            loaded = cluster.load(name)[0]["w"]
            cluster.run(PLAN, {"x": DATA["x"], "w": loaded})
        finally:
            cluster.forget(name)
            cluster.delete(loaded, stored)


@pytest.mark.parametrize("what", CHANGES)
def test_parts_apart_are_refused_for_stock(cluster, monkeypatch, what):
    with sending(monkeypatch, CHANGES[what]):
        stored = cluster.share(DATA["w"], 18, "w")
    with refused():
        cluster.prepare(PLAN, {"w": stored})
    cluster.delete(stored)


@pytest.mark.parametrize("what", CHANGES)
def test_batches_apart_are_refused_from_stock(cluster, monkeypatch, what):
    """Seeds come when the item is made, words when it is used; here `w` is part of the batch."""
    if what in SEEDS:
        party = {"seed at server 0": 0, "seed at server 1": 1}.get(what, 2)
        make = client_side.make_item

        def making(clients, *more):
            return make([Lying(client) if at == party else client for at, client in enumerate(clients)], *more)

        class Lying:
            def __init__(self, client):
                self._client = client

            def __getattr__(self, name):
                return getattr(self._client, name)

            def run(self, requests, seconds, short):
                def changed():
                    for request in requests:
                        for item in request.inputs:
                            at = 16 if what.startswith("second") else 0
                            if item.name == "w":
                                item.seeds = item.seeds[:at] + flipped(item.seeds[at:])
                        yield request

                return self._client.run(changed(), seconds, short)

        with monkeypatch.context() as patch, refused():
            patch.setattr(client_side, "make_item", making)
            cluster.prepare(PLAN, {})
    else:
        item = cluster.prepare(PLAN, {})
        with sending(monkeypatch, CHANGES[what]), refused():
            cluster.run(PLAN, {"x": DATA["x"], "w": DATA["w"]}, item=item)


@pytest.mark.parametrize("party", range(3))
@pytest.mark.parametrize("place", [0, 16, -1])
def test_parts_apart_are_refused_that_went_straight_to_disk(cluster, monkeypatch, party, place):
    put = ServerClient.put

    def changing(self, generation, entries, about, policy, pieces):
        if self is cluster._clients[party]:
            data = bytearray(b"".join(pieces))
            data[place] ^= 1
            pieces = [bytes(data)]
        return put(self, generation, entries, about, policy, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(ServerClient, "put", changing)
        put_array(cluster, "straight", DATA["w"])
    loaded = cluster.load("straight")[0]["w"]
    with refused():
        cluster.run(PLAN, {"x": DATA["x"], "w": loaded})
    cluster.delete(loaded)
    cluster.forget("straight")


def put_array(cluster, name, values):
    cluster.put(name, {"w": column(values)})


@pytest.mark.parametrize("party", range(3))
def test_another_tensor_under_the_same_handle_at_one_server_is_refused(cluster, party):
    stored, other = (cluster.share(values, 18, "w") for values in (DATA["w"], -DATA["w"]))
    client = cluster._clients[party]
    client.delete([stored.id])
    elements = encode(-DATA["w"], 18, "w")
    client.upload(stored.id, elements.size, *cluster._split(elements)[party])
    with refused():
        cluster.run(PLAN, {"x": DATA["x"], "w": stored})
    assert cluster.run(PLAN, {"x": DATA["x"], "w": other})["y"] == pytest.approx(
        np.maximum(-DATA["x"] @ DATA["w"], 0), abs=1e-3
    )
    cluster.delete(stored, other)


@pytest.mark.parametrize("party", range(3))
def test_a_result_that_one_server_keeps_under_its_handle_is_not_another_job_s(cluster, party):
    plan = keeping_plan()
    first, second = (cluster.run(plan, {"w": values})["w/kept"] for values in (DATA["w"], 2 * DATA["w"]))
    # The client gives the second result's name at one server to what it uploads there.
    client = cluster._clients[party]
    client.delete([second.id])
    elements = encode(DATA["w"], 18, "w")
    client.upload(second.id, elements.size, *cluster._split(elements)[party])
    with refused():
        cluster.run(PLAN, {"x": DATA["x"], "w": second})
    assert cluster.run(PLAN, {"x": DATA["x"], "w": first})["y"] == pytest.approx(RESULT, abs=1e-3)
    cluster.delete(first, second)


def keeping_plan():
    b = PlanBuilder()
    w = b.input("w", DATA["w"].shape, 18, "client")
    b.output(b.add("truncate", b.add("multiply", w, b.constant(np.int64(1 << 18), 18)), bits=18), "w/kept", [])
    return b.build("keeping", "train")


@pytest.mark.parametrize("party", range(3))
def test_servers_mask_results_in_the_plan_s_order(cluster, monkeypatch, party):
    """A client could say in another order to each what is to be kept."""
    run = ServerClient.run

    def reversing(self, requests, seconds, short):
        def changed():
            for request in requests:
                kept = list(request.kept)[::-1]
                del request.kept[:]
                request.kept.extend(kept)
                yield request

        return run(self, changed() if self is cluster._clients[party] else requests, seconds, short)

    b = PlanBuilder()
    w = b.input("w", DATA["w"].shape, 18, "client")
    for factor in (1, 2):
        b.output(b.add("multiply", w, b.constant(np.int64(factor), 0)), f"times{factor}", [])
    with monkeypatch.context() as patch:
        patch.setattr(ServerClient, "run", reversing)
        kept = cluster.run(b.build("two", "train"), {"w": DATA["w"]})
    for factor in (1, 2):
        result = cluster.run(PLAN, {"x": DATA["x"], "w": kept[f"times{factor}"]})["y"]
        assert result == pytest.approx(factor * RESULT, abs=1e-3)
    cluster.delete(*kept.values())


@pytest.mark.parametrize("party", range(3))
def test_an_older_generation_at_one_server_is_refused(cluster, monkeypatch, party):
    put_array(cluster, "aged", DATA["w"])
    sources = [max(client.saved("aged")) for client in cluster._clients]
    with monkeypatch.context() as patch:
        patch.setattr(ServerClient, "forget", lambda *_: 0)  # the client would give up the older one now
        put_array(cluster, "aged", 2 * DATA["w"])
    load = ServerClient.load

    def older(self, source, own, base):
        return load(self, sources[party] if self is cluster._clients[party] else source, own, base)

    with monkeypatch.context() as patch:
        patch.setattr(ServerClient, "load", older)
        loaded = cluster.load("aged")[0]["w"]
    with refused():
        cluster.run(PLAN, {"x": DATA["x"], "w": loaded})
    cluster.delete(loaded)
    cluster.forget("aged")
