"""A model's floating-point variables as one vector, in parts, and back: what is averaged."""

from collections.abc import Sequence

import keras
import numpy as np

from private_keras.errors import InputError

# Elements of a part: a plan's public signs take 512 bytes for each.
PART = 1 << 16


def averaged(model: keras.Model) -> list[keras.Variable]:
    """Variables that owners share: weights, and statistics as those of batch normalisation; integers are counters and
    stay where they are.
    """
    found = [v for v in model.weights if "float" in str(v.dtype)]
    if not found:
        raise InputError(f"model {model.name!r}: expected weights. Received: a model without, or one that is not built")
    return found


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Their values now, in float32, or float64 where they have it."""
    return [np.array(v.numpy(), np.float64 if str(v.dtype) == "float64" else np.float32) for v in variables]


def assign(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]) -> None:
    """New values."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One vector, float64."""
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def cut(vector: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The inverse of `flat`."""
    ends = np.cumsum([a.size for a in like])[:-1]
    return [piece.reshape(a.shape) for piece, a in zip(np.split(vector, ends), like, strict=True)]


def sizes(elements: int) -> tuple[int, ...]:
    """Elements of each part of a vector."""
    return tuple(min(PART, elements - start) for start in range(0, elements, PART))


def parts(vector: np.ndarray, of: Sequence[int]) -> list[np.ndarray]:
    """The parts, as rows of shape (1, n)."""
    return [piece[np.newaxis] for piece in np.split(vector, np.cumsum(of)[:-1])]
