"""What a plan costs, known before it runs: the same steps on a protocol that only counts."""
import numpy as np

from private_keras.errors import PlanError
from private_keras.plan.plan import Plan, Step
from private_keras.protocols.protocol import Cost, Protocol
from private_keras.protocols.trio.counting import CountingTrio
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute.program import OPERATIONS, Program
from private_keras.server.execute.values import Operation

COUNTING = {"trio": CountingTrio}
FREE = ("simulate",)
RANDOM_BYTES = 128  # for each element of a `random` step: several words are drawn for a normal number


def account(plan: Plan, protocol_name: str) -> list[Cost]:
    """Rounds and bytes of every step, in the order of `plan.steps`.

    Sharing inputs and opening outputs is not in it: that is 8 bytes an element and evaluator each.

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
    counting = COUNTING[protocol_name](NumpyKernel())
    costs: list[Cost] = []
    before = Cost()

    def note(index: int, step: Step) -> None:
        nonlocal before
        costs.append(counting.cost - before)
        before = counting.cost

    inputs = {
        item.name: _zeros(item.type.shape) if item.public else counting.input(item.type.shape)
        for item in program.plan.inputs
    }
    program.compute(counting, inputs, note, _uncomputed)
    return costs


def largest_step(program: Program, protocol_name: str) -> int:
    """Bytes that a step needs beside its operands and result, at most: what it would send if nothing were public.

    What is public costs nothing to send, but takes memory on the way as what is secret does.
    """
    counting = COUNTING[protocol_name](NumpyKernel())
    largest = before = 0

    def note(index: int, step: Step) -> None:
        nonlocal largest, before
        total = counting.cost.bytes
        largest, before = max(largest, total - before), total

    def as_if_secret(p: CountingTrio, at: Operation, *operands: np.ndarray) -> np.ndarray:
        nonlocal largest
        if at.step.op == "random":
            largest = max(largest, RANDOM_BYTES * at.result.size)
        elif operands:
            OPERATIONS[at.step.op](p, at, *(p.input(x.shape) for x in operands))
        return _zeros(at.shape)

    inputs = {
        item.name: _zeros(item.type.shape) if item.public else counting.input(item.type.shape)
        for item in program.plan.inputs
    }
    program.compute(counting, inputs, note, as_if_secret)
    return largest


def _uncomputed(p: Protocol, at: Operation, *operands: np.ndarray) -> np.ndarray:
    """What is public costs nothing, whatever it is: no memory is taken for it before a run."""
    return _zeros(at.shape)


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.uint64(0), shape)
