"""What a server keeps, and what clients send to share a tensor."""

import secrets
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_keras.errors import HandleNotFound, InputError, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.collect import Collector
from private_keras.server.jobs import PlanNotPrepared
from private_keras.server.material import Material, Receiver, split
from private_keras.server.plans import Plans
from private_keras.server.sizes import material_bytes, stored_bytes
from private_keras.server.store import Kept, Store, StoreFull
from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import dense_plan

KERNEL = NumpyKernel()


def share(elements, seeds=None):
    return split(elements, KERNEL, seeds or (secrets.token_bytes(16), secrets.token_bytes(16)))


def received(party, elements, part, sizes=(1000,)):
    receiver = Receiver(party, elements, "x")
    data = part[0] + part[1].tobytes()
    while data:
        for size in sizes:
            receiver.feed(data[:size])
            data = data[size:]
    return receiver.finish(KERNEL)


@given(
    values=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
)
def test_the_servers_parts_hold_the_tensor_however_it_is_cut(values, sizes):
    x = np.array(values, np.uint64)
    parts = share(x)
    held = [received(party, x.size, parts[party], sizes) for party in range(3)]
    assert np.array_equal(held[0].words, held[1].words)
    assert np.array_equal(held[0].words - held[0].mask - held[1].mask, x)
    assert np.array_equal(held[2].mask, held[0].mask + held[1].mask)
    assert np.array_equal(held[2].words, held[0].mask - held[1].mask)
    for party in range(3):
        assert len(parts[party][0]) + parts[party][1].nbytes == material_bytes(party, x.size)
        assert held[party].nbytes == stored_bytes(x.size)
        assert not held[party].mask.flags.writeable


def test_masks_are_fresh_for_every_tensor_and_what_one_server_gets_does_not_show_it():
    x = np.zeros(4096, np.uint64)
    first, second = share(x), share(x)
    assert not np.array_equal(first[0][1], second[0][1])
    # Bits of what server 0 sees of all-zero data are as many ones as zeros: within 8 standard deviations.
    for words in (first[0][1], first[0][1] - KERNEL.random(first[0][0], 0, x.size)):
        ones = int(np.bitwise_count(words).sum())
        assert abs(ones - 4096 * 32) < 8 * (4096 * 64 / 4) ** 0.5
    assert first[2][1].size == 0, "the helper gets no words at all"


@pytest.mark.parametrize("party", [0, 1, 2])
def test_material_of_another_size_is_refused(party):
    part = share(np.arange(5, dtype=np.uint64))[party]
    data = part[0] + part[1].tobytes()
    short = Receiver(party, 5, "input 'x'")
    short.feed(data[:-1])
    with pytest.raises(
        InputError, match=f"input 'x': expected {len(data)} bytes of material. Received: {len(data) - 1}"
    ):
        short.finish(KERNEL)
    long = Receiver(party, 5, "input 'x'")
    long.feed(data)
    with pytest.raises(InputError, match="Received: more"):
        long.feed(b"x")
    for elements in (0, -1, 1 << 40):
        with pytest.raises(InputError, match="elements"):
            Receiver(party, elements, "x")


def material(n=4):
    return Material(np.zeros(n, np.uint64), np.zeros(n, np.uint64))


def put(store, owner, handles, nbytes=0):
    with store.room(nbytes * len(handles)) as room:
        store.put(owner, [Kept(handle, material(), nbytes) for handle in handles], room)


def test_only_the_owner_uses_and_deletes():
    store = Store()
    handle = secrets.token_bytes(16)
    put(store, "alice", [handle], 64)
    assert store.get(handle, "alice", "w").nbytes == 64
    for who, what in (("bob", handle), ("alice", secrets.token_bytes(16))):
        with pytest.raises(HandleNotFound, match="shares of w"):
            store.get(what, who, "w")
    assert store.delete([handle], "bob") == 0
    assert store.delete([handle, handle], "alice") == 1
    assert store.nbytes == 0
    with pytest.raises(HandleNotFound):
        store.get(handle, "alice", "w")


def test_another_identity_cannot_tell_a_handle_from_none():
    store = Store()
    handle = secrets.token_bytes(16)
    put(store, "alice", [handle])
    messages = set()
    for tried in (handle, secrets.token_bytes(16)):
        with pytest.raises(HandleNotFound) as caught:
            store.get(tried, "bob", "w")
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_quota_and_handles(monkeypatch):
    store = Store(quota=100)
    with store.room(60):
        with pytest.raises(StoreFull, match="no room for 41 bytes.*60 of 100"), store.room(41):
            pass
        with store.room(40):
            assert store.nbytes == 100
    assert store.nbytes == 0
    handle = secrets.token_bytes(16)
    put(store, "alice", [handle], 10)
    fresh = secrets.token_bytes(16)
    for handles, message in (([fresh, handle], "taken"), ([fresh, b"short"], "16 bytes"), ([fresh, fresh], "twice")):
        with pytest.raises(SecurityError, match=message):
            store.check_free(handles, "alice")
        with pytest.raises(SecurityError, match=message):
            put(store, "bob", handles, 5)
        assert store.nbytes == 10 and store.delete([fresh], "bob") == 0, "some were kept"
    monkeypatch.setattr("private_keras.server.limits.MAX_HANDLES", 2)
    with pytest.raises(StoreFull, match="1 tensors of this client are stored, 1 of all clients, of at most 2 and 2"):
        put(store, "alice", [secrets.token_bytes(16), secrets.token_bytes(16)])
    assert store.delete([handle], "alice") == 1 and store.nbytes == 0


def text_of(name: str) -> bytes:
    return dense_plan(name=name).to_json().encode()


def test_plans_used_last_are_kept_within_their_bounds(monkeypatch):
    plans = Plans("trio")
    size = len(text_of("a"))
    monkeypatch.setattr("private_keras.server.limits.PLANS_BYTES", 2 * size)
    first, second = plans.prepare(text_of("a"), "alice"), plans.prepare(text_of("b"), "alice")
    plans.get(first)
    third = plans.prepare(text_of("c"), "alice")
    assert plans.get(first) and plans.get(third)
    with pytest.raises(PlanNotPrepared):
        plans.get(second)
    monkeypatch.setattr("private_keras.server.limits.PLANS_BYTES", 1)
    # The last one is kept, whatever its size.
    assert plans.get(plans.prepare(text_of("d"), "alice")).program.plan.name == "d"
    with pytest.raises(PlanNotPrepared):
        plans.get(first)


def test_who_sends_many_plans_drives_out_its_own(monkeypatch):
    monkeypatch.setattr("private_keras.server.limits.MAX_PLANS", 4)
    plans = Plans("trio")
    mine, shared = plans.prepare(text_of("a"), "alice"), plans.prepare(text_of("b"), "alice")
    assert plans.prepare(text_of("b"), "mallory") == shared
    sent = [plans.prepare(text_of(name), "mallory") for name in "cdefgh"]
    assert plans.get(mine) and plans.get(shared) and plans.get(sent[-1]) and plans.get(sent[-2])
    with pytest.raises(PlanNotPrepared):
        plans.get(sent[-3])
    others = [plans.prepare(text_of(name), name) for name in "ij"]
    assert all(plans.get(each) for each in (shared, *others))  # of two of alice's, the one that was used last
    size = len(text_of("a"))
    monkeypatch.setattr("private_keras.server.limits.PLANS_BYTES", 3 * size)
    last = plans.prepare(text_of("k" * 200), "mallory")
    assert plans.get(last) and plans.get(others[-1])
    assert plans._programs.keys() == plans._sizes.keys() == plans._senders.keys()


def test_a_plan_knows_what_its_largest_step_needs():
    """A comparison moves many times what its input holds: 2^20 elements, over 90 bytes each, twice."""
    b = PlanBuilder()
    x = b.input("x", (1 << 20,), 18, "client")
    b.output(b.add("relu", b.add("add", x, x)), "y", ("client",))
    plans = Plans("trio")
    prepared = plans.get(plans.prepare(b.build("big", "predict").to_json().encode(), "alice"))
    assert 2 * 60 << 20 < prepared.working_bytes < 2 * 200 << 20


def public_plan(op, distribution, fraction, attributes):
    """A plan of a few bytes that computes `op` on many numbers that all servers know."""
    b = PlanBuilder()
    x = b.input("x", (), 0, "client")
    seed = b.input("seed", (), 0, "client", public=True)
    y = b.add("random", seed, shape=[1 << 14], fraction=fraction, distribution=distribution, stream=0)
    y = b.add(op, y, **attributes) if op else y
    total = b.add("reduce_sum", y, axes=list(range(len(b.type(y).shape))))
    positive = b.add("greater_equal", total, b.constant(np.zeros((), np.int64), b.type(y).fraction))
    b.output(b.add("add", x, positive), "y", ("client",))
    return b.build("public", "train")


@pytest.mark.parametrize(("op", "distribution", "fraction", "attributes"), [
    ("", "normal", 18, {}), ("log", "uniform", 18, {}), ("softmax", "uniform", 18, {"axis": 0}),
    ("one_hot", "bernoulli", 0, {"depth": 256}),
    ("spline", "uniform", 18, {
        "knots": list(range(0, 1 << 18, 1 << 11)), "coefficients": [[1, 0, 0]] * 129, "fraction": 0, "scale": 20,
        "slopes": [0, 0], "slope_bits": 0,
    }),
])  # fmt: skip
def test_room_is_taken_for_what_is_computed_in_public(op, distribution, fraction, attributes):
    plan = public_plan(op, distribution, fraction, attributes)
    plans = Plans("trio")
    prepared = plans.get(plans.prepare(plan.to_json().encode(), "alice"))
    inputs = {"x": SimulatedShare(np.zeros((), np.uint64)), "seed": np.ones((), np.uint64)}
    prepared.program.compute(Simulate(NumpyKernel()), inputs)
    tracemalloc.start()
    try:
        prepared.program.compute(Simulate(NumpyKernel()), inputs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * prepared.room.elements + prepared.working_bytes


def test_a_plan_that_is_known_is_not_read_again(monkeypatch):
    plans = Plans("trio")
    first = plans.prepare(text_of("a"), "alice")
    prepared = plans.get(first)
    monkeypatch.setattr("private_keras.server.plans.Plan.from_json", None)
    assert plans.prepare(text_of("a"), "alice") == first and plans.get(first) is prepared
    with pytest.raises(TypeError):
        plans.prepare(text_of("a") + b" ", "alice")  # another text has to be read, and cannot here


@pytest.mark.parametrize("receivers", [("client",), ()])
def test_room_is_taken_for_each_output_of_one_value(receivers):
    """A thousand outputs of one value are a thousand arrays: opened or kept, a small plan must not fill the memory."""
    b = PlanBuilder()
    x = b.input("x", (1 << 10,), 0, "client", public=True)
    y = b.add("negate", x)
    for index in range(1000):
        b.output(y, f"y{index}", receivers)
    plans = Plans("trio")
    prepared = plans.get(plans.prepare(b.build("many", "train").to_json().encode(), "alice"))
    first = wire.RunRequest(job=bytes(16), digest=prepared.program.plan.digest, steps=1)
    first.inputs.add(name="x", values=1)
    for index in range(0 if receivers else 1000):
        first.kept.add(output=index, handle=index.to_bytes(16, "big"))
    least = 1000 * (1 << 10) * 8
    for quota in (least, 100 * least):
        collector = Collector(0, NumpyKernel(), Store(quota=quota))
        # With room enough, what is missing is the material.
        expected = StoreFull if quota == least else InputError
        with pytest.raises(expected), collector.collect(_Job(), prepared, first, iter(()), _Judge()):
            pass


class _Judge:
    def inputs(self, terms, rows, steps) -> dict:
        """Allows everything."""
        return {}


class _Job:
    owner = "alice"

    def check(self) -> None:
        """Never cancelled."""
