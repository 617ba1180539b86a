"""Messages in parts, for every transport: cut as each end likes, both directions at once, and errors that say what."""

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.errors import DeadlineExceeded, FrameError, InputError, PeerLost
from private_keras.transport.channel import QUEUE_BYTES
from private_keras.transport.memory import memory_network
from tests.test_transport import both, keys, pair, stream_pair, words

__all__ = ["keys", "pair", "stream_pair"]


def cut(array, points):
    """Consecutive pieces of an array."""
    edges = [0, *sorted(min(point, array.size) for point in points), array.size]
    return [array[low:high] for low, high in zip(edges, edges[1:], strict=False)]


def send_cut(channel, step, message, points):
    channel.begin(step, message.nbytes)
    for piece in cut(message, points):
        channel.part(piece)


def take_cut(channel, step, count, points):
    out = np.empty(count, np.uint64)
    channel.expect(step, out.nbytes)
    for piece in cut(out, points):
        channel.fill(piece)
    return out


POINTS = st.lists(st.integers(0, 3000), max_size=6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 3000), sent=st.none() | POINTS, taken=st.none() | POINTS, seed=st.integers(0, 99))
def test_a_message_is_the_same_however_it_is_cut(pair, count, sent, taken, seed):
    a, b = pair()
    for step in range(2):
        message = words(count, seed + step)
        if sent is None:
            a.send(step, message)
        else:
            send_cut(a, step, message, sent)
        if taken is None:
            out = np.empty_like(message)
            b.receive(step, out)
        else:
            out = take_cut(b, step, count, taken)
        assert np.array_equal(out, message)
    assert a.traffic.sent == b.traffic.received == 16 * count
    assert a.traffic.messages == 2
    a.close()
    b.close()


@pytest.mark.parametrize("count", [0, 1, 1 << 12, 1 << 18, 1 << 21])
@pytest.mark.parametrize("pieces", [1, 2, 7, 64])
def test_both_directions_at_once_do_not_wait_for_each_other(pair, count, pieces):
    a, b = pair()
    left, right = words(count, 1), words(count, 2)
    points = [count * i // pieces for i in range(1, pieces)]

    def run(channel, mine):
        theirs = np.empty_like(mine)
        channel.expect(4, theirs.nbytes)
        channel.begin(4, mine.nbytes)
        for piece, out in zip(cut(mine, points), cut(theirs, points), strict=True):
            channel.part(piece)
            channel.fill(out)
        return theirs

    got_left, got_right = both(lambda: run(a, left), lambda: run(b, right))
    assert np.array_equal(got_left, right)
    assert np.array_equal(got_right, left)
    assert a.traffic.rounds == b.traffic.rounds == 1
    # Nothing is left over: the next messages come through.
    small = np.empty(3, np.uint64)
    both(lambda: a.exchange(5, words(3, 8), np.empty(3, np.uint64)), lambda: b.exchange(5, words(3, 9), small))
    assert np.array_equal(small, words(3, 8))


def test_all_parts_before_the_first_fill_do_not_wait_either(pair):
    a, b = pair()
    count = 4 * QUEUE_BYTES // 8

    def run(channel, seed):
        channel.expect(0, 8 * count)
        send_cut(channel, 0, words(count, seed), range(0, count, count // 16))
        out = np.empty(count, np.uint64)
        channel.fill(out)
        return out

    got_a, got_b = both(lambda: run(a, 1), lambda: run(b, 2))
    assert np.array_equal(got_a, words(count, 2))
    assert np.array_equal(got_b, words(count, 1))


def test_parts_against_an_exchange(pair):
    a, b = pair()
    count = 1 << 20
    mine, theirs = words(count, 1), np.empty(count, np.uint64)

    def parts():
        b.expect(2, 8 * count)
        send_cut(b, 2, words(count, 2), range(0, count, 1 << 16))
        out = np.empty(count, np.uint64)
        for piece in cut(out, range(0, count, 10_000)):
            b.fill(piece)
        return out

    _, got = both(lambda: a.exchange(2, mine, theirs), parts)
    assert np.array_equal(got, mine)
    assert np.array_equal(theirs, words(count, 2))
    assert a.traffic.rounds == b.traffic.rounds == 1


def test_a_send_in_parts_returns_before_the_peer_reads_while_it_is_unfinished(pair):
    a, b = pair()
    piece = words(QUEUE_BYTES // 16)
    a.begin(0, 4 * piece.nbytes)
    a.part(piece)
    a.part(piece)  # as much as may be kept; nobody reads yet
    rest = threading.Thread(target=lambda: (a.part(piece), a.part(piece)), daemon=True)
    rest.start()
    out = np.empty(4 * piece.size, np.uint64)
    b.receive(0, out)
    rest.join(60)
    assert not rest.is_alive()
    assert np.array_equal(out, np.tile(piece, 4))


def test_misuse_is_refused_and_harms_nothing(pair):
    a, b = pair()
    with pytest.raises(InputError):
        a.part(words(1))
    with pytest.raises(InputError):
        b.fill(np.empty(1, np.uint64))
    a.begin(0, 16)
    with pytest.raises(InputError):
        a.part(words(3))
    a.part(words(1))
    for call in (
        lambda: a.begin(1, 8),
        lambda: a.send(1, words(1)),
        lambda: a.exchange(1, words(1), np.empty(1, np.uint64)),
    ):
        with pytest.raises(InputError):
            call()
    a.part(words(1))
    b.expect(0, 16)
    with pytest.raises(InputError):
        b.fill(np.empty(3, np.uint64))
    first, second = np.empty(1, np.uint64), np.empty(1, np.uint64)
    b.fill(first)
    for call in (
        lambda: b.expect(1, 8),
        lambda: b.receive(1, np.empty(1, np.uint64)),
        lambda: b.exchange(1, words(1), np.empty(1, np.uint64)),
    ):
        with pytest.raises(InputError):
            call()
    b.fill(second)
    assert first == second == words(1)


@pytest.mark.parametrize(("step", "nbytes"), [(1, 16), (0, 8), (0, 24), (0, 0)])
def test_a_message_other_than_the_one_expected(pair, step, nbytes):
    a, b = pair()
    send_cut(a, 0, words(2), [1])
    with pytest.raises(FrameError, match=r"server0.*expected step"):
        b.expect(step, nbytes)
        b.fill(np.empty(min(1, nbytes), np.uint64))


def test_a_peer_that_ends_within_a_message_is_lost(pair):
    a, b = pair()
    a.begin(0, 16)
    a.part(words(1))
    b.expect(0, 16)
    b.fill(np.empty(1, np.uint64))
    a.close()
    with pytest.raises(PeerLost, match="server0"):
        b.fill(np.empty(1, np.uint64))


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 40])
def test_who_gives_up_within_a_message_says_whom_it_lost(stream_pair, taken):
    a, b = stream_pair()
    a.begin(0, 800)
    a.part(words(40))
    b.expect(0, 800)
    for _ in range(taken):
        b.fill(np.empty(1, np.uint64))
    a.give_up(2)
    with pytest.raises(PeerLost, match=r"server2 was lost \(said by server0\)"):
        b.fill(np.empty(100 - taken, np.uint64))


def test_a_peer_that_does_not_read_exceeds_the_deadline(stream_pair):
    a, _ = stream_pair()
    a.begin(0, 1 << 26)
    a.deadline = time.monotonic() + 1
    with pytest.raises(DeadlineExceeded, match="server1"):
        for _ in range(64):
            a.part(np.zeros(1 << 20, np.uint8))
    with pytest.raises(PeerLost, match="has ended"):
        a.part(np.zeros(1, np.uint8))


def test_a_peer_that_does_not_write_exceeds_the_deadline(stream_pair):
    a, b = stream_pair()
    b.expect(0, 16)
    a.begin(0, 16)
    a.part(words(1))
    b.fill(np.empty(1, np.uint64))
    b.deadline = time.monotonic() + 0.3
    with pytest.raises(DeadlineExceeded, match="server0"):
        b.fill(np.empty(1, np.uint64))


def test_another_thread_can_interrupt_a_fill(stream_pair):
    _, b = stream_pair()
    b.expect(0, 8)
    threading.Timer(0.1, b.interrupt).start()
    with pytest.raises(PeerLost):  # it was woken, not timed out
        b.fill(np.empty(1, np.uint64))


def test_a_channel_within_a_message_is_not_idle(stream_pair):
    a, b = stream_pair()
    assert a.idle() and b.idle()
    a.begin(0, 8)
    b.expect(0, 8)
    assert not a.idle() and not b.idle()
    a.part(words(1))
    b.fill(np.empty(1, np.uint64))
    assert a.idle() and b.idle()


def test_what_a_party_received_is_recorded_by_message():
    network = memory_network(2, record=True)
    send_cut(network[0][1], 0, words(6), [1, 4])
    network[0][1].send(1, words(4).reshape(2, 2))
    take_cut(network[1][0], 0, 6, [3])
    take_cut(network[1][0], 1, 4, [3])
    (first, one), (second, two) = network[1][0].log
    assert (first, second) == (0, 1)
    assert np.array_equal(one, words(6))
    assert np.array_equal(two, words(4).reshape(2, 2))
