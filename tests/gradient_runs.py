"""Runs of plans whose outputs are kept: in fixed point in one process, and on shares of three parties."""
import numpy as np

from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute.program import Program
from tests.plan_zoo import decode, encode
from tests.trio import Session


def simulated(plan: Plan, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output in real numbers, as one party that holds plain ring elements computes it."""
    p = Simulate(NumpyKernel())
    shares = {item.name: p.constant(encode(inputs[item.name], item.type.fraction)) for item in plan.inputs}
    kept = Program(plan).compute(p, shares)
    return {item.name: decode(kept[item.name].value, plan.types[item.value].fraction) for item in plan.outputs}


def shared(plan: Plan, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output in real numbers, as three parties compute it."""
    names = [item.name for item in plan.inputs]
    program = Program(plan)

    def run(p, *shares):
        kept = program.compute(p, dict(zip(names, shares, strict=True)))
        return tuple(kept[item.name] for item in plan.outputs)

    opened = Session(NumpyKernel()).run(run, *(encode(inputs[i.name], i.type.fraction) for i in plan.inputs))
    opened = opened if len(plan.outputs) > 1 else [opened]
    return {
        item.name: decode(value, plan.types[item.value].fraction)
        for item, value in zip(plan.outputs, opened, strict=True)
    }
