"""Truncations by the million: never further than one unit, unbiased, over the whole domain |z| < 2^62. And who knows
how a number was rounded.
"""

import numpy as np
import pytest

from tests.trio import Session, signed

CHUNK = 1_000_000


def run(chunks: int) -> None:
    rng = np.random.default_rng(20_26)
    session = Session()
    drift = 0.0
    for i in range(chunks):
        bits = (18, 18, 1, 36, 18, 20, 12, 60, 18, 30)[i % 10]
        # Sizes spread over all magnitudes: uniform words shifted right by 1 to 45 bits, so small values occur as well
        # as the largest; the ends of the domain are put in by hand.
        z = rng.integers(-(2**63), 2**63 - 1, CHUNK) >> rng.integers(1, 46, CHUNK)
        z[:4] = [2**62 - 1, -(2**62) + 1, 0, -1]
        z[np.abs(z) >= 2**62] = 1
        got = signed(session.run(lambda p, a, b=bits: p.truncate(a, b), z.astype(np.uint64)))
        error = got - (z >> bits)
        assert error.min() >= 0 and error.max() <= 1, "further than one unit"
        exact = (z & ((1 << bits) - 1)) == 0
        assert not error[exact].any(), "a multiple of 2^bits must not be rounded"
        drift += (error - (z & ((1 << bits) - 1)) / 2.0**bits).mean() / chunks
    # The mean of 10^7 roundings, each with variance at most 1/4, is within six standard deviations of zero.
    assert abs(drift) < 6 * 0.5 / np.sqrt(CHUNK * chunks)


def test_ten_million():
    run(10)


@pytest.mark.long
def test_a_hundred_million():
    run(100)


@pytest.mark.parametrize("server", ["evaluator", "helper"])
def test_each_server_knows_which_rows_a_sum_of_roundings_counts(server):
    """What security.md says of dithers: sums over all rows are, to who knows one, sums over rows that it knows."""
    rows, bits, unit = 12, 40, (1 << 39) + 1
    y = np.random.default_rng(7).integers(0, 2, rows)
    seen = []

    def keep_masks(number, parts):
        (m, _), _, (_, mask) = parts
        seen.append(-1 - signed(m) if server == "evaluator" else signed(mask))
        return parts

    def sums(p, *xs):
        return tuple(p.linear(lambda a: a.sum(keepdims=True), (1,), p.truncate(x, bits)) for x in xs)

    # The same rows under masks of their own each time, as they are wherever a job masks them.
    scaled = [(y * unit).astype(np.uint64)] * (4 * rows)
    opened = [int(signed(z)[0]) for z in Session(twist=keep_masks).run(sums, *scaled)]
    counted = [(unit + (dither & ((1 << bits) - 1))) >> bits for dither in seen]
    assert opened == [int(of @ y) for of in counted], "a sum over the rows whose dithers lift them"
    assert len(set(opened)) > 1, "which no function that treats rows alike would give"
    found, *_ = np.linalg.lstsq(np.array(counted, float), np.array(opened, float), rcond=None)
    assert np.array_equal(np.rint(found).astype(int), y)
