"""The boundary of a transport's connecting half: how a party listens for its peers and reaches them."""

import socket
from typing import Protocol

from private_keras.transport.stream import StreamChannel


class Endpoint(Protocol):
    """Makes connections between servers, authenticated by a directory's mode or by certificates."""

    def listen(self, address: str) -> socket.socket:
        """A listening socket at `address`; raises `SecurityError` where others could get at it."""

    def dial(self, address: str, peer: str, deadline: float) -> StreamChannel:
        """Connects to `peer`, trying again until `deadline` (`time.monotonic()`).

        Raises:
            ServerUnavailable: nobody answers.
            SecurityError: somebody else than `peer` answers.
        """

    def welcome(self, sock: socket.socket, deadline: float) -> StreamChannel:
        """Handshake on an accepted connection. `peer` of the result is the name proven; "" where all are one user."""
