"""Lanes: the servers' pools of data connections to each other. The higher party index dials the lower.

A lane serves one job at a time. At the start both ends say which job and plan they are about and agree on its key; at a
clean end both say so, and the lane goes back to the pool; after any failure it is closed.
"""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from private_keras.errors import (
    DeadlineExceeded,
    FrameError,
    InputError,
    PeerLost,
    PrivateKerasError,
    SecurityError,
    ServerUnavailable,
)
from private_keras.server import limits
from private_keras.server.apart import PartsApart, differing
from private_keras.server.job_lanes import JobLanes
from private_keras.server.jobs import Job
from private_keras.server.lane import DrawnApart, Lane, arriving, stop
from private_keras.server.log import Log
from private_keras.server.pairing import SETUP_BYTES, WAIT, Agreed, Hello, Setup
from private_keras.server.ties import Common
from private_keras.transport.endpoint import Endpoint
from private_keras.transport.frames import HELLO_STEP, SETUP_STEP, GaveUp
from private_keras.transport.stream import StreamChannel


class Lanes:
    """All lanes of one server.

    Args:
        party: its index.
        names: all servers' names, by index.
        addresses: all servers' data addresses, as the endpoint takes them.
        endpoint: makes connections.
        protocol: name of the protocol, said in each hello.
        callers: how many lanes are accepted at once.
    """

    def __init__(
        self, party: int, names: list[str], addresses: list[str], endpoint: Endpoint, protocol: str, log: Log,
        callers: int,
    ):  # fmt: skip
        self._party = party
        self._max_callers = callers
        self._names = names
        self._addresses = addresses
        self._endpoint = endpoint
        self._protocol = protocol
        self._log = log
        self._changed = threading.Condition()
        self._idle: dict[int, list[Lane]] = {peer: [] for peer in range(party)}
        self._offers: dict[tuple[bytes, int], Lane] = {}
        self._abandoned: OrderedDict[bytes, None] = OrderedDict()
        self._accepted: set[StreamChannel] = set()
        self._callers = 0
        self._listener: socket.socket | None = None

    def listen(self, address: str) -> None:
        """Accepts lanes from servers of higher index, in threads of its own."""
        self._listener = self._endpoint.listen(address)
        threading.Thread(target=self._accept, name="lanes", daemon=True).start()

    def wake(self) -> None:
        """Lets everybody who waits for a peer look at their job again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all connections."""
        stop(self._listener)
        with self._changed:
            idle = [lanes.pop() for lanes in self._idle.values() for _ in range(len(lanes))]
            accepted = list(self._accepted)
        for end in (*(lane.channel.close for lane in idle), *(channel.interrupt for channel in accepted)):
            end()

    def round_trip(self, peer: str, deadline: float) -> float:
        """Seconds of one exchange with a server of lower index, on a new connection that is closed again.

        Raises:
            InputError: no such server, or one that dials this one.
            ServerUnavailable, SecurityError: it does not answer, or is another one.
        """
        if peer not in self._names[: self._party]:
            raise InputError(
                f"expected a server that this one dials, of {self._names[: self._party]}. Received: {ascii(peer)[:80]}"
            )
        channel = self._endpoint.dial(self._addresses[self._names.index(peer)], peer, deadline)
        try:
            began = time.monotonic()
            self._set_up(channel)
            return time.monotonic() - began
        finally:
            channel.close()

    # --- a job's view -------------------------------------------------------------------------------------------------
    def open(self, job: Job, digest: bytes, parts: Mapping[int, Common]) -> JobLanes:
        """Lanes to other servers for this job, with the keys that the job shares with each.

        Args:
            digest: of plan and schedule.
            parts: by server that takes part, what it must have in common with this one of the job's inputs.

        Raises:
            ServerUnavailable: a server does not answer or does not join the job.
            VersionMismatch: a server runs another plan, protocol or release.
            PartsApart: a server has parts of inputs that do not belong to these.
        """
        lanes: dict[int, Lane] = {}
        agreed: dict[int, Agreed] = {}
        apart: list[int] = []
        others = sorted(parts)
        lower, higher = ([peer for peer in others if (peer < self._party) == below] for below in (True, False))
        hellos = {peer: Hello.fresh(self._protocol, self._party, job.id, digest, parts[peer].digest) for peer in others}
        try:
            for peer in lower:
                lanes[peer] = self._begin(job, peer, hellos[peer])
            for peer in higher:
                lanes[peer] = self._claim(job, peer)
            if not lower:
                job.wait_turn(lambda: self._say_wait(job, lanes))
            for peer in higher:
                lanes[peer] = self._joined(job, lanes[peer], hellos[peer])
                self._agree(hellos[peer], lanes[peer], agreed, apart)
            for peer in lower:
                lanes[peer] = self._answered(job, lanes[peer], hellos[peer])
                self._agree(hellos[peer], lanes[peer], agreed, apart)
            if apart:
                raise PartsApart(differing(self._party, {peer: lanes[peer].channel for peer in apart}, parts))
        except BaseException:
            JobLanes(self.give_back, job, lanes, agreed).fail(self._party)
            self.abandon(job.id)
            raise
        return JobLanes(self.give_back, job, lanes, agreed)

    def abandon(self, job_id: bytes) -> None:
        """The job will not take place on this server: who waits for it is told so, now and when it comes later."""
        with self._changed:
            self._abandoned[job_id] = None
            while len(self._abandoned) > limits.REMEMBERED_JOBS:
                self._abandoned.popitem(last=False)
            left = [self._offers.pop(key) for key in list(self._offers) if key[0] == job_id]
        for lane in left:
            lane.channel.give_up(self._party)
            self.give_back(lane, clean=False)

    def _agree(self, mine: Hello, lane: Lane, agreed: dict[int, Agreed], apart: list[int]) -> None:
        try:
            agreed[lane.party] = mine.agree(lane.hello, lane.secret, lane.party, self._names[lane.party])
        except PartsApart:
            apart.append(lane.party)

    def _begin(self, job: Job, peer: int, hello: Hello, fresh: bool = False) -> Lane:
        """Takes an idle lane, or dials, and says hello on it."""
        while True:
            lane = (None if fresh else self._take(peer)) or self._dial(job, peer)
            lane.channel.deadline = job.deadline
            job.attach(lane.channel)
            try:
                lane.channel.send(HELLO_STEP, np.frombuffer(hello.pack(), np.uint8))
                return lane
            except PeerLost:
                lane.channel.close()
                if not lane.used:
                    raise

    def _take(self, peer: int) -> Lane | None:
        """An idle lane on which the peer has said that the job before is over, and nothing since."""
        waiting = []
        try:
            while True:
                with self._changed:
                    if not self._idle[peer]:
                        return None
                    lane = self._idle[peer].pop()
                if lane.draws is not None and lane.channel.idle():
                    waiting.append(lane)
                elif self._over(lane, time.monotonic() + limits.SETUP_SECONDS) and lane.channel.idle():
                    return lane
                else:
                    lane.channel.close()
        finally:
            with self._changed:
                self._idle[peer][:0] = waiting

    def _over(self, lane: Lane, deadline: float) -> bool:
        """Whether both ends have said that the job before is over, and alike; waits for the peer's word."""
        if lane.draws is None:
            return True
        lane.channel.deadline = deadline
        try:
            lane.hear_end(lane.draws)
        except DrawnApart as error:  # whoever has a part of the result has noticed as well
            self._log.write("warning", "lane closed", reason=str(error)[: limits.DETAIL_CHARACTERS])
            return False
        except PrivateKerasError:
            return False
        return True

    def _joined(self, job: Job, lane: Lane, hello: Hello) -> Lane:
        """Says hello on a claimed lane, or on the one that has taken its place."""
        lane = self._there(job, lane)
        try:
            lane.channel.send(HELLO_STEP, np.frombuffer(hello.pack(), np.uint8))
        except PeerLost:
            lane = self._claim_again(job, lane)
            lane.channel.send(HELLO_STEP, np.frombuffer(hello.pack(), np.uint8))
        return lane

    def _there(self, job: Job, lane: Lane) -> Lane:
        """The lane, whose peer waits and says nothing; raises what it says if it does, as when it gives up."""
        if lane.channel.idle():
            return lane
        try:
            lane.hear(time.monotonic() + limits.SETUP_SECONDS)
        except GaveUp:
            raise
        except PeerLost:
            return self._claim_again(job, lane)
        raise FrameError(f"{lane.channel.peer} says hello twice")

    def _claim_again(self, job: Job, lane: Lane) -> Lane:
        """After the loss of a lane. One that was cut at the end of the job before is replaced by the peer, once."""
        self.give_back(lane, clean=False)
        job.check()
        if not lane.used:
            raise PeerLost(f"the connection to {lane.channel.peer} ended before the job began")
        return self._claim(job, lane.party)

    def _say_wait(self, job: Job, lanes: dict[int, Lane]) -> None:
        """Tells the peers that have come to a job that its turn is still to come."""
        for peer in list(lanes):
            lanes[peer] = self._there(job, lanes[peer])
            lanes[peer].channel.send(HELLO_STEP, np.frombuffer(WAIT, np.uint8))

    def _answered(self, job: Job, lane: Lane, hello: Hello) -> Lane:
        """Waits for the peer's hello. A used lane may have died unnoticed: then once more, on a new one."""
        try:
            lane.hello = self._hear_turn(job, lane)
        except GaveUp:
            raise
        except PeerLost:
            job.check()
            lane.channel.close()
            if not lane.used:
                raise
            lane = self._begin(job, lane.party, hello, fresh=True)
            lane.hello = self._hear_turn(job, lane)
        lane.channel.deadline = job.deadline
        return lane

    def _hear_turn(self, job: Job, lane: Lane) -> Hello:
        """The peer's hello, which comes when it is the job's turn there. A peer that says nothing at all is lost."""
        while True:
            try:
                message = lane.hear(min(job.deadline, time.monotonic() + limits.JOIN_SECONDS))
            except DeadlineExceeded:
                if job.waiting:
                    job.check()
                raise
            job.waiting = message == WAIT
            if not job.waiting:
                return Hello.parse(message, self._names[lane.party])

    def _dial(self, job: Job, peer: int) -> Lane:
        job.check()
        name = self._names[peer]
        deadline = min(job.deadline, time.monotonic() + limits.DIAL_SECONDS)
        channel = self._endpoint.dial(self._addresses[peer], name, deadline)
        try:
            job.attach(channel)
            party, secret = self._set_up(channel)
            if party != peer:
                raise SecurityError(f"expected {name} (party {peer}) at its data address. Received: party {party}")
        except BaseException:
            channel.close()
            raise
        return Lane(channel, peer, secret)

    def _set_up(self, channel: StreamChannel) -> tuple[int, bytes]:
        setup = Setup(self._party)
        theirs = np.empty(SETUP_BYTES, np.uint8)
        channel.deadline = time.monotonic() + limits.SETUP_SECONDS
        channel.exchange(SETUP_STEP, np.frombuffer(setup.message, np.uint8), theirs)
        return setup.finish(theirs.tobytes(), channel.peer)

    def _claim(self, job: Job, peer: int) -> Lane:
        """Waits until a server of higher index says hello for this job."""
        deadline = min(job.deadline, time.monotonic() + limits.JOIN_SECONDS)
        with self._changed:
            while (job.id, peer) not in self._offers:
                left = deadline - time.monotonic()
                if left <= 0:
                    kind = DeadlineExceeded if deadline == job.deadline else ServerUnavailable
                    raise kind(
                        f"{self._names[peer]} did not join the job in time; it is stalled, overloaded or cut off"
                    )
                job.check()
                self._changed.wait(left)
            lane = self._offers.pop((job.id, peer))
        lane.channel.deadline = job.deadline
        job.attach(lane.channel)
        return lane

    def give_back(self, lane: Lane, clean: bool) -> None:
        """A job is through with a lane: into the pool after a clean end."""
        if lane.party < self._party:
            lane.used = True
            with self._changed:
                if clean and len(self._idle[lane.party]) < limits.IDLE_LANES:
                    self._idle[lane.party].append(lane)
                    return
            lane.channel.close()
        else:
            lane.clean = clean
            lane.ended.set()

    # --- the accepting side -------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        for sock in arriving(self._listener, self._turn_away):
            with self._changed:
                self._callers += 1
                full = self._callers > self._max_callers
            try:
                if full:
                    raise RuntimeError("too many connections")
                threading.Thread(target=self._serve, args=(sock,), name="lane", daemon=True).start()
            except RuntimeError as error:  # or no thread for it
                with self._changed:
                    self._callers -= 1
                self._turn_away(str(error))
                sock.close()

    def _turn_away(self, reason: str) -> None:
        self._log.write("warning", "lane refused", reason=reason[: limits.DETAIL_CHARACTERS])

    def _serve(self, sock: socket.socket) -> None:
        """One accepted connection: set it up, then bring each job that the peer announces together with ours."""
        channel = None
        try:
            channel = self._endpoint.welcome(sock, time.monotonic() + limits.SETUP_SECONDS)
            with self._changed:
                self._accepted.add(channel)
            party, secret = self._set_up(channel)
            if not self._party < party < len(self._names) or channel.peer not in ("", self._names[party]):
                raise SecurityError(f"{channel.peer or 'a caller'} claims to be party {party}")
            channel.peer = self._names[party]
            lane = Lane(channel, party, secret)
            while self._offer(lane):
                lane = Lane(channel, party, secret, used=True)
        except PeerLost:
            pass  # a peer that ends takes its idle lanes along
        except PrivateKerasError as error:
            self._turn_away(str(error))
        except Exception as error:  # one caller must not take the server down
            self._log.crash("lane failed", error)
        finally:
            with self._changed:
                self._callers -= 1
                self._accepted.discard(channel)
            if channel is not None:
                channel.close()
            sock.close()

    def _offer(self, lane: Lane) -> bool:
        """One job on an accepted lane; True when the lane is good for another."""
        lane.channel.wait_readable()
        lane.hello = Hello.parse(lane.hear(time.monotonic() + limits.SETUP_SECONDS), self._names[lane.party])
        key = lane.hello.job, lane.party
        with self._changed:
            before = self._offers.pop(key, None)
            if before is not None:
                if before.channel.idle():
                    self._offers[key] = before
                    raise SecurityError(f"{lane.channel.peer} announced one job twice")
                before.ended.set()  # it broke, and the peer noticed first
            abandoned = lane.hello.job in self._abandoned
            if not abandoned:
                self._offers[key] = lane
                self._changed.notify_all()
        if abandoned:
            lane.channel.give_up(self._party)
            return False
        if not lane.ended.wait(limits.JOIN_SECONDS):
            with self._changed:
                if self._offers.get(key) is lane:
                    del self._offers[key]
                    return False  # nobody came for it: the job was refused here, or never started
            lane.ended.wait()
        return lane.clean and self._over(lane, lane.channel.deadline)
