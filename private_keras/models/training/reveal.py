"""Opens a model's values to the client: the one place where trained weights become plaintext."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from private_keras.cluster import Cluster, current
from private_keras.models.training.holdings import Held
from private_keras.models.training.jobs import Jobs
from private_keras.plan.builder import PlanBuilder
from private_keras.server import limits
from private_keras.tensor import spliced
from private_keras.tracing.names import path_of


def opened(cluster: Cluster, name: str, held: Sequence[Held]) -> list[np.ndarray]:
    """Values of states, through a plan of kind "reveal", in the dtypes of their Keras variables.

    Args:
        name: of the model.

    Accuracy: exactly what the servers have, 2^-18 apart for weights. Cost: no round between servers.
    """
    if not held:
        return []
    b = PlanBuilder()
    for item in held:
        s = item.state
        b.output(b.input(s.name, s.shape, s.fraction, "model-owner", path_of(s.variable.path)), s.name, ["client"])
    plan, given = spliced(b.build(name, "reveal"), {h.state.name: h.share.handle for h in held})
    results = cluster.run(plan, given, deadline=limits.MAX_SECONDS)
    return [results[h.state.name].astype(h.state.variable.dtype) for h in held]


@contextmanager
def in_the_clear(model: keras.Model, jobs: Jobs) -> Iterator[None]:
    """For the length of a `with`, the Keras variables of weights and optimiser hold the values of the servers.

    Other threads would see them too. They are taken out again whatever happens.
    """
    secret = [h for h in jobs.holdings.current().values() if h.secret and h.state.kind != "metric"]
    if secret:
        jobs.holdings.require_live(current())
    before = [keras.ops.convert_to_numpy(h.state.variable).copy() for h in secret]
    try:
        for held, value in zip(secret, opened(current(), model.name, secret) if secret else [], strict=True):
            held.state.variable.assign(value)
        yield
    finally:
        for held, value in zip(secret, before, strict=True):
            held.state.variable.assign(value)


def weights(model: keras.Model, jobs: Jobs) -> list[np.ndarray]:
    """All weights, as `keras.Model.get_weights` gives them."""
    with in_the_clear(model, jobs):
        return keras.Model.get_weights(model)
