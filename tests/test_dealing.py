"""Steps in pieces: cut alike everywhere, and with the same results, bytes and rounds as in one piece."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.protocols.protocol import times
from private_keras.protocols.trio import Ahead, CountingAhead, Supplied, dealing, make_party
from private_keras.ring import default_kernel
from private_keras.ring.kernel import plane_words
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.transport.memory import memory_network, run_parties
from tests.trio import Ledger, Session, expect_draws_for_one_thing, ring, signed

N = 5000  # two whole pieces of two blocks each, and a short one
KEYS = {(0, 1): bytes(16), (0, 2): bytes(range(16)), (1, 2): bytes(range(16, 32))}
PROGRAMS = {
    "truncate": lambda p, x: p.truncate(x, 18),
    "rescale": lambda p, x: p.rescale(x, -77, 20),
    "multiply": lambda p, x: p.bilinear(times, (N,), x, x),
    "relu": lambda p, x: p.relu(x),
    "relu and truncation": lambda p, x: p.relu(x, 18),
    "thresholds": lambda p, x: p.bits_to_share(p.compare(x, [0, 5, -70_000], 50)),
    "bits and values": lambda p, x: p.multiply_bits(p.compare(x, [0, 5]), p.linear(lambda a: a[None], (1, N), x)),
    "piecewise": lambda p, x: p.piecewise(x, p.compare(x, [-9, 9]), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])),
    "linear pieces": lambda p, x: p.piecewise(x, p.compare(x, [-9]), np.array([[1, 2], [4, 5]])),
    "exp2": lambda p, x: p.exp2_masked(p.linear(lambda a: a & np.uint64((1 << 22) - 1), (N,), x), 18, 4, -16, 60),
    "conjunction": lambda p, x: p.bits_to_share(p.bits_and(p.compare(x, [0, 5, -7, 9, 11]), 0)),
}
VALUES = ring(np.random.default_rng(0).integers(-(2**45), 2**45, N).astype(object))


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(dealing, "PIECE_WORDS", 1)
    monkeypatch.setattr(dealing, "WHOLE_WORDS", 100)
    dealing.pieces.cache_clear()
    yield
    dealing.pieces.cache_clear()


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 3 * 10**6), words=st.integers(0, 10**6))
def test_pieces_are_whole_blocks_of_all_elements(n, words):
    runs = dealing.pieces(n, words)
    assert runs[0][0] == 0 and runs[-1][1] == n
    assert all(end == begin for (_, end), (begin, _) in zip(runs[:-1], runs[1:], strict=True))
    assert all(begin % dealing.BLOCK == 0 for begin, _ in runs)
    assert sum(plane_words(end - begin) for begin, end in runs) == plane_words(n)


@pytest.mark.parametrize("kernel", [NumpyKernel(), default_kernel()], ids=repr)
@pytest.mark.parametrize("name", PROGRAMS)
def test_pieces_make_the_same_of_a_value(name, kernel, small_pieces, monkeypatch):
    session = Session(kernel)
    got = signed(session.run(PROGRAMS[name], VALUES))
    assert session.measured() == (session.counted.rounds, dict(session.counted.sent))
    monkeypatch.undo()
    dealing.pieces.cache_clear()
    whole = signed(Session(kernel).run(PROGRAMS[name], VALUES))
    # Rounding depends on the masks; what is exact stays so, and powers have the rounding of two integers.
    slack = {"truncate": 1, "rescale": 1, "relu and truncation": 1, "exp2": 1 << 48}.get(name, 0)
    assert np.abs(got - whole).max() <= slack


@pytest.mark.parametrize("name", PROGRAMS)
def test_parts_of_draws_do_not_overlap(name, small_pieces):
    ledgers, channels = [Ledger() for _ in range(3)], memory_network(3)
    parties = [
        ledgers[i].watch(
            make_party(i, ledgers[i], channels[i], {j: KEYS[min(i, j), max(i, j)] for j in range(3) if j != i})
        )
        for i in range(3)
    ]
    zero = np.zeros(N, np.uint64)
    run_parties([lambda p=p: p.output(PROGRAMS[name](p, p.masked(zero, zero))) for p in parties])
    expect_draws_for_one_thing(ledgers, KEYS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_was_dealt_ahead_is_read_in_pieces(name, small_pieces):
    kernel, program = default_kernel(), PROGRAMS[name]
    l0, l1 = (kernel.random(bytes([i] * 16), 0, N) for i in (1, 2))
    m = VALUES + l0 + l1
    counting = CountingAhead(kernel)
    program(counting, counting.input((N,)))
    keys = [{j: KEYS[min(i, j), max(i, j)] for j in range(3) if j != i} for i in range(3)]
    channels = memory_network(3)
    walks = [Ahead(i, kernel, channels[i], keys[i], counting.cost.ahead // 8) for i in range(2)]
    helper = make_party(2, kernel, channels[2], keys[2])
    run_parties([
        lambda: program(walks[0], walks[0].input((N,))), lambda: program(walks[1], walks[1].input((N,))),
        lambda: program(helper, helper.masked(l0 - l1, l0 + l1)),
    ])  # fmt: skip
    channels = memory_network(2)
    parties = [Supplied(i, kernel, channels[i][1 - i], KEYS[0, 1], walks[i].supply()) for i in range(2)]
    out = run_parties([
        lambda p=p, own=own: p.output(program(p, p.masked(m, own))) for p, own in zip(parties, (l0, l1), strict=True)
    ])  # fmt: skip
    for party in parties:
        party.finish()
    whole = signed(Session(kernel).run(program, VALUES))
    slack = {"truncate": 1, "rescale": 1, "relu and truncation": 1, "exp2": 1 << 48}.get(name, 0)
    assert np.abs(signed(out[0] + out[1]) - whole).max() <= slack
