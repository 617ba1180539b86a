"""Public random seeds by step: the same for the same seed and iteration, on every machine."""

import hashlib
from collections.abc import Mapping

import numpy as np

from private_keras.tracing.training.traced import PublicInput

# A seed has to be exact as a real number, and fit where integers do in fixed point.
_BITS = 40


def seed_inputs(seeds: Mapping[str, int | None]) -> dict[str, PublicInput]:
    """The plan's public inputs that are seeds."""
    return {name: PublicInput(name, (), 0) for name in seeds}


def seed_values(seeds: Mapping[str, int | None], base: int, first: int, steps: int) -> dict[str, np.ndarray]:
    """Values of the seeds for a run of some steps.

    Args:
        seeds: by name of the input, the number that a layer asks for, or None for `base`.
        base: the run's own seed.
        first: iterations done before.
        steps: how many more.

    Returns:
        By name, whole numbers below 2^40, one for each step.
    """
    return {
        name: np.array([_drawn(base if seed is None else seed, i) for i in range(first, first + steps)], np.float64)
        for name, seed in seeds.items()
    }


def _drawn(seed: int, iteration: int) -> int:
    content = f"private_keras seed {seed} iteration {iteration}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[: _BITS // 8], "big")
