"""Runs plans on shares, and tells what they will cost."""
from collections.abc import Mapping

import numpy as np

from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.program import OnStep, Program

__all__ = ["Program", "execute"]


def execute(
    plan: Plan, protocol: Protocol, inputs: Mapping[str, Share | np.ndarray], on_step: OnStep | None = None
) -> dict[str, np.ndarray]:
    """Runs a plan once; `Program` keeps what can be kept between runs. See `Program.run`."""
    return Program(plan).run(protocol, inputs, on_step)
