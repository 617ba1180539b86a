"""The generator against published vectors (FIPS 197, NIST SP 800-38A) and every implementation against OpenSSL."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import KernelError
from private_keras.ring.native_kernel import NativeKernel, generator_names
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.ring.steps import Draw, part

REFERENCE = NumpyKernel()
NATIVE = [NativeKernel(generator=name) for name in [*generator_names(), "openssl"]]
KEY = bytes(range(16))
KEYS = st.binary(min_size=16, max_size=16)
NONCES = st.integers(0, (1 << 64) - 1)


@pytest.fixture(params=[REFERENCE, *NATIVE], ids=repr)
def kernel(request):
    return request.param


def stream(kernel, key: str, counter: str, blocks: int) -> bytes:
    """The key stream from a 16-byte counter: its upper half is our nonce, its lower half the first block."""
    words = kernel.random(bytes.fromhex(key), int(counter[:16], 16), 2 * blocks, first_block=int(counter[16:], 16))
    return words.astype("<u8").tobytes()


def test_fips_197_appendix_c1(kernel):
    cipher = stream(kernel, "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", 1)
    assert cipher.hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def test_fips_197_appendix_b(kernel):
    cipher = stream(kernel, "2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734", 1)
    assert cipher.hex() == "3925841d02dc09fbdc118597196a0b32"


def test_sp_800_38a_f51_ctr_aes128(kernel):
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    made = stream(kernel, "2b7e151628aed2a6abf7158809cf4f3c", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 4)
    assert bytes(a ^ b for a, b in zip(plain, made, strict=True)).hex() == (
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )


@settings(deadline=None)
@given(key=KEYS, nonce=NONCES, count=st.integers(0, 300), first=st.integers(0, (1 << 64) - 200))
def test_same_bits_as_openssl(key, nonce, count, first):
    expected = REFERENCE.random(key, nonce, count, first_block=first)
    for kernel in NATIVE:
        np.testing.assert_array_equal(kernel.random(key, nonce, count, first_block=first), expected)


@settings(deadline=None, max_examples=60)
@given(nonce=NONCES, first=st.integers(0, 1 << 62), x=st.integers(0, 3000), size=st.integers(0, 3000))
def test_parts_of_a_draw_are_parts_of_its_stream(nonce, first, x, size):
    """Words are made where they are used, from any word on: the same words wherever the stream is cut."""
    draw = Draw(KEY, nonce, first, x + size)
    whole = REFERENCE.random(KEY, nonce, x + size + first % 2, first_block=first // 2)[first % 2 :]
    for kernel in [REFERENCE, *NATIVE]:
        np.testing.assert_array_equal(kernel.words(draw), whole)
        np.testing.assert_array_equal(kernel.words(part(draw, x, size)), whole[x:])
        np.testing.assert_array_equal(kernel.add(part(draw, x, size), np.zeros(size, np.uint64)), whole[x:])


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100_003])
def test_masking_is_adding_the_stream(kernel, count):
    x = REFERENCE.random(KEY, 99, count)
    r = REFERENCE.random(KEY, 3, count)
    draw = Draw(KEY, 3, 0, count)
    np.testing.assert_array_equal(kernel.random(KEY, 3, count), r)
    np.testing.assert_array_equal(kernel.add(x, draw), x + r)
    np.testing.assert_array_equal(kernel.subtract(x, draw), x - r)
    own, message = np.empty_like(x), np.empty_like(x)
    kernel.mask(x, draw, own, message)
    np.testing.assert_array_equal(own, r)
    np.testing.assert_array_equal(message, x + r)


def test_masking_reads_strides_and_writes_in_place(kernel):
    x = REFERENCE.random(KEY, 1, 60).reshape(3, 4, 5).transpose(2, 0, 1)[::-1]
    masked = kernel.add(x, Draw(KEY, 7, 0, 60))
    np.testing.assert_array_equal(masked, x.ravel() + REFERENCE.random(KEY, 7, 60))
    assert kernel.subtract(masked, Draw(KEY, 7, 0, 60), out=masked) is masked
    np.testing.assert_array_equal(masked, x.ravel())


def test_streams_of_neighbouring_nonces_share_no_block(kernel):
    blocks = np.concatenate([kernel.random(KEY, nonce, 2000).reshape(-1, 2) for nonce in range(5)])
    assert len(np.unique(blocks, axis=0)) == len(blocks)


def test_first_block_continues_the_stream(kernel):
    np.testing.assert_array_equal(kernel.random(KEY, 5, 100, first_block=50), kernel.random(KEY, 5, 200)[100:])


@pytest.mark.parametrize(
    "arguments",
    [(bytes(15), 0, 4), (bytes(17), 0, 4), (KEY, -1, 4), (KEY, 1 << 64, 4), (KEY, 0, -1)],
)
def test_refuses_what_is_no_key_nonce_or_length(kernel, arguments):
    with pytest.raises(KernelError):
        kernel.random(*arguments)


def test_refuses_to_run_over_the_end_of_a_stream(kernel):
    with pytest.raises(KernelError):
        kernel.random(KEY, 0, 3, first_block=(1 << 64) - 1)


@pytest.mark.parametrize("x", [np.zeros(4), np.zeros(4, ">u8"), np.zeros(5, np.uint64)])
def test_refuses_arrays_that_are_not_as_many_ring_elements(kernel, x):
    for call in (kernel.add, kernel.subtract):
        with pytest.raises(KernelError):
            call(x, Draw(KEY, 0, 0, 4))


def test_unknown_generator_is_refused():
    with pytest.raises(KernelError):
        NativeKernel(generator="xorshift")
