"""One data connection between two servers, as jobs use it one after the other."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import FrameError
from private_keras.server import limits
from private_keras.server.pairing import HELLO_BYTES, Hello
from private_keras.transport.frames import END_STEP, HELLO_STEP
from private_keras.transport.stream import StreamChannel


class DrawnApart(FrameError):
    """Two servers did not draw the same masks."""


@dataclass(eq=False)
class Lane:
    """One connection to a peer, set up.

    Attributes:
        secret: 32 bytes that only the two ends know.
        hello: what the peer said about its job, on an accepted lane that waits for ours.
        used: whether a job ran on the connection before.
        draws: after a job whose end was not waited for, how often this party drew in it; the peer still has to say.
        ended: set when a job is through with an accepted lane; `clean` then says how.
    """

    channel: StreamChannel
    party: int
    secret: bytes = field(repr=False)
    hello: Hello | None = None
    used: bool = False
    clean: bool = False
    draws: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def hear(self, deadline: float) -> bytes:
        """The peer's next message before a job: a hello, or `WAIT`."""
        message = np.empty(HELLO_BYTES, np.uint8)
        self.channel.deadline = deadline
        self.channel.receive(HELLO_STEP, message)
        return message.tobytes()

    def hear_end(self, draws: int) -> None:
        """Waits for the peer to say that the job is over.

        Raises:
            FrameError: the peer drew another number of times.
        """
        self.draws = None
        theirs = np.empty(1, np.uint64)
        self.channel.receive(END_STEP, theirs)
        if int(theirs[0]) != draws:
            raise DrawnApart(
                f"{self.channel.peer} drew randomness in another order than this server; the result is wrong and is "
                "withheld. Install the same release on all servers, and report this if it is"
            )


def arriving(listener: socket.socket, failed: Callable[[str], None]) -> Iterator[socket.socket]:
    """Connections as they come, until the listener is closed.

    Args:
        failed: told why one could not be accepted. A caller that is gone, or no descriptor left, ends no server: others
            come, and some end.
    """
    while listener.fileno() >= 0:
        try:
            yield listener.accept()[0]
        except OSError as error:
            if listener.fileno() >= 0:
                failed(error.strerror or type(error).__name__)
                time.sleep(limits.ACCEPT_SECONDS)


def stop(listener: socket.socket | None) -> None:
    """Closes a listener and ends `arriving` in the thread that waits there, which closing alone would leave waiting."""
    if listener is not None and listener.fileno() >= 0:
        with socket.socket(fileno=listener.detach()) as detached, contextlib.suppress(OSError):
            detached.shutdown(socket.SHUT_RDWR)
