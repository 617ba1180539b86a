"""What a plan costs, known before it runs: the same steps on a protocol that only counts."""
from dataclasses import dataclass

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Cost, Protocol
from private_keras.protocols.trio import PIECE_BYTES, CountingAhead, CountingTrio
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute.graph import MeasuredWalk
from private_keras.server.execute.program import OPERATIONS, InPublic, Program
from private_keras.server.execute.values import Operation

COUNTING = {"trio": CountingTrio}
FREE = ("simulate",)
RANDOM_BYTES = 128  # for each element of a `random` step: several words are drawn for a normal number


def account(plan: Plan, protocol_name: str) -> list[Cost]:
    """Rounds and bytes of every step, in the order of `plan.steps`.

    A round that several steps share is counted at the first of them. Sharing inputs and opening outputs is not in it:
    that is 8 bytes an element and evaluator each.

    Args:
        plan: a valid plan.
        protocol_name: a protocol's name as in `cluster.json`.

    Raises:
        PlanError: for a protocol that cannot be counted.
    """
    return account_program(Program(plan), protocol_name)


def account_program(program: Program, protocol_name: str) -> list[Cost]:
    """`account` of a plan that was made ready already."""
    if protocol_name in FREE:
        return [Cost() for _ in program.plan.steps]
    if protocol_name not in COUNTING:
        known = ", ".join((*COUNTING, *FREE))
        raise PlanError(f"cost of a plan: expected one of the protocols {known}. Received: {protocol_name!r}")
    counting, _, _ = _counted(program, protocol_name, _uncomputed)
    return [counting.costs.get(index, Cost()) for index in range(len(program.plan.steps))]


def ahead_bytes(program: Program) -> tuple[int, int]:
    """What a run that is made ahead leaves, on `trio`: (bytes of the helper's messages, of what an evaluator's item
    takes beside, at most).
    """
    counting = CountingAhead(NumpyKernel())
    inputs = {}
    for item in program.plan.inputs:
        made = _zeros if item.public else counting.input
        inputs[item.name] = made(item.type.shape)
    program.compute(counting, inputs, None, _uncomputed)
    return counting.cost.ahead, PIECE_BYTES * (1 + counting.pieces + len(inputs))


@dataclass(frozen=True)
class Room:
    """What a run needs beside its inputs, at most.

    Attributes:
        elements: that results of steps hold at one time.
        moved: bytes that the steps which are under way at one time send, all servers together. What is public is
            counted as if it were secret: it costs nothing to send, but takes memory on the way as what is secret does.
    """

    elements: int
    moved: int


def room(program: Program, protocol_name: str) -> Room:
    """See `Room`; the protocol must be one that is counted."""
    _, elements, _ = _counted(program, protocol_name, _uncomputed)
    random_bytes: dict[int, int] = {}

    def as_if_secret(p: CountingTrio, at: Operation, *operands: np.ndarray) -> np.ndarray:
        if at.step.op == "random":
            random_bytes[p.rounds.current] = RANDOM_BYTES * at.result.size
        elif operands:
            OPERATIONS[at.step.op](p, at, *(p.input(x.shape) for x in operands))
        return _zeros(at.shape)

    counting, _, events = _counted(program, protocol_name, as_if_secret)
    moving = most = 0
    for index in events:
        step = index if index >= 0 else ~index
        nbytes = counting.costs[step].bytes if step in counting.costs else 0
        nbytes = max(nbytes, random_bytes.get(step, 0))
        moving += nbytes if index >= 0 else -nbytes
        most = max(most, moving)
    return Room(elements, most)


def _counted(program: Program, protocol_name: str, in_public: InPublic) -> tuple[CountingTrio, int, list[int]]:
    """A run that only counts: the protocol, `Room.elements`, and the steps as they begin (i) and end (~i)."""
    counting = COUNTING[protocol_name](NumpyKernel())
    inputs = {
        item.name: _zeros(item.type.shape) if item.public else counting.input(item.type.shape)
        for item in program.plan.inputs
    }
    walk = MeasuredWalk(program.graph, inputs, counting, program.computing(counting, in_public))
    events: list[int] = []

    def work(index: int) -> None:
        events.append(index)
        walk.work(index)
        events.append(~index)

    def local(index: int) -> bool:
        # What is public waits for nothing in a run, but may do so where it is counted as if it were secret.
        return not program.graph.operations[index].public and walk.local(index)

    counting.rounds.run(program.graph.first, work, walk.after, local)
    return counting, walk.most, events


def _uncomputed(p: Protocol, at: Operation, *operands: np.ndarray) -> np.ndarray:
    """What is public costs nothing, whatever it is: no memory is taken for it before a run."""
    return _zeros(at.shape)


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.uint64(0), shape)
