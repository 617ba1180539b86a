"""One job on one server: lanes to the peers, the plan's steps on shares, contributions and kept shares out."""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import PeerLost
from private_keras.plan.plan import Plan
from private_keras.protocols import trio
from private_keras.protocols.protocol import Protocol, Share
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.collect import Collected
from private_keras.server.execute import Program
from private_keras.server.jobs import Job
from private_keras.server.lanes import JobLanes, Lanes
from private_keras.server.loop import Feed, TakeRows, paced, run_steps
from private_keras.server.material import Material, Stored, read_only
from private_keras.server.sizes import WORD
from private_keras.server.stock import Item, Stock
from private_keras.server.store import Kept, Store
from private_keras.server.terms import Terms
from private_keras.server.ties import computed_ties
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.frames import GaveUp

# A new protocol is one line here and one in `config.PROTOCOLS`.
MAKE_PARTY = {"trio": trio.make_party}


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: this party's contributions by output name, and what it took.

    Attributes:
        kept: handles of what is in the store now, or the id of what is in the stock.
        sent: payload bytes to each party; `received`: from all.
        stored: bytes of the item of stock that was made.
    """

    contributions: dict[str, np.ndarray] = field(repr=False)
    kept: list[bytes]
    rounds: int
    sent: list[int]
    received: int
    seconds: float
    stored: int = 0


class Runner:
    """Runs jobs of one server; holds nothing of any of them."""

    def __init__(
        self, protocol: str, party: int, parties: int, kernel: Kernel, lanes: Lanes, store: Store, stock: Stock
    ):
        self._make_party = MAKE_PARTY[protocol]
        self._party = party
        self._parties = parties
        self._peers = set(range(parties)) - {party}
        self._kernel = kernel
        self._lanes = lanes
        self._store = store
        self._stock = stock

    def abandon(self, job: Job) -> None:
        """The job failed here: peers that wait for this server are told."""
        self._lanes.abandon(job.id)

    def run(self, job: Job, program: Program, given: Collected) -> Generator[int, None, Outcome]:
        """The job itself; yields now and then how many steps are done, and raises whatever ends it, after the lanes are
        in order. What is kept is in the store when all servers have come to the same end, and not before.
        """
        # What was made ahead holds all that the helper would have to say.
        peers = self._peers if given.item is None else {1 - self._party}
        with self._opened(job, given, peers) as (lanes, traffic):
            began = time.monotonic()  # when all servers are there
            protocol = self._protocol(lanes, given)
            feed = _feed(protocol, program.plan, given)
            shares = yield from paced(run_steps(program, protocol, feed, lambda index, step: job.check()))
            contributions = program.open(protocol, shares)
            kept = protocol.keep(*(shares[name] for name in given.schedule.kept))
            if given.item is not None:
                protocol.finish()
        rounds, sent, received = traffic.taken()
        draws = {peer: protocol.draws[peer] for peer in lanes.channels}
        lanes.finish(draws, _needed(draws, contributions, bool(kept)))
        job.check()
        parts = [
            Material(*map(read_only, pair), computed_ties(lanes.pairs, index)) for index, pair in enumerate(kept)
        ]
        handles = list(given.schedule.kept.values())
        terms = [given.terms.get(name, Terms()) for name in given.schedule.kept]
        items = [
            Kept(handle, part, part.nbytes, of) for handle, part, of in zip(handles, parts, terms, strict=True)
        ]  # fmt: skip
        self._store.put(job.owner, items, given.room)
        return Outcome(contributions, handles, rounds, sent, received, time.monotonic() - began)

    def make(self, job: Job, program: Program, given: Collected) -> Generator[int, None, Outcome]:
        """Makes an item of stock for a job to come, under this job's id; yields as `run` does.

        The item is in the stock when all servers have come to the end, and not before.
        """
        with self._opened(job, given, self._peers) as (lanes, traffic):
            began = time.monotonic()
            walk = self._walk(lanes, given.dealt)
            feed = (_shapes if isinstance(walk, trio.Ahead) else _feed)(walk, program.plan, given)
            yield from paced(run_steps(program, walk, feed, lambda index, step: job.check()))
            supply = walk.supply() if isinstance(walk, trio.Ahead) else None
        rounds, sent, received = traffic.taken()
        lanes.finish(walk.draws, list(walk.draws))
        job.check()
        stored_bytes = 0
        if supply is not None:
            handles = given.schedule.handles
            stored = {name: given.material[name] for name in handles}
            content, owner = given.schedule.content, job.owner
            item = Item(job.id, owner, content, stored, handles, given.seeds, supply, lanes.pairs[1 - self._party])
            self._stock.put(item, given.room)
            stored_bytes = item.nbytes
        seconds = time.monotonic() - began
        return Outcome({}, [job.id], rounds, sent, received, seconds, stored_bytes)

    def _protocol(self, lanes: JobLanes, given: Collected) -> Protocol:
        if given.item is None:
            return self._make_party(self._party, self._kernel, lanes.channels, lanes.keys)
        other = 1 - self._party
        return trio.Supplied(
            self._party, self._kernel, lanes.channels[other], lanes.keys[other], given.item.supply
        )

    def _walk(self, lanes: JobLanes, dealt: int) -> Protocol:
        if self._party not in trio.EVALUATORS:
            return self._make_party(self._party, self._kernel, lanes.channels, lanes.keys)
        return trio.Ahead(self._party, self._kernel, lanes.channels, lanes.keys, dealt // WORD.itemsize)

    @contextmanager
    def _opened(self, job: Job, given: Collected, peers: set[int]) -> Iterator[tuple[JobLanes, "_Meter"]]:
        """A job's lanes; after an error in the `with` block they are closed, and peers told whom it blames."""
        lanes = self._lanes.open(job, given.schedule.digest, {peer: given.common(peer) for peer in peers})
        meter = _Meter(lanes, self._parties)
        try:
            yield lanes, meter
        except GeneratorExit:
            lanes.fail(self._party)  # the client is gone, and gRPC looks at this job no more
            raise
        except BaseException as error:
            lanes.fail(_blamed(error, lanes, self._party))
            job.check()  # a wait that ended because the job was cancelled is no loss of a peer
            raise


class _Meter:
    """What a job sends on its lanes, which have served others before."""

    def __init__(self, lanes: JobLanes, parties: int):
        self._channels = lanes.channels
        self._parties = parties
        self._before = {
            peer: (c.traffic.sent, c.traffic.rounds, c.traffic.received) for peer, c in self._channels.items()
        }

    def taken(self) -> tuple[int, list[int], int]:
        """Rounds, payload bytes to each party, and from all."""
        sent = [0] * self._parties
        for peer, channel in self._channels.items():
            sent[peer] = channel.traffic.sent - self._before[peer][0]
        rounds = max(channel.traffic.rounds - self._before[peer][1] for peer, channel in self._channels.items())
        received = sum(channel.traffic.received - self._before[peer][2] for peer, channel in self._channels.items())
        return rounds, sent, received


def _needed(draws: dict[int, int], contributions: dict[str, np.ndarray], kept: bool) -> list[int]:
    """Peers that have to come to the end as this one did, before its result may be used.

    What is kept is of use only if all have their part. What is opened was masked by draws that are shared with a peer:
    whoever contributes to it makes sure that the peer drew alike, and who contributes nothing has nothing to withhold.
    """
    if kept:
        return list(draws)
    if any(words is not None and words.any() for words in contributions.values()):
        return [peer for peer, count in draws.items() if count]
    return []


def _feed(protocol: Protocol, plan: Plan, given: Collected) -> Feed:
    """This party's inputs as the protocol takes them."""
    fixed, rows = {}, {}
    for item in plan.inputs:
        shape, name = item.type.shape, item.name
        if name in given.schedule.rows:
            rows[name] = _taker(protocol, given.material[name], shape), given.schedule.rows[name]
        elif not item.public:
            part = given.material[name]
            words, mask = part.words.reshape(shape), part.mask.reshape(shape)
            if part.operand is not None and isinstance(protocol, trio.Supplied):
                fixed[name] = protocol.weight(words, mask, part.operand.reshape(shape))
            else:
                fixed[name] = protocol.masked(words, mask)
    return Feed(given.schedule.steps, fixed, rows, given.schedule.public)


def _shapes(walk: trio.Ahead, plan: Plan, given: Collected) -> Feed:
    """The same for a walk that needs no words."""
    fixed = {item.name: walk.input(item.type.shape) for item in plan.inputs if not item.public}
    return Feed(given.schedule.steps, fixed, {}, given.schedule.public)


def _taker(protocol: Protocol, part: Stored, shape: tuple[int, ...]) -> TakeRows:
    row = math.prod(shape[1:])

    def take(rows: np.ndarray) -> Share:
        taken = part.rows(rows, row)
        return protocol.masked(taken.words.reshape(shape), taken.mask.reshape(shape))

    return take


def _blamed(error: BaseException, lanes: JobLanes, own: int) -> int:
    """The party that an error is about: the one lost, or this one."""
    if isinstance(error, GaveUp):
        return error.blamed
    if isinstance(error, PeerLost):
        return next((peer for peer, channel in lanes.channels.items() if channel.broken), own)
    return own


def result_bytes(program: Program) -> int:
    """Of what a party contributes to all outputs, at most."""
    plan = program.plan
    return sum(WORD.itemsize * plan.types[item.value].size for item in plan.outputs if item.receivers)


def replies(program: Program, outcome: Outcome) -> Iterator[wire.RunReply]:
    """An outcome as messages; an output that this party contributes nothing to is left out."""
    reply = wire.RunReply()
    room = limits.CHUNK_BYTES
    for index, item in enumerate(program.plan.outputs):
        words = outcome.contributions.get(item.name)
        if words is None or not words.any():
            continue
        data = memoryview(np.ascontiguousarray(words, "<u8").reshape(-1).view(np.uint8))
        for start in range(0, len(data), limits.CHUNK_BYTES):
            piece = bytes(data[start : start + limits.CHUNK_BYTES])
            if len(piece) > room:
                yield reply
                reply, room = wire.RunReply(), limits.CHUNK_BYTES
            reply.contributions.add(output=index, data=piece)
            room -= len(piece)
    done = wire.Done(rounds=outcome.rounds, sent=outcome.sent, seconds=outcome.seconds, stored=outcome.stored)
    reply.done.CopyFrom(done)
    yield reply
