"""What a plan costs, known before it runs: the same steps on a protocol that only counts."""
from private_keras.errors import PlanError
from private_keras.plan.plan import Plan, Step
from private_keras.protocols.protocol import Cost
from private_keras.protocols.trio.counting import CountingTrio
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute.program import Program

COUNTING = {"trio": CountingTrio}
FREE = ("simulate",)


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

    inputs = {item.name: counting.input(item.type.shape) for item in program.plan.inputs}
    program.run(counting, inputs, note)
    return costs
