"""Channels over TLS 1.3: both sides show a certificate of the cluster's authority, and the name in it is the party.

Where the cluster's description pins a party's public key (SHA-256), that key and no other is accepted.
"""

import select
import socket
import ssl
import threading
import time

from cryptography import x509

from private_keras.errors import DeadlineExceeded, SecurityError, ServerUnavailable
from private_keras.transport.credentials import Credentials, Pem, Watched, check_pin, name_of
from private_keras.transport.stream import Blocked, StreamChannel

# A header and a payload up to this size go out as one record and one packet.
JOINED = 16 << 10
RETRY_SECONDS = 0.05
# A line is cut when the system has sent something so often without an answer: after about 13 s.
TRIES = 7
# One that is idle, when after 5 s two questions 5 s apart had none.
KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 2}


def make_context(files: Credentials, pem: Pem, server_side: bool) -> ssl.SSLContext:
    """TLS 1.3 only, certificates required on both sides, no session tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the party's name is checked, by `authenticate`: hosts may have any address
    context.verify_mode = ssl.CERT_REQUIRED
    if server_side:
        context.num_tickets = 0
    try:
        context.load_verify_locations(cadata=pem.trusted.decode("ascii"))
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise SecurityError(f"cannot use {files.certificate} with {files.key}: {reason}") from None
    return context


def authenticate(sock: ssl.SSLSocket, pins: dict[str, str]) -> str:
    """Name of the party at the other end, after the handshake; pins checked."""
    certificate = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True))
    name = name_of(certificate)
    check_pin(certificate, name, pins)
    return name


class TlsChannel(StreamChannel):
    """See `Channel`. The system chooses the socket's buffers, by what the line holds: fixed ones would be a limit."""

    buffered = True

    _socket: ssl.SSLSocket

    def _cut(self) -> bool:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
        return info[2] >= TRIES  # tcpi_retransmits

    def _write(self, parts: list[memoryview]) -> int:
        data: bytes | memoryview = parts[0]
        if len(parts) > 1 and len(parts[0]) < JOINED:
            data = bytes(parts[0]) + bytes(parts[1][: JOINED - len(parts[0])])
        done = 0
        try:
            # One record a call.
            while len(data):
                sent = self._socket.send(data)
                done += sent
                data = data[sent:]
        except ssl.SSLWantWriteError:
            if not done:
                raise Blocked(select.POLLOUT) from None
        except ssl.SSLWantReadError:
            if not done:
                raise Blocked(select.POLLIN) from None
        return done

    def _read(self, parts: list[memoryview]) -> int:
        done = 0
        try:
            for part in parts:
                while len(part):
                    got = self._socket.recv_into(part)
                    if not got:
                        return done
                    done += got
                    part = part[got:]
        except ssl.SSLWantReadError:
            if not done:
                raise Blocked(select.POLLIN) from None
        except ssl.SSLWantWriteError:
            if not done:
                raise Blocked(select.POLLOUT) from None
        except ssl.SSLEOFError:
            return done
        return done


class TlsEndpoint:
    """See `Endpoint`. Addresses are `host:port`. Connections made from now on use renewed certificates."""

    def __init__(self, watched: Watched):
        self._watched = watched
        self._pins = watched.files.pins
        self._lock = threading.Lock()
        self._made = self._make(*watched.current())

    def _make(self, version: int, pem: Pem) -> tuple[int, ssl.SSLContext, ssl.SSLContext]:
        return version, *(make_context(self._watched.files, pem, server_side) for server_side in (False, True))

    def _context(self, server_side: bool) -> ssl.SSLContext:
        version, pem = self._watched.current()
        with self._lock:
            if self._made[0] != version:
                self._made = self._make(version, pem)
            return self._made[1 + server_side]

    def listen(self, address: str) -> socket.socket:
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=64)

    def dial(self, address: str, peer: str, deadline: float) -> TlsChannel:
        sock = connect(address, peer, deadline)
        name, secured = handshake(self._context(False), sock, peer, self._pins, deadline)
        if name != peer:
            secured.close()
            raise SecurityError(f"expected {peer} at {address}. Received: a certificate of {name}")
        return TlsChannel(secured, peer, deadline)

    def welcome(self, sock: socket.socket, deadline: float) -> TlsChannel:
        name, secured = handshake(self._context(True), _prompt(sock), "the caller", self._pins, deadline)
        return TlsChannel(secured, name, deadline)


def split_address(address: str) -> tuple[str, int]:
    """("host", port) of "host:port" or "[v6]:port"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _prompt(sock: socket.socket) -> socket.socket:
    """Sends at once what is written: the end of a message would else wait for the peer to confirm what came before.
    And asks a peer that is silent whether it is still there, so that a connection that was cut while it was idle is
    known to have ended before somebody wants to use it.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def connect(address: str, peer: str, deadline: float) -> socket.socket:
    """A TCP connection without delays for small messages; tries again until the deadline."""
    while True:
        try:
            sock = socket.create_connection(
                split_address(address), timeout=max(0.01, min(5.0, deadline - time.monotonic()))
            )
            return _prompt(sock)
        except OSError as error:
            if time.monotonic() + RETRY_SECONDS > deadline:
                raise ServerUnavailable(f"{peer} does not answer at {address}: {error.strerror or error}") from None
            time.sleep(RETRY_SECONDS)


def handshake(
    context: ssl.SSLContext, sock: socket.socket, peer: str, pins: dict[str, str], deadline: float
) -> tuple[str, ssl.SSLSocket]:
    """TLS handshake by the deadline; returns the other party's proven name and the secured socket.

    Raises:
        SecurityError: no certificate, an expired one, one of another authority, or not the pinned key.
        DeadlineExceeded: the other side is silent.
    """
    sock.settimeout(max(0.01, deadline - time.monotonic()))
    try:
        secured = context.wrap_socket(sock, server_side=context.protocol == ssl.PROTOCOL_TLS_SERVER)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise SecurityError(f"the certificate of {peer} is not accepted: {error.verify_message}") from None
    except TimeoutError:
        sock.close()
        raise DeadlineExceeded(f"{peer} did not finish the TLS handshake in time") from None
    except OSError as error:
        sock.close()
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise SecurityError(f"no TLS 1.3 connection with {peer}: {reason}") from None
    try:
        return authenticate(secured, pins), secured
    except SecurityError:
        secured.close()
        raise
