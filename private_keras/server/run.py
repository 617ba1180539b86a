"""One job on one server: material in, lanes to the peers, the plan on shares, contributions out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from private_keras.errors import InputError, PeerLost
from private_keras.plan.records import TensorType
from private_keras.protocols import trio
from private_keras.ring.kernel import Kernel
from private_keras.server import limits
from private_keras.server.execute import Program
from private_keras.server.jobs import Job
from private_keras.server.lanes import JobLanes, Lanes
from private_keras.server.material import Material, Receiver, stored_bytes
from private_keras.server.plans import Prepared
from private_keras.server.store import Store
from private_keras.server.wire import messages_pb2 as wire
from private_keras.transport.frames import GaveUp

# A new protocol is one line here and one in `config.PROTOCOLS`.
MAKE_PARTY = {"trio": trio.make_party}


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: this party's contributions by output name, and what it took."""

    contributions: dict[str, np.ndarray]
    rounds: int
    sent: list[int]
    seconds: float


class Runner:
    """Runs jobs of one server; holds nothing of any of them."""

    def __init__(self, protocol: str, party: int, parties: int, kernel: Kernel, lanes: Lanes, store: Store):
        self._make_party = MAKE_PARTY[protocol]
        self._party = party
        self._parties = parties
        self._kernel = kernel
        self._lanes = lanes
        self._store = store

    def abandon(self, job: Job) -> None:
        """The job failed here: peers that wait for this server are told."""
        self._lanes.abandon(job.id)

    @contextmanager
    def collect(
        self, job: Job, prepared: Prepared, first: wire.RunRequest, rest: Iterator[wire.RunRequest]
    ) -> Iterator[dict[str, Material]]:
        """Material of all inputs by name, from the store or from the call itself; the memory is given back at the end.

        Room for what the run itself holds is taken from the store's quota as well, so that no plan, whoever wrote it,
        makes a server run out of memory by the number and size of its values.

        Raises:
            ClusterError: no room for the run beside what is stored.
            InputError: inputs that are missing, unknown, or of another size than the plan says.
            HandleNotFound: a handle that this server does not have for this identity.
        """
        program = prepared.program
        types = {item.name: item.type for item in program.plan.inputs}
        names = [item.name for item in first.inputs]
        if sorted(names) != sorted(types):
            raise InputError(f"expected the inputs {sorted(types)[:20]}. Received: {sorted(names)[:20]}")
        found = {item.name: self._stored(job, item, types[item.name]) for item in first.inputs if item.handle}
        sizes = {i: types[item.name].size for i, item in enumerate(first.inputs) if not item.handle}
        reserved = sum(stored_bytes(self._party, size) for size in sizes.values())
        reserved += stored_bytes(self._party, program.live_elements) + prepared.working_bytes
        self._store.reserve(reserved)
        try:
            receivers = {i: Receiver(self._party, size, f"input {names[i]!r}") for i, size in sizes.items()}
            request: wire.RunRequest | None = first
            while request is not None:
                for piece in request.pieces:
                    if piece.input not in receivers:
                        raise InputError(f"expected no material for input number {piece.input}. Received: some")
                    receivers[piece.input].feed(piece.data)
                job.check()
                request = next(rest, None)
            for index, receiver in receivers.items():
                found[names[index]] = receiver.finish(self._kernel)
            yield found
        finally:
            self._store.release(reserved)

    def _stored(self, job: Job, item: wire.Input, expected: TensorType) -> Material:
        material = self._store.get(item.handle, job.owner, f"input {item.name!r}")
        if material.mask.size != expected.size:
            raise InputError(
                f"input {item.name!r}: expected shape {expected.shape} with {expected.size} elements. "
                f"Received: shares of {material.mask.size} elements"
            )
        return material

    def run(self, job: Job, program: Program, material: dict[str, Material]) -> Outcome:
        """The job itself; raises whatever ends it, after the lanes are in order."""
        lanes = self._lanes.open(job, bytes.fromhex(program.plan.digest))
        began = time.monotonic()
        before = {peer: (channel.traffic.sent, channel.traffic.rounds) for peer, channel in lanes.channels.items()}
        try:
            protocol = self._make_party(self._party, self._kernel, lanes.channels, lanes.keys)
            inputs = {}
            for item in program.plan.inputs:
                part = material[item.name]
                masked = None if part.masked is None else part.masked.reshape(item.type.shape)
                inputs[item.name] = protocol.masked(masked, part.mask.reshape(item.type.shape))
            contributions = program.run(protocol, inputs, lambda index, step: job.check())
        except BaseException as error:
            lanes.fail(_blamed(error, lanes, self._party))
            job.check()  # a wait that ended because the job was cancelled is no loss of a peer
            raise
        sent = [0] * self._parties
        rounds = 0
        for peer, channel in lanes.channels.items():
            sent[peer] = channel.traffic.sent - before[peer][0]
            rounds = max(rounds, channel.traffic.rounds - before[peer][1])
        lanes.finish(protocol.draws)
        return Outcome(contributions, rounds, sent, time.monotonic() - began)


def _blamed(error: BaseException, lanes: JobLanes, own: int) -> int:
    """The party that an error is about: the one lost, or this one."""
    if isinstance(error, GaveUp):
        return error.blamed
    if isinstance(error, PeerLost):
        return next((peer for peer, channel in lanes.channels.items() if channel.broken), own)
    return own


def replies(program: Program, outcome: Outcome) -> Iterator[wire.RunReply]:
    """An outcome as messages; an output that this party contributes nothing to is left out."""
    reply = wire.RunReply()
    room = limits.CHUNK_BYTES
    for index, item in enumerate(program.plan.outputs):
        words = outcome.contributions[item.name]
        if not words.any():
            continue
        data = memoryview(np.ascontiguousarray(words, "<u8").reshape(-1).view(np.uint8))
        for start in range(0, len(data), limits.CHUNK_BYTES):
            piece = bytes(data[start : start + limits.CHUNK_BYTES])
            if len(piece) > room:
                yield reply
                reply, room = wire.RunReply(), limits.CHUNK_BYTES
            reply.contributions.add(output=index, data=piece)
            room -= len(piece)
    reply.done.CopyFrom(wire.Done(rounds=outcome.rounds, sent=outcome.sent, seconds=outcome.seconds))
    yield reply
