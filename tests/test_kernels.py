"""Every kernel agrees with the NumPy reference to the bit, and refuses what it cannot take."""
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras import ring
from private_keras.errors import KernelError
from private_keras.ring import geometry
from private_keras.ring.native_kernel import NativeKernel, isa_names
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.ring.steps import Twofold

REFERENCE = NumpyKernel()
NATIVE = [*(NativeKernel(isa=name) for name in isa_names()), NativeKernel(threads=3)]
SEEDS = st.integers(0, 1 << 32)
SIZES = st.integers(0, 40)
U = np.uint64


@pytest.fixture(params=NATIVE, ids=repr)
def kernel(request):
    return request.param


def words(seed: int, *shape: int) -> np.ndarray:
    """Random words, among them all zeros and all ones."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 1 << 64, shape, dtype=U)
    return np.where(rng.random(shape) < 0.1, rng.choice(np.array([0, 1, 1 << 63, (1 << 64) - 1], U), shape), x)


def views(x: np.ndarray) -> list[np.ndarray]:
    """The same values behind different strides in the last two axes."""
    wide = np.zeros((*x.shape[:-1], 3 * x.shape[-1]), U)
    wide[..., ::3] = x
    return [x, np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2), x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
            wide[..., ::3]]  # fmt: skip


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.uint64 and actual.flags.c_contiguous and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def same_products(multiply, expected: np.ndarray) -> None:
    """A product alone, added to something, and subtracted from it."""
    same(multiply(), expected)
    before = words(expected.size, *expected.shape)
    for subtract, after in ((False, before + expected), (True, before - expected)):
        out = before.copy()
        assert multiply(out=out, subtract=subtract) is out
        same(out, after)


@settings(max_examples=60, deadline=None)
@given(m=SIZES, k=SIZES, n=SIZES, seed=SEEDS)
def test_matmul_any_shape_any_strides(m, k, n, seed):
    a, b = words(seed, m, k), words(seed + 1, k, n)
    expected = REFERENCE.matmul(a, b)
    for kernel in NATIVE:
        for left, right in zip(views(a), [*views(b)[1:], b], strict=True):
            same_products(partial(kernel.matmul, left, right), expected)
            same(kernel.matmul(left, b), expected)


@pytest.mark.parametrize(
    "shape",
    [(1, 784, 130), (130, 784, 1), (97, 600, 1030), (200, 300, 9), (3, 513, 70), (13, 1, 200), (260, 257, 25)],
)
def test_matmul_beyond_one_block(kernel, shape):
    m, k, n = shape
    a, b = words(1, m, k), words(2, k, n)
    expected = REFERENCE.matmul(a, b)
    for left in views(a):
        same_products(partial(kernel.matmul, left, b), expected)
    for right in views(b):
        same_products(partial(kernel.matmul, a, right), expected)


def twofold(seed: int, *shape: int) -> list[Twofold]:
    """An operand of two arrays that lie alike, in different ways, and of two that do not."""
    m, l = views(words(seed, *shape)), views(words(seed + 100, *shape))  # noqa: E741
    return [*map(Twofold, m, l), Twofold(m[0], l[1])]


@pytest.mark.parametrize("shape", [
    (1, 784, 130), (1, 9000, 3), (3, 1, 9000), (130, 784, 1), (97, 600, 530), (3, 513, 70), (16, 700, 33), (13, 1, 20),
    (2, 0, 3), (0, 3, 2), (5, 3, 1), (1, 1, 1),
])  # fmt: skip
def test_operands_of_two_arrays_are_made_where_they_are_read(kernel, shape):
    m, k, n = shape
    left, right = twofold(1, m, k), twofold(2, k, n)
    expected = REFERENCE.matmul(left[0].words, right[0].words)
    for a in left:
        for b in right:
            same(kernel.matmul(a, b), expected)
    same_products(partial(kernel.matmul, left[0], right[0]), expected)
    same_products(partial(kernel.matmul, left[1], right[0].words), expected)
    same_products(partial(kernel.matmul, left[0].words, right[1]), expected)


@pytest.mark.parametrize(("a", "b"), [((2, 3, 4), (4, 5)), ((4, 5), (2, 5, 3)), ((3, 1, 5, 4), (2, 4, 6))])
def test_operands_of_two_arrays_broadcast(kernel, a, b):
    for x, y in zip(twofold(3, *a), twofold(4, *b), strict=True):
        same_products(partial(kernel.matmul, x, y), REFERENCE.matmul(x.words, y.words))


@pytest.mark.parametrize(
    ("x", "w", "groups"),
    [((2, 9, 8, 3), (3, 3, 3, 8), 1), ((1, 9, 9, 4), (2, 2, 2, 8), 2), ((1, 5, 5, 4), (3, 3, 1, 4), 4),
     ((1, 5, 5, 4), (3, 3, 1, 8), 4), ((1, 3, 3, 600), (3, 3, 600, 20), 1), ((2, 40, 1), (5, 1, 30), 1),
     ((1, 4, 30, 30, 2), (2, 3, 3, 2, 5), 1), ((1, 1, 3, 2), (1, 2, 2, 7), 1), ((3, 9, 11, 21), (2, 2, 21, 13), 1),
     ((2, 9, 8, 40), (2, 2, 20, 58), 2), ((2, 7, 9, 300), (1, 1, 300, 31), 1)],
)  # fmt: skip
def test_convolutions_of_two_arrays(kernel, x, w, groups):
    space = len(x) - 2
    for stride, pad in [(1, (1, 1)), (2, (1, 2))]:
        geometry = [stride] * space, [pad] * space, [1] * space, groups
        images, kernels = twofold(5, *x), twofold(6, *w)
        expected = REFERENCE.conv(images[0].words, kernels[0].words, *geometry)
        for a in images:
            for b in kernels:
                same(kernel.conv(a, b, *geometry), expected)
        same_products(partial(kernel.conv, images[0], kernels[0], *geometry), expected)
        same_products(partial(kernel.conv, images[0].words, kernels[0], *geometry), expected)
        same_products(partial(kernel.conv, images[0], kernels[0].words, *geometry), expected)


def test_an_operand_does_not_show_its_words():
    assert repr(Twofold(words(1, 3), words(2, 3))) == "Twofold(shape=(3,))"


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 4), (4, 5)), ((4, 5), (2, 5, 3)), ((3, 1, 5, 4), (2, 4, 6)), ((0, 3, 4), (4, 2)), ((2, 1, 0), (2, 0, 3)),
     ((5, 1, 2, 0, 3), (4, 1, 3, 2)), ((64, 10, 8), (64, 8, 10)), ((2, 70, 90), (2, 90, 80))],
)  # fmt: skip
def test_matmul_broadcasts(kernel, a, b):
    x, y = words(3, *a), words(4, *b)
    for left, right in zip(views(x), views(y), strict=True):
        same_products(partial(kernel.matmul, left, right), REFERENCE.matmul(x, y))


def test_matmul_reads_read_only_and_unaligned_arrays(kernel):
    a = np.frombuffer(words(5, 6, 6).tobytes(), U).reshape(6, 6)
    b = np.frombuffer(b"\0\0\0" + words(6, 6, 6).tobytes(), np.uint8)[3:].view(U).reshape(6, 6)
    same(kernel.matmul(a, b), REFERENCE.matmul(a, b))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_conv_any_geometry(data):
    space = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 4))
    channels = groups * data.draw(st.integers(0 if groups == 1 else 1, 3))
    filters = groups * data.draw(st.integers(1, 3))
    window = [data.draw(st.integers(1, 3)) for _ in range(space)]
    stride = [data.draw(st.integers(1, 3)) for _ in range(space)]
    dilation = [data.draw(st.integers(1, 3)) for _ in range(space)]
    pad = [(data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))) for _ in range(space)]
    size = [
        max(1, d * (w - 1) + 1 - a - b) + data.draw(st.integers(0, 4))
        for d, w, (a, b) in zip(dilation, window, pad, strict=True)
    ]
    x = words(data.draw(SEEDS), data.draw(st.integers(0, 2)), *size, channels)
    w = words(data.draw(SEEDS), *window, channels // groups, filters)
    expected = REFERENCE.conv(x, w, stride, pad, dilation, groups)
    for kernel in NATIVE:
        for view in views(x):
            same(kernel.conv(view, w, stride, pad, dilation, groups), expected)
        same_products(partial(kernel.conv, x, w, stride, pad, dilation, groups), expected)
        same(kernel.conv(x, views(w)[1], stride, pad, dilation, groups), expected)


@pytest.mark.parametrize(
    ("x", "w", "groups"),
    [((2, 16, 15, 20), (3, 3, 20, 50), 1), ((2, 16, 15, 40), (3, 3, 1, 40), 40), ((2, 9, 8, 13), (5, 5, 1, 26), 13),
     ((1, 28, 28, 1), (5, 5, 1, 6), 1), ((1, 4, 4, 70), (3, 3, 70, 130), 1), ((1, 4, 3, 9), (3, 3, 9, 33), 1),
     ((2, 9, 9, 32), (3, 2, 8, 12), 4), ((3, 30, 7), (4, 7, 9), 1)],
)  # fmt: skip
def test_conv_of_usual_layers(kernel, x, w, groups):
    space = len(x) - 2
    x, w = words(7, *x), words(8, *w)
    for stride, pad in [(1, (1, 1)), (2, (0, 1)), (1, (0, 0))]:
        expected = REFERENCE.conv(x, w, [stride] * space, [pad] * space, [1] * space, groups)
        same_products(partial(kernel.conv, x, w, [stride] * space, [pad] * space, [1] * space, groups), expected)


def test_conv_with_batch_and_channels_swapped(kernel):
    # The gradient of the weights is a convolution whose channels are the batch.
    x, w = words(9, 5, 8, 8, 3).transpose(3, 1, 2, 0), words(10, 5, 6, 6, 4).transpose(1, 2, 0, 3)
    expected = REFERENCE.conv(x, w, (1, 1), [(1, 1)] * 2, (1, 1), 1)
    same(kernel.conv(x, w, (1, 1), [(1, 1)] * 2, (1, 1), 1), expected)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 2100), bits=st.integers(1, 63), factor=st.integers(0, 2**63 - 1), seed=SEEDS)
def test_multiply_shift_is_exact(n, bits, factor, seed):
    x = words(seed, n)
    expected = np.array([int(v) * factor >> bits & (2**64 - 1) for v in x], U)
    for kernel in [REFERENCE, *NATIVE]:
        same(kernel.multiply_shift(x, factor, bits), expected)


def test_element_steps_keep_shape_and_read_strides(kernel):
    x = words(11, 4, 6, 5).transpose(2, 0, 1)
    assert kernel.multiply_shift(x, 3, 1).shape == x.shape
    same(kernel.multiply_shift(x, 3, 1), REFERENCE.multiply_shift(x, 3, 1))
    same(kernel.exp2_public(x >> U(41), 18, 0, 3), REFERENCE.exp2_public(x >> U(41), 18, 0, 3))


@settings(max_examples=30, deadline=None)
@given(fraction=st.integers(0, 18), offset=st.integers(-80, 80), scale=st.integers(-80, 80), seed=SEEDS)
def test_exp2_any_shift(fraction, offset, scale, seed):
    c = words(seed, 300) & U((1 << (fraction + 5)) - 1)
    expected = REFERENCE.exp2_public(c, fraction, offset, scale)
    for kernel in NATIVE:
        same(kernel.exp2_public(c, fraction, offset, scale), expected)


def test_exp2_is_the_power_of_two(kernel):
    c = np.arange(0, 1 << 23, 4099, dtype=U)
    real = 2.0 ** (c.astype(float) / 2**18)
    np.testing.assert_allclose(kernel.exp2_public(c, 18, 0, 18).astype(float), real * 2**18, rtol=0, atol=1e-15 * 2**50)


CALLS = {
    "float": lambda k: k.matmul(np.zeros((2, 2)), np.zeros((2, 2), U)),
    "out of another shape": lambda k: k.matmul(*[np.zeros((2, 2), U)] * 2, out=np.zeros((2, 3), U)),
    "out of another dtype": lambda k: k.matmul(*[np.zeros((2, 2), U)] * 2, out=np.zeros((2, 2))),
    "out with strides": lambda k: k.matmul(*[np.zeros((2, 2), U)] * 2, out=np.zeros((2, 4), U)[:, ::2]),
    "out that is a factor": lambda k: k.matmul(y := np.zeros((2, 2), U), y, out=y),
    "nothing to subtract from": lambda k: k.matmul(*[np.zeros((2, 2), U)] * 2, subtract=True),
    "read-only out": lambda k: k.matmul(*[np.zeros((2, 2), U)] * 2, out=np.broadcast_to(np.zeros(1, U), (2, 2))),
    "conv out of another shape": lambda k: k.conv(
        np.zeros((1, 4, 4), U), np.zeros((2, 4, 4), U), (1,), ((0, 0),), (1,), 1, out=np.zeros((1, 4, 4), U)
    ),
    "list": lambda k: k.matmul([[1]], np.zeros((1, 1), U)),
    "signed": lambda k: k.to_planes(np.zeros(4, np.int64), 4),
    "inner axes": lambda k: k.matmul(np.zeros((2, 3), U), np.zeros((2, 3), U)),
    "leading axes": lambda k: k.matmul(np.zeros((2, 3, 3), U), np.zeros((4, 3, 3), U)),
    "vector": lambda k: k.matmul(np.zeros(3, U), np.zeros((3, 3), U)),
    "no group": lambda k: k.conv(np.zeros((1, 4, 4), U), np.zeros((2, 4, 4), U), (1,), ((0, 0),), (1,), 0),
    "no stride": lambda k: k.conv(np.zeros((1, 4, 4), U), np.zeros((2, 4, 4), U), (0,), ((0, 0),), (1,), 1),
    "cropping": lambda k: k.conv(np.zeros((1, 4, 4), U), np.zeros((2, 4, 4), U), (1,), ((-1, 0),), (1,), 1),
    "window": lambda k: k.conv(np.zeros((1, 4, 4), U), np.zeros((6, 4, 4), U), (1,), ((0, 1),), (1,), 1),
    "multiply and shift, bits": lambda k: k.multiply_shift(np.zeros(3, U), 1, 64),
    "multiply and shift, factor": lambda k: k.multiply_shift(np.zeros(3, U), -1, 1),
    "exp2": lambda k: k.exp2_public(np.zeros(3, U), 19, 0, 0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kernel", [REFERENCE, *NATIVE], ids=repr)
def test_refuses(kernel, call):
    with pytest.raises(KernelError):
        call(kernel)


def test_refuses_unknown_machines():
    for arguments in ({"isa": "avx9"}, {"threads": 0}):
        with pytest.raises(KernelError):
            NativeKernel(**arguments)


def test_extension_checks_lengths_itself():
    engine = NativeKernel()._engine
    for call in (
        lambda: engine.matmul(np.zeros((2, 2), U), np.zeros((2, 2), U), np.zeros((2, 3), U), 0),
        lambda: engine.matmul(*[np.zeros((2, 2), U)] * 3, 2),
        lambda: engine.to_planes(np.zeros(64, U), 5, 0, np.zeros(4, U)),
        lambda: engine.to_planes(np.zeros(64, np.int64), 1, 0, np.zeros(1, U)),
        lambda: engine.to_planes(np.zeros(64, U).astype(">u8"), 1, 0, np.zeros(1, U)),
        lambda: engine.to_planes([0] * 64, 1, 0, np.zeros(1, U)),
        lambda: engine.to_planes(np.zeros(64, U), 2, 0, np.zeros(4, U)[::2]),
        lambda: engine.to_planes(np.zeros(64, U), 1, 0, np.broadcast_to(U(0), 1)),
        lambda: engine.tree_deal(*[np.zeros(0, U)] * 2, 62, (1 << 64) - 4, 0, 1, *[np.zeros(0, U)] * 2),
        lambda: engine.conv(
            *[np.zeros((1, 1, 1, 2, 1), U)] * 2, [1] * 3, [0] * 3, [0] * 3, 1, np.zeros((1,) * 5, U), 0
        ),
    ):
        with pytest.raises(KernelError):
            call()


def test_default_kernel_is_the_native_one():
    assert isinstance(ring.default_kernel(), NativeKernel)


def test_missing_extension_is_an_error_that_names_the_remedy(monkeypatch):
    monkeypatch.delattr(ring, "_native")
    monkeypatch.setitem(sys.modules, "private_keras.ring._native", None)
    monkeypatch.delitem(sys.modules, "private_keras.ring.native_kernel")
    with pytest.raises(KernelError, match="pip install"):
        ring.default_kernel()


def test_calls_from_many_threads_at_once(kernel):
    def work(size):
        a = words(size, size, size)
        x = words(size, 3, 9, 9, size)
        return kernel.matmul(a, a), kernel.conv(x, words(1, 3, 3, size, 4), (1, 1), [(1, 1)] * 2, (1, 1), 1)

    sizes = [5, 64, 17, 130, 1, 40] * 4
    with ThreadPoolExecutor(4) as pool:
        for size, results in zip(sizes, pool.map(work, sizes), strict=True):
            for actual, expected in zip(results, work(size), strict=True):
                same(actual, expected)


def test_conv_space_counts_windows():
    assert geometry.conv_space((1, 7, 9, 2), (3, 2, 2, 5), (2, 3), ((1, 1), (0, 0)), (1, 2), 1) == (4, 3)
