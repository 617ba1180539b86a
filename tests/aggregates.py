"""Updates to take means of, for tests: a plan's inputs and what should come out, in float64."""

import secrets

import numpy as np

from private_keras.cluster.loop import PublicValue

SIZES = (30, 7)


def names(count):
    return [f"owner-{i}" for i in range(count)]


def updates(count, length, seed=0, most=1 << 20):
    """(counts, updates of that length), one row for each owner."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, sum(SIZES)))
    return rng.integers(1, most + 1, count), rows * length / np.linalg.norm(rows, axis=1, keepdims=True)


def mean(counts, rows):
    """What McMahan et al. call federated averaging."""
    return counts @ rows / counts.sum()


def given(owners, counts, rows, seed=None):
    """Inputs of `aggregate_plan(SIZES, owners, ...)`."""
    inputs = {"seed": PublicValue(np.array(secrets.randbelow(1 << 45) if seed is None else seed))}
    for owner, count, row in zip(owners, counts, rows, strict=True):
        inputs[f"{owner}/examples"] = np.array([[count]])
        for part, piece in enumerate(np.split(row, np.cumsum(SIZES)[:-1])):
            inputs[f"{owner}/update/{part}"] = piece[np.newaxis]
    return inputs


def joined(opened):
    return np.concatenate([opened[f"mean/{part}"][0] for part in range(len(SIZES))])
