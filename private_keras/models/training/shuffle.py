"""The public order of rows: a permutation for each pass over the data, from a seed."""
import hashlib
from typing import Literal

import numpy as np

Shuffle = bool | Literal["batch"]


def batches(rows: int, size: int, shuffle: Shuffle, seed: int, number: int) -> list[np.ndarray]:
    """Row numbers of each batch of one pass; the last may be shorter.

    Args:
        rows: of the data.
        size: of a batch.
        shuffle: True for all rows, "batch" for rows within batches, False for none.
        seed: of the run.
        number: of the pass; each has an order of its own.

    Everybody may know the order: see docs/security.md, "Training runs".
    """
    order = np.arange(rows)
    if shuffle is True:
        order = _permutation(rows, seed, number)
    parts = [order[start : start + size] for start in range(0, rows, size)]
    if shuffle == "batch":
        keys = _keys(rows, seed, number)
        parts = [part[np.argsort(keys[part], kind="stable")] for part in parts]
    return parts


def mixed(parts: np.ndarray, size: int, shuffle: Shuffle, seed: int, number: int) -> list[np.ndarray]:
    """As `batches`, of rows that are in several parts, which jobs take as many rows of in each of their steps.

    Shuffled, every batch has its share of each part, to a row, and batches that have the same are together. Within a
    batch rows are in the order of the parts.

    Args:
        parts: which part each row is in.
    """
    rows = len(parts)
    order = np.arange(rows)
    if shuffle is True:
        order = _permutation(rows, seed, number)
        place = np.empty(rows)
        for part in np.unique(parts):
            own = order[parts[order] == part]
            place[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = order[np.argsort(place[order], kind="stable")]
    found = [order[start : start + size] for start in range(0, rows, size)]
    found = [batch[np.argsort(parts[batch], kind="stable")] for batch in found]
    if shuffle is True:
        found.sort(key=lambda batch: (-len(batch), parts[batch].tolist()))
    return found


def _permutation(rows: int, seed: int, number: int) -> np.ndarray:
    return np.argsort(_keys(rows, seed, number), kind="stable")


def _keys(rows: int, seed: int, number: int) -> np.ndarray:
    """One 64-bit number for each row; sorting by them permutes uniformly, up to equal numbers."""
    content = f"private_keras shuffle {seed} pass {number}".encode()
    return np.frombuffer(hashlib.shake_256(content).digest(8 * rows), "<u8")
