"""`read`: any form of data that an owner may have, looked at once."""
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from private_keras.data.data import INTEGER_BITS, REAL_BITS, Data
from private_keras.data.schema import Column, Declared, only
from private_keras.data.tables import CsvTable, DatasetTable, DictTable, FrameTable, ParquetTable, Table
from private_keras.errors import FileError, InputError

ELEMENTS = 1 << 20  # of a block
_EXTENDED_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
Blocks = Callable[[], Iterator[np.ndarray]]
Progress = Callable[[int], None]


def read(
    source: Any, *, columns: str | Sequence[str] | None = None, dtype: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
    categories: Mapping[str, Sequence[str] | None] | Sequence[str] | None = None,
    fill: Mapping[str, float] | None = None, delimiter: str = ",", progress: Progress | None = None,
    where: str = "",
) -> Data:
    """Looks at all of the data, and makes them readable as numbers.

    Args:
        source: an array or what NumPy makes one of; a `.npy`, `.csv` or `.parquet` file; a pandas frame or series; a
            dict of columns; a batched `tf.data.Dataset` of tensors or of dicts, the same each time it is read.
        columns: of a table, those to take, in this order; one name alone for a vector. All by default.
        dtype: "float" or "int", to share them as; by default as they are: integers where all columns are.
        ranges: by column of a table, least and largest value; of an array, for all elements.
        categories: by column, its categories in the order of their codes, or None for those that are found, sorted; a
            list of columns for None each.
        fill: by column, the number for missing values.
        delimiter: of a CSV file.
        progress: called with the number of rows looked at.
        where: what errors begin with; by default the file, or the type of the source.

    Raises:
        InputError: naming column and row: text, missing values, numbers out of range. Quotes no value.
        FileError: a file that cannot be read.

    Cost: one pass over the data, and another for each time they are shared; memory for a block.
    """
    tell = progress or (lambda rows: None)
    where = where or _where(source)
    found = _opened(source, delimiter, where)
    if isinstance(found, Table):
        given = dict.fromkeys(categories) if isinstance(categories, list | tuple) else dict(categories or {})
        declared = Declared(_by_column(ranges), given, dict(fill or {}), dtype)
        return _table(where, found, columns, declared, tell)
    for what, value in (("columns", columns), ("categories", categories), ("fill", fill)):
        if value:
            raise InputError(f"{where}: {what} goes with tables. Received: {type(source).__name__}")
    return _array(where, *found, dtype, ranges, tell)


def _where(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else type(source).__name__


def _by_column(ranges: Any) -> Mapping[str, tuple[float, float]]:
    if ranges is not None and not isinstance(ranges, Mapping):
        raise InputError("ranges: expected a dict by column. Received: something else")
    return dict(ranges or {})


def _opened(source: Any, delimiter: str, where: str) -> Table | tuple[Blocks, np.dtype | None]:
    """A table, or blocks of an array and its dtype."""
    if isinstance(source, str | os.PathLike):
        return _file(Path(source), delimiter)
    if hasattr(source, "element_spec"):
        spec = source.element_spec
        if isinstance(spec, Mapping):
            return DatasetTable(source)
        if isinstance(spec, list | tuple):
            raise InputError("expected a dataset of tensors or of dicts. Received: one of tuples. Share each part by "
                             "itself: dataset.map(lambda x, y: x)")
        return (lambda: (np.asarray(batch) for batch in source)), None
    if hasattr(source, "iloc"):
        if hasattr(source, "columns"):
            return FrameTable(source)
        return DictTable({str(source.name or "value"): source.to_numpy()})
    if isinstance(source, Mapping):
        return DictTable(source)
    return _of_array(source, where)


def _file(path: Path, delimiter: str) -> Table | tuple[Blocks, np.dtype]:
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        return CsvTable(path, "\t" if ending == ".tsv" and delimiter == "," else delimiter)
    if ending in (".parquet", ".pq"):
        return ParquetTable(path)
    if ending != ".npy":
        raise InputError(f"{path}: expected a .npy, .csv or .parquet file. Received: {ending or 'no ending'}")
    try:
        return _of_array(np.load(path, mmap_mode="r", allow_pickle=False), str(path))
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise FileError(f"cannot read {path} as one NumPy array ({type(error).__name__}). Write it with "
                        "numpy.save(path, array)") from None


def _of_array(given: Any, where: str) -> tuple[Blocks, np.dtype]:
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise InputError(f"{where}: expected an array without masked elements. Fill them before: array.filled(value)")
    try:
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
        array = np.ma.getdata(array)
    except (TypeError, ValueError):
        # What NumPy says may quote the data.
        raise InputError(f"{where}: expected an array of numbers. Received: another object") from None
    if not array.ndim:
        return (lambda: iter([array])), array.dtype
    rows = max(1, ELEMENTS // max(1, int(np.prod(array.shape[1:], dtype=np.int64))))
    return (lambda: (array[start : start + rows] for start in range(0, len(array), rows))), array.dtype


def _array(
    where: str, blocks: Blocks, dtype: np.dtype | None, wanted: str | None, limits: Any, tell: Progress
) -> Data:
    """An array, or a stream of batches, looked at."""
    if wanted not in (None, "float", "int"):
        raise InputError(f"{where}: dtype: expected 'float', 'int' or None. Received: {wanted!r}")
    shape: tuple[int, ...] | None = None
    rows, largest = 0, 0.0

    def checked() -> Iterator[np.ndarray]:
        first = 0
        for block in blocks():
            yield _checked(where, block, first, wanted, limits)
            first += len(block) if block.ndim else 1

    for block in checked():
        if shape is not None and block.shape[1:] != shape[1:]:
            raise InputError(f"{where}: expected batches of rows of shape {shape[1:]}. Received: {block.shape[1:]}")
        shape, dtype = block.shape, dtype or block.dtype
        rows += len(block) if block.ndim else 1
        largest = max(largest, float(np.abs(block.astype(np.float64)).max(initial=0)))
        tell(rows)
    if shape is None or 0 in shape:
        raise InputError(f"{where}: expected at least one element. Received: none")
    kept = dtype if wanted is None else np.dtype("float64" if wanted == "float" and dtype.kind != "f" else
                                                 "int64" if wanted == "int" and dtype.kind == "f" else dtype)
    return Data((rows, *shape[1:]) if shape else (), kept, largest < 2.0**REAL_BITS, (), {}, checked)


def _checked(where: str, block: np.ndarray, first: int, wanted: str | None, limits: Any) -> np.ndarray:
    """A block of numbers that fixed point holds."""
    if block.dtype.name in _EXTENDED_FLOATS:
        block = block.astype(np.float32)
    if block.dtype.kind not in "fiub":
        raise InputError(f"{where}: expected an array of numbers. Received: dtype {block.dtype}. Encode text and "
                         "categories as numbers first.")
    real = block.dtype.kind == "f"

    def refuse(bad: np.ndarray, expected: str, received: str, advice: str) -> None:
        if bad.any():
            row = first + int(np.argmax(bad.reshape(len(bad), -1).any(axis=1) if bad.ndim else bad)) + 1
            raise InputError(f"{where}: row {row}: expected {expected}. Received: {received} in {int(bad.sum())} of "
                             f"{bad.size} elements. {advice}")

    if real:
        refuse(~np.isfinite(block), "finite numbers", "NaN or infinity", "Replace them before.")
        if wanted == "int":
            refuse(block != np.rint(block), "whole numbers", "fractions", "dtype='float' keeps them.")
            real = False
    elif wanted == "float":
        block, real = block.astype(np.float64), True
    if limits is not None:
        try:
            low, high = (float(n) for n in limits)
        except (TypeError, ValueError):
            raise InputError(f"{where}: ranges: expected (least, largest). Received: something else") from None
        refuse((block < low) | (block > high), f"numbers from {low:g} to {high:g}", "others", "")
    bits = REAL_BITS if real else INTEGER_BITS
    kind = "real numbers" if real else "integers"
    size = np.abs(block.astype(np.float64))
    refuse(size >= 2.0**bits, f"{kind} below 2^{bits} in size", "larger ones", "Scale the data, as for training.")
    return block.astype(np.int64) if wanted == "int" and block.dtype.kind == "f" else block


def _table(where: str, table: Table, columns: Any, declared: Declared, tell: Progress) -> Data:
    """A table, looked at."""
    alone = isinstance(columns, str)
    names = [columns] if alone else table.names if columns is None else list(columns)
    unknown = [name for name in names if name not in table.names]
    if unknown or not names or len(set(names)) != len(names):
        raise InputError(f"{where}: expected columns among {table.names[:20]}, each once. Received: "
                         f"{unknown[:5] or names[:5]}")
    declared.check(where, table.names)
    declared = only(declared, names)
    looking = {name: Column(where, name, declared) for name in names}
    rows = 0
    for block in table.blocks(names):
        for name in names:
            looking[name].look(block[name], rows)
        rows += len(block[names[0]])
        tell(rows)
    if not rows:
        raise InputError(f"{where}: expected at least one row. Received: none")
    fields, readers = zip(*(looking[name].found() for name in names), strict=True)
    real = declared.dtype == "float" or not all(field.whole for field in fields)
    if real:
        wide = next((field.name for field in fields if field.largest >= 2.0**REAL_BITS), None)
        if wide is not None:
            raise InputError(f"{where}: column {wide!r}: expected numbers below 2^{REAL_BITS} in size beside real "
                             "numbers. Received: larger ones. Scale the column.")
    dtype = np.dtype(np.float64 if real else np.int64)

    def blocks() -> Iterator[np.ndarray]:
        first = 0
        for block in table.blocks(names):
            values = [
                reader.values(block[name], first).astype(dtype) for name, reader in zip(names, readers, strict=True)
            ]
            first += len(values[0])
            yield values[0] if alone else np.stack(values, axis=1)
        if first != rows:
            raise InputError(f"{where}: expected {rows} rows, as at the first look. Received: {first}")

    known = {field.name: field.categories for field in fields if field.categories is not None}
    small = max(field.largest for field in fields) < 2.0**REAL_BITS
    return Data((rows,) if alone else (rows, len(names)), dtype, small, tuple(names), known, blocks)
