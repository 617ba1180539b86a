"""What is left to gain: products at the kernel's speed, bytes at a socket's, rounds.

A plan's products are counted once at the helper and, at each evaluator, once where they are held twice and twice where
they are not. All share all cores.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from private_keras.forecast.machine import work_of
from private_keras.plan.plan import Plan
from private_keras.ring.native_kernel import NativeKernel
from private_keras.server.execute.account import account

SIZE = 1024
PIECE = 1 << 20
PIECES = 256
RUNS = 3
ROUND_SECONDS = 60e-6


@dataclass(frozen=True)
class Speeds:
    """Of this machine.

    Attributes:
        products: of ring elements in a large matrix product, a second, on all cores.
        bytes: through a Unix socket, a second.
    """

    products: float
    bytes: float


def speeds() -> Speeds:
    """Measured now; takes about a second."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 1 << 64, (SIZE, SIZE), dtype=np.uint64) for _ in range(2))
    kernel = NativeKernel(os.cpu_count() or 1)
    return Speeds(SIZE**3 / _least(lambda: kernel.matmul(x, y)), PIECE * PIECES / _least(_through_a_socket))


def _least(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _through_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=lambda: [ours.sendall(bytes(PIECE)) for _ in range(PIECES)])
        writer.start()
        left, room = PIECE * PIECES, bytearray(PIECE)
        while left:
            left -= theirs.recv_into(room)
        writer.join()


def floor(plan: Plan, rounds: float, nbytes: float, machine: Speeds) -> dict[str, float]:
    """Seconds of a run of the plan by what they go to.

    Args:
        rounds, nbytes: what was counted, of all servers.
    """
    works = [work_of(plan, step, cost) for step, cost in zip(plan.steps, account(plan, "trio"), strict=True)]
    products = sum(work.products + 2 * work.evaluating for work in works)
    return {
        "products": products / machine.products, "bytes": nbytes / machine.bytes,
        "rounds": rounds * ROUND_SECONDS,
    }  # fmt: skip
