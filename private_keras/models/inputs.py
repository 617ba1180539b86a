"""Turns a batch of data into the plan's inputs, and refuses what is not right before anything is shared."""
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.tracing import InputSpec


def flatten(model: keras.Model, x: Any) -> list[np.ndarray]:
    """The arrays of a batch, in the order of the model's inputs.

    Args:
        model: built; its inputs' names and structure decide the order.
        x: one array, or a list, tuple or dict of arrays.

    Raises:
        InputError: another number of arrays, other names, other types, no rows, or different numbers of rows.
    """
    names = input_names(model)
    if isinstance(x, Mapping):
        keys = _keys(model, names)
        if set(x) != set(keys):
            raise InputError(f"model {model.name!r}: expected a dict with inputs {sorted(keys)}. Received: "
                             f"{sorted(map(str, x))}")
        parts = [x[key] for key in keys]
    elif isinstance(x, list | tuple) and not is_nested_numbers(x):
        parts = keras.tree.flatten(x)
    else:
        parts = [x]
    if len(parts) != len(names):
        raise InputError(
            f"model {model.name!r}: expected {len(names)} input(s) ({', '.join(names)}). Received: {len(parts)} "
            "array(s)"
        )
    arrays = [as_array(model, name, part) for name, part in zip(names, parts, strict=True)]
    rows = {a.shape[0] for a in arrays}
    if len(rows) != 1:
        raise InputError(f"model {model.name!r}: expected as many rows in every input. Received: "
                         f"{[a.shape for a in arrays]}")
    if rows == {0}:
        raise InputError(f"model {model.name!r}: expected at least one row. Received: {[a.shape for a in arrays]}")
    return arrays


def check(
    model: keras.Model, specs: Sequence[InputSpec], arrays: Sequence[np.ndarray], noun: str = "input"
) -> dict[str, np.ndarray]:
    """The plan's inputs by name: of the right rank and shape, finite, in range, integers where the model wants them.

    Args:
        model: for its name in errors.
        specs: of the traced model; their first axis, the batch, is not compared.
        arrays: in the order of specs.
        noun: what they are, for errors.

    Raises:
        InputError: says what was expected and received; never quotes a value.
    """
    return {spec.name: _checked(model, spec, array, noun) for spec, array in zip(specs, arrays, strict=True)}


def input_names(model: keras.Model) -> list[str]:
    """Names of a model's inputs, in the order in which Keras flattens them."""
    return [tensor.name for tensor in keras.tree.flatten(_structure(model))] or ["inputs"]


def packed(model: keras.Model, arrays: list[np.ndarray]) -> Any:
    """Arrays from `flatten` in the structure that calling the model takes."""
    structure = _structure(model)
    if len(arrays) == 1 and not isinstance(structure, dict):
        return arrays[0]
    return keras.tree.pack_sequence_as(structure, arrays)


def _structure(model: keras.Model) -> Any:
    functional = getattr(model, "_functional", None) or model
    return getattr(functional, "_inputs_struct", [])


def _keys(model: keras.Model, names: list[str]) -> list[str]:
    """Keys of a dict of data in the order of the inputs: the model's own keys, or the names of its inputs."""
    structure = _structure(model)
    # Keras flattens dicts in the order of their sorted keys.
    return sorted(structure) if isinstance(structure, dict) else names


def is_nested_numbers(x: Sequence) -> bool:
    """Whether a list is one array written out, rather than a list of inputs."""
    while isinstance(x, list | tuple) and len(x):
        x = x[0]
    return isinstance(x, int | float | np.generic)


def as_array(model: keras.Model, name: str, part: Any, noun: str = "input") -> np.ndarray:
    """The numbers of one input, target or argument, with an axis for rows.

    Raises:
        InputError: something else.
    """
    where = f"model {model.name!r}, {noun} {name!r}"
    try:
        array = np.asarray(part)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected an array of numbers. Received: {type(part).__name__} "
            f"({error})"
        ) from None
    if array.dtype.kind not in "fiub" and not _is_extended_float(array.dtype):
        raise InputError(
            f"{where}: expected numbers. Received: dtype {array.dtype}. Encode text and "
            "categories "
            "as numbers first."
        )
    if array.ndim == 0:
        raise InputError(f"{where}: expected a batch of rows. Received: a single number")
    return array


def _is_extended_float(dtype: np.dtype) -> bool:
    return dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _checked(model: keras.Model, spec: InputSpec, array: np.ndarray, noun: str) -> np.ndarray:
    where = f"model {model.name!r}, {noun} {spec.keras_name!r}"
    row = spec.shape[1:]
    # As Keras does: an axis of length 1 at the end may be left out, or be too many.
    if array.ndim == len(row) and row and row[-1] == 1 and array.shape[1:] != row:
        array = array[..., None]
    elif array.ndim == len(row) + 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.shape[1:] != row:
        expected = f"(rows, {', '.join(map(str, row))})" if row else "(rows,)"
        raise InputError(f"{where}: expected shape {expected}. Received: {array.shape}")
    values = real_numbers(where, array, spec.low, spec.high)
    if spec.fraction == 0 and (values != np.rint(values)).any():
        raise InputError(f"{where}: expected whole numbers (the layer takes indices). Received: dtype {array.dtype} "
                         "with fractions")
    return values


def real_numbers(where: str, array: np.ndarray, low: float, high: float) -> np.ndarray:
    """As float64; finite and in low <= x < high.

    Raises:
        InputError: says `where`; quotes no value.
    """
    values = array.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(f"{where}: expected finite numbers. Received: NaN or infinity in {int((~finite).sum())} of "
                         f"{values.size} elements. Replace them before.")
    if (values < low).any() or (values >= high).any():
        raise InputError(f"{where}: expected values from {low:g} to below {high:g}. Received: values outside. "
                         "Scale the data, as for training.")
    return values
