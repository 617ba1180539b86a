"""What an owner does with its own data, in plain Keras on its own machine: trains, or takes one gradient."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.federated import vector
from private_keras.federated.round import GRADIENT


class Data:
    """An owner's examples.

    Args:
        data: (x, y) or (x, y, sample_weight) of arrays, or of nested arrays; or batches, as a `tf.data.Dataset` or a
            `keras.utils.PyDataset`.
        examples: how many there are; needed for batches.

    Raises:
        InputError: none, or not as many labels as examples.
    """

    def __init__(self, data: Any, examples: int | None):
        if isinstance(data, tuple):
            if not 2 <= len(data) <= 3:
                raise InputError(f"data: expected (x, y) or (x, y, sample_weight). Received: a tuple of {len(data)}")
            self.arrays = keras.tree.map_structure(np.asarray, data)
            counts = {len(a) if a.ndim else 0 for a in keras.tree.flatten(self.arrays)}
            if len(counts) != 1 or examples not in (None, *counts):
                raise InputError(f"data: expected arrays of as many rows. Received: {sorted(counts)} rows")
            examples = counts.pop()
        else:
            self.arrays = None
            if isinstance(examples, bool) or not isinstance(examples, int):
                raise InputError(
                    f"examples: expected how many there are, for data in batches. Received: {examples!r}"
                )
        if not examples > 0:
            raise InputError(f"data: expected at least one example. Received: {examples}")
        self.batches = data
        self.examples = examples

    def fit_arguments(self, batch_size: int | None) -> dict[str, Any]:
        """For `keras.Model.fit`."""
        if self.arrays is None:
            return {"x": self.batches}
        names = ("x", "y", "sample_weight")
        return dict(zip(names, self.arrays, strict=False)) | {"batch_size": batch_size}

    def in_batches(self, batch_size: int | None) -> Iterable[Any]:
        """(x, y) or (x, y, sample_weight), all examples once."""
        if self.arrays is None:
            yield from self.batches
            return
        size = batch_size or 32
        for start in range(0, self.examples, size):
            yield keras.tree.map_structure(lambda a, start=start: a[start : start + size], self.arrays)


def local_step(
    model: keras.Model, share: str, data: Data, epochs: int, batch_size: int | None, fit: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, float]]:
    """What is to be shared of a round, from the weights that the model has now, and what it cost in loss and metrics.

    Returns:
        How all averaged variables change by training, or against the gradient, in one vector; the last epoch's logs.
    """
    variables = vector.averaged(model)
    before = vector.values(variables)
    if share == GRADIENT:
        step, logs = _against_gradient(model, data, batch_size)
    else:
        step = {}
        if data.arrays is None and not isinstance(data.batches, keras.utils.PyDataset):
            fit = {"shuffle": False, **fit}
        history = model.fit(**data.fit_arguments(batch_size), epochs=epochs, **fit)
        logs = {name: float(each[-1]) for name, each in history.history.items() if each}
    after = vector.values(variables)
    changes = [step.get(id(v), b.astype(np.float64) - a) for v, a, b in zip(variables, before, after, strict=True)]
    return vector.flat(changes), logs


def _against_gradient(
    model: keras.Model, data: Data, batch_size: int | None
) -> tuple[dict[int, np.ndarray], dict[str, float]]:
    """Minus the gradient of the mean loss over all examples, by id of the variable."""
    import tensorflow as tf

    total = [np.zeros(v.shape) for v in model.trainable_variables]
    count, losses = 0, 0.0
    for batch in data.in_batches(batch_size):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=True), sample_weight=sample_weight)
        rows = len(keras.tree.flatten(y)[0])
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        for each, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                each -= rows * tf.convert_to_tensor(gradient).numpy().astype(np.float64)
        count, losses = count + rows, losses + rows * float(loss)
    if not count:
        raise InputError("data: expected at least one batch. Received: none")
    return (
        {id(v): each / count for v, each in zip(model.trainable_variables, total, strict=True)},
        {"loss": losses / count},
    )


def slots(model: keras.Model) -> list[keras.Variable]:
    """What an optimizer remembers of gradients: not how many steps it took, nor its learning rate."""
    optimizer = model.optimizer
    kept = {id(v) for v in (optimizer.iterations, getattr(optimizer, "_learning_rate", None)) if v is not None}
    return [v for v in optimizer.variables if id(v) not in kept]
