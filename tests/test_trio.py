"""Every step of `trio` against plain integers, and its declared cost against the wire."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from private_keras.protocols.protocol import times
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring import default_kernel
from private_keras.ring.numpy_kernel import NumpyKernel
from tests.trio import Session, ring, signed

EDGES = np.array([0, 1, -1, 2**18, -(2**18), 2**61, -(2**61), 2**62 - 1, -(2**62) + 1, 3, -3], object)
SHAPES = [(1,), (63,), (64,), (65,), (5, 13), (2, 1100), ()]
rng = np.random.default_rng(7)


def values(shape, bits=45):
    return rng.integers(-(2**bits), 2**bits, shape).astype(object)


def check(program, expected, *secret):
    """Runs on three parties and on `simulate`; both equal `expected` (int64), and costs agree everywhere."""
    session = Session()
    opened = session.run(program, *[ring(s) for s in secret])
    expected(signed(opened))
    p = Simulate(default_kernel())
    expected(signed(p.output(program(p, *(SimulatedShare(ring(s)) for s in secret)))))
    rounds, sent = session.measured()
    assert all(party.cost == session.declared for party in session.parties)
    assert session.counted == session.declared
    assert rounds == session.declared.rounds
    assert sent == dict(session.declared.sent)
    return session


def equals(want):
    return lambda got: np.testing.assert_array_equal(got, np.asarray(want, object).astype(np.int64))


def near(want, units=1):
    want = np.asarray(want, object).astype(np.int64)
    return lambda got: np.testing.assert_array_less(np.abs((got - want).astype(np.float64)), units + 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_and_products(shape):
    x, y = values(shape, 20), values(shape, 20)
    check(lambda p, a, b: p.linear(lambda u, v: u - v, shape, a, b), equals(x - y), x, y)
    check(lambda p, a, b: p.bilinear(times, shape, a, b), equals(x * y), x, y)
    check(lambda p, a, b: p.add_public(p.bilinear(times, shape, a, b), ring(y)), equals(x * y + y), x, y)
    # A product that is masked, multiplied again, and mixed with a masked tensor.
    check(
        lambda p, a, b: p.linear(
            np.add, shape, p.bilinear(times, shape, p.bilinear(times, shape, a, b), b), a
        ),
        equals(ring(x * y * y + x).astype(np.int64)),
        x,
        y,
    )


def test_matmul_with_negative_zero_stride_and_constant_operands():
    x, w = values((7, 9), 20), values((9, 3), 20)
    kernel = default_kernel()
    check(lambda p, a, b: p.bilinear(kernel.matmul, (7, 3), a, b), equals(x @ w), x, w)
    check(lambda p, a: p.bilinear(kernel.matmul, (7, 3), a, p.constant(ring(w))), equals(x @ w), x)


CORNERS = np.array([0, 1, -1, 2**61, -(2**61), 2**62, 2**63 - 1, -(2**63), 2**32, 3], object)


def test_products_held_twice_are_exact_for_all_ring_elements():
    """Whatever the operands are and however they came about; 2 x y mod 2^64, added up like any product."""
    kernel, n = default_kernel(), len(CORNERS)
    x = np.stack([CORNERS, CORNERS[::-1]])
    w = np.concatenate([CORNERS, values((n * 2,), 62)]).reshape(n, 3)

    def twice(p, a, b):
        return p.bilinear(kernel.matmul, (a.shape[0], b.shape[1]), a, b, twice=True)

    check(twice, equals(ring(2 * (x @ w)).astype(np.int64)), x, w)
    check(lambda p, a: twice(p, a, p.constant(ring(w))), equals(ring(2 * (x @ w)).astype(np.int64)), x)
    # Of what was masked in the job, moved, scaled and mixed with what was shared.
    def chained(p, a, b):
        z = p.linear(lambda u, v: (u + 3 * v)[:, ::-1].T, (n, 2), p.bilinear(times, (2, n), a, a), a)
        return twice(p, twice(p, a, z), p.linear(lambda v: v[:2], (2, 3), p.add_public(b, ring(w))))

    z = (x * x + 3 * x)[:, ::-1].T
    check(chained, equals(ring(4 * (x @ z) @ (2 * w)[:2]).astype(np.int64)), x, w)


def test_a_product_held_twice_sends_what_one_held_once_does():
    kernel, x = default_kernel(), values((6, 6), 20)
    costs = []
    for twice in (False, True):
        session = Session()
        session.run(lambda p, a, twice=twice: p.bilinear(kernel.matmul, (6, 6), a, a, twice), ring(x))
        costs.append((session.measured(), session.declared))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("bits", [1, 5, 18, 36, 60])
@pytest.mark.parametrize("shape", [(1,), (65,), (3, 700)])
def test_truncate(shape, bits):
    x = values(shape, 61)
    check(lambda p, a: p.truncate(a, bits), lambda got: _floor_or_next(got, x, bits), x)


def _floor_or_next(got, x, bits):
    floor = np.array([int(v) >> bits for v in np.ravel(x)], np.int64).reshape(np.shape(x))
    assert set(np.unique(got - floor)) <= {0, 1}
    exact = np.array([int(v) % (1 << bits) == 0 for v in np.ravel(x)]).reshape(np.shape(x))
    assert ((got - floor)[exact] == 0).all()


def test_truncate_edges():
    x = np.repeat(EDGES, 50)
    check(lambda p, a: p.truncate(a, 18), lambda got: _floor_or_next(got, x, 18), x)


def test_truncation_is_unbiased():
    x = np.full(200_000, 3 * 2**16 + 12_345, object)
    got = signed(Session().run(lambda p, a: p.truncate(a, 18), ring(x)))
    assert abs(got.mean() - (3 * 2**16 + 12_345) / 2**18) < 5e-3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=1, max_size=70), st.integers(-(2**62) + 1, 2**62 - 1),
    st.integers(1, 62),
)  # fmt: skip
def test_rescale_is_the_product_to_one_unit(xs, factor, bits):
    xs = [x for x in xs if abs(x * factor) >> bits < 2**62] or [0]
    for session in (Session(), None):
        if session is None:
            p = Simulate(default_kernel())
            got = signed(p.rescale(p.constant(ring(np.array(xs, object))), factor, bits).value)
        else:
            got = signed(session.run(lambda p, a: p.rescale(a, factor, bits), ring(np.array(xs, object))))
        for x, y in zip(xs, got.tolist(), strict=True):
            assert abs((y << bits) - x * factor) < 1 << bits


def test_rescale_is_unbiased_and_costs_what_a_truncation_does():
    x, factor = np.full(200_000, 3 * 2**16 + 12_345, object), 671_089
    session, other = Session(), Session()
    got = signed(session.run(lambda p, a: p.rescale(a, factor, 37), ring(x)))
    assert abs(got.mean() - (3 * 2**16 + 12_345) * factor / 2**37) < 5e-3
    other.run(lambda p, a: p.truncate(a, 37), ring(x))
    assert session.measured() == other.measured()


@pytest.mark.parametrize("width", [62, 44])
def test_relu_with_truncation_lets_nothing_negative_through_and_loses_a_quarter_unit_at_most(width):
    """Without its low bits a comparison errs for small positive numbers alone, as its docstring says."""
    bits, small = 18, 1 << 16
    edges = [0, 1, -1, small - 1, small, -small, 1 - small, (1 << width) - small, small - (1 << width)]
    x = np.repeat(np.array(edges, object), 500)

    def expected(got):
        whole = np.array([int(v) >> bits for v in x], np.int64)
        positive = np.array([v > 0 for v in x])
        sure = np.array([v >= small for v in x])
        assert (got[~positive] == 0).all()
        assert set(np.unique((got - whole)[sure])) <= {0, 1}
        assert set(np.unique(got[positive & ~sure])) <= {0, 1}

    check(lambda p, a: p.relu(a, bits, width), expected, x)
    slopes = signed(Session().run(lambda p, a: p.bits_to_share(p.relu_and_bits(a, bits, width)[1]), ring(x)))
    assert (slopes[x <= 0] == 0).all() and (slopes[x >= small] == 1).all()
    assert slopes[x == small - 1].sum() > 400  # about x / 2^16 of what is below


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [0, 18])
def test_relu(shape, bits):
    x = values(shape)
    positive = np.maximum(x, 0)
    if bits:
        check(lambda p, a: p.relu(a, bits), lambda got: _floor_or_next(got, positive, bits), x)
    else:
        check(lambda p, a: p.relu(a), equals(positive), x)


def test_relu_edges_and_unmasked_input():
    x = np.repeat(EDGES, 20)
    check(lambda p, a: p.relu(a), equals(np.maximum(x, 0)), x)
    check(lambda p, a: p.relu(a, 18), lambda got: _floor_or_next(got, np.maximum(x, 0), 18), x)
    y, w = values((40,), 20), values((40,), 20)
    check(lambda p, a, b: p.relu(p.bilinear(times, (40,), a, b)), equals(np.maximum(y * w, 0)), y, w)


@pytest.mark.parametrize("width", [3, 4, 5, 9, 16, 22, 30, 33, 36, 62])
def test_compare_thresholds(width):
    bits = min(width, 61) - 1
    x = values((3, 71), bits)
    thresholds = [0, 1, -1, 2**bits - 1, 3, int(x.ravel()[0])]
    thresholds = [t for t in thresholds if abs(t) < 2**bits]
    want = np.stack([(x >= t) for t in thresholds]).astype(int)
    session = check(lambda p, a: p.bits_to_share(p.compare(a, thresholds, width)), equals(want), x)
    assert session.declared.rounds == {True: 1, False: 2}[width <= 4] if width <= 16 else 3


@pytest.mark.parametrize("width, low", [(22, 5), (36, 20), (63, 16), (20, 17), (44, 34)])
def test_compare_without_low_bits(width, low):
    """Right from the threshold on, and below it by as much as the low bits say; between, either."""
    reach = 2 ** min(width - 1, 61)
    thresholds = [0, 5, -(2 ** (width - 3)), 3 << (low - 1)]
    edges = [t + d for t in thresholds for d in (-(2**low), -(2**low) + 1, -(2 ** (low - 1)), -1, 0, 1, 2**low)]
    x = np.array([*edges, reach // 2, -reach // 2] * 9, object)

    def expected(got):
        for row, t in zip(got, thresholds, strict=True):
            np.testing.assert_array_equal(row[x >= t], 1)
            np.testing.assert_array_equal(row[x <= t - 2**low], 0)
            assert set(np.unique(row)) <= {0, 1}

    coarse = check(lambda p, a: p.bits_to_share(p.compare(a, thresholds, width, low)), expected, x)
    fine = check(lambda p, a: p.bits_to_share(p.compare(a, thresholds, width - low)), lambda got: None, x)
    assert coarse.declared == fine.declared


def test_bits():
    x, y = values((5, 9), 10), values((9,), 30)
    b = (x >= 0).astype(int).astype(object)
    check(
        lambda p, a, v: p.multiply_bits(p.bits_linear(lambda w: w[0], (5, 9), p.compare(a, [0])), v),
        equals(b * y),
        x,
        y,
    )
    check(lambda p, a: p.bits_to_share(p.bits_not(p.compare(a, [0]))), equals(1 - b[None]), x)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 16])
def test_bits_and(count):
    x = rng.integers(-1, 6, (count, 130)).astype(object)
    want = (x >= 0).all(axis=0).astype(int)
    program = lambda p, a: p.bits_to_share(  # noqa: E731
        p.bits_and(p.bits_linear(lambda w: w[0], (count, 130), p.compare(a, [0])), 0)
    )  # noqa: E731
    check(program, equals(want), x)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 16])
def test_one_hot(depth):
    x = rng.integers(0, depth, (4, 7)).astype(object)
    check(lambda p, a: p.one_hot(a, depth), equals(np.eye(depth, dtype=int)[x.astype(int)]), x)


@pytest.mark.parametrize("degree", [1, 2])
def test_piecewise(degree):
    x = values((3, 50), 12)
    knots = [-1000, 17, 900]
    polynomials = [
        [5, 3, 2][: degree + 1],
        [1, -7, 11][: degree + 1],
        [0, 0, 0][: degree + 1],
        [9, -2, -4][: degree + 1],
    ]
    rows = np.array(
        [polynomials[0]] + [np.subtract(b, a) for a, b in zip(polynomials, polynomials[1:], strict=False)], np.int64
    )
    which = sum((x >= k).astype(int) for k in knots)
    want = sum(np.vectorize(lambda j, d=d: polynomials[j][d], otypes=[object])(which) * x**d for d in range(degree + 1))
    check(lambda p, a: p.piecewise(a, p.compare(a, knots), rows), equals(want), x)


@pytest.mark.parametrize(("integer_bits", "offset", "scale"), [(4, -16, 60), (4, -8, 50), (3, 0, 52)])
def test_exp2(integer_bits, offset, scale):
    fraction = 18
    x = rng.integers(0, 2 ** (fraction + integer_bits), 4000)
    x[:3] = [0, 1, 2 ** (fraction + integer_bits) - 1]
    exact = 2.0 ** (x / 2**fraction + offset)

    def close(got):
        error = np.abs(got / 2.0**scale - exact)
        assert (error <= 4e-6 * exact + 4e-6).all()

    check(lambda p, a: p.exp2_masked(a, fraction, integer_bits, offset, scale), close, x.astype(object))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=9), elements=st.integers(-(2**62) + 1, 2**62 - 1)))
def test_relu_property(x):
    got = signed(Session().run(lambda p, a: p.relu(a), ring(x)))
    np.testing.assert_array_equal(got, np.maximum(x, 0))


def test_mask_in_one_round_and_only_once():
    x = values((10,), 20)

    def program(p, a, b):
        u, v = p.bilinear(times, (10,), a, b), p.bilinear(times, (10,), b, b)
        p.mask(u, v, u)
        p.mask(u)
        return p.linear(np.add, (10,), u, v)

    session = check(program, equals(x * x + x * x), x, x)
    assert session.declared.rounds == 1


def test_design_table():
    """Rounds and bytes per element at or below design: product 24, with truncation 50, with ReLU 117."""
    n = 64 * 1024
    x = values((n,), 20)

    def bytes_per_element(program):
        session = check(program, lambda got: None, x, x)
        return session.declared.rounds, session.declared.bytes / n

    product = lambda p, a, b: p.bilinear(times, (n,), a, b)  # noqa: E731

    def masked(p, y):
        p.mask(y)
        return y

    assert bytes_per_element(lambda p, a, b: masked(p, product(p, a, b))) == (1, 24)
    rounds, size = bytes_per_element(lambda p, a, b: masked(p, p.truncate(product(p, a, b), 18)))
    assert rounds == 2 and size <= 50.3
    rounds, size = bytes_per_element(lambda p, a, b: masked(p, p.relu(product(p, a, b), 18)))
    assert rounds == 5 and size <= 117.6


def test_the_reference_kernel_runs_the_same_protocol():
    """Either kernel at every party: the same values, up to the one unit of rounding in the inner result times x."""
    x = values((3, 77))
    keys = {(0, 1): bytes(16), (0, 2): bytes(range(16)), (1, 2): bytes(range(16, 32))}
    program = lambda p, a: p.relu(p.bilinear(times, (3, 77), a, p.relu(a, 18)), 5)  # noqa: E731
    opened = [Session(kernel, keys=keys).run(program, ring(x)) for kernel in (NumpyKernel(), default_kernel())]
    assert np.abs(signed(opened[0] - opened[1])).max() <= 2 ** (45 - 5) + 1


def test_a_sum_with_a_public_value_is_a_share_of_its_own():
    """The helper must not take the sum and its summand for one share: masking one would mask both, for it alone."""

    def program(p, x):
        y = p.truncate(x, 4)
        shifted = p.add_public(y, np.full(y.shape, np.uint64(5)))
        return p.relu(y), p.relu(shifted), p.relu(p.add_public(shifted, np.full(y.shape, np.uint64(1))))

    s = Session()
    plain, shifted, again = s.run(program, ring([160, -160, 320, 16]))
    assert signed(plain).tolist() == [10, 0, 20, 1]
    assert signed(shifted).tolist() == [15, 0, 25, 6]
    assert signed(again).tolist() == [16, 0, 26, 7]
    assert s.declared == s.counted
