"""What servers receive in training: steps with products, relu and its gate, softmax, noise and updates, in a loop.

As in test_transcripts.py everything that the examined party knows is fixed, the secrets (data, labels, weights) are
varied, and the others' randomness is drawn anew in each run.
"""

import secrets

import numpy as np
import pytest

from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.trio import make_party
from private_keras.ring import default_kernel, noise
from private_keras.server.execute import Program
from private_keras.server.loop import Feed, run_steps
from private_keras.transport.memory import memory_network, run_parties
from tests.plan_zoo import encode
from tests.trio import Ledger, expect_draws_for_one_thing

U = np.uint64
F = 18
RUNS = 80
# Standard deviations: 5e-14 for a fair bit in 80 runs, and there are a million of them; a constant bit scores 8.9.
LIMIT = 7.0
PAIRS = [(0, 1), (0, 2), (1, 2)]
# Sizes of all tensors are multiples of 64, so that every received bit is meaningful.
BATCH, INPUTS, HIDDEN, CLASSES = 64, 4, 16, 4
SHAPES = {
    "x": (BATCH, INPUTS), "y": (BATCH, CLASSES), "w1": (INPUTS, HIDDEN), "w2": (HIDDEN, CLASSES),
    "m1": (INPUTS, HIDDEN),
}
PUBLIC = {"rate": np.array([640, 320], U), "seed": np.array([7, 8], U)}


def step():
    """One step of gradient descent on two dense layers with dropout, cross-entropy and momentum, by hand."""
    b = PlanBuilder()
    for name, shape in SHAPES.items():
        b.input(name, shape, 0 if name == "y" else F, "client")
    b.input("rate", (), 16, "client", public=True)
    b.input("seed", (), 0, "client", public=True)
    z = b.add("matmul", "x", "w1")
    h = b.add("relu", z, truncate=F)
    kept = b.add("random", "seed", shape=[BATCH, HIDDEN], fraction=0, distribution="bernoulli", probability=3 << 30,
                 stream=0)
    h = b.add("multiply", h, kept)
    p = b.add("softmax", b.add("truncate", b.add("matmul", h, "w2"), bits=F), axis=1)
    error = b.add("subtract", p, b.add("shift", "y", bits=F))
    g2 = b.add("matmul", b.add("transpose", h, axes=[1, 0]), error)
    back = b.add("multiply", b.add("matmul", error, b.add("transpose", "w2", axes=[1, 0])), kept)
    g1 = b.add("matmul", b.add("transpose", "x", axes=[1, 0]), b.add("gate", z, back, truncate=F))
    m1 = b.add("truncate", b.add("add", g1, b.add("shift", "m1", bits=F)), bits=F)
    for name, gradient, bits in (("w1", m1, 16), ("w2", g2, F + 16)):
        change = b.add("truncate", b.add("multiply", gradient, "rate"), bits=bits)
        b.output(b.add("subtract", name, change), f"new/{name}", [], carry=name)
    b.output(m1, "new/m1", [], carry="m1")
    loss = b.add("reduce_sum", b.add("multiply", error, error), axes=[1])
    b.output(b.add("truncate", loss, bits=F), "loss", ["client"])
    return Program(b.build("step", "train"))


PROGRAM = step()


def secret(scale):
    """Data, labels and weights; all zero, or as large as they come."""
    rng = np.random.default_rng(int(scale))
    values = {name: rng.uniform(-scale, scale, shape) for name, shape in SHAPES.items() if name != "y"}
    values["y"] = np.eye(CLASSES)[rng.integers(0, CLASSES, BATCH) if scale else np.zeros(BATCH, int)]
    return {name: encode(values[name], 0 if name == "y" else F) for name in SHAPES}


def run(values, steps=2, keys=None, party=None, masks=None, kernels=None):
    """(parties, their channels, what each keeps and opens) after a loop.

    `party` is the examined one: its keys and its (m, l) of every input stay what `keys` and `masks` say.
    """
    key = {pair: secrets.token_bytes(16) for pair in PAIRS} | (keys or {})
    channels = memory_network(3, record=True)
    kernels = kernels or [default_kernel()] * 3
    parties = [
        make_party(i, kernels[i], channels[i], {j: key[min(i, j), max(i, j)] for j in range(3) if j != i})
        for i in range(3)
    ]
    for each, kernel in zip(parties, kernels, strict=True):
        if isinstance(kernel, Ledger):
            kernel.watch(each)
    held = [{}, {}, {}]
    for name, x in values.items():
        drawn = [default_kernel().random(secrets.token_bytes(16), 0, x.size).reshape(x.shape) for _ in range(2)]
        m, own = masks[name] if masks else drawn
        other = m - own - x
        l0, l1 = (own, other) if party == 0 else (other, own)
        for i, part in enumerate([(m, l0), (m, l1), (l0 - l1, l0 + l1)]):
            held[i][name] = parties[i].masked(*part)

    def go(i):
        loop = run_steps(PROGRAM, parties[i], Feed(steps, held[i], {}, PUBLIC))
        while True:
            try:
                next(loop)
            except StopIteration as end:
                outputs = end.value
                opened = {item.name: outputs[item.name] for item in PROGRAM.plan.outputs if item.receivers}
                names = [item.name for item in PROGRAM.plan.outputs if not item.receivers]
                return (
                    {name: parties[i].output(share) for name, share in opened.items()},
                    dict(zip(names, parties[i].keep(*(outputs[name] for name in names)), strict=True)),
                )

    return parties, channels, run_parties([lambda i=i: go(i) for i in range(3)])


def received(channels, party):
    return [payload.ravel().view(U) for _, channel in sorted(channels[party].items()) for _, payload in channel.log]


def scores(words):
    """Standard deviations from one half, per bit position, over runs; in parts, since bits take memory."""
    parts = np.array_split(words, max(1, words.shape[1] // 4096), axis=1)
    means = [np.unpackbits(np.ascontiguousarray(part).view(np.uint8), axis=1).mean(axis=0) for part in parts]
    return (np.concatenate(means) - 0.5) * 2 * np.sqrt(len(words))


@pytest.mark.parametrize("party", [0, 1])
def test_received_words_are_uniform_whatever_data_and_weights(party):
    keys = {pair: secrets.token_bytes(16) for pair in PAIRS if party in pair}
    kernel = default_kernel()
    masks = {
        name: tuple(kernel.random(secrets.token_bytes(16), 0, int(np.prod(s))).reshape(s) for _ in range(2))
        for name, s in SHAPES.items()
    }
    seen = []
    for scale in (0.0, 3.0):
        words = []
        for _ in range(RUNS):
            _, channels, _ = run(secret(scale), keys=keys, party=party, masks=masks)
            words.append(np.concatenate(received(channels, party)))
        seen.append(scores(np.stack(words)))
    a, b = seen
    assert a.shape == b.shape and a.size > 100_000
    assert max(np.abs(a).max(), np.abs(b).max()) < LIMIT
    assert np.abs(a - b).max() < LIMIT * np.sqrt(2)


def test_helper_receives_nothing_and_nothing_is_sent_twice():
    """Neither within a step nor from step to step, nor in the next run on the same shares."""
    masks = {name: (np.zeros(shape, U), np.zeros(shape, U)) for name, shape in SHAPES.items()}
    words = {0: [], 1: []}
    for _ in range(2):
        _, channels, _ = run(secret(3.0), party=0, masks=masks)
        assert received(channels, 2) == []
        for party in words:
            words[party] += received(channels, party)
    for party in words:
        flat = np.concatenate(words[party])
        assert len(np.unique(flat)) == len(flat)


def test_lengths_do_not_depend_on_data():
    lengths = [
        [[message.size for message in received(channels, party)] for party in (0, 1)]
        for _, channels, _ in (run(secret(scale)) for scale in (0.0, 3.0))
    ]
    assert lengths[0] == lengths[1]


def test_no_mask_is_used_twice_in_a_loop():
    ledgers = [Ledger() for _ in range(3)]
    keys = {pair: secrets.token_bytes(16) for pair in PAIRS}
    parties, _, _ = run(secret(3.0), keys=keys, kernels=ledgers)
    known = set(keys.values())
    for ledger in ledgers:
        # Public randomness has keys of its own, by step: two here, and no masks come from them.
        assert len(ledger.reads) > 40
        assert len(ledger.keys - known) == len(PUBLIC["seed"])
    expect_draws_for_one_thing(ledgers, keys)
    for i, j in PAIRS:
        assert parties[i].draws[j] == parties[j].draws[i]


def test_nothing_that_is_kept_has_a_mask_of_the_job():
    """What is stored is masked anew; and the loop computes what it should."""
    values = secret(1.0)
    parties, _, results = run(values)
    kept = [result[1] for result in results]
    for name in ("w1", "w2", "m1"):
        (m, l0), (same, l1), (skew, both) = (part[f"new/{name}"] for part in kept)
        assert np.array_equal(skew, l0 - l1) and np.array_equal(m, same) and np.array_equal(both, l0 + l1)
    loss = sum(result[0]["loss"].astype(U) for result in results).astype(np.int64) / 2.0**F
    assert loss.shape == (BATCH,) and (loss >= 0).all() and 0 < loss.sum() < BATCH * 2
    expected = plaintext(values)
    for name in ("w1", "w2", "m1"):
        m, mask = kept[0][f"new/{name}"][0], kept[2][f"new/{name}"][1]
        assert np.abs((m - mask).astype(np.int64) / 2.0**F - expected[name]).max() < 5e-3


def plaintext(values):
    """The loop on float64."""
    v = {name: x.astype(np.int64) / (1 if name == "y" else 2.0**F) for name, x in values.items()}
    for rate, seed in zip(PUBLIC["rate"], PUBLIC["seed"], strict=True):
        kept = noise.bernoulli(default_kernel(), int(seed), 0, (BATCH, HIDDEN), 3 << 30)
        z = v["x"] @ v["w1"]
        h = np.maximum(z, 0) * kept
        e = np.exp(h @ v["w2"])
        error = e / e.sum(1, keepdims=True) - v["y"]
        back = (error @ v["w2"].T) * kept * (z >= 0)
        v["m1"] = v["m1"] + v["x"].T @ back
        factor = int(rate) / 2**16
        v["w1"], v["w2"] = v["w1"] - factor * v["m1"], v["w2"] - factor * (h.T @ error)
    return v
