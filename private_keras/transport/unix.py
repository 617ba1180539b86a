"""Channels over Unix sockets: the parties are processes of one user on one machine.

The socket lies in a directory that only its user may enter (mode 0700), and the kernel says which user is at the other
end. No encryption: whoever could read the socket could read the processes' memory.
"""

import math
import os
import select
import socket
import struct
import time
from pathlib import Path

import numpy as np

from private_keras.errors import ClusterError, SecurityError, ServerUnavailable
from private_keras.transport.stream import Blocked, StreamChannel

try:
    from private_keras.transport import _socket
except ImportError:
    _socket = None

SOCKET_BUFFER = 4 << 20
_NOT_BEGUN = 0, 0, b""


class UnixChannel(StreamChannel):
    """See `Channel`. A message that the system takes, or has, as a whole is one native call."""

    buffered = False

    def __init__(self, sock: socket.socket, peer: str, deadline: float = math.inf):
        if _socket is None:
            raise ClusterError(
                "private_keras.transport._socket is not built or does not load on this machine. "
                "Install the package with a C++ compiler present: pip install ."
            )
        super().__init__(sock, peer, deadline)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        self._fd = sock.fileno()

    def send(self, step: int, payload: np.ndarray) -> None:
        begun = _socket.send(self._fd, step, payload) if self._free() else _NOT_BEGUN
        if begun is None:
            self.traffic.sent += payload.nbytes
            self.traffic.messages += 1
        elif begun[0]:
            self._go_on(step, payload, None, *begun)
        else:
            super().send(step, payload)

    def receive(self, step: int, out: np.ndarray) -> None:
        begun = _socket.receive(self._fd, step, out, self.deadline) if self._free() else _NOT_BEGUN
        if begun is None:
            self.traffic.received += out.nbytes
        elif begun[1]:
            self._go_on(step, None, out, *begun)
        else:
            super().receive(step, out)

    def exchange(self, step: int, payload: np.ndarray, out: np.ndarray) -> None:
        begun = _socket.exchange(self._fd, step, payload, out, self.deadline) if self._free() else _NOT_BEGUN
        if begun is None:
            traffic = self.traffic
            traffic.sent += payload.nbytes
            traffic.received += out.nbytes
            traffic.messages += 1
            traffic.rounds += 1
        elif begun[0]:
            self._go_on(step, payload, out, *begun)
        else:
            super().exchange(step, payload, out)

    def _write(self, parts: list[memoryview]) -> int:
        try:
            return self._socket.sendmsg(parts)
        except BlockingIOError:
            raise Blocked(select.POLLOUT) from None

    def _read(self, parts: list[memoryview]) -> int:
        try:
            return self._socket.recvmsg_into(parts)[0]
        except BlockingIOError:
            raise Blocked(select.POLLIN) from None


def unix_pair(peers: tuple[str, str] = ("server1", "server0")) -> tuple[UnixChannel, UnixChannel]:
    """Two connected ends in one process; `peers` are what each end calls the other."""
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return UnixChannel(first, peers[0]), UnixChannel(second, peers[1])


def check_private(directory: Path) -> None:
    """Raises `SecurityError` for a directory that others than this user may enter."""
    found = directory.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SecurityError(
            f"a server's own directory, {directory}, must belong to this user and have mode 0700. "
            f"Received: owner {found.st_uid}, mode {found.st_mode & 0o777:04o}"
        )


class UnixEndpoint:
    """See `Endpoint`."""

    def listen(self, address: str) -> socket.socket:
        check_private(Path(address).parent)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(address):
            os.unlink(address)
        sock.bind(address)
        sock.listen(64)
        return sock

    def dial(self, address: str, peer: str, deadline: float) -> UnixChannel:
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(max(0.01, min(5.0, deadline - time.monotonic())))
            try:
                sock.connect(address)
                return UnixChannel(sock, peer, deadline)
            except OSError as error:
                sock.close()
                if time.monotonic() + 0.05 > deadline:
                    raise ServerUnavailable(f"{peer} does not answer at {address}: {error.strerror or error}") from None
                time.sleep(0.02)

    def welcome(self, sock: socket.socket, deadline: float) -> UnixChannel:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", credentials)
        if user != os.getuid():
            raise SecurityError(f"a process of another user (uid {user}) connected to the data socket")
        return UnixChannel(sock, "", deadline)
