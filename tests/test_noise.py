"""Public randomness: the same everywhere, and of the distribution that it says."""
import math

import numpy as np
import pytest

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.ring import default_kernel, noise
from private_keras.ring.numpy_kernel import NumpyKernel

N = 400_000
KERNEL = default_kernel()


def gauss(z):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.ravel(z)])


def test_known_answers():
    """Nobody may change what a seed gives: runs would not resume."""
    assert noise.words(NumpyKernel(), 1, 2, 2).tolist() == WORDS
    assert noise.bernoulli(KERNEL, 3, 0, (8,), 1 << 31).tolist() == BERNOULLI
    assert noise.uniform(KERNEL, 3, 1, (2, 2), 8).tolist() == UNIFORM
    assert noise.normal(KERNEL, 3, 2, (4,), 10).astype(np.int64).tolist() == NORMAL


WORDS = [1566205833839110370, 16167677177031999994]
BERNOULLI = [1, 0, 1, 1, 1, 1, 1, 0]
UNIFORM = [[143, 66], [112, 173]]
NORMAL = [72, 782, -928, -515]


@pytest.mark.parametrize("distribution,fraction", [("bernoulli", 0), ("uniform", 40), ("normal", 24), ("normal", 1)])
def test_kernels_agree_and_streams_and_seeds_differ(distribution, fraction):
    attributes = {"distribution": distribution, "fraction": fraction, "shape": [5, 7], "probability": 1 << 30}

    def drawn(kernel, seed, stream):
        return noise.drawn(kernel, seed, {**attributes, "stream": stream}).tobytes()

    all_of = [drawn(KERNEL, seed, stream) for seed in (0, 1, 2**64 - 1) for stream in (0, 1, 2)]
    assert all_of == [drawn(NumpyKernel(), seed, stream) for seed in (0, 1, 2**64 - 1) for stream in (0, 1, 2)]
    assert len(set(all_of)) == 9


def test_bernoulli():
    for probability in (0, 1 << 32):
        assert (noise.bernoulli(KERNEL, 1, 1, (1000,), probability) == (probability > 0)).all()
    for chance in (0.1, 0.5, 0.9):
        drawn = noise.bernoulli(KERNEL, 1, 1, (N,), round(chance * 2**32))
        assert abs(drawn.mean() - chance) < 5 * math.sqrt(chance * (1 - chance) / N)


def test_uniform():
    for fraction in (1, 4, 8):
        counts = np.bincount(noise.uniform(KERNEL, 2, 0, (N,), fraction).astype(int), minlength=1 << fraction)
        assert len(counts) == 1 << fraction
        assert np.abs(counts - N / len(counts)).max() < 6 * math.sqrt(N / len(counts))
    wide = noise.uniform(KERNEL, 2, 0, (N,), 58) / 2.0**58
    assert 0 <= wide.min() and wide.max() < 1 and abs(wide.mean() - 0.5) < 5 / math.sqrt(12 * N)


def exact_distribution(z):
    """P(normal number < z), computed: 256 coins, two uniform numbers, the term of Cornish and Fisher."""
    log_pmf = [math.lgamma(257) - math.lgamma(k + 1) - math.lgamma(257 - k) - 256 * math.log(2) for k in range(257)]
    pmf = np.exp(log_pmf)
    x = np.linspace(-9, 9, 400_001)
    value = x + 89060627 / 2**38 * (x**3 - 3 * x)
    x = np.interp(z, value, x)  # increasing, so P(value < z) = P(sum < x)
    total = x * math.sqrt(64 + 1 / 6) + 129
    over = np.clip(total[:, None] - np.arange(257), 0, 2)
    triangle = np.where(over < 1, over**2 / 2, 1 - (2 - over) ** 2 / 2)
    return triangle @ pmf


def test_normal_has_the_error_it_says():
    z = np.linspace(-6, 6, 4001)
    assert np.abs(exact_distribution(z) - gauss(z)).max() < 2e-5
    # And tails are of the size that they should be, out to one in a million.
    tail = exact_distribution(np.array([-4.75, -4.0, -3.0]))
    assert np.abs(tail / gauss([-4.75, -4.0, -3.0]) - 1).max() < 0.02


def test_normal():
    drawn = noise.normal(KERNEL, 5, 0, (N,), 24).astype(np.int64) / 2.0**24
    assert abs(drawn.mean()) < 5 / math.sqrt(N)
    assert abs((drawn**2).mean() - 1) < 5 * math.sqrt(2 / N)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / N)
    # Kolmogorov and Smirnov's distance: beyond 2.2 / sqrt(n) once in ten thousand.
    ordered = np.sort(drawn)[:: N // 4000]
    steps = np.arange(0, N, N // 4000) / N
    assert np.abs(gauss(ordered) - steps).max() < 2.2 / math.sqrt(N) + 1 / N
    coarse = noise.normal(KERNEL, 5, 0, (N,), 3).astype(np.int64) / 8
    assert np.abs(coarse - drawn).max() <= 1 / 16


def test_the_largest_normal_numbers_do_not_wrap():
    class Ones(NumpyKernel):
        def random(self, key, nonce, count, *, first_block=0):
            return np.full(count, self.word, np.uint64)

    for word, sign in ((2**64 - 1, 1), (0, -1)):
        kernel = Ones()
        kernel.word = word
        z = noise.normal(kernel, 0, 0, (3,), 24).astype(np.int64) / 2.0**24
        assert (15 < sign * z).all() and (sign * z < 18).all()


def attributes(**changed):
    return {"shape": [3], "fraction": 18, "distribution": "normal", "stream": 0} | changed


def build(seed_public=True, seed_shape=(), **changed):
    b = PlanBuilder()
    b.input("seed", seed_shape, 0, "client", public=seed_public)
    b.output(b.add("random", "seed", **attributes(**changed)), "y", ["client"])
    return b.build("noise", "train")


def test_plans_take_public_seeds_alone():
    assert Plan.from_json(build().to_json()) == build()
    with pytest.raises(PlanError, match="step 0 .random -> v0.: expected a public value as operand 0"):
        build(seed_public=False)
    with pytest.raises(PlanError, match=r"seed: expected one integer"):
        build(seed_shape=(1,))
    b = PlanBuilder()
    b.input("seed", (), 0, "client", public=True)
    b.input("x", (), 0, "client")
    b.output(b.add("random", b.add("add", "seed", "x"), **attributes()), "y", ["client"])
    with pytest.raises(PlanError, match="step 1 .*a public value as operand 0"):
        b.build("noise", "train")


@pytest.mark.parametrize("changed", [
    {"distribution": "cauchy"}, {"distribution": "bernoulli"}, {"fraction": 25}, {"fraction": 0}, {"probability": 1},
    {"distribution": "uniform", "probability": 1}, {"distribution": "uniform", "fraction": 0}, {"stream": -1},
    {"distribution": "bernoulli", "fraction": 0, "probability": 2**32 + 1},
])
def test_wrong_attributes(changed):
    with pytest.raises(PlanError):
        build(**changed)


def test_passes_keep_streams_apart():
    b = PlanBuilder()
    b.input("seed", (), 0, "client", public=True)
    for stream in (0, 1, 0):
        b.output(b.add("random", "seed", **attributes(stream=stream)), f"y{len(b.steps)}", ["client"])
    plan = optimise(b.build("noise", "train"))
    assert len(plan.steps) == 2 and len({item.value for item in plan.outputs}) == 2
