"""Functions on shares against float64: the stated domain with its edges, far outside, and on three parties.

`python -m tests.test_functions` prints the largest errors that docs/functions.md quotes.
"""
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from private_keras.errors import PlanError
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols import functions, tables
from private_keras.protocols.functions import positive
from private_keras.protocols.functions.exponential import BELOW, U_FRACTION, binary, exp2_nonpositive
from private_keras.protocols.simulate import Simulate
from private_keras.protocols.trio import CountingTrio
from private_keras.ring.numpy_kernel import NumpyKernel
from tests.trio import Session, ring, signed

FRACTIONS = [12, 17, 18, 20]
FAR = np.array([-(2.0**27), -1e6, -1e3, 1e3, 1e6, 2.0**27])
COUNT = 20_000


def grid(x, fraction):
    return np.rint(np.asarray(x, np.float64) * 2.0**fraction) / 2.0**fraction


def apply(function, *xs, fraction=18, result_fraction=None):
    """function(protocol, *shares) on real numbers, in the simulated protocol."""
    p = Simulate(NumpyKernel())
    shares = [p.constant((np.asarray(x) * 2.0**fraction).astype(np.int64).astype(np.uint64)) for x in xs]
    out = function(p, *shares)
    return signed(p.output(out)) / 2.0 ** (fraction if result_fraction is None else result_fraction)


def called(name, p, *shares, **arguments):
    return getattr(functions, name)(p, *shares, **arguments)


def spread(low, high, fraction, count=COUNT):
    """Logarithmically spread positive numbers in [low, high), both ends included if fixed point can hold them."""
    rng = np.random.default_rng(1)
    x = grid(2.0 ** rng.uniform(np.log2(low), np.log2(high), count), fraction)
    unit = 2.0**-fraction
    return np.clip(np.concatenate([x, [low, low + unit, high - unit]]), max(low, unit), high - unit)


def excess(y, want, fraction, relative):
    """Largest error beyond one unit, as part of the result or absolutely."""
    error = np.maximum(np.abs(y - want) - 2.0**-fraction, 0)
    return float((error / np.abs(want) if relative else error).max())


def largest_error(name, fraction):
    """(largest error beyond one unit, whether that is relative) over the stated domain."""
    if name == "exp":
        x = np.random.default_rng(2).uniform(-13.16, 15.94, COUNT)
        x = grid(np.concatenate([x, [-13.16, 15.94, 0.0, 1.0, -1.0]]), fraction)
        return excess(apply(partial(called, "exp", fraction=fraction), x, fraction=fraction), np.exp(x), fraction, True)
    reals = {"reciprocal": lambda x: 1 / x, "rsqrt": lambda x: x**-0.5, "sqrt": np.sqrt, "log": np.log}
    low, high = (2.0**-12, 2.0**20) if name == "reciprocal" else (2.0**-fraction, 2.0**22)
    x = spread(low, high, fraction)
    y = apply(partial(called, name, fraction=fraction), x, fraction=fraction)
    return excess(y, reals[name](x), fraction, name != "log")


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("name", ["exp", "reciprocal", "rsqrt", "sqrt", "log"])
def test_domain(name, fraction):
    assert largest_error(name, fraction) < (2e-5 if name == "exp" else 4e-5)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_exp_outside_its_domain(fraction):
    x = np.concatenate([FAR, [-13.2, -14.0, 15.95, 16.0]])
    y = apply(lambda p, s: functions.exp(p, s, fraction), x, fraction=fraction)
    assert (y[x < 0] == 0).all()
    np.testing.assert_allclose(y[x > 0], 2.0**23, rtol=2e-5)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_where_windows_meet(fraction):
    """Rounding up at the top of a window would turn 2^16 into 1: every unit around a boundary, many times over."""
    edges = [np.arange(-4, 5) + round(octaves * np.log(2) * 2**fraction) for octaves in (-27, -19, -16, -9, 7, 23)]
    x = np.tile(np.concatenate(edges) / 2.0**fraction, 500)
    inside = (x > -13.1) & (x < 15.94)
    y = apply(partial(called, "exp", fraction=fraction), x, fraction=fraction)
    assert excess(y[inside], np.exp(x[inside]), fraction, True) < 2e-5
    x = x[x <= 0]
    y = nonpositive(x, fraction, 30, False)
    assert excess(y[x > -18.7], np.exp(x[x > -18.7]), 30, True) < 2.2e-5


def nonpositive(x, fraction, result_fraction, wide):
    """e^x for x <= 0 as `softmax` has it, without the factor that its terms have in common."""
    y = apply(
        lambda p, s: exp2_nonpositive(p, binary(p, s, fraction), result_fraction, wide), x, fraction=fraction,
        result_fraction=result_fraction,
    )
    return y * 2.0 ** (BELOW / 2**U_FRACTION)


def nonpositive_error(fraction):
    """Largest absolute error of one window on its domain and somewhat below it, at 24 bits of result."""
    x = grid(-np.r_[0.0, np.random.default_rng(3).uniform(0, 24, COUNT), 2.0**-fraction], fraction)
    return float(np.abs(nonpositive(x, fraction, 24, True) - np.exp(x)).max())


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_exponential_of_nonpositive_numbers(fraction):
    x = -np.random.default_rng(3).uniform(0, 24, COUNT)
    x = grid(np.concatenate([x, [0.0, -(2.0**-fraction), -22.2], FAR[:3]]), fraction)
    assert nonpositive_error(fraction) < 2.2e-5
    assert (nonpositive(x, fraction, 24, True)[-4:] == 0).all()
    z = nonpositive(x, fraction, 30, False)
    inside = x > -18.6
    assert excess(z[inside], np.exp(x[inside]), 30, True) < 2.2e-5
    assert (z[x < -18.8] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**61), 1), st.booleans())
def test_powers_of_two_never_leave_zero_to_one(u, wide):
    """One unit above 0 too, since roundings of what is equal may differ; outside the windows it is 0."""
    p = Simulate(NumpyKernel())
    units = np.array([min(u + d, 1) for d in (0, 1)] * 200, np.int64)
    y = signed(exp2_nonpositive(p, p.constant(units.astype(np.uint64)), 21, wide).value) / 2.0**21
    exponent = units / 2.0**U_FRACTION
    want = np.where(exponent < (-32 if wide else -27), 0, 2.0 ** np.maximum(exponent, -64))
    assert (np.abs(y - want) < 4e-5 + 2.0**-21).all() and (y >= 0).all() and (y <= 1).all()


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_positive_functions_outside_their_domain(fraction):
    x = np.array([-(2.0**27), -1.0, -(2.0**-fraction), 0.0, 2.0**22, 2.0**24, 2.0**27])
    outside = {
        name: apply(partial(called, name, fraction=fraction), x, fraction=fraction)
        for name in ("reciprocal", "rsqrt", "sqrt", "log")
    }
    unit = 2.0**-fraction
    np.testing.assert_allclose(outside["reciprocal"][:4], 2.0**12, rtol=4e-5)
    assert (np.abs(outside["reciprocal"][4:]) <= 2 * unit).all()
    np.testing.assert_allclose(outside["rsqrt"][:4], unit**-0.5, rtol=4e-5)
    assert (np.abs(outside["rsqrt"][4:] - 2.0**-11) <= 2 * unit).all()
    assert (outside["sqrt"][:4] == 0).all()
    np.testing.assert_allclose(outside["sqrt"][4:], 2.0**11, rtol=4e-5)
    np.testing.assert_allclose(outside["log"][:4], -fraction * np.log(2), atol=4e-5 + unit)
    assert (np.abs(outside["log"][4:] - 22 * np.log(2)) < 4e-5 + unit).all()


@pytest.mark.parametrize("low,high", [(0, 1), (0, 10), (-3, 2), (-12, -9), (5, 6)])
def test_proven_ranges(low, high):
    for fraction in (12, 18, 20):
        x = spread(2.0**low, 2.0**high, fraction, 500)
        for name, real in (("reciprocal", lambda v: 1 / v), ("rsqrt", lambda v: v**-0.5), ("sqrt", np.sqrt)):
            y = apply(partial(called, name, fraction=fraction, low_bit=low, high_bit=high), x, fraction=fraction)
            assert excess(y, real(x), fraction, True) < 4e-5, (name, fraction)


REALS = {"reciprocal": lambda x: 1 / x, "rsqrt": lambda x: x**-0.5, "sqrt": np.sqrt}
# fraction of x, domain from 2^low to 2^high, fraction of the result: second moments at 40 bits, what divides at 24.
WIDE = {
    "sqrt": [(40, -40, 20, 24), (40, -40, 4, 24), (44, -44, 16, 28), (24, -24, 36, 18), (18, -5, 9, 28),
             (13, 0, 1, 12)],
    "rsqrt": [(40, -40, 20, 24), (40, -40, 0, 24), (44, -44, 16, 28), (24, -24, 31, 28), (12, -3, 40, 20)],
    "reciprocal": [(24, -20, 16, 24), (24, -20, 16, 18), (24, -24, 16, 28), (18, 2, 42, 12), (40, -30, 7, 27),
                   (44, -20, -10, 28)],
}


@pytest.fixture
def two_banks(monkeypatch):
    """As for large tensors, whatever their size."""
    monkeypatch.setattr(positive, "LARGE", 1)
    monkeypatch.setattr(positive, "MANY", 2)


def wide_error(name, fraction, low, high, result):
    """Largest error relative to the result, beyond one unit of it, on the whole declared domain and its ends."""
    rng = np.random.default_rng(9)
    units = np.floor(2.0 ** rng.uniform(low + fraction, high + fraction, COUNT)).astype(np.int64)
    ends = [1 << e for e in range(max(low + fraction, 0), high + fraction)]
    units = np.unique(np.concatenate([units, ends, [e - 1 for e in ends[1:]], [(1 << high + fraction) - 1]]))
    units = units[units >= 2.0 ** (low + fraction)]
    p = Simulate(NumpyKernel())
    y = getattr(functions, name)(p, p.constant(units.astype(np.uint64)), fraction, low, high, result)
    return excess(signed(y.value) / 2.0**result, REALS[name](units / 2.0**fraction), result, True)


@pytest.mark.parametrize("name,place", [(name, i) for name in WIDE for i in range(len(WIDE[name]))])
def test_declared_domains(name, place):
    fraction, low, high, result = WIDE[name][place]
    assert wide_error(name, fraction, low, high, result) < 4e-5
    # Outside they are what they are where the domain ends, up to 2^60 units either way: nothing wraps.
    top = high + fraction
    over = [1 << e for e in range(top, 61)] + [(1 << 60) - 1, (1 << 60)]
    under = [0, -1, -(1 << top), -(1 << 60), *([(1 << low + fraction) - 1] if low + fraction > 0 else [])]
    p = Simulate(NumpyKernel())
    x = np.array(under + over, np.int64).astype(np.uint64)
    y = signed(getattr(functions, name)(p, p.constant(x), fraction, low, high, result).value) / 2.0**result
    below = 0.0 if name == "sqrt" else REALS[name](2.0 ** max(low, -fraction))
    want = np.array([below] * len(under) + [REALS[name](2.0**high)] * len(over))
    assert (np.abs(y - want) <= 4e-5 * want + 2.0**-result).all()
    if name == "sqrt":
        assert (y[: len(under)] == 0).all()


@pytest.mark.parametrize("name,place", [(name, i) for name in WIDE for i in range(len(WIDE[name]))])
def test_declared_domains_of_large_tensors(name, place, two_banks):
    test_declared_domains(name, place)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_functions_of_large_tensors(fraction, two_banks):
    for name in ("reciprocal", "rsqrt", "sqrt", "log"):
        assert largest_error(name, fraction) < 4e-5, name
    test_positive_functions_outside_their_domain(fraction)


def test_three_parties_agree_on_large_tensors(two_banks):
    x = spread(2.0**-12, 2.0**20, 18, 200)
    secret = ring(np.rint(x * 2**18).astype(np.int64))
    session = Session()
    for name, real in {**REALS, "log": np.log}.items():
        y = signed(session.run(partial(called, name, fraction=18), secret)) / 2.0**18
        assert excess(y, real(x), 18, name != "log") < 4e-5
        assert session.declared == session.counted and session.counted.rounds == session.measured()[0]


def test_large_tensors_take_fewer_bytes():
    costs = {}
    for count in (positive.LARGE - 64, positive.LARGE):
        p = CountingTrio(NumpyKernel())
        functions.rsqrt(p, p.input((count,)), 40, -40, 20, 24)
        costs[count] = p.cost.rounds, p.cost.bytes / count
    (few, most), (many, least) = costs.values()
    assert (few, many) == (12, 18) and least < 0.83 * most


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_declared_domain_that_a_plan_may_have(data):
    """What the plan accepts is computed, on the domain and outside, for x up to 2^60 units."""
    name = data.draw(st.sampled_from(sorted(WIDE)))
    fraction = data.draw(st.integers(0, 44))
    high = data.draw(st.integers(-fraction + 1, 60 - fraction))
    low = data.draw(st.integers(-50, high - 1))
    result = data.draw(st.integers(12, 28))
    b = PlanBuilder()
    b.input("x", (64,), fraction, "client")
    try:
        b.add(name, "x", low=low, high=high, fraction=result)
    except PlanError:
        assume(False)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    units = np.concatenate([
        2.0 ** rng.uniform(max(low + fraction, 0), high + fraction, 48), -(2.0 ** rng.uniform(0, 60, 8)),
        2.0 ** rng.uniform(0, 60, 8),
    ]).astype(np.int64)
    p = Simulate(NumpyKernel())
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):
            patch.setattr(positive, "LARGE", 1)
            patch.setattr(positive, "MANY", 2)
        y = signed(getattr(functions, name)(p, p.constant(units.astype(np.uint64)), fraction, low, high, result).value)
    at = np.clip(units / 2.0**fraction, 2.0 ** max(low, -fraction), 2.0**high)
    want = np.where((units / 2.0**fraction < 2.0**low) & (name == "sqrt"), 0.0, REALS[name](at))
    assert (np.abs(y / 2.0**result - want) <= 4e-5 * want + 1.01 * 2.0**-result).all()


def test_domains_that_do_not_fit_are_refused():
    p = Simulate(NumpyKernel())
    x = p.constant(np.ones(3, np.uint64))
    wrong = (("reciprocal", (24, -24, 20, 24)), ("reciprocal", (24, -24, 10, 40)), ("rsqrt", (44, -44, 0, 40)))
    for name, domain in wrong:
        with pytest.raises(PlanError, match="expected results within 40 powers of two"):
            getattr(functions, name)(p, x, *domain)


SOFTMAX_ROWS = {1: 50, 2: 500, 10: 500, 12: 300, 13: 300, 64: 50, 65: 50, 1000: 6, 1024: 3, 1500: 3}


def softmax_error(n, fraction=18):
    rng = np.random.default_rng(n)
    rows = SOFTMAX_ROWS[n]
    largest = 0.0
    for width in (0.1, 1.0, 10.0, 1e4):
        x = grid(rng.normal(0, width, (rows, n)), fraction)
        x[0] = 3.0
        x[1] = np.r_[0.0, np.full(n - 1, -12.0)]  # many small terms against one large
        x[2] = np.r_[np.full(n - 1, -18.0), 0.0]
        y = apply(lambda p, s: functions.softmax(p, s, fraction, -1), x, fraction=fraction)
        e = np.exp(x - x.max(-1, keepdims=True))
        largest = max(largest, np.abs(y - e / e.sum(-1, keepdims=True)).max())
    return float(largest)


@pytest.mark.parametrize("n", list(SOFTMAX_ROWS))
def test_softmax(n):
    assert softmax_error(n) < 5e-5


def test_softmax_of_one_element_is_one():
    session = Session()
    for shape, axis in (((3, 1), 1), ((1, 4), 0)):
        x = ring(np.arange(-1, np.prod(shape) - 1).reshape(shape))
        y = session.run(lambda p, s, a=axis: functions.softmax(p, s, 18, a), x)
        assert y.shape == shape and (signed(y) == 1 << 18).all()
        assert session.declared == session.counted


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_softmax_axes_and_fractions(fraction):
    x = grid(np.random.default_rng(5).normal(0, 2, (3, 5, 4)), fraction)
    for axis in (0, 1, 2, -1, -3):
        y = apply(lambda p, s, a=axis: functions.softmax(p, s, fraction, a), x, fraction=fraction)
        e = np.exp(x)
        assert y.shape == x.shape
        assert np.abs(y - e / e.sum(axis, keepdims=True)).max() < 5e-5 + 2.0**-fraction


def integers(function, *xs):
    return apply(function, *xs, fraction=0)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 16, 17, 64, 65, 130, 600])
def test_argmax_and_maximum_with_ties(n):
    rng = np.random.default_rng(n)
    for x in (rng.integers(-3, 3, (7, n)), rng.integers(-(2**60), 2**60, (7, n)), np.zeros((2, n))):
        x = x.astype(np.float64).astype(np.int64)
        assert (integers(lambda p, s: functions.argmax(p, s, 1), x) == x.argmax(1)).all()
        assert (integers(lambda p, s: functions.argmax(p, s, 0), x.T) == x.argmax(1)).all()
        assert (integers(lambda p, s: functions.reduce_max(p, s, -1), x) == x.max(1)).all()
        assert (integers(lambda p, s: functions.reduce_max(p, s, 0), x.T) == x.max(1)).all()


def test_order_edges_and_broadcasting():
    x = np.array([0, 1, -1, 2**61 - 1, -(2**61), 5])
    assert (integers(functions.sign, x) == np.sign(x)).all()
    assert (integers(functions.absolute, x) == np.abs(x)).all()
    y = np.array([[0], [3], [-3]])
    assert (integers(functions.maximum, x, y) == np.maximum(x, y)).all()
    assert (integers(functions.minimum, y, x) == np.minimum(x, y)).all()


def test_spline_forms():
    x = np.array([-(2**45), -9, -8, -1, 0, 1, 7, 8, 2**45])
    knots, rows = [-8, 0, 8], [[-5], [0], [0], [7]]

    def run(*args, **kwargs):
        return integers(lambda p, s: functions.spline(p, s, *args, **kwargs), x)

    steps = np.where(x < -8, -5, np.where(x < 8, 0, 7))
    assert (run(knots, [[*r, 0] for r in rows], 0) == steps).all()
    assert (run(knots, [[*r, 0, 0] for r in rows], 0, (0, 1)) == steps + np.maximum(x, 0)).all()
    assert (run(knots, [[*r, 0, 0] for r in rows], 0, (1, 1)) == steps + x).all()
    assert (run([0], [[0, 0], [0, 0]], 3, (0, 0)) == 0).all()
    small = np.array([3, -2, 0])
    square = integers(lambda p, s: functions.spline(p, s, [], [[1, 2, 3]], 0), small)
    assert (square == 1 + 2 * small + 3 * small**2).all()
    scaled = run([0], [[0, 0], [0, 0]], 0, (1, 4), 2)
    assert (np.abs(scaled - np.where(x < 0, x / 4, x)) < 1).all()
    with pytest.raises(PlanError, match="0 must be a knot"):
        run([1], [[0, 0], [1, 0]], 0, (0, 1))


@pytest.mark.parametrize("cut, width", [(18, 46), (18, 20), (3, 46), (1, 30)])
def test_a_spline_of_a_quotient_finds_its_piece_from_what_is_divided(cut, width):
    """As the spline of the quotient, which may be rounded either way."""
    knots, rows = [-8, 0, 8], [[-5, 1], [3, -2], [0, 4], [7, 0]]
    units = np.array([-900, -9, -8, -7, -1, 0, 1, 7, 8, 9, 900]) << cut
    near = [-(1 << cut) // 2, -1, 0, 1, (1 << cut) // 2]
    x = (units[:, None] + near).ravel()

    def value(quotient, piece):
        return np.array(rows)[piece, 0] + np.array(rows)[piece, 1] * quotient

    got = integers(lambda p, s: functions.spline(p, s, knots, rows, 0, width=width, cut=cut), x)
    below, piece = x >> cut, np.searchsorted(np.array(knots) << cut, x, side="right")
    # The next piece may be taken from a quarter of a unit below its start on.
    early = np.searchsorted((np.array(knots) << cut) - (1 << cut >> 2), x, side="right")
    fits = [value(q, j) == got for q in (below, below + (x % (1 << cut) > 0)) for j in (piece, early)]
    assert np.logical_or.reduce(fits).all()


def test_constants_of_the_exponential():
    assert abs(tables.LN2_60 - int(np.log(2) * 2**60)) < 1 << 9
    assert tables.log2_e(34) == round(2**34 / np.log(2))


def program(p, x, positive, logits):
    return (
        functions.exp(p, x, 18), functions.reciprocal(p, positive, 18), functions.rsqrt(p, positive, 18),
        functions.sqrt(p, positive, 18), functions.log(p, positive, 18), functions.softmax(p, logits, 18, 1),
        functions.argmax(p, logits, 1), functions.reduce_max(p, logits, 1), functions.sign(p, x),
        functions.spline(p, x, [0], [[5, 0], [9, 0]], 0, (1, 3), 1),
    )


def test_three_parties_agree_with_the_simulation():
    rng = np.random.default_rng(7)
    x, positive = grid(rng.normal(0, 4, 70), 18), spread(2.0**-8, 2.0**10, 18, 60)
    logits = grid(rng.normal(0, 2, (5, 20)), 18)
    secret = [ring(np.rint(v * 2**18).astype(np.int64)) for v in (x, positive, logits)]
    session = Session()
    got = [signed(v) / 2.0**18 for v in session.run(program, *secret)]
    e = np.exp(logits)
    for y, want in zip(got, [
        np.exp(x), 1 / positive, positive**-0.5, np.sqrt(positive), np.log(positive), e / e.sum(1, keepdims=True),
        logits.argmax(1) / 2**18, logits.max(1), np.sign(x) / 2**18,
        np.where(x < 0, 5 / 2**18 + x / 2, 9 / 2**18 + 1.5 * x),
    ], strict=True):
        np.testing.assert_allclose(y, want, rtol=4e-5, atol=5e-5)
    assert session.declared.rounds == session.counted.rounds == session.measured()[0]
    assert dict(session.counted.sent) == session.measured()[1]


@pytest.mark.parametrize("name,rounds,most_bytes", [
    ("exp", 5, 321), ("reciprocal", 12, 982), ("rsqrt", 12, 830), ("sqrt", 12, 737), ("log", 10, 953),
])
def test_stated_costs(name, rounds, most_bytes):
    x = ring(np.full(640, 1 << 18))
    session = Session()
    session.run(lambda p, s: getattr(functions, name)(p, s, 18), x)
    assert session.counted.rounds == rounds == session.measured()[0]
    assert sum(session.measured()[1].values()) <= most_bytes * x.size


@pytest.mark.parametrize("name,n,rounds,most_bytes", [
    ("softmax", 10, 16, 606), ("softmax", 64, 22, 482), ("softmax", 1000, 38, 384), ("argmax", 10, 4, 293),
    ("argmax", 64, 10, 247), ("argmax", 1000, 18, 248), ("reduce_max", 10, 4, 301), ("reduce_max", 64, 9, 232),
    ("reduce_max", 1000, 25, 84),
])
def test_stated_costs_along_an_axis(name, n, rounds, most_bytes):
    p = CountingTrio(NumpyKernel())
    arguments = {"fraction": 18} if name == "softmax" else {}
    called(name, p, p.input((64, n)), axis=-1, **arguments)
    assert p.cost.rounds == rounds
    assert p.cost.bytes <= most_bytes * 64 * n


def test_a_proven_range_is_cheaper():
    costs = {}
    for low, high in ((-12, 20), (-12, 4), (-12, 5), (0, 4)):
        p = CountingTrio(NumpyKernel())
        functions.reciprocal(p, p.input((640,)), 18, low, high)
        costs[low, high] = p.cost.rounds, p.cost.bytes / 640
    assert costs[-12, 20][0] == costs[-12, 5][0] == costs[-12, 4][0] == costs[0, 4][0] == 12
    assert costs[-12, 20][1] - costs[-12, 4][1] > 8 * 28
    assert costs[-12, 4][1] - costs[0, 4][1] > 6 * 28


if __name__ == "__main__":
    for name in ("exp", "reciprocal", "rsqrt", "sqrt", "log"):
        print(f"{name:12s}", *(f"{largest_error(name, f):.1e}" for f in FRACTIONS))
    for name, domains in WIDE.items():
        print(f"{name:12s}", *(f"{wide_error(name, *declared):.1e}" for declared in domains))
    print("exp2_nonpositive", *(f"{nonpositive_error(f):.1e}" for f in FRACTIONS))
    for n in SOFTMAX_ROWS:
        print(f"softmax {n:4d}", f"{softmax_error(n):.1e}")
