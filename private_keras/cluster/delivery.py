"""Results that others' jobs open to this client: what waits on the servers, and how it is put together here."""

from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from private_keras.cluster.client import ServerClient
from private_keras.errors import ClusterError, FrameError
from private_keras.protocols.trio import EVALUATORS
from private_keras.ring import fixedpoint
from private_keras.server.material import WORD
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
    """

    sender: str
    name: str
    outputs: tuple[tuple[str, tuple[int, ...], int], ...]
    created: float
    digest: str = field(repr=False)
    id: bytes = field(repr=False)

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
        first, second = EVALUATORS
        found = []
        for job, item in told[first].items():
            parties = range(len(self._clients)) if item.servers == len(self._clients) else EVALUATORS
            if all(job in told[party] and _same(item, told[party][job]) for party in parties):
                outputs = tuple((e.label, tuple(e.shape), e.fraction) for e in item.entries)
                found.append(Delivery(item.sender, item.name, outputs, item.created, item.digest, job))
        return sorted(found, key=lambda item: item.created)

    def receive(self, delivery: Delivery) -> dict[str, np.ndarray]:
        """Adds up the servers' contributions, then lets the servers forget them."""
        parties = [
            party for party, client in enumerate(self._clients)
            if party in EVALUATORS or any(item.id == delivery.id for item in client.deliveries())
        ]  # fmt: skip
        parts = self._all(lambda client: self._part(client, delivery), parties)
        result = {}
        for index, (name, shape, fraction) in enumerate(delivery.outputs):
            total = np.zeros(shape, np.uint64)
            for part in parts:
                if part[index]:
                    total += np.frombuffer(part[index], WORD).astype(np.uint64).reshape(shape)
            result[name] = fixedpoint.decode(total, fraction)
        self._all(lambda client: client.forget_delivery(delivery.id), parties)
        return result

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
