"""The protocol's steps on ring elements: kernels against the reference to the bit, shares against integers."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import KernelError
from private_keras.ring import planes
from private_keras.ring.kernel import plane_words
from private_keras.ring.native_kernel import NativeKernel, generator_names, isa_names
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.ring.steps import Draw

REFERENCE = NumpyKernel()
NATIVE = [
    *(NativeKernel(isa=name) for name in isa_names()), NativeKernel(threads=2),
    *(NativeKernel(generator=name) for name in [*generator_names(), "openssl"]),
]  # fmt: skip
U = np.uint64
KEY = bytes(range(16))
SEEDS = st.integers(0, 1 << 32)
LENGTHS = st.one_of(st.integers(0, 200), st.integers(1000, 2200))


def words(rng, *shape):
    """Random words, among them the ends of the range."""
    x = rng.integers(0, 1 << 64, shape, dtype=U)
    ends = rng.choice(np.array([0, 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], U), shape)
    return np.where(rng.random(shape) < 0.1, ends, x)


def dealt(rng, size, stream):
    """Words as a party has them: drawn, from any place of a stream on, or received."""
    return Draw(KEY, int(rng.integers(1 << 60)), int(rng.integers(1 << 40)), size) if stream else words(rng, size)


def carry_words(n, bits, party):
    return n if party == 0 else plane_words(n) * bits


def agree(call):
    """The reference's result, which every kernel gives to the bit."""
    expected = call(REFERENCE)
    for kernel in NATIVE:
        for actual, wanted in zip(call(kernel), expected, strict=True):
            assert actual.dtype == np.uint64 and actual.shape == wanted.shape and actual.flags.c_contiguous
            np.testing.assert_array_equal(actual, wanted)
    return expected


@settings(max_examples=60, deadline=None)
@given(n=LENGTHS, bits=st.integers(1, 62), factor=st.integers(1 - 2**63, 2**63 - 1), party=st.integers(0, 1),
       unit=st.booleans(), stream=st.booleans(), seed=SEEDS)
def test_rescale_agrees(n, bits, factor, party, unit, stream, seed):
    rng, factor = np.random.default_rng(seed), 1 if unit else factor
    m, share = words(rng, n), dealt(rng, n + carry_words(n, bits, party), stream)
    share0 = dealt(rng, 2 * n, stream)
    agree(lambda k: [k.rescale(m, share, factor, bits, party), k.rescale_deal(m, share0, factor, bits)])


@settings(max_examples=60, deadline=None)
@given(n=LENGTHS, bits=st.integers(1, 62), party=st.integers(0, 1), stream=st.booleans(), seed=SEEDS)
def test_gates_agree(n, bits, party, stream, seed):
    rng = np.random.default_rng(seed)
    plane, m, mask = words(rng, plane_words(n)), words(rng, n), words(rng, n)
    lam, lam_l = dealt(rng, n, stream), dealt(rng, n, stream)
    share = dealt(rng, 3 * n + 2 * carry_words(n, bits, party), stream)
    share0 = dealt(rng, 5 * n, stream)

    def deal(k):
        bits, products = np.empty(n, U), np.empty(n, U)
        k.gate_deal(plane, mask, lam, lam_l, bits, products)
        return [bits, products]

    agree(lambda k: [
        k.gate(plane, m, mask, lam, lam_l, party), *deal(k), k.gate_rescaled(plane, m, share, bits, party),
        k.gate_rescaled_deal(plane, mask, share0, bits), k.bit_share(plane, lam, n, party), k.bit_deal(plane, lam, n),
    ])  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(n=LENGTHS, party=st.integers(0, 1), stream=st.booleans(), seed=SEEDS)
def test_products_agree(n, party, stream, seed):
    rng = np.random.default_rng(seed)
    x, y, g = (words(rng, n), words(rng, n)), (words(rng, n), words(rng, n)), dealt(rng, n, stream)
    agree(lambda k: [k.multiply(x, y, g, party), k.multiply_deal(x[0], y[0], g), k.add(g, x[0]), k.subtract(x[1], g)])


@settings(max_examples=60, deadline=None)
@given(n=LENGTHS, pieces=st.integers(1, 5), terms=st.integers(2, 3), party=st.integers(0, 1), stream=st.booleans(),
       seed=SEEDS)
def test_pieces_agree(n, pieces, terms, party, stream, seed):
    rng = np.random.default_rng(seed)
    m, mask, rows = words(rng, n), words(rng, n), words(rng, pieces, terms)
    planes_ = words(rng, (pieces - 1) * plane_words(n))
    share = dealt(rng, n * ((terms == 3) + terms * (pieces - 1)), stream)
    agree(lambda k: [k.piecewise(m, mask, planes_, rows, share, party), k.piecewise_deal(mask, planes_, rows, share)])


@settings(max_examples=60, deadline=None)
@given(n=LENGTHS, fraction=st.integers(0, 18), integer_bits=st.integers(1, 6), offset=st.integers(-80, 80),
       stream=st.booleans(), seed=SEEDS)
def test_powers_agree(n, fraction, integer_bits, offset, stream, seed):
    rng = np.random.default_rng(seed)
    plane, m, share = words(rng, plane_words(n)), words(rng, n), dealt(rng, 2 * n, stream)
    agree(lambda k: [
        k.exp2_share(plane, m, share, fraction, integer_bits, offset),
        k.exp2_deal(plane, m, share, fraction, integer_bits, offset),
    ])  # fmt: skip


def values(rng, n):
    edges = [0, 1, -1, (1 << 62) - 1, 1 - (1 << 62)]
    return np.concatenate([rng.integers(-(1 << 62) + 1, 1 << 62, n), edges])


@pytest.mark.parametrize("factor", [1, -1, 3, -671_089])
def test_two_shares_of_a_rescaling_add_up(factor):
    """Both evaluators' results are z factor / 2^bits, less than one unit off, for any mask."""
    rng, bits = np.random.default_rng(0), 37
    z = values(rng, 3000)
    r = words(rng, z.size)
    for kernel in [REFERENCE, *NATIVE]:
        own = Draw(KEY, 1, 5, 2 * z.size)
        message = kernel.rescale_deal(r, own, factor, bits)
        m = z.astype(U) + r
        total = kernel.rescale(m, own, factor, bits, 0) + kernel.rescale(m, message, factor, bits, 1)
        exact = [int(v) * factor for v in z]
        for got, wanted in zip(total.view(np.int64).tolist(), exact, strict=True):
            assert abs((got << bits) - wanted) < 1 << bits


@pytest.mark.parametrize("bits", [0, 18])
def test_two_shares_of_a_gate_add_up(bits):
    rng = np.random.default_rng(1)
    z = values(rng, 3000)
    n, r = z.size, words(rng, z.size)
    lam, hat = words(rng, plane_words(n)), words(rng, plane_words(n))
    chosen = planes.unpack_bits(lam ^ hat, n)
    l0 = words(rng, n)
    for kernel in [REFERENCE, *NATIVE]:
        m = z.astype(U) + r
        if bits:
            own = Draw(KEY, 1, 4, 5 * n)
            message = kernel.gate_rescaled_deal(lam, r, own, bits)
            total = sum(kernel.gate_rescaled(hat, m, share, bits, party) for party, share in enumerate((own, message)))
        else:
            own, parts = [Draw(KEY, 1, 0, n), Draw(KEY, 2, 1, n)], (np.empty(n, U), np.empty(n, U))
            kernel.gate_deal(lam, r, *own, *parts)
            total = kernel.gate(hat, m, l0, *own, 0) + kernel.gate(hat, m, r - l0, *parts, 1)
        error = total.view(np.int64) - np.where(chosen, z >> bits, 0)
        assert set(np.unique(error)) <= ({0, 1} if bits else {0})


@pytest.mark.parametrize("terms", [2, 3])
def test_two_shares_of_pieces_add_up(terms):
    rng, n = np.random.default_rng(3), 1100
    x, r, l0, rows = words(rng, n), words(rng, n), words(rng, n), words(rng, 4, terms)
    lams, hats = words(rng, 3, plane_words(n)), words(rng, 3, plane_words(n))
    chosen = planes.unpack_bits(lams ^ hats, n)
    coefficients = rows[0][:, None] + rows[1:].T @ chosen.astype(U)
    expected = sum(c * x**U(k) for k, c in enumerate(coefficients))
    own = Draw(KEY, 1, 3, n * ((terms == 3) + 3 * terms))
    for kernel in [REFERENCE, *NATIVE]:
        message = kernel.piecewise_deal(r, lams, rows, own)
        shares = [
            kernel.piecewise(x + r, mask, hats, rows, share, party)
            for party, (mask, share) in enumerate([(l0, own), (r - l0, message)])
        ]
        np.testing.assert_array_equal(shares[0] + shares[1], expected)


def test_two_shares_of_a_power_add_up():
    rng, n, fraction, integer_bits = np.random.default_rng(4), 1100, 18, 4
    bits = fraction + integer_bits
    z, r, lam = rng.integers(0, 1 << bits, n).astype(U), words(rng, n), words(rng, plane_words(n))
    m = z + r
    wraps = (m & U((1 << bits) - 1)) < (r & U((1 << bits) - 1))
    hat = lam ^ planes.pack_bits(wraps)
    own = Draw(KEY, 1, 1, 2 * n)
    for kernel in [REFERENCE, *NATIVE]:
        message = kernel.exp2_deal(lam, r, own, fraction, integer_bits, 34)
        total = sum(kernel.exp2_share(hat, m, share, fraction, integer_bits, 12) for share in (own, message))
        np.testing.assert_allclose(total.astype(float), 2.0 ** (z / 2.0**fraction + 46), rtol=1e-3)


def test_results_keep_shape_and_inputs_may_be_strided():
    rng = np.random.default_rng(2)
    m, mask = (words(rng, 4, 6, 5).transpose(2, 0, 1)[::-1] for _ in range(2))
    plane, lam, share = words(rng, 2), dealt(rng, 120, True), dealt(rng, 240, True)
    results = agree(lambda k: [
        k.rescale(m, share, 3, 7, 0), k.gate(plane, m, mask, lam, lam, 1), k.multiply((m, mask), (mask, m), lam, 0),
        k.rescale_deal(m, share, 3, 7),
    ])  # fmt: skip
    assert [r.shape for r in results] == [m.shape] * 3 + [(120 + 2 * 7,)]


Z = np.zeros
CALLS = {
    "four coefficients": lambda k: k.piecewise(Z(3, U), Z(3, U), Z(1, U), Z((2, 4), U), Z(12, U), 0),
    "no pieces": lambda k: k.piecewise(Z(3, U), Z(3, U), Z(0, U), Z((0, 3), U), Z(3, U), 0),
    "pieces' dealt words": lambda k: k.piecewise(Z(3, U), Z(3, U), Z(1, U), Z((2, 3), U), Z(11, U), 0),
    "pieces' planes": lambda k: k.piecewise_deal(Z(3, U), Z(2, U), Z((2, 3), U), Z(12, U)),
    "pieces' share": lambda k: k.piecewise_deal(Z(3, U), Z(1, U), Z((2, 3), U), Z(13, U)),
    "power's bits": lambda k: k.exp2_share(Z(1, U), Z(3, U), Z(6, U), 19, 4, 0),
    "power's dealt words": lambda k: k.exp2_share(Z(1, U), Z(3, U), Z(5, U), 18, 4, 0),
    "power's share": lambda k: k.exp2_deal(Z(1, U), Z(3, U), Z(5, U), 18, 4, 0),
    "bits": lambda k: k.rescale(Z(3, U), Z(6, U), 1, 63, 0),
    "no bits": lambda k: k.rescale(Z(3, U), Z(6, U), 1, 0, 0),
    "factor": lambda k: k.rescale(Z(3, U), Z(6, U), 1 << 63, 8, 0),
    "party": lambda k: k.rescale(Z(3, U), Z(6, U), 1, 8, 2),
    "dealt words": lambda k: k.rescale(Z(3, U), Z(6, U), 1, 8, 1),
    "stream": lambda k: k.rescale(Z(3, U), Draw(KEY, 0, 0, 5), 1, 8, 0),
    "key": lambda k: k.rescale(Z(3, U), Draw(KEY[:15], 0, 0, 6), 1, 8, 0),
    "signed": lambda k: k.rescale(Z(3, np.int64), Z(6, U), 1, 8, 0),
    "signed dealt words": lambda k: k.rescale(Z(3, U), Z(6, np.int64), 1, 8, 0),
    "plane": lambda k: k.gate_rescaled(Z(2, U), Z(3, U), Z(15, U), 8, 0),
    "gate": lambda k: k.gate(Z(1, U), Z(3, U), Z(3, U), Z(3, U), Z(4, U), 0),
    "deal": lambda k: k.gate_rescaled_deal(Z(1, U), Z(3, U), Z(14, U), 8),
    "bit": lambda k: k.bit_share(Z(1, U), Z(3, U), 4, 0),
    "many bits": lambda k: k.bit_share(Z(1, U), Z(65, U), 65, 0),
    "factors": lambda k: k.multiply((Z(3, U), Z(3, U)), (Z(4, U), Z(3, U)), Z(3, U), 0),
    "product": lambda k: k.multiply_deal(Z(3, U), Z(4, U), Z(3, U)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kernel", [REFERENCE, *NATIVE], ids=repr)
def test_refuses(kernel, call):
    with pytest.raises(KernelError):
        call(kernel)
