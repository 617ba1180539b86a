"""Public random numbers: each server draws them for itself."""
import numpy as np

from private_keras.protocols.protocol import Protocol
from private_keras.ring import noise
from private_keras.server.execute.values import Operation


def random(p: Protocol, at: Operation, seed: np.ndarray) -> np.ndarray:
    return noise.drawn(p.kernel, int(seed), at.attributes)


OPERATIONS = {"random": random}
