"""Inputs, targets and sample weights as arrays of equal length."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import data_adapter_utils

from private_keras.errors import InputError, UnsupportedError
from private_keras.models import inputs
from private_keras.tensor import SecretTensor, together
from private_keras.tracing.training.traced import Target


@dataclass(frozen=True)
class Columns:
    """Data of as many rows each.

    Attributes:
        x: one array or secret tensor for each model input, in the order in which Keras flattens them.
        y: one for each leaf of the targets.
        targets: structure of the targets with a `Target` for each leaf; None where there are none.
        weight: sample weights of shape (rows,), or None; a secret tensor may have shape (rows, 1).
    """

    x: list[inputs.Data] = field(repr=False)
    y: list[inputs.Data] = field(repr=False)
    targets: Any
    weight: inputs.Data | None = field(repr=False)

    @property
    def rows(self) -> int:
        return len(self.x[0])

    @property
    def parts(self) -> np.ndarray | None:
        """Which part of tensors one below the other each row is in; None where there are none."""
        columns = [*self.x, *self.y, *([] if self.weight is None else [self.weight])]
        return together([column.parts() for column in columns if isinstance(column, SecretTensor)])

    @property
    def nbytes(self) -> int:
        """Of the shares at one server."""
        return 8 * sum(array.size for array in (*self.x, *self.y))

    @property
    def kind(self) -> tuple:
        """What has to be equal for data that the same plans take."""
        shapes = tuple((a.shape[1:], a.dtype.str) for a in (*self.x, *self.y))
        return shapes, self.weight is None

    def slice(self, stop: int) -> "Columns":
        """The rows before `stop`."""
        weight = None if self.weight is None else self.weight[:stop]
        return Columns([a[:stop] for a in self.x], [a[:stop] for a in self.y], self.targets, weight)


def read(model: keras.Model, x: Any, y: Any, sample_weight: Any, class_weight: Mapping[int, float] | None) -> Columns:
    """Data as Keras takes them, as arrays.

    Raises:
        InputError: not arrays of numbers, no rows, or different numbers of rows.
        UnsupportedError: weights that are not one for each sample.
    """
    arrays = inputs.flatten(model, x)
    rows = len(arrays[0])
    structure = _structure(model, y)
    leaves = [] if y is None else keras.tree.flatten(structure)
    if any(len(leaf) != rows for leaf in leaves):
        raise InputError(f"model {model.name!r}: expected as many targets as inputs, {rows}. Received: "
                         f"{[len(leaf) for leaf in leaves]} targets")
    targets = None if y is None else keras.tree.map_structure(_target, structure)
    weight = _weight(model, rows, structure, sample_weight, class_weight)
    return Columns(arrays, leaves, targets, weight)


def joined(parts: Sequence[Columns]) -> Columns:
    """Rows of several, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Columns(
        [np.concatenate(arrays) for arrays in zip(*(p.x for p in parts), strict=True)],
        [np.concatenate(arrays) for arrays in zip(*(p.y for p in parts), strict=True)],
        first.targets,
        None if first.weight is None else np.concatenate([p.weight for p in parts]),
    )


def _structure(model: keras.Model, y: Any) -> Any:
    """The targets with an array for each leaf."""
    if y is None:
        return None
    if isinstance(y, list | tuple) and inputs.is_nested_numbers(y):
        return inputs.as_array(model, "y", y, "target")
    return keras.tree.map_structure(lambda part: inputs.as_array(model, "y", part, "target"), y)


def _target(array: inputs.Data) -> Target:
    kind = array.dtype.name if array.dtype.kind in "iub" else "float32"
    return Target(tuple(array.shape[1:]), kind)


def _weight(
    model: keras.Model, rows: int, y: Any, sample_weight: Any, class_weight: Mapping[int, float] | None
) -> inputs.Data | None:
    where = f"model {model.name!r}"
    if class_weight is not None:
        if sample_weight is not None:
            raise InputError(f"{where}: class_weight and sample_weight cannot be given at the same time. Multiply the "
                             "sample weights by the weights of their classes")
        if isinstance(y, SecretTensor):
            raise InputError(f"{where}: class_weight needs targets that are known here. Received: {y!r}. Share the "
                             "weight of each sample: sample_weight=pk.share(weights)")
        if y is None or not isinstance(y, np.ndarray):
            raise InputError(f"{where}: class_weight needs one array of targets. Received: "
                             f"{'none' if y is None else type(y).__name__}")
        if not isinstance(class_weight, Mapping):
            raise InputError(f"{where}: expected class_weight as a dict of classes and their weights. Received: "
                             f"{type(class_weight).__name__}")
        return data_adapter_utils.class_weight_to_sample_weights(y, class_weight).astype(np.float64)
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Mapping) or (
        isinstance(sample_weight, list | tuple) and not inputs.is_nested_numbers(sample_weight)
    ):
        raise UnsupportedError(f"{where}: weights for each output do not run on shares. Give one weight for each "
                               "sample, or use loss_weights in compile.")
    weight = inputs.as_array(model, "sample_weight", sample_weight, "argument")
    column = weight.ndim == 2 and weight.shape[1] == 1
    if column and isinstance(weight, np.ndarray):
        weight = weight[:, 0]
    if weight.ndim != 1 and not column:
        raise UnsupportedError(f"{where}: sample_weight: expected shape ({rows},), one weight for each sample. "
                               f"Received: {weight.shape}. Weights within a sample do not run on shares.")
    if len(weight) != rows:
        raise InputError(f"{where}: expected as many sample weights as inputs, {rows}. Received: {len(weight)}")
    return weight
