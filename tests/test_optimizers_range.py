"""No value of an update wraps within the ranges that docs/training.md states."""


import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import optimizers

from private_keras.errors import UnsupportedError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.shadow import shadow
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.training.updating.public import ONE, Steps, constant, root
from private_keras.tracing.training.updating.scaled import BUDGET, LONGEST, PLAIN, SIZE, SQUARE, Scaled, Writer
from tests.optimizer_cases import Run, initial, lower, variables
from tests.test_optimizers import CASES, OPTIONS

NAMES = itertools.count()


def writer() -> Writer:
    return Writer(Lowering(18, "accurate", "owner"), Steps(np.arange(4)))


def scaled(w: Writer, fraction: int, size: int, factor, square: bool) -> Scaled:
    name = w.lo.builder.input(f"x{next(NAMES)}", (3,), fraction, "owner")
    return Scaled(w.lo.secret(name), size, factor=factor, square=square)


def check(builder: PlanBuilder, w: Writer, inputs: dict[str, np.ndarray], result: str) -> float:
    """Runs the steps on real numbers and returns the result's largest; fails where a number needs 62 bits."""
    builder.output(result, "result", ())
    plan = builder.build("arithmetic", "train")
    publics = {name: np.full(item.shape, bound * 0.999) for name, (item, _, bound) in w.public.items()}
    seen = shadow(plan, {**inputs, **publics})
    assert not seen.overflows
    spans = [s.span for s in seen.seen if s.step.output == result]
    return max(abs(spans[0].low), abs(spans[0].high)) if spans else float(np.abs(inputs[result]).max())


FACTORS = st.one_of(
    st.floats(1e-6, 1.0), st.floats(-1.0, -1e-6), st.integers(-20, 4).map(lambda e: 2.0**e), st.floats(1.0, 64.0)
)


@settings(max_examples=150, deadline=None)
@given(
    fraction=st.integers(18, 44), size=st.integers(0, 20), number=FACTORS, varying=st.booleans(), square=st.booleans()
)
def test_a_factor_never_wraps(fraction, size, number, varying, square):
    size = min(size, BUDGET - fraction, SIZE if square else 20)
    w = writer()
    factor = (
        root("rate", (), lambda steps: np.full(steps.count, number), margin=6)
        if varying
        else constant(np.float64(number))
    )
    x = scaled(w, fraction, size, factor, square)
    top = SQUARE if square else 18
    # A result that its fraction cannot hold is out of the domain, whatever is done.
    if size + w.magnitude(factor) + top > BUDGET:
        return
    y = w.write(x, top)
    assert y.fraction == top
    largest = check(w.lo.builder, w, {x.secret.name: np.full(3, 2.0**size * 0.999)}, y.name)
    if not varying:
        assert largest == pytest.approx(2.0**size * 0.999 * abs(number), rel=2.0**-10, abs=2.0**-16)


@settings(max_examples=100, deadline=None)
@given(a=FACTORS, b=FACTORS, varying=st.booleans(), minus=st.booleans(), plain=st.booleans())
def test_sums_with_factors_never_wrap(a, b, varying, minus, plain):
    w = writer()
    first = root("rate", (), lambda steps: np.full(steps.count, a), margin=1) if varying else constant(np.float64(a))
    x = scaled(w, PLAIN, 8, first, False)
    y = scaled(w, 18, 9, ONE if plain else constant(np.float64(b)), False)
    z = w.add(x, y, -1 if minus else 1)
    values = {x.secret.name: np.full(3, 255.0), y.secret.name: np.full(3, 511.0)}
    check(w.lo.builder, w, values, w.write(z, PLAIN).name)


@settings(max_examples=100, deadline=None)
@given(
    fractions=st.tuples(st.integers(18, 49), st.integers(18, 49)),
    sizes=st.tuples(st.integers(0, 16), st.integers(0, 16)),
)
def test_products_never_wrap(fractions, sizes):
    w = writer()
    x, y = (scaled(w, f, min(s, BUDGET - f), ONE, False) for f, s in zip(fractions, sizes, strict=True))
    z = w.times(x, y)
    values = {v.secret.name: np.full(3, 2.0 ** min(v.size, 8) * 0.999) for v in (x, y)}
    assert z.secret.fraction <= LONGEST
    check(w.lo.builder, w, values, w.write(z, 18).name)


EXTREMES = (127.0, 1.0, 1e-6, 0.0)


@pytest.mark.parametrize("name", [*CASES, "clipnorm", "global_clipnorm", "clipvalue", "use_ema"])
def test_updates_hold_their_range(name):
    """Gradients of 128 in all places, then tiny ones and none at all, then 128 again: the plan on real numbers."""
    make = CASES[name][0] if name in CASES else OPTIONS[name]
    begin = initial(shapes=((3, 4),))
    update = lower(make(), variables(begin))
    run = Run(update, begin)
    public = update.updates.schedule(0, 12)
    for step in range(12):
        sign = np.where(np.arange(12).reshape(3, 4) % 2, 1.0, -1.0)
        gradients = [sign * EXTREMES[(step // 2) % 4]]
        now = {n: v[step] for n, v in public.items()}
        types = {item.name: item.type.fraction for item in update.plan.inputs}
        real = {n: v.astype(np.int64) / 2.0 ** types[n] for n, v in run.inputs(gradients, now).items()}
        assert not shadow(update.plan, real).overflows
        weights = run.step(gradients, now)
        assert np.isfinite(weights[0]).all()
        # A weight that wrapped is far away.
        assert np.abs(weights[0]).max() < 200


@pytest.mark.parametrize("name", ["SGD", "SGD momentum", "Lion"])
def test_updates_without_squares_hold_larger_gradients(name):
    begin = initial(shapes=((3, 4),))
    update = lower(CASES[name][0](), variables(begin))
    run = Run(update, begin)
    public = update.updates.schedule(0, 4)
    for step in range(4):
        gradients = [np.full((3, 4), (-1) ** step * 32767.0)]
        weights = run.step(gradients, {n: v[step] for n, v in public.items()})
        assert np.abs(weights[0]).max() < 2000


def test_a_matrix_of_zeros_stays():
    """Nothing divides by zero: no gradient, no step."""
    for make in (optimizers.Adam, optimizers.RMSprop, optimizers.Muon, optimizers.Adamax, optimizers.Lamb):
        begin = [np.rint(initial(shapes=((3, 4),))[0] * 2.0**18) / 2.0**18]
        extra = {} if make is not optimizers.Muon else {"weight_decay": None, "adam_weight_decay": None}
        update = lower(make(0.01, **extra), variables(begin))
        run = Run(update, begin)
        public = {n: v[0] for n, v in update.updates.schedule(0, 1).items()}
        for _ in range(3):
            weights = run.step([np.zeros((3, 4))], public)
        np.testing.assert_allclose(weights[0], begin[0], atol=2.0**-17)


def test_constants_that_do_not_fit_are_refused():
    w = writer()
    with pytest.raises(UnsupportedError, match="too large"):
        w.number(constant(np.float64(2.0**50)), 24)
