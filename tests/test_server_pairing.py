"""Keys between servers: both ends agree, nothing is used twice, every mismatch names the peer."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import FrameError, PrivateKerasError, SecurityError, VersionMismatch
from private_keras.server.pairing import HELLO_BYTES, SETUP_BYTES, Hello, Setup, derive

JOB, DIGEST, PARTS = bytes(range(16)), bytes(range(32)), bytes(range(32, 64))


def lane_secret():
    low, high = Setup(0), Setup(2)
    (party_high, at_low), (party_low, at_high) = (
        low.finish(high.message, "server2"),
        high.finish(low.message, "server0"),
    )
    assert (party_low, party_high) == (0, 2)
    assert at_low == at_high
    return at_low


def hellos(**changes):
    return Hello.fresh("trio", 0, JOB, DIGEST, PARTS), Hello.fresh(
        **{"protocol": "trio", "party": 1, "job": JOB, "digest": DIGEST, "parts": PARTS, **changes}
    )


def test_hkdf_is_that_of_rfc_5869():
    # Test case 1 of RFC 5869, appendix A.
    okm = derive(b"\x0b" * 22, bytes(range(13)), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_every_lane_has_a_secret_of_its_own():
    assert len({lane_secret() for _ in range(5)}) == 5


def test_the_lane_is_bound_to_what_both_said():
    low, high = Setup(0), Setup(2)
    tampered = bytearray(high.message)
    tampered[12] ^= 3  # another party index
    assert low.finish(bytes(tampered), "server2")[1] != high.finish(low.message, "server0")[1]


def test_both_ends_of_a_job_have_the_same_key_and_no_two_jobs_do():
    secret = lane_secret()
    found = set()
    for _ in range(20):  # the same job id and plan each time: nonces make the difference
        mine, theirs = hellos()
        received = Hello.parse(theirs.pack(), "server1")
        assert received == theirs
        assert len(theirs.pack()) == HELLO_BYTES
        agreed = mine.agree(received, secret, 1, "server1")
        assert agreed == theirs.agree(mine, secret, 0, "server0")
        assert len(agreed.key) == 16 and len(agreed.name) == 32
        found.add(agreed.key)
        found.add(agreed.name)
    assert len(found) == 40


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"digest": bytes(32)}, VersionMismatch, "server1 has another plan.*0001020304.*000000"),
        ({"protocol": "pond"}, VersionMismatch, "server1.*expected protocol trio.*pond"),
        ({"party": 2}, FrameError, "server1.*expected party 1.*party 2"),
        ({"job": bytes(16)}, FrameError, "server1.*another job"),
        ({"parts": bytes(32)}, SecurityError, "server1.*does not belong together"),
    ],
)
def test_hellos_that_do_not_fit_are_refused(changes, error, message):
    mine, theirs = hellos(**changes)
    with pytest.raises(error, match=message):
        mine.agree(theirs, bytes(32), 1, "server1")


def test_a_reflected_nonce_is_refused():
    mine, _ = hellos()
    with pytest.raises(SecurityError, match="own nonce"):
        mine.agree(Hello("trio", 1, JOB, DIGEST, PARTS, mine.nonce), bytes(32), 1, "server1")


def test_another_release_is_told_apart_from_a_stranger():
    mine, theirs = hellos()
    other = bytearray(theirs.pack())
    other[8] += 1
    with pytest.raises(VersionMismatch, match="server1.*wire version"):
        Hello.parse(bytes(other), "server1")
    setup = bytearray(Setup(1).message)
    setup[8] += 1
    with pytest.raises(VersionMismatch, match="server1.*wire version"):
        Setup(0).finish(bytes(setup), "server1")


def test_a_lane_to_oneself_and_a_public_key_of_low_order_are_refused():
    with pytest.raises(SecurityError, match="this server"):
        Setup(1).finish(Setup(1).message, "server1")
    with pytest.raises(SecurityError, match="not usable"):
        Setup(0).finish(Setup(1).message[:16] + bytes(32), "server1")


@settings(max_examples=200)
@given(st.binary(min_size=SETUP_BYTES, max_size=SETUP_BYTES), st.binary(min_size=HELLO_BYTES, max_size=HELLO_BYTES))
def test_any_bytes_are_read_or_refused(setup, hello):
    for read in (lambda: Setup(0).finish(setup, "server1"), lambda: Hello.parse(hello, "server1")):
        with pytest.raises(PrivateKerasError, match="server1"):
            read()


def test_keys_and_nonces_do_not_show_in_reprs():
    from private_keras.server.lanes import Lane

    secret = secrets.token_bytes(32)
    assert repr(secret) not in repr(Lane(None, 1, secret))
