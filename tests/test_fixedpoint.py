"""Fixed point: rounding, range, and what may not be shared."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import InputError
from private_keras.ring.fixedpoint import DEFAULT_FRACTION, VALUE_BITS, decode, encode

FRACTIONS = st.integers(0, 30)


@settings(deadline=None)
@given(fraction=FRACTIONS, values=st.lists(st.floats(-(2.0**15), 2.0**15), max_size=40))
def test_error_is_at_most_half_a_unit(fraction, values):
    array = np.array(values, np.float64)
    assert np.all(np.abs(decode(encode(array, fraction), fraction) - array) <= 0.5 / 2**fraction)


@settings(deadline=None)
@given(fraction=FRACTIONS, units=st.lists(st.integers(-(1 << VALUE_BITS), 1 << VALUE_BITS), max_size=40))
def test_multiples_of_the_unit_are_exact(fraction, units):
    elements = np.array(units, np.int64).astype(np.uint64)
    np.testing.assert_array_equal(encode(decode(elements, fraction), fraction), elements)


@settings(deadline=None)
@given(a=st.integers(-(1 << 40), 1 << 40), b=st.integers(-(1 << 40), 1 << 40))
def test_sums_in_the_ring_are_sums_of_numbers(a, b):
    x, y = (np.array([v], np.int64).astype(np.uint64) for v in (a, b))
    assert decode(x + y, DEFAULT_FRACTION)[0] == (a + b) / 2**DEFAULT_FRACTION
    assert decode(x - y, DEFAULT_FRACTION)[0] == (a - b) / 2**DEFAULT_FRACTION


def test_negative_numbers_are_twos_complement():
    np.testing.assert_array_equal(encode([-1.0, 0.5, 0.0], 1), np.array([(1 << 64) - 2, 1, 0], np.uint64))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_])
def test_takes_every_real_dtype(dtype):
    values = np.array([[0, 1], [1, 0]], dtype)
    encoded = encode(values, DEFAULT_FRACTION)
    assert encoded.dtype == np.uint64 and encoded.shape == (2, 2)
    np.testing.assert_array_equal(decode(encoded, DEFAULT_FRACTION), values.astype(float))


def test_empty_and_scalar():
    assert encode(np.zeros((0, 3)), 18).shape == (0, 3)
    assert decode(encode(2.5, 18), 18) == 2.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0 ** (VALUE_BITS - 18) * 1.01, -1e300])
def test_refuses_what_fixed_point_cannot_hold(bad):
    with pytest.raises(InputError, match="weights"):
        encode(np.array([0.0, bad]), 18, name="weights")


@pytest.mark.parametrize("bad", [np.array(["a"]), np.array([1j]), np.array([object()]), np.array(["2020"], "M8[Y]")])
def test_refuses_what_is_no_real_number(bad):
    with pytest.raises(InputError):
        encode(bad, 18)


def test_errors_never_quote_a_value():
    with pytest.raises(InputError) as caught:
        encode(np.array([123456789012.25]), 18)
    assert "123456789012" not in str(caught.value)
