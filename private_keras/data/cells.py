"""Cells of a table's column: numbers, text, or nothing."""
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from private_keras.errors import InputError

# What stands for no value in files, in lower case.
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))
_TRUTH = {"true": 1, "false": 0}

Cells = np.ndarray | Sequence[Any]  # numbers, or texts, None for nothing


def misplaced(where: str, column: str, row: int, expected: str, received: str, advice: str = "") -> InputError:
    """What is wrong with a cell; quotes no value."""
    return InputError(
        f"{where}: column {column!r}, row {row}: expected {expected}. Received: {received}. {advice}".strip()
    )


def numbers(cells: Cells) -> tuple[np.ndarray, np.ndarray] | int:
    """The numbers in a block of cells, int64 or float64, and which are missing; or the place of the first that is none.

    Missing numbers are 0.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        if cells.dtype.kind == "u" and cells.max(initial=0) > np.iinfo(np.int64).max:
            return cells.astype(np.float64), np.zeros(len(cells), bool)
        if cells.dtype.kind != "f":
            return cells.astype(np.int64), np.zeros(len(cells), bool)
        missing = np.isnan(cells)
        return np.where(missing, 0.0, cells).astype(np.float64), missing
    try:
        if not any("_" in cell for cell in cells):
            return np.fromiter(map(int, cells), np.int64, len(cells)), np.zeros(len(cells), bool)
    except (ValueError, TypeError, OverflowError):
        pass
    values, missing, whole = np.zeros(len(cells)), np.zeros(len(cells), bool), True
    for i, cell in enumerate(cells):
        value = _number(cell)
        if value is None:
            missing[i] = True
        elif isinstance(value, str):
            return i
        else:
            try:
                values[i] = value
            except OverflowError:  # an integer of hundreds of digits
                values[i] = math.inf
            whole = whole and isinstance(value, int)
    return (values.astype(np.int64) if whole and np.abs(values).max(initial=0) < 2**53 else values), missing


def _number(cell: Any) -> int | float | str | None:
    """A cell's number, None if it is missing, text if it is no number."""
    if isinstance(cell, bool | np.bool_):
        return int(cell)
    if isinstance(cell, int | float | np.number):
        return None if cell != cell else cell.item() if isinstance(cell, np.number) else cell
    if is_missing(cell):
        return None
    text = str(cell).strip().lower()
    if text in _TRUTH:
        return _TRUTH[text]
    if "_" in text:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def texts(cells: Cells) -> list[str | None]:
    """Cells as text; None for those that are missing."""
    return [None if is_missing(cell, text=True) else str(cell).strip() for cell in cells]


def is_missing(cell: Any, text: bool = False) -> bool:
    """Whether a cell holds nothing. Of text only what is empty: a category may be called "none"."""
    if cell is None or (isinstance(cell, float | np.floating) and cell != cell) or type(cell).__name__ == "NAType":
        return True
    word = str(cell).strip().lower()
    return not word if text else word in MISSING
