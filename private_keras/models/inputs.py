"""Turns a batch of data into the plan's inputs, and refuses what is not right before anything is shared."""
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, Rows
from private_keras.errors import InputError
from private_keras.tensor import Column, Part, SecretTensor
from private_keras.tracing import InputSpec
from private_keras.tracing.names import label

Data = np.ndarray | SecretTensor


def flatten(model: keras.Model, x: Any) -> list[Data]:
    """The arrays and secret tensors of a batch, in the order of the model's inputs.

    Args:
        model: built; its inputs' names and structure decide the order.
        x: one array or secret tensor, or a list, tuple or dict of them.

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
        known = ", ".join(name for name in names if label(name))
        raise InputError(
            f"model {model.name!r}: expected {len(names)} input(s){f' ({known})' if known else ''}. Received: "
            f"{len(parts)} array(s)"
        )
    said = [_said(name, place) for place, name in enumerate(names)]
    arrays = [as_array(model, name, part) for name, part in zip(said, parts, strict=True)]
    rows = {a.shape[0] for a in arrays}
    if len(rows) != 1:
        raise InputError(f"model {model.name!r}: expected as many rows in every input. Received: "
                         f"{[a.shape for a in arrays]}")
    if rows == {0}:
        raise InputError(f"model {model.name!r}: expected at least one row. Received: {[a.shape for a in arrays]}")
    return arrays


def check(
    model: keras.Model, specs: Sequence[InputSpec], arrays: Sequence[Data], noun: str = "input"
) -> dict[str, np.ndarray | Column]:
    """The plan's inputs by name: of the right rank and shape, finite, in range, integers where the model wants them.

    What is not known of a secret tensor cannot be checked: whether indices and classes exist. It is finite, below 2^20
    if it is real, and either of integers or not, since `share`.

    Args:
        model: for its name in errors.
        specs: of the traced model; their first axis, the batch, is not compared.
        arrays: in the order of specs.
        noun: what they are, for errors.

    Raises:
        InputError: says what was expected and received; never quotes a value.
    """
    return {
        spec.name: _checked(_where(model, noun, _said(spec.keras_name, place)), spec, array, noun)
        for place, (spec, array) in enumerate(zip(specs, arrays, strict=True))
    }


def given(cluster: Cluster, values: Mapping[str, np.ndarray | Column]) -> dict[str, np.ndarray | Rows | Part]:
    """All rows of what `check` gave, as a job of one step takes them.

    Raises:
        HandleNotFound: secret tensors that are on another cluster, or were lost.
    """
    return {name: value.rows(cluster) if isinstance(value, Column) else value for name, value in values.items()}


def is_secret(x: Any) -> bool:
    """Whether there is a secret tensor in a structure of data."""
    return any(isinstance(leaf, SecretTensor) for leaf in keras.tree.flatten(x))


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


def as_array(model: keras.Model, name: str, part: Any, noun: str = "input") -> Data:
    """The numbers of one input, target or argument, with an axis for rows; a secret tensor as it is.

    Raises:
        InputError: something else.
    """
    where = _where(model, noun, name)
    if part is None:
        raise InputError(f"{where}: expected an array of numbers. Received: None")
    try:
        array = part if isinstance(part, SecretTensor) else np.asarray(part)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected an array of numbers. Received: {type(part).__name__} "
            f"({error})"
        ) from None
    if array.dtype.kind not in "fiub" and not _is_extended_float(array.dtype):
        advice = "Encode text and categories as numbers first."
        if array.dtype == object:
            advice += " Mixed columns: astype('float32')."
        raise InputError(f"{where}: expected numbers. Received: dtype {array.dtype}. {advice}")
    if array.ndim == 0:
        raise InputError(f"{where}: expected a batch of rows. Received: a single number. A tf.data.Dataset has to be "
                         "batched: dataset.batch(32).")
    return array


def _is_extended_float(dtype: np.dtype) -> bool:
    return dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _said(name: str, place: int) -> str:
    """An input's name in errors: its number where the program gave it none."""
    return name if label(name) else str(place + 1)


def _where(model: keras.Model, noun: str, name: str) -> str:
    return f"model {model.name!r}, {noun} {name if name.isdigit() else repr(name)}"


def _checked(where: str, spec: InputSpec, array: Data, noun: str) -> np.ndarray | Column:
    row = spec.shape[1:]
    shape = array.shape
    # As Keras does: an axis of length 1 at the end may be left out, or be too many.
    if len(shape) == len(row) and row and row[-1] == 1 and shape[1:] != row:
        shape = (*shape, 1)
    elif len(shape) == len(row) + 2 and shape[-1] == 1:
        shape = shape[:-1]
    if shape[1:] != row:
        expected = f"(rows, {', '.join(map(str, row))})" if row else "(rows,)"
        raise InputError(f"{where}: expected shape {expected}. Received: {array.shape}")
    if isinstance(array, SecretTensor):
        if spec.dtype == "bool" and array.dtype.kind != "b":
            raise InputError(f"{where}: expected truth values. Received: {array!r}. Share it as dtype bool.")
        return array.column(row, spec.fraction, where)
    array = array.reshape(shape)
    indices = spec.fraction == 0 and spec.low == 0 and noun == "input"
    advice = ("These are indices, as of words: the layer knows no others.",) if indices else ()
    values = real_numbers(where, array, spec.low, spec.high, *advice)
    if spec.fraction == 0 and (values != np.rint(values)).any():
        raise InputError(f"{where}: expected whole numbers (the layer takes indices). Received: dtype {array.dtype} "
                         "with fractions")
    return values


def real_numbers(
    where: str, array: np.ndarray, low: float, high: float, advice: str = "Scale the data to about -1 to 1."
) -> np.ndarray:
    """As float64; finite and in low <= x < high.

    Raises:
        InputError: says `where` and gives `advice` about the range; quotes no value.
    """
    if array.size and low <= float(array.min()) and float(array.max()) < high:  # false for NaN
        return array.astype(np.float64)
    values = array.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(f"{where}: expected finite numbers. Received: NaN or infinity in {int((~finite).sum())} of "
                         f"{values.size} elements. Replace them before.")
    if (values < low).any() or (values >= high).any():
        outside = int(((values < low) | (values >= high)).sum())
        raise InputError(f"{where}: expected values from {low:.10g} to below {high:.10g}. Received: {outside} of "
                         f"{values.size} outside. {advice}")
    return values
