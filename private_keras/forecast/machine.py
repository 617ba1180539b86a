"""How fast a server is, in six numbers: `measure_machine` finds them; here are those of docs/performance.md."""

import math
from dataclasses import dataclass

from private_keras.plan.plan import Plan, Step
from private_keras.protocols.protocol import Cost


@dataclass(frozen=True)
class Work:
    """What a step makes a server do.

    Attributes:
        products: of ring elements in a matmul or convolution, at the helper.
        evaluating: the same at each evaluator.
        elements: that the step reads and writes without sending them.
        nbytes: that it makes, sends and takes apart, each server alike.
    """

    products: int = 0
    evaluating: int = 0
    elements: int = 0
    nbytes: int = 0


def work_of(plan: Plan, step: Step, cost: Cost) -> Work:
    """The work of a step that costs so much."""
    result = plan.types[step.output].size
    products = 0
    if step.op == "matmul":
        products = result * plan.types[step.inputs[0]].shape[-1]
    elif step.op == "conv":
        products = result * math.prod(plan.types[step.inputs[1]].shape[:-1])
    elements = result + sum(plan.types[name].size for name in step.inputs)
    return Work(products, products if step.attributes.get("twice") else 2 * products, elements, cost.bytes)


@dataclass(frozen=True)
class Machine:
    """Seconds that a server takes, on one core.

    Attributes:
        start: for a job, before its first and after its last step.
        step: for any step, however small.
        opening: for a round, beside the time on the wire.
        product: for a product of ring elements in a matmul or convolution.
        element: for an element that a step reads or writes.
        byte: for a byte that is sent, by whichever server.
    """

    start: float = 0.8e-3
    step: float = 20e-6
    opening: float = 60e-6
    product: float = 1 / 18e9
    element: float = 1.0e-9
    byte: float = 0.4e-9

    def seconds(self, work: Work) -> float:
        """Of an evaluator, for a step, without its rounds."""
        return self.step + work.evaluating * self.product + work.elements * self.element + work.nbytes * self.byte

    def helping(self, work: Work) -> float:
        """Of the helper, for a step."""
        return self.step + work.products * self.product + work.elements * self.element + work.nbytes * self.byte
