"""A job's lanes, from agreement to the end."""

from collections.abc import Callable, Collection

import numpy as np

from private_keras.errors import PrivateKerasError
from private_keras.server.jobs import Job
from private_keras.server.lane import DrawnApart, Lane
from private_keras.server.pairing import Agreed
from private_keras.transport.frames import END_STEP


class JobLanes:
    """See above.

    Args:
        give_back: takes a lane and whether its end was clean.

    Attributes:
        channels: by party index.
        keys: 16 bytes by party index; this job's alone.
        pairs: 32 bytes by party index, which name this job and that pair of servers.
    """

    def __init__(
        self, give_back: Callable[[Lane, bool], None], job: Job, held: dict[int, Lane], agreed: dict[int, Agreed]
    ):
        self._give_back = give_back
        self._job = job
        self._held = held
        self.keys = {peer: of.key for peer, of in agreed.items()}
        self.pairs = {peer: of.name for peer, of in agreed.items()}
        self.channels = {peer: lane.channel for peer, lane in held.items()}

    def finish(self, draws: dict[int, int], needed: Collection[int]) -> None:
        """A clean end: said to each peer at once, and agreed with those that are needed for the result.

        What the others say is heard before their lanes are used again. Lanes whose peer does not agree are closed.

        Args:
            draws: how often this party drew from the key shared with each peer; public, since the plan decides it.
            needed: peers to wait for: all who share masks with this party's result.

        Raises:
            FrameError: one of those drew another number of times, so that masks were not what they should be.
            PeerLost, DeadlineExceeded: one of those did not say how often it drew.
        """
        clean = dict.fromkeys(self._held, False)
        apart = lost = None
        for peer, lane in self._held.items():
            try:
                lane.channel.send(END_STEP, np.array([draws[peer]], np.uint64))
                lane.draws = draws[peer]
                clean[peer] = True
            except PrivateKerasError as error:
                lost = lost or (error if peer in needed else None)
        for peer in (peer for peer in needed if clean[peer]):
            clean[peer] = False
            try:
                self._held[peer].hear_end(draws[peer])
                clean[peer] = True
            except DrawnApart as error:
                apart = apart or error
            except PrivateKerasError as error:
                lost = lost or error
        self._job.detach()
        for peer, lane in self._held.items():
            self._give_back(lane, clean[peer])
        if apart is not None:
            raise apart
        if lost is not None:
            self._job.check()
            raise lost

    def fail(self, blamed: int) -> None:
        """An end by an error: peers are told whom this party blames, and nothing of the lanes is used again."""
        self._job.detach()
        for lane in self._held.values():
            lane.channel.give_up(blamed)
            self._give_back(lane, False)
