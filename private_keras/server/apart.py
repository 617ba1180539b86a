"""What servers do when parts of inputs do not belong together: they find out which, and end the job."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from private_keras.errors import PrivateKerasError, SecurityError
from private_keras.server import limits
from private_keras.server.ties import Common
from private_keras.transport.frames import PARTS_STEP
from private_keras.transport.stream import StreamChannel


class PartsApart(SecurityError):
    """A client gave servers parts of inputs that do not belong together.

    Args:
        found: by server, names of the inputs of which it has other parts, as far as it has said.
    """

    def __init__(self, found: Mapping[str, Sequence[str]]):
        names = list(dict.fromkeys(name for each in found.values() for name in each))
        what = f"input{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:20]))}" if names else "the inputs"
        super().__init__(
            f"what {' and '.join(found)} and this server were given of {what} does not belong together: parts of "
            "different tensors, or of one that not all servers were sent alike. Nothing was computed; share them again"
        )


def differing(
    party: int, channels: Mapping[int, StreamChannel], parts: Mapping[int, Common]
) -> dict[str, list[str]]:
    """By peer, names of the inputs of which it has other parts; none where it does not say.

    Pairs exchange their ties in one order at all servers, and after all have said hello: so nobody waits for one who
    waits for another.

    Args:
        channels: to peers that have noticed it as well.
    """
    found = {}
    for peer in sorted(channels, key=lambda peer: sorted((peer, party))):
        channel, mine = channels[peer], np.frombuffer(parts[peer].ties, np.uint8)
        theirs = np.empty_like(mine)
        found[channel.peer] = []
        try:
            channel.deadline = time.monotonic() + limits.SETUP_SECONDS
            channel.exchange(PARTS_STEP, mine, theirs)
            found[channel.peer] = parts[peer].apart(theirs.tobytes())
        except PrivateKerasError:
            pass  # the job is over in any case
    return found
