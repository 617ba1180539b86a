"""Conformance of every transport: one suite, run for channels in memory, over Unix sockets and over TLS."""

import math
import socket
import ssl
import struct
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.cluster.keys import make_authority, make_party
from private_keras.errors import (
    ClusterError,
    DeadlineExceeded,
    FrameError,
    InputError,
    PeerLost,
    SecurityError,
    ServerUnavailable,
)
from private_keras.transport import frames
from private_keras.transport.credentials import Credentials, Watched
from private_keras.transport.memory import memory_network
from private_keras.transport.tls import TlsEndpoint
from private_keras.transport.unix import UnixChannel, UnixEndpoint, unix_pair

TRANSPORTS = ["memory", "unix", "tls"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Certificates of server0, server1 and of a stranger with an authority of its own."""
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory, "test authority")
    for name in ("server0", "server1", "server2"):
        make_party(directory, name)
    return directory


def credentials(directory, name, **pins):
    return files(directory, directory, name, **pins)


def files(authority, own, name, **pins):
    return Watched(Credentials((authority / "authority.pem",), own / f"{name}.pem", own / f"{name}.key", pins))


def tls_pair(keys, deadline):
    a, b = TlsEndpoint(credentials(keys, "server0")), TlsEndpoint(credentials(keys, "server1"))
    listener = a.listen("127.0.0.1:0")
    accepted = []

    def welcome():
        sock, _ = listener.accept()
        accepted.append(a.welcome(sock, time.monotonic() + 60))

    thread = threading.Thread(target=welcome)
    thread.start()
    dialled = b.dial(f"127.0.0.1:{listener.getsockname()[1]}", "server0", time.monotonic() + 60)
    thread.join()
    listener.close()
    assert accepted[0].peer == "server1"
    accepted[0].deadline = dialled.deadline = deadline
    return accepted[0], dialled


@pytest.fixture(params=TRANSPORTS)
def pair(request, keys):
    """Makes (server0's channel to server1, server1's channel to server0) whose waits end after `seconds`."""
    made = []

    def make(seconds=60.0):
        if request.param == "memory":
            network = memory_network(2, timeout=seconds)
            ends = network[0][1], network[1][0]
        elif request.param == "unix":
            ends = unix_pair()
            ends[0].deadline = ends[1].deadline = time.monotonic() + seconds
        else:
            ends = tls_pair(keys, time.monotonic() + seconds)
        made.extend(ends)
        return ends

    yield make
    for channel in made:
        channel.close()


def both(first, second):
    """Runs two callables in threads; returns results or exceptions."""
    results = [None, None]

    def run(i, f):
        try:
            results[i] = f()
        except Exception as error:  # handed back to the test
            results[i] = error

    threads = [threading.Thread(target=run, args=(i, f), daemon=True) for i, f in enumerate((first, second))]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
        assert not t.is_alive(), "a channel hangs"
    return results


def words(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def test_messages_arrive_in_order_whole_and_of_any_dtype_and_shape(pair):
    a, b = pair()
    messages = [
        words(3),
        np.zeros((0, 4), np.uint64),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array(7, np.int32),
        words(1000)[::2],
    ]
    for step, message in enumerate(messages):
        a.send(step, message)
    for step, message in enumerate(messages):
        out = np.empty(message.shape, message.dtype)
        b.receive(step, out)
        assert np.array_equal(out, message)
    assert a.traffic.sent == b.traffic.received == sum(m.nbytes for m in messages)
    assert a.traffic.messages == len(messages)
    assert a.traffic.rounds == b.traffic.rounds == 0


@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 2049, 1 << 20, 1 << 23])
def test_exchange_beyond_all_buffers_does_not_deadlock(pair, count):
    a, b = pair()
    left, right = words(count, 1), words(count, 2)
    got_a, got_b = np.empty(count, np.uint64), np.empty(count, np.uint64)
    assert both(lambda: a.exchange(5, left, got_a), lambda: b.exchange(5, right, got_b)) == [None, None]
    assert np.array_equal(got_a, right)
    assert np.array_equal(got_b, left)
    assert a.traffic.rounds == b.traffic.rounds == 1
    assert a.traffic.sent == a.traffic.received == 8 * count


def test_exchange_of_unequal_lengths_and_with_one_side_late(pair):
    a, b = pair()
    big, small, got_big, got_small = words(1 << 20), words(1, 3), np.empty(1 << 20, np.uint64), np.empty(1, np.uint64)

    def late():
        time.sleep(0.1)
        b.exchange(0, small, got_big)

    assert both(lambda: a.exchange(0, big, got_small), late) == [None, None]
    assert np.array_equal(got_big, big)
    assert np.array_equal(got_small, small)


@pytest.mark.parametrize(("step", "length"), [(1, 10), (0, 9), (0, 11), (0, 0)])
def test_wrong_step_or_length_names_the_peer(pair, step, length):
    a, b = pair()
    a.send(0, np.zeros(10, np.uint8))
    with pytest.raises(FrameError, match="server0.*expected step"):
        b.receive(step, np.empty(length, np.uint8))


def test_a_closed_peer_is_lost_at_once(pair):
    a, b = pair(100.0)
    threading.Timer(0.1, a.close).start()
    with pytest.raises(PeerLost, match="server0"):  # it was noticed, not timed out
        b.receive(0, np.empty(1, np.uint64))


def test_a_silent_peer_exceeds_the_deadline(pair):
    _, b = pair(0.2)
    with pytest.raises(DeadlineExceeded, match="server0"):
        b.receive(0, np.empty(1, np.uint64))


def test_close_is_idempotent(pair):
    a, b = pair()
    for channel in (a, a, b, b):
        channel.close()


@pytest.fixture(params=["unix", "tls"])
def stream_pair(request, keys):
    """Like `pair`, for transports over the operating system's streams."""
    made = []

    def make(seconds=60.0):
        deadline = time.monotonic() + seconds
        ends = unix_pair() if request.param == "unix" else tls_pair(keys, deadline)
        for end in ends:
            end.deadline = deadline
        made.extend(ends)
        return ends

    yield make
    for channel in made:
        channel.close()


def test_sending_to_a_peer_that_does_not_read_exceeds_the_deadline(stream_pair):
    a, _ = stream_pair()
    a.deadline = time.monotonic() + 1
    with pytest.raises(DeadlineExceeded, match="server1"):
        a.send(0, np.zeros(1 << 26, np.uint8))
    with pytest.raises(PeerLost, match="has ended"):  # half a message was sent: the channel is of no use any more
        a.send(1, np.zeros(1, np.uint8))


def test_a_peer_that_goes_while_we_send_is_lost(stream_pair):
    a, b = stream_pair()
    threading.Timer(0.1, b.close).start()
    with pytest.raises(PeerLost, match="server1"):
        a.send(0, np.zeros(1 << 26, np.uint8))


def test_another_thread_can_interrupt_a_wait(stream_pair):
    _, b = stream_pair()
    threading.Timer(0.1, b.interrupt).start()
    with pytest.raises(PeerLost):
        b.receive(0, np.empty(1, np.uint64))


def test_who_gives_up_says_whom_it_lost(stream_pair):
    a, b = stream_pair()
    a.give_up(2)
    with pytest.raises(PeerLost, match=r"server2 was lost \(said by server0\)"):
        b.receive(7, np.empty(5, np.uint64))
    a, b = stream_pair()
    a.give_up(0)
    with pytest.raises(PeerLost, match="server0 gave up"):
        b.exchange(7, np.zeros(1, np.uint64), np.empty(5, np.uint64))


def test_receiving_into_a_strided_or_readonly_array_is_refused(stream_pair):
    _, b = stream_pair()
    with pytest.raises(InputError, match="contiguous"):
        b.receive(0, np.empty((4, 4), np.uint64)[:, ::2])
    frozen = np.zeros(4, np.uint64)
    frozen.flags.writeable = False
    with pytest.raises(InputError, match="writable"):
        b.receive(0, frozen)


def test_a_length_beyond_all_memory_is_refused_without_allocating(stream_pair):
    a, b = stream_pair()
    a._write([memoryview(struct.pack("<QQ", 0, 1 << 60))])
    with pytest.raises(FrameError, match=str(1 << 60)):
        b.receive(0, np.empty(1, np.uint64))


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(max_size=200), length=st.integers(0, 60), step=st.sampled_from([0, 1, frames.HELLO_STEP]))
def test_fuzzed_bytes_give_an_error_of_ours_and_never_a_hang(junk, length, step):
    raw, sock = socket.socketpair()
    with raw:
        channel = UnixChannel(sock, "server0", time.monotonic() + 60)
        raw.sendall(junk)
        raw.shutdown(socket.SHUT_WR)
        well_formed = junk[:16] == struct.pack("<QQ", step, length) and len(junk) >= 16 + length
        out = np.empty(length, np.uint8)
        try:
            channel.receive(step, out)
            assert well_formed
            assert out.tobytes() == junk[16 : 16 + length]
        except (FrameError, PeerLost):
            assert not well_formed
        finally:
            channel.close()


def test_a_well_formed_message_passes_the_fuzz_checks():
    raw, sock = socket.socketpair()
    with raw:
        channel = UnixChannel(sock, "server0", time.monotonic() + 60)
        raw.sendall(struct.pack("<QQ", 3, 2) + b"ab")
        out = np.empty(2, np.uint8)
        channel.receive(3, out)
        assert out.tobytes() == b"ab"
        assert channel.idle()
        raw.sendall(b"x")
        assert not channel.idle()
        channel.close()


# --- who is at the other end -----------------------------------------------------------------------------------------
def test_a_missing_extension_is_an_error_that_names_the_remedy(monkeypatch):
    monkeypatch.setattr("private_keras.transport.unix._socket", None)
    ends = socket.socketpair(socket.AF_UNIX)
    with pytest.raises(ClusterError, match="pip install"):
        UnixChannel(ends[0], "server1")
    for end in ends:
        end.close()


def test_unix_sockets_need_a_private_directory(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(SecurityError, match="0700"):
        UnixEndpoint().listen(str(tmp_path / "s"))
    tmp_path.chmod(0o700)
    UnixEndpoint().listen(str(tmp_path / "s")).close()


@pytest.mark.parametrize("endpoint", ["unix", "tls"])
def test_dialling_nobody_names_the_peer(endpoint, keys, tmp_path):
    made = UnixEndpoint() if endpoint == "unix" else TlsEndpoint(credentials(keys, "server1"))
    address = str(tmp_path / "none") if endpoint == "unix" else "127.0.0.1:1"
    with pytest.raises(ServerUnavailable, match="server0"):
        made.dial(address, "server0", time.monotonic() + 0.3)


def dial_against(server, client, expect="server0"):
    """Outcome of a TLS connection: (server's result or error, client's)."""
    listener = server.listen("127.0.0.1:0")
    port = listener.getsockname()[1]

    def welcome():
        sock, _ = listener.accept()
        channel = server.welcome(sock, time.monotonic() + 60)
        with closing(channel):
            channel.send(0, np.zeros(1, np.uint8))
            return channel.peer

    def dial():
        with closing(client.dial(f"127.0.0.1:{port}", expect, time.monotonic() + 60)) as channel:
            channel.receive(0, np.empty(1, np.uint8))
            return channel.peer

    outcome = both(welcome, dial)
    listener.close()
    return outcome


def test_tls_sends_at_once_from_both_ends(keys):
    """The end of a message of two records would else wait until the peer confirms the first: 40 ms on Linux."""
    ends = tls_pair(keys, time.monotonic() + 60)
    try:
        assert all(end._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends)
    finally:
        for end in ends:
            end.close()


def test_tls_refuses_who_is_not_the_expected_party(keys, tmp_path):
    make_authority(tmp_path, "another authority")
    make_party(tmp_path, "server1")
    server = TlsEndpoint(credentials(keys, "server0"))
    assert dial_against(server, TlsEndpoint(credentials(keys, "server1"))) == ["server1", "server0"]

    _, error = dial_against(server, TlsEndpoint(credentials(keys, "server1")), expect="server2")
    assert isinstance(error, SecurityError) and "expected server2" in str(error) and "server0" in str(error)

    stranger = files(keys, tmp_path, "server1")
    refused, lost = dial_against(server, TlsEndpoint(stranger))
    assert isinstance(refused, SecurityError) and "not accepted" in str(refused)
    assert isinstance(lost, PeerLost)

    believer = TlsEndpoint(credentials(tmp_path, "server1"))
    _, error = dial_against(server, believer)
    assert isinstance(error, SecurityError) and "server0" in str(error)


def test_tls_refuses_a_caller_without_certificate_and_old_versions(keys):
    server = TlsEndpoint(credentials(keys, "server0"))
    for maximum in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        listener = server.listen("127.0.0.1:0")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, maximum

        def call(listener=listener, context=context):
            with socket.create_connection(listener.getsockname()) as plain, context.wrap_socket(plain) as secured:
                return secured.recv(1)

        refused, caller = both(
            lambda listener=listener: server.welcome(listener.accept()[0], time.monotonic() + 60), call
        )
        listener.close()
        assert isinstance(refused, SecurityError), refused
        assert isinstance(caller, OSError) or caller == b"", caller


def test_tls_refuses_another_key_than_the_pinned(keys):
    server = TlsEndpoint(credentials(keys, "server0", server1="sha256:" + "0" * 64))
    refused, _ = dial_against(server, TlsEndpoint(credentials(keys, "server1")))
    assert isinstance(refused, SecurityError) and "pinned" in str(refused)


def test_tls_refuses_an_expired_certificate(keys, tmp_path, monkeypatch):
    make_party(keys, "server1", days=-1, directory=tmp_path)
    with pytest.raises(SecurityError, match="server1.pem is expired"):
        files(keys, tmp_path, "server1")
    monkeypatch.setattr("private_keras.transport.credentials.check_dates", lambda *_: None)
    expired = files(keys, tmp_path, "server1")
    refused, _ = dial_against(TlsEndpoint(credentials(keys, "server0")), TlsEndpoint(expired))
    assert isinstance(refused, SecurityError) and "expired" in str(refused)


def test_a_silent_caller_does_not_hold_the_handshake_for_ever(keys):
    server = TlsEndpoint(credentials(keys, "server0"))
    listener = server.listen("127.0.0.1:0")
    with socket.create_connection(listener.getsockname()):
        with pytest.raises(DeadlineExceeded):
            server.welcome(listener.accept()[0], time.monotonic() + 0.2)
    listener.close()


def test_infinite_deadlines_are_possible():
    a, b = unix_pair()
    a.deadline = b.deadline = math.inf
    out = np.empty(1, np.uint8)
    threading.Timer(0.05, lambda: a.send(0, np.ones(1, np.uint8))).start()
    b.receive(0, out)
    assert out[0] == 1
    a.close()
    b.close()
