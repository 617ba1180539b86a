"""Data that do not fit the model or its loss, found before anything is shared."""
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.models import inputs
from private_keras.models.training.columns import Columns
from private_keras.ring.fixedpoint import DEFAULT_FRACTION
from private_keras.tensor import Column, SecretTensor
from private_keras.tracing.training.losses import check_shapes, labels
from private_keras.tracing.training.traced import TracedStep


def checked(model: keras.Model, traced: TracedStep, columns: Columns) -> dict[str, np.ndarray | Column]:
    """Values of all rows by name of the plan's input: right shapes, finite, in range, labels of classes that exist.

    Raises:
        InputError: says what was expected and received; never quotes a value.
    """
    check_targets(model, columns)
    values = inputs.check(model, traced.inputs, columns.x)
    values |= inputs.check(model, traced.targets, columns.y, "target")
    if traced.sample_weight is not None:
        where = f"model {model.name!r}, sample weights"
        weight = columns.weight
        if isinstance(weight, SecretTensor):
            values[traced.sample_weight] = weight.column((), DEFAULT_FRACTION, where)
        else:
            values[traced.sample_weight] = inputs.real_numbers(where, weight, -(2.0**20), 2.0**20)
    return values


def check_targets(model: keras.Model, columns: Columns) -> None:
    """Passes targets that the compiled losses are made for. Of secret tensors shapes alone are known.

    Raises:
        InputError: shapes that do not fit the output, classes that do not exist, numbers out of range; quotes no value.
        UnsupportedError: a loss that cannot run on shares.
    """
    _check_names(model, columns)
    for name, loss, shape, array in _pairs(model, columns):
        check_shapes(loss, (None, *array.shape[1:]), (None, *shape[1:]), name)
        expected = labels(loss, shape)
        if not isinstance(array, SecretTensor):
            expected.check(array, f"model {model.name!r}, target of output {name!r}")


def _check_names(model: keras.Model, columns: Columns) -> None:
    """Passes data with targets for every output that has a loss, where it is plain which these are."""
    given = None if model._compile_loss is None else model._compile_loss._user_loss
    if all(loss is None for loss in keras.tree.flatten(given)):
        return
    if not columns.y:
        raise InputError(f"model {model.name!r}: expected targets y, which the loss is computed of. Received: none")
    functional = getattr(model, "_functional", None) or model
    outputs = getattr(functional, "_outputs_struct", None)
    names = sorted(outputs) if isinstance(outputs, dict) else list(getattr(model, "output_names", None) or [])
    if not isinstance(columns.targets, dict) or not names:
        return
    wanted = [n for n in names if not isinstance(given, dict) or given.get(n) is not None]
    other = list(getattr(model, "output_names", None) or [])  # Keras takes either
    if set(wanted) - set(columns.targets) and set(other) - set(columns.targets):
        raise InputError(f"model {model.name!r}: expected targets of outputs {wanted}. Received: "
                         f"{sorted(columns.targets)}")


def _pairs(model: keras.Model, columns: Columns) -> Iterator[tuple[str, Any, tuple, np.ndarray]]:
    """Name, loss, shape and target of each output; none where it is not plain which is whose."""
    compiled = model._compile_loss
    shapes = _output_shapes(model, columns)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(shapes):
        names = [f"output{i}" for i in range(len(shapes))]
    losses = by_output(compiled._user_loss if compiled is not None else None, names)
    keys = sorted(columns.targets) if isinstance(columns.targets, dict) else []
    targets = by_output(dict(zip(keys, columns.y, strict=True)) if keys else columns.y, names)
    if losses is None or targets is None:
        return
    for name, loss, shape, target in zip(names, losses, shapes, targets, strict=True):
        if loss is not None and target is not None and not isinstance(loss, list | tuple | dict):
            yield name, loss, shape, target


def by_output(given: Any, names: list[str]) -> list[Any] | None:
    """One for each output, from one for all, a list or a dict by name."""
    if isinstance(given, dict):
        return [given.get(name) for name in names] if set(given) <= set(names) else None
    if isinstance(given, list | tuple):
        return list(given) if len(given) == len(names) else None
    return [given] * len(names)


def _output_shapes(model: keras.Model, columns: Columns) -> list[tuple]:
    functional = getattr(model, "_functional", None) or model
    outputs = getattr(functional, "outputs", None)
    if outputs is None or not hasattr(functional, "_inputs_struct"):
        inputs = [keras.KerasTensor((columns.rows, *array.shape[1:])) for array in columns.x]
        outputs = model.compute_output_spec(inputs[0] if len(inputs) == 1 else inputs)
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(outputs)]
