"""The frame of a message on a byte stream: step and length, 16 bytes, little endian; then the payload."""

import struct

import numpy as np

from private_keras.errors import FrameError, InputError, PeerLost

HEADER = struct.Struct("<QQ")

# Steps of jobs are below 2^63; these mark messages of the servers themselves.
PARTS_STEP = (1 << 64) - 5
SETUP_STEP = (1 << 64) - 4
END_STEP = (1 << 64) - 3
HELLO_STEP = (1 << 64) - 2
GIVE_UP_STEP = (1 << 64) - 1


class GaveUp(PeerLost):
    """The peer ended its job. `blamed` is the party index that it lost, or its own."""

    def __init__(self, message: str, blamed: int):
        super().__init__(message)
        self.blamed = blamed


def pack(step: int, length: int) -> bytes:
    """Header of a message."""
    return HEADER.pack(step, length)


def give_up(blamed: int) -> bytes:
    """The last frame of a job that failed: no payload; the length field names the party that was lost."""
    return HEADER.pack(GIVE_UP_STEP, blamed)


def check(header: bytes, step: int, length: int, peer: str) -> None:
    """Refuses a header that is not the one expected.

    Raises:
        GaveUp: the peer gave up its job, and says whom it lost.
        FrameError: another step or length than expected.
    """
    got_step, got_length = HEADER.unpack(header)
    if got_step == step and got_length == length:
        return
    if got_step == GIVE_UP_STEP:
        blamed = f"server{got_length}" if got_length < 64 else "a server"
        if blamed == peer:
            raise GaveUp(f"{peer} gave up the job; the reason is in its own error", got_length)
        raise GaveUp(f"{blamed} was lost (said by {peer})", got_length)
    raise FrameError(
        f"{peer}: expected step {step} with {length} bytes. Received: step {got_step} with {got_length} bytes; "
        "the servers do not run the same program or somebody else writes to the connection"
    )


def outgoing(payload: np.ndarray) -> memoryview:
    """Bytes of a payload, without copying when it is contiguous."""
    return _bytes(payload if payload.flags.c_contiguous else np.ascontiguousarray(payload))


def incoming(out: np.ndarray) -> memoryview:
    """Bytes of the array that a payload is received into."""
    flags = out.flags
    if not flags.c_contiguous or not flags.writeable:
        raise InputError(
            "a message is received into a contiguous, writable array. "
            f"Received: shape {out.shape}, strides {out.strides}, writable: {flags.writeable}"
        )
    return _bytes(out)


def _bytes(array: np.ndarray) -> memoryview:
    # A view of no bytes cannot be cast.
    return memoryview(array).cast("B") if array.nbytes else memoryview(bytearray())
