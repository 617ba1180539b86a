"""What each server receives, step by step: uniform given all it knows, independent of the secret, fresh in every run.

The test is conditional, which is stronger than looking at messages alone: everything the examined party knows (its
keys, its share of the inputs) is *fixed*, the secret is varied, and the others' randomness is drawn anew in each run.
If every received bit is then a fair coin for each secret, and for both secrets alike, the messages carry nothing that
the party could combine with what it holds.
"""

import secrets

import numpy as np
import pytest

from private_keras.plan.builder import PlanBuilder
from private_keras.protocols import functions
from private_keras.protocols.protocol import times
from private_keras.protocols.trio import make_party
from private_keras.ring import default_kernel
from private_keras.ring.steps import Draw
from private_keras.server.execute import Program
from private_keras.server.loop import Feed, run_steps
from private_keras.transport.memory import memory_network, run_parties
from tests.trio import Ledger, expect_draws_for_one_thing, ring

U = np.uint64
N = 64  # a whole plane word, so that every received bit is meaningful
SIDE = 8  # of matrices
RUNS = 150
LIMIT = 7.0  # standard deviations: 1 in 4e11 for a fair bit, of which there are millions here; a constant bit scores 12


def multiply(p, x, y):
    return p.bilinear(times, (N,), x, y)


def trained(p, x, y):
    """Three steps of w - rate (w x - y), with the carried weights masked in between."""
    b = PlanBuilder()
    for name in ("x", "y", "w"):
        b.input(name, (N,), 18, "client")
    b.input("rate", (), 4, "client", public=True)
    error = b.add("subtract", b.add("truncate", b.add("multiply", "x", "w"), bits=18), "y")
    b.output(b.add("subtract", "w", b.add("truncate", b.add("multiply", error, "rate"), bits=4)), "new", [], carry="w")
    steps = run_steps(Program(b.build("step", "train")), p, Feed(3, {"x": x, "y": y, "w": y}, {}, {"rate": RATES}))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value["new"]


def matrices(p, x, y):
    """Products held twice, of what was shared, of what was masked in the job, moved and public."""
    square = p.bilinear(p.kernel.matmul, (SIDE, SIDE), *(grid(p, a) for a in (x, y)), twice=True)
    z = p.truncate(p.bilinear(p.kernel.matmul, (SIDE, SIDE), grid(p, x), p.truncate(square, 19), twice=True), 19)
    turned = p.linear(lambda a: a[::-1].T, (SIDE, SIDE), z)
    return p.bilinear(p.kernel.matmul, (SIDE, SIDE), turned, p.constant(np.eye(SIDE, dtype=U)), twice=True)


def grid(p, x):
    """The first elements as a matrix."""
    return p.linear(lambda a: a[: SIDE * SIDE].reshape(SIDE, SIDE), (SIDE, SIDE), x)


RATES = np.array([3, 2, 1], np.uint64)
PROGRAMS = {
    "multiply": lambda p, x, y: multiply(p, multiply(p, x, y), y),
    "truncate": lambda p, x, y: p.truncate(multiply(p, p.truncate(multiply(p, x, y), 18), y), 18),
    "rescale": lambda p, x, y: multiply(p, p.rescale(multiply(p, x, y), -671_089, 37), y),
    "relu": lambda p, x, y: multiply(p, p.relu(x), y),
    "relu after product": lambda p, x, y: multiply(p, p.relu(multiply(p, x, y), 18), y),
    "narrow relu": lambda p, x, y: multiply(p, p.relu(x, 18, 44), y),
    "compare": lambda p, x, y: p.bits_to_share(p.compare(x, [0, 5, -70_000])),
    "narrow compare": lambda p, x, y: p.multiply_bits(p.bits_linear(lambda b: b[0], (N,), p.compare(x, [0], 22)), y),
    "coarse compare": lambda p, x, y: p.bits_to_share(p.compare(x, [0, 5 << 16], 63, 16)),
    "spline of a quotient": lambda p, x, y: functions.spline(
        p, multiply(p, x, y), [-9, 9], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], 18, cut=18
    ),
    "bits and": lambda p, x, y: p.bits_to_share(p.bits_and(p.compare(x, [0, 5, -7, 9, 11]), 0)),
    "piecewise": lambda p, x, y: p.truncate(
        p.piecewise(x, p.compare(x, [-9, 9]), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])), 18
    ),
    "exp2": lambda p, x, y: p.truncate(p.exp2_masked(x, 18, 4, -16, 60), 42),
    "keep": lambda p, x, y: multiply(p, *(p.masked(*part) for part in p.keep(multiply(p, x, y), x))),
    "matmul, twice": matrices,
    "steps of training": lambda p, x, y: trained(p, x, y),
    "one hot": lambda p, x, y: multiply(p, p.linear(lambda a: a[:, 1], (N,), p.one_hot(x, 8)), y),
}
# Two secrets as different as they come within every program's domain.
SECRETS = [(np.zeros(N, object), np.zeros(N, object)), (np.full(N, 7, object), np.full(N, -(2**40), object))]


def views(name, party, secret, runs, keys=None, masks=None):
    """Received payloads of `party` as a (runs, words) array; `keys` and `masks` are what stays fixed."""
    kernel = default_kernel()
    seen = []
    for _ in range(runs):
        key = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]} | (keys or {})
        channels = memory_network(3, record=True)
        parties = [
            make_party(i, kernel, channels[i], {j: key[min(i, j), max(i, j)] for j in range(3) if j != i})
            for i in range(3)
        ]
        held = [[], [], []]
        for k, x in enumerate(ring(s) for s in secret):
            drawn = [kernel.random(secrets.token_bytes(16), 0, N) for _ in range(3)]
            # The examined party's own (m, l) is fixed; the other mask follows from the secret.
            m, own = masks[k] if masks else (drawn[0], drawn[1])
            other = m - own - x
            l0, l1 = (own, other) if party == 0 else (other, own)
            held[0].append((m, l0))
            held[1].append((m, l1))
            held[2].append((l0 - l1, l0 + l1))

        def go(i, parties=parties, held=held):
            p = parties[i]
            return p.output(PROGRAMS[name](p, *(p.masked(m, mask) for m, mask in held[i])))

        run_parties([lambda i=i: go(i) for i in range(3)])
        payloads = [payload.ravel().view(U) for channel in channels[party].values() for _, payload in channel.log]
        seen.append(np.concatenate(payloads) if payloads else np.zeros(0, U))
    return np.stack(seen)


def bit_scores(words):
    """Standard deviations from one half, per bit position, over runs."""
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    return (bits.mean(axis=0) - 0.5) * 2 * np.sqrt(len(bits))


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("name", PROGRAMS)
def test_received_words_are_uniform_whatever_the_secret(name, party):
    pairs = {0: [(0, 1), (0, 2)], 1: [(0, 1), (1, 2)]}[party]
    keys = {pair: secrets.token_bytes(16) for pair in pairs}
    kernel = default_kernel()
    masks = [
        (kernel.random(secrets.token_bytes(16), 0, N), kernel.random(secrets.token_bytes(16), 0, N)) for _ in range(2)
    ]
    a, b = (views(name, party, secret, RUNS, keys, masks) for secret in SECRETS)
    assert a.shape == b.shape and a.shape[1] > 0
    assert np.abs(bit_scores(a)).max() < LIMIT
    assert np.abs(bit_scores(b)).max() < LIMIT
    assert np.abs(bit_scores(a) - bit_scores(b)).max() < LIMIT * np.sqrt(2)


def test_the_test_notices_an_unmasked_word():
    words = np.frombuffer(secrets.token_bytes(8 * RUNS * 3), U).reshape(RUNS, 3).copy()
    words[:, 1] &= U(~(1 << 17) & (2**64 - 1))
    assert np.abs(bit_scores(words)).max() > LIMIT


@pytest.mark.parametrize("name", PROGRAMS)
def test_helper_receives_nothing(name):
    assert views(name, 2, SECRETS[1], 1).shape == (1, 0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_word_is_sent_twice_in_two_runs(name):
    for party in (0, 1):
        first, second = views(name, party, SECRETS[1], 2)
        assert not (set(first.tolist()) & set(second.tolist()))


def ledgers_of(name, keys, make=Ledger):
    """What the three parties asked for and read in a program."""
    channels = memory_network(3)
    ledgers = [make() for _ in range(3)]
    parties = [
        ledgers[i].watch(
            make_party(i, ledgers[i], channels[i], {j: keys[min(i, j), max(i, j)] for j in range(3) if j != i})
        )
        for i in range(3)
    ]
    zero = np.zeros(N, U)
    run_parties([lambda p=p: p.output(PROGRAMS[name](p, *(p.masked(zero, zero) for _ in range(2)))) for p in parties])
    return ledgers


@pytest.mark.parametrize("name", PROGRAMS)
def test_randomness_is_used_for_one_thing(name):
    """Parts of a stream do not overlap, so no word stands for two things; a part is read again only as what it was, the
    masks of wires of which products are dealt. Both ends of a key read the same streams, from start to end.
    """
    keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
    expect_draws_for_one_thing(ledgers_of(name, keys), keys)


class Faulty(Ledger):
    """Deals a bit's mask and its product with l under words that are not one for each."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def _second(self, first, second):
        if self.fault == "one draw for two things":
            return first
        if self.fault == "unmasked":
            return np.zeros(second.size, U) if isinstance(second, Draw) else second
        if isinstance(second, Draw):
            self.words(second)  # so that all that was drawn is read
        return first

    def gate(self, hat, m, l, lam, lam_l, party):  # noqa: E741
        return super().gate(hat, m, l, lam, self._second(lam, lam_l), party)

    def gate_deal(self, lam, r, lam0, lam_l0, bits, products):
        super().gate_deal(lam, r, lam0, self._second(lam0, lam_l0), bits, products)


@pytest.mark.parametrize("fault", ["one draw for two things", "one part for two things", "unmasked"])
def test_the_test_notices_a_dealer_that_uses_words_twice_or_not_at_all(fault):
    keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
    ledgers = ledgers_of("relu", keys, lambda: Faulty(fault))
    with pytest.raises(AssertionError):
        expect_draws_for_one_thing(ledgers, keys)


def test_outputs_are_blinded():
    """A contribution to an opening is uniform: the receiver learns the sum, not how it is split."""
    scores = []
    for _ in range(RUNS):
        keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
        channels = memory_network(3)
        p = make_party(0, default_kernel(), channels[0], {1: keys[0, 1], 2: keys[0, 2]})
        scores.append(p.output(p.constant(np.full(N, 5, U))))
    assert np.abs(bit_scores(np.stack(scores))).max() < LIMIT
