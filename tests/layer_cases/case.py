"""A conformance case: what to build, what to feed it, and the largest error that is allowed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One layer or model in one configuration.

    Attributes:
        name: unique in its family.
        make: () -> a layer, or a function on Keras tensors, or a model if `shapes` is empty.
        shapes: of the inputs without the batch; empty if `make` gives a model.
        scale: standard deviation of real inputs.
        low, high: integers are drawn from low <= x < high instead; high of 0 means real inputs.
        tolerance: largest absolute difference to Keras.
        positive: absolute values of real inputs, plus 0.1.
    """

    name: str
    make: Callable[[], Any]
    shapes: Sequence[tuple[int, ...]] = ()
    scale: float = 1.0
    low: int = 0
    high: int = 0
    tolerance: float = TOLERANCE
    positive: bool = False

    def __str__(self) -> str:
        return self.name

    def model(self) -> keras.Model:
        """The model, with random weights of a size that keeps activations near 1."""
        made = self.make()
        if not self.shapes:
            model = made
        else:
            dtype = "int32" if self.high else "float32"
            inputs = [keras.Input(shape, dtype=dtype) for shape in self.shapes]
            model = keras.Model(inputs, made(inputs if len(inputs) > 1 else inputs[0]))
        randomise(model)
        return model

    def inputs(self, model: keras.Model, batch: int) -> list[np.ndarray]:
        """Random inputs, in the order in which Keras flattens them."""
        rng = np.random.default_rng(7)
        arrays = []
        for tensor in model.inputs:
            shape = (batch, *tensor.shape[1:])
            if self.high:
                array = rng.integers(self.low, self.high, shape)
            else:
                array = rng.normal(0, self.scale, shape)
                array = np.abs(array) + 0.1 if self.positive else array
            arrays.append(array.astype(keras.backend.standardize_dtype(tensor.dtype)))
        return arrays


def randomise(model: keras.Model) -> None:
    """Random weights: variances and scales around 1, kernels by their fan-in, the rest small. None stays 0 or 1."""
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if not weight.dtype.startswith("float"):
            continue
        kind, shape = weight.path.rsplit("/", 1)[-1], weight.shape
        if "variance" in kind or "gamma" in kind or kind == "scale":
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.3, shape)
        else:
            value = rng.normal(0, 1, shape) / np.sqrt(max(np.prod(shape[:-1]), 1))
        weight.assign(value)
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # Normalization predicts by copies of its weights
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # as loading a file does: it computes with copies of its weights
