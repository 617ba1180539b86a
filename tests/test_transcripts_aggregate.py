"""What each server receives while it takes part in a mean: the same, whatever owners have shared.

As in `test_transcripts.py`, all that the examined server knows (its keys, its part of every upload) is fixed; the
updates and counts of all owners are varied, and the others' randomness is drawn anew in each run.
"""

import secrets

import numpy as np
import pytest

from private_keras.plan.aggregate import SEED, aggregate_plan
from private_keras.protocols.trio import make_party
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server.execute import Program
from private_keras.transport.memory import memory_network, run_parties
from tests.aggregates import given, mean, names, updates
from tests.test_transcripts import LIMIT, bit_scores

U = np.uint64
RUNS = 80
LENGTH = 4.0
OWNERS = names(3)
PLAN = aggregate_plan((30, 7), OWNERS, LENGTH)
PROGRAM = Program(PLAN)


def shared(counts, rows):
    """What owners share, as ring elements by input name."""
    inputs = given(OWNERS, counts, rows)
    del inputs[SEED]
    types = {item.name: item.type for item in PLAN.inputs}
    return {name: fixedpoint.encode(value, types[name].fraction) for name, value in inputs.items()}


def hostile():
    """One owner that shares words without sense, beside two that do."""
    values = shared(*updates(3, LENGTH, 1))
    values["owner-1/update/0"] = default_kernel().random(secrets.token_bytes(16), 0, 30).reshape(1, 30)
    values["owner-1/examples"] = np.full((1, 1), 1 << 63, U)
    return values


NOTHING = shared(np.ones(3, int), np.zeros((3, 37)))
MUCH = shared(*updates(3, LENGTH))
SECRETS = {"other updates and counts": (NOTHING, MUCH), "a hostile owner": (MUCH, hostile())}


def run(values, keys, parts):
    """Payloads that each party received, and contributions to what is opened.

    Args:
        parts: by party, its part of what each owner has shared.
    """
    channels = memory_network(3, record=True)
    parties = [
        make_party(i, default_kernel(), channels[i], {j: keys[min(i, j), max(i, j)] for j in range(3) if j != i})
        for i in range(3)
    ]

    def go(i):
        inputs = {name: parties[i].masked(*parts[i][name]) for name in values}
        return PROGRAM.run(parties[i], {**inputs, SEED: np.array(7, U)})

    contributions = run_parties([lambda i=i: go(i) for i in range(3)])
    received = [
        [payload.ravel().view(U) for _, channel in sorted(channels[i].items()) for _, payload in channel.log]
        for i in range(3)
    ]
    return received, contributions


def split(values, party, own):
    """Uploads in which the examined party's part is `own`, whatever the values."""
    parts = [{}, {}, {}]
    for name, x in values.items():
        m, mask = own[name]
        other = m - mask - x
        l0, l1 = (mask, other) if party == 0 else (other, mask)
        parts[0][name], parts[1][name], parts[2][name] = (m, l0), (m, l1), (l0 - l1, l0 + l1)
    return parts


def drawn():
    kernel = default_kernel()
    return {
        name: tuple(kernel.random(secrets.token_bytes(16), 0, x.size).reshape(x.shape) for _ in range(2))
        for name, x in MUCH.items()
    }


def fresh():
    return {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("which", SECRETS)
def test_what_a_server_receives_does_not_depend_on_what_owners_share(which, party):
    known = {pair: key for pair, key in fresh().items() if party in pair}
    own = drawn()
    a, b = (
        np.stack([
            np.concatenate(run(values, fresh() | known, split(values, party, own))[0][party]) for _ in range(RUNS)
        ])
        for values in SECRETS[which]
    )  # fmt: skip
    assert a.shape == b.shape and a.shape[1] > 900
    scores = bit_scores(a), bit_scores(b)
    # Bits of the last word of a message of bits, beyond its elements, are padding: zeros in every run of both.
    padding = (np.unpackbits(np.concatenate([a, b]).view(np.uint8), axis=1) == 0).all(axis=0)
    assert padding.mean() < 0.2
    for score in scores:
        assert np.abs(score[~padding]).max() < LIMIT
    assert np.abs(scores[0] - scores[1]).max() < LIMIT * np.sqrt(2)


def test_the_helper_receives_nothing():
    assert run(MUCH, fresh(), split(MUCH, 0, drawn()))[0][2] == []


def test_the_receiver_gets_the_mean_in_two_uniform_parts_and_nothing_else():
    own, firsts = drawn(), []
    counts, rows = updates(3, LENGTH)
    fraction = PLAN.types[PLAN.outputs[0].value].fraction
    for _ in range(RUNS):
        _, contributions = run(MUCH, fresh(), split(MUCH, 0, own))
        assert all(set(each) == {"mean/0", "mean/1"} for each in contributions)
        assert not any(words.any() for words in contributions[2].values())
        total = [contributions[0][name] + contributions[1][name] for name in ("mean/0", "mean/1")]
        opened = np.concatenate([fixedpoint.decode(part[0], fraction) for part in total])
        assert np.abs(opened - mean(counts, rows)).max() < 1e-6
        firsts.append(np.concatenate([part[0] for part in contributions[0].values()]))
    assert np.abs(bit_scores(np.stack(firsts))).max() < LIMIT
