"""Bit planes and the comparison: kernels against the reference, and the whole protocol step against plain integers."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import KernelError
from private_keras.ring import planes, tree
from private_keras.ring.kernel import plane_words
from private_keras.ring.native_kernel import NativeKernel, isa_names
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.ring.steps import Draw

REFERENCE = NumpyKernel()
NATIVE = [*(NativeKernel(isa=name) for name in isa_names()), NativeKernel(threads=2)]
SEEDS = st.integers(0, 1 << 32)
LENGTHS = st.one_of(st.integers(0, 200), st.integers(1000, 2200))
WIDTHS = st.integers(1, 62)
U = np.uint64


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 1 << 64, shape, dtype=U)


def same(actual, expected) -> None:
    if isinstance(expected, tuple):
        for a, e in zip(actual, expected, strict=True):
            same(a, e)
        return
    assert actual.dtype == np.uint64 and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


@settings(deadline=None)
@given(n=LENGTHS, slice_=st.tuples(st.integers(1, 64), st.integers(0, 63)), seed=SEEDS)
def test_to_and_from_planes(n, slice_, seed):
    bits, shift = slice_[0], min(slice_[1], 64 - slice_[0])
    rng = np.random.default_rng(seed)
    x, noise = words(rng, n), words(rng, bits * plane_words(n))
    expected = REFERENCE.to_planes(x, bits, shift)
    kept = x & U(((1 << bits) - 1) << shift)
    for kernel in NATIVE:
        same(kernel.to_planes(x, bits, shift), expected)
        same(kernel.from_planes(expected, bits, n, shift), kept)
        same(kernel.from_planes(noise, bits, n, shift), REFERENCE.from_planes(noise, bits, n, shift))


def test_long_and_strided_arrays():
    x = words(np.random.default_rng(0), 100_003, 2)[:, 1]
    expected = REFERENCE.to_planes(x, 62, 1)
    for kernel in NATIVE:
        same(kernel.to_planes(x, 62, 1), expected)
        same(kernel.from_planes(expected, 62, x.size), (x >> U(1)) & U((1 << 62) - 1))


@settings(deadline=None)
@given(n=LENGTHS, count=st.integers(1, 9), seed=SEEDS)
def test_messages_are_block_major(n, count, seed):
    rng = np.random.default_rng(seed)
    bits = rng.random((count, n)) < 0.5
    rows = planes.pack_bits(bits)
    message = planes.from_rows(rows)
    np.testing.assert_array_equal(planes.to_rows(message, count, n), rows)
    np.testing.assert_array_equal(planes.unpack_bits(rows, n), bits)
    first = message[: 16 * count].reshape(count, -1) if n >= 1024 else message.reshape(count, -1)
    np.testing.assert_array_equal(first, rows[:, :16])


def run_steps(kernel, rng, n: int, width: int, c: np.ndarray, r: np.ndarray):
    """Every message of two evaluators and their helper, in order; the last one opens [c < r]."""
    row, levels = plane_words(n), len(tree.levels(width))

    def masks(level):
        return words(rng, (tree.opened_planes(width, level) if level < levels else 1) * row)

    def deal(level, both):
        share0 = words(rng, tree.product_planes(width, level) * row)
        return share0, kernel.tree_deal(*both, width, n, level, share0)

    digits0 = words(rng, tree.digit_planes(width) * row)
    shares = digits0, kernel.digits_deal(r, width, digits0)
    mask = masks(0), masks(0)
    sent = [kernel.digits_compare(c, [0], width, shares[party], party, mask[party], top=False) for party in (0, 1)]
    messages = [shares[1], *sent[0], *sent[1]]
    for level in range(levels):
        products, next_mask = deal(level, mask), (masks(level + 1), masks(level + 1))
        opened = [part[0] for part in sent]
        sent = [
            kernel.tree_combine(*opened, sent[party][1], products[party], mask[party], width, n, level, party,
                                next_mask[party])
            for party in (0, 1)
        ]  # fmt: skip
        mask = next_mask
        messages += [products[1], *sent[0], *sent[1]]
    result = sent[0][0] ^ sent[1][0] ^ mask[0] ^ mask[1]
    return messages, planes.unpack_bits(result, n)


def edge_values(rng, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs, equal pairs, pairs one apart, pairs that differ in one digit, the ends of the range."""
    top = (1 << width) - 1
    c, r = words(rng, n) & U(top), words(rng, n) & U(top)
    kind = rng.integers(0, 8, n)
    r = np.where(kind == 0, c, r)
    r = np.where(kind == 1, (c + U(1)) & U(top), r)
    r = np.where(kind == 2, (c - U(1)) & U(top), r)
    r = np.where(kind == 3, c ^ (U(1) << rng.integers(0, width, n).astype(U)), r)
    c, r = np.where(kind == 4, U(0), c), np.where(kind == 5, U(top), r)
    return c, r


@pytest.mark.parametrize("width", range(1, 63))
def test_comparison_is_less_than_and_messages_agree(width):
    n = 1100 if width in (1, 4, 5, 17, 33, 61, 62) else 130
    c, r = edge_values(np.random.default_rng(width), n, width)
    expected, less = run_steps(REFERENCE, np.random.default_rng(1), n, width, c, r)
    np.testing.assert_array_equal(less, c < r)
    # Bits above the width belong to others and must not count.
    high = words(np.random.default_rng(2), n) << U(width)
    for kernel in NATIVE:
        messages, less = run_steps(kernel, np.random.default_rng(1), n, width, c | high, r | high[::-1])
        np.testing.assert_array_equal(less, c < r)
        for actual, wanted in zip(messages, expected, strict=True):
            same(actual[: wanted.size], wanted)


@settings(max_examples=40, deadline=None)
@given(n=LENGTHS, width=WIDTHS, party=st.integers(0, 1), count=st.integers(1, 3), top=st.booleans(),
       low=st.integers(0, 62), seed=SEEDS)
def test_steps_on_arbitrary_messages(n, width, party, count, top, low, seed):
    low = min(low, 63 - width)
    rng = np.random.default_rng(seed)
    row, groups = plane_words(n), tree.levels(width)

    def message(each):
        return words(rng, count * each * row)

    def opened(level):
        return message(tree.opened_planes(width, level) if level < len(groups) else 1)

    x, offsets = words(rng, n), [int(offset) for offset in words(rng, count)]
    digits, first = words(rng, tree.digit_planes(width) * row), opened(0)
    level_inputs = [
        (opened(level), opened(level), message(sum(2 if g.size == 1 and g.need_equal else 1 for g in level_groups)),
         message(tree.product_planes(width, level)), opened(level), opened(level + 1))
        for level, level_groups in enumerate(groups)
    ]  # fmt: skip

    def results(kernel):
        made = [kernel.digits_deal(x, width, digits, low=low)]
        made += kernel.digits_compare(x, offsets, width, digits, party, first, top=top, low=low)
        for level, (mine, theirs, kept, products, own, following) in enumerate(level_inputs):
            made.append(kernel.tree_deal(own, mine, width, n, level, products, count=count))
            made += kernel.tree_combine(
                mine, theirs, kept, products, own, width, n, level, party, following, count=count
            )  # fmt: skip
        return tuple(made)

    expected = results(REFERENCE)
    for kernel in NATIVE:
        same(results(kernel), expected)


@pytest.mark.parametrize("width", [3, 22, 62])
@pytest.mark.parametrize("n", [70, 3000])
def test_several_comparisons_in_one_message_are_each_their_own(n, width):
    rng = np.random.default_rng(n)
    c, r = edge_values(rng, n, width)
    offsets, row = [0, 5, (1 << width) - 1, 1 << 63], plane_words(n)

    def planes_of(count):
        return words(rng, count * row)

    digits = planes_of(tree.digit_planes(width))
    masks = planes_of(len(offsets) * (tree.opened_planes(width, 0) if tree.levels(width) else 1))
    for kernel in [REFERENCE, *NATIVE]:
        opened, _ = kernel.digits_compare(c, offsets, width, digits, 0, masks, top=True)
        each = masks.size // row // len(offsets)
        rows = planes.to_rows(opened, 4 * each, n).reshape(4, each, row)
        mask_rows = planes.to_rows(masks, 4 * each, n).reshape(4, each, row)
        for t, offset in enumerate(offsets):
            mask = planes.from_rows(mask_rows[t])
            alone, _ = kernel.digits_compare(c + U(offset), [0], width, digits, 0, mask, top=True)
            same(planes.from_rows(rows[t]), alone)


@pytest.mark.parametrize("width", [3, 30, 62])
def test_long_comparison(width):
    n = 100_003
    c, r = edge_values(np.random.default_rng(5), n, width)
    for kernel in NATIVE:
        np.testing.assert_array_equal(run_steps(kernel, np.random.default_rng(1), n, width, c, r)[1], c < r)


def calls(kernel, n=70):
    """One call of each step with one thing wrong."""
    z, row, big = (lambda count: np.zeros(count, U)), plane_words(n), 1 << 50
    full, first, second = tree.digit_planes(62) * row, 27 * row, 6 * row
    products = tree.product_planes(62, 0) * row
    return [
        lambda: kernel.to_planes(z(n), 0),
        lambda: kernel.to_planes(z(n), 4, 61),
        lambda: kernel.to_planes(z(n), 4, -1),
        lambda: kernel.from_planes(z(3 * row), 4, n),
        lambda: kernel.from_planes(z(4 * row), 4, n + 64),
        lambda: kernel.from_planes(z(4 * row), 4, big),
        lambda: kernel.from_planes(z(4 * row), 4, -1),
        lambda: kernel.digits_deal(z(n), 63, z(full)),
        lambda: kernel.digits_deal(z(n), 0, z(0)),
        lambda: kernel.digits_deal(z(n), 62, z(full - 1)),
        lambda: kernel.digits_deal(z(n), 62, z(full).astype(np.int64)),
        lambda: kernel.digits_compare(z(n), [0], 62, z(full + 1), 0, z(first), top=True),
        lambda: kernel.digits_compare(z(n), [0], 62, z(full), 0, z(first + 1), top=True),
        lambda: kernel.digits_compare(z(n), [0], 62, z(full), 2, z(first), top=True),
        lambda: kernel.tree_deal(z(first), z(first), 62, n, 2, z(products)),
        lambda: kernel.tree_deal(z(first), z(first), 62, big, 0, z(products)),
        lambda: kernel.tree_deal(z(first), z(first), 62, n, 0, z(products - 1)),
        lambda: kernel.tree_combine(z(first), z(first), z(4 * row), z(products), z(first), 62, n, 0, 0, z(second - 1)),
        lambda: kernel.tree_combine(z(first), z(first), z(3 * row), z(products), z(first), 62, n, 0, 0, z(second)),
        lambda: kernel.tree_combine(z(first), z(first), z(4 * row), z(products), z(first), 62, n, -1, 0, z(second)),
        lambda: kernel.tree_combine(z(first), z(first), z(4 * row), z(products), z(first), 62, n, 0, 5, z(second)),
        lambda: kernel.digits_deal(z(n), 62, z(full), low=2),
        lambda: kernel.digits_compare(z(n), [0], 62, z(full), 0, z(first), top=True, low=2),
        lambda: kernel.tree_deal(z(first), z(first - 1), 62, n, 0, z(products)),
        lambda: kernel.tree_deal(z(first), z(first), 62, n, 0, z(products), count=2),
        lambda: kernel.digits_compare(z(n), [0, 1], 62, z(full), 0, z(first), top=True),
        lambda: kernel.digits_compare(z(n), [0], 62, Draw(bytes(16), 0, 0, full - 1), 0, z(first), top=True),
    ]


@pytest.mark.parametrize("number", range(27))
def test_refuses_lengths_that_do_not_fit(number):
    for kernel in NATIVE:
        with pytest.raises(KernelError):
            calls(kernel)[number]()
