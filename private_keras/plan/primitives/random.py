"""Public random numbers, the same on every server: for layers that are random in training. See `ring/noise.py`."""
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import SHAPE, Int, Text
from private_keras.plan.primitives.primitive import Primitive
from private_keras.plan.records import TensorType
from private_keras.ring.noise import CHANCE_BITS, NORMAL_BITS

# The most fractional bits that each has to give.
DISTRIBUTIONS = {"bernoulli": 0, "uniform": limits.MAX_FRACTION, "normal": NORMAL_BITS}


def _random(attributes: dict[str, Any], seed: TensorType) -> TensorType:
    distribution, fraction = attributes["distribution"], attributes["fraction"]
    if seed.shape or seed.fraction:
        raise PlanError("seed: expected one integer, of shape [] and fraction 0. Received: another type")
    if distribution not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise PlanError(f"distribution: expected one of {known}. Received: {limits.shown(distribution)}")
    if distribution != "bernoulli" and attributes["probability"]:
        raise PlanError(f"probability: expected it for bernoulli alone. Received: it for {distribution}")
    least, most = min(1, DISTRIBUTIONS[distribution]), DISTRIBUTIONS[distribution]
    if not least <= fraction <= most:
        raise PlanError(f"fraction: expected {least} to {most} for {distribution}. Received: {fraction}")
    return TensorType(limits.shape(attributes["shape"], "attribute 'shape'"), fraction)


PRIMITIVES = (
    Primitive(
        "random", (1, 1), _random,
        {
            "shape": SHAPE,
            "fraction": Int(0, limits.MAX_FRACTION),
            "distribution": Text(),
            "probability": Int(0, 1 << CHANCE_BITS, required=False, default=0),
            "stream": Int(0, limits.MAX_STEPS),
        },
        public=(0,),
    ),
)
