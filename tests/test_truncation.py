"""Truncations by the million: never further than one unit, unbiased, over the whole domain |z| < 2^62."""

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
