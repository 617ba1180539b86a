"""Results that others' jobs open to this client: what waits on the servers, and how it is put together here."""

import warnings
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from private_keras.cluster.client import ServerClient
from private_keras.errors import ClusterError, FrameError, PrivateKerasError
from private_keras.protocols.trio import EVALUATORS
from private_keras.ring import fixedpoint
from private_keras.server.sizes import WORD
from private_keras.server.wire import messages_pb2 as wire


@dataclass(frozen=True)
class Delivery:
    """What somebody's job has opened to this client, to be received once.

    Attributes:
        sender: who ran the job.
        name: the sender's choice.
        outputs: name, shape and fractional bits of each.
        created: seconds since 1970, by a server's clock.
        digest: of the plan, in hex.
        servers: how many took part in the job, which all have a part of it.
    """

    sender: str
    name: str
    outputs: tuple[tuple[str, tuple[int, ...], int], ...]
    created: float
    digest: str = field(repr=False)
    id: bytes = field(repr=False)
    servers: int = field(repr=False)

    def __str__(self) -> str:
        return f"{self.sender}/{self.name}"


class Deliveries:
    """What waits for a client.

    Args:
        clients: by party.
        pool: threads for their calls.
    """

    def __init__(self, clients: Sequence[ServerClient], pool: futures.Executor):
        self._clients = clients
        self._pool = pool

    def listed(self) -> list[Delivery]:
        """What all servers of its job have, oldest first."""
        told = self._all(lambda client: {item.id: item for item in client.deliveries()}, range(len(self._clients)))
        found = []
        for job, item in told[EVALUATORS[0]].items():
            if all(job in told[party] and _same(item, told[party][job]) for party in self._parties(item.servers)):
                outputs = tuple((e.label, tuple(e.shape), e.fraction) for e in item.entries)
                found.append(Delivery(item.sender, item.name, outputs, item.created, item.digest, job, item.servers))
        return sorted(found, key=lambda item: item.created)

    def _parties(self, servers: int) -> Sequence[int]:
        """Who took part in a job of so many."""
        return range(len(self._clients)) if servers == len(self._clients) else EVALUATORS

    def fetch(self, delivery: Delivery) -> dict[str, np.ndarray]:
        """Adds up the contributions of the servers of one job."""
        parts = self._all(lambda client: self._part(client, delivery), self._parties(delivery.servers))
        result = {}
        for index, (name, shape, fraction) in enumerate(delivery.outputs):
            total = np.zeros(shape, np.uint64)
            for part in parts:
                if part[index]:
                    total += np.frombuffer(part[index], WORD).astype(np.uint64).reshape(shape)
            result[name] = fixedpoint.decode(total, fraction)
        return result

    def received(self, delivery: Delivery) -> None:
        """Lets the servers forget what is here now. One that does not answer keeps its part until that is too old."""
        def forget(client: ServerClient) -> None:
            try:
                client.forget_delivery(delivery.id)
            except PrivateKerasError as error:
                warnings.warn(f"{client.name} keeps its part of {delivery}, which was received: {error}", stacklevel=2)

        self._all(forget, self._parties(delivery.servers))

    @staticmethod
    def _part(client: ServerClient, delivery: Delivery) -> list[bytearray]:
        sizes = [WORD.itemsize * int(np.prod(shape, dtype=np.int64)) for _, shape, _ in delivery.outputs]
        part = [bytearray() for _ in sizes]
        for piece in client.receive(delivery.id):
            if piece.output >= len(sizes) or len(part[piece.output]) + len(piece.data) > sizes[piece.output]:
                raise FrameError(f"{client.name} sent more than the delivery {delivery} holds")
            part[piece.output] += piece.data
        if any(len(got) not in (0, size) for got, size in zip(part, sizes, strict=True)):
            raise ClusterError(f"{client.name} has sent a part of the delivery {delivery} only; receive it again")
        return part

    def _all(self, call: Callable[[ServerClient], Any], parties: Sequence[int]) -> list[Any]:
        tasks = [self._pool.submit(call, self._clients[party]) for party in parties]
        futures.wait(tasks)
        return [task.result() for task in tasks]


def _same(x: wire.Delivery, y: wire.Delivery) -> bool:
    """Whether two servers tell the same of a delivery, but for their clocks."""
    def told(item: wire.Delivery) -> tuple[Any, ...]:
        return item.sender, item.name, item.digest, item.servers, [e.SerializeToString() for e in item.entries]

    return told(x) == told(y)
