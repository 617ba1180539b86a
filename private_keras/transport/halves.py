"""The two directions of a byte stream: what of a message is still to be written, and where the next bytes go."""

from private_keras.errors import FrameError, InputError, PeerLost
from private_keras.transport import frames

HEADER_BYTES = frames.HEADER.size


class Outgoing:
    """Bytes to be written, in order, as references to their arrays.

    Attributes:
        step: of the message begun last.
        left: bytes that were announced and not given yet.
        queue: what is to be written.
        kept: bytes of `queue`.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.left = 0
        self.queue: list[memoryview] = []
        self.kept = 0

    def check_free(self) -> None:
        """Raises `InputError` while a message is unfinished."""
        if self.left:
            raise InputError(f"step {self.step} has {self.left} bytes to come before anything else can be sent")

    def begin(self, step: int, nbytes: int) -> None:
        """Queues a header."""
        self.check_free()
        self.step = step
        self.left = nbytes
        self.queue.append(memoryview(frames.pack(step, nbytes)))
        self.kept += HEADER_BYTES

    def add(self, data: memoryview) -> None:
        """Queues the next bytes of the message begun."""
        size = len(data)
        if size > self.left:
            raise InputError(f"step {self.step} has {self.left} bytes to come. Received: {size}")
        if size:
            self.left -= size
            self.queue.append(data)
            self.kept += size

    def wrote(self, nbytes: int) -> None:
        """So many bytes of the queue are with the system."""
        self.kept -= nbytes
        self.queue = rest(self.queue, nbytes) if self.kept else []


class Incoming:
    """Places for the bytes to be read.

    Attributes:
        step: of the message expected last.
        left: its bytes that have no place yet.
        header_left: bytes of its header that did not come yet.
        wanted: where the next bytes go.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.left = 0
        self.wanted: list[memoryview] = []
        self._total = 0
        self._header = bytearray(HEADER_BYTES)
        self._header_view = memoryview(self._header)
        self.header_left = 0
        self._target = memoryview(b"")
        self._before = b""

    @property
    def open(self) -> bool:
        """Whether a message is expected and not filled."""
        return self.left > 0 or self.header_left > 0

    def check_free(self) -> None:
        """Raises `InputError` while a message that is expected is not filled."""
        if self.open:
            raise InputError(f"step {self.step} has {self.left} bytes to be taken before anything else can be received")

    def expect(self, step: int, nbytes: int) -> None:
        """Says which header comes next."""
        self.check_free()
        self.step = step
        self.left = self._total = nbytes
        self.header_left = HEADER_BYTES
        self._before = b""

    def aim(self, target: memoryview) -> None:
        """The next bytes of the message go to `target`."""
        size = len(target)
        if size > self.left:
            raise InputError(f"step {self.step} has {self.left} bytes to be taken. Received: room for {size}")
        self.left -= size
        self._target = target
        self.wanted = [self._header_view] if self.header_left else []
        if size:
            self.wanted.append(target)

    def got(self, nbytes: int, peer: str) -> None:
        """So many bytes are in their places.

        Raises:
            FrameError, GaveUp: the header is not the one expected.
        """
        if self.header_left:
            self.header_left = 0 if nbytes >= self.header_left else self.header_left - nbytes
            if not self.header_left:
                frames.check(self._header, self.step, self._total, peer)
        self.wanted = rest(self.wanted, nbytes)
        if not self.wanted and self.left:
            self._before = (self._before + bytes(self._target[-HEADER_BYTES:]))[-HEADER_BYTES:]

    def came(self, header: bytes, nbytes: int, peer: str) -> None:
        """As `got`, for bytes that were read elsewhere; the header's are put in their place here."""
        self._header[: len(header)] = header
        self.got(nbytes, peer)

    def last_words(self, peer: str) -> frames.GaveUp | None:
        """What a peer said that gave up in the middle of a message: the last bytes before the stream's end."""
        if self.step is None or self.header_left:
            return None
        filled = len(self._target) - sum(map(len, self.wanted))
        tail = self._before + bytes(self._target[max(0, filled - HEADER_BYTES) : filled])
        try:
            frames.check(tail[-HEADER_BYTES:].rjust(HEADER_BYTES, b"\0"), frames.GIVE_UP_STEP, -1, peer)
        except frames.GaveUp as said:
            return said
        except FrameError:
            return None
        return None

    def ended(self, step: int | None, peer: str) -> PeerLost:
        """The error for a stream that ended while bytes are wanted."""
        return self.last_words(peer) or PeerLost(f"{peer} closed the connection (step {step})")


def rest(parts: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the parts after `done` bytes."""
    for at, part in enumerate(parts):
        if done < len(part):
            return [part[done:], *parts[at + 1 :]]
        done -= len(part)
    return []
