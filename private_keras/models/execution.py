"""One model on the cluster in use: its plans, one for each batch size, and its weights, shared once."""
import hashlib
import uuid
from typing import Any

import keras
import numpy as np

from private_keras import cluster as clusters
from private_keras.errors import HandleNotFound, InputError
from private_keras.models import inputs
from private_keras.tracing import Traced, trace


class Execution:
    """What a model keeps between predictions. Owned by the model; one thread at a time.

    Plans depend on weights too (known values are folded into each other), so that both are forgotten together when the
    weights change, by whatever means.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._digest = b""
        self._traced: dict[int, Traced] = {}
        self._handles: dict[str, Any] = {}
        self._place: tuple[Any, Any] | None = None
        self._name = uuid.uuid4().hex[:8]

    def traced(self, batch_size: int) -> Traced:
        """The model's plan for a batch size, traced again only after a change of weights."""
        if not self._model.built:
            raise InputError(
                f"model {self._model.name!r} is not built, so that its shapes are unknown. Begin it with "
                "keras.Input(shape), or call "
                "model.build(shape)."
            )
        digest = _digest(self._model)
        if digest != self._digest:
            self._forget_shares()
            self._traced.clear()
            self._digest = digest
        if batch_size not in self._traced:
            self._traced[batch_size] = trace(self._model, batch_size)
        return self._traced[batch_size]

    def arrays(self, x: Any) -> list[np.ndarray]:
        """Arrays of x, all checked: number, shapes, types and values of every row."""
        arrays = inputs.flatten(self._model, x)
        specs = self.traced(min(len(arrays[0]), 1)).inputs
        inputs.check(self._model, specs, arrays)
        return arrays

    def run(self, x: Any) -> Any:
        """Predictions for one batch: shares weights if they are not on the servers, then the batch, then runs."""
        arrays = inputs.flatten(self._model, x)
        traced = self.traced(len(arrays[0]))
        values = inputs.check(self._model, traced.inputs, arrays)
        cluster = clusters.current()
        try:
            results = cluster.run(traced.plan, {**self._shared(cluster, traced), **values})
        except HandleNotFound:
            # A server was restarted and has forgotten; nothing of this batch was computed.
            self._forget_shares()
            results = cluster.run(traced.plan, {**self._shared(cluster, traced), **values})
        return keras.tree.map_structure(
            lambda name: np.asarray(results[name]).astype(traced.output_dtypes[name]), traced.outputs
        )

    def _shared(self, cluster: Any, traced: Traced) -> dict[str, Any]:
        """Handles of the plan's weights, sharing those that this cluster does not have."""
        place = (cluster, cluster.incarnation)
        if self._place != place:
            self._handles = {}
            self._place = place
        fractions = {item.name: item.type.fraction for item in traced.plan.inputs}
        wanted = {name: values for name, values in traced.weights.items() if name in fractions}
        for name, values in wanted.items():
            if name not in self._handles:
                label = f"{self._name}/{self._digest.hex()[:8]}/{name}"
                self._handles[name] = cluster.share(values, fractions[name], label)
        return {name: self._handles[name] for name in wanted}

    def _forget_shares(self) -> None:
        self._handles = {}
        self._place = None


def _digest(model: keras.Model) -> bytes:
    """Of all weights: they may be assigned one by one, without the model's knowledge."""
    digest = hashlib.blake2b(digest_size=16)
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).view(np.uint8).reshape(-1))
    return digest.digest()
