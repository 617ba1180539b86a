"""Tables in blocks: CSV, Parquet, pandas' frames, dicts of columns."""
import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from private_keras.data.cells import Cells
from private_keras.errors import FileError, InputError

Block = dict[str, Cells]
ROWS = 1 << 14  # of a block


class Table(ABC):
    """Columns of equal length.

    Attributes:
        names: of all columns.
    """

    names: list[str]

    @abstractmethod
    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """These columns, some rows at a time, always in the same order."""


class CsvTable(Table):
    """A file of text, separated by `delimiter`, whose first line names the columns."""

    def __init__(self, path: Path, delimiter: str = ","):
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise InputError(f"delimiter: expected one character. Received: {delimiter!r}")
        self._path = path
        self._delimiter = delimiter
        with self._open() as file:
            header = next(self._reader(file), None)
        if not header or not all(name.strip() for name in header):
            raise FileError(f"{path}: expected a first line that names the columns. Received: none, or empty names")
        self.names = [name.strip() for name in header]
        if len(set(self.names)) != len(self.names):
            raise FileError(f"{path}: expected different names of columns. Received: the same twice")

    def _open(self) -> Any:
        try:
            return open(self._path, newline="", encoding="utf-8-sig")
        except OSError as error:
            raise FileError(f"cannot read {self._path}: {error.strerror}") from None

    def _reader(self, file: Any) -> Iterator[list[str]]:
        reader = csv.reader(file, delimiter=self._delimiter, strict=True)
        row = -1
        while True:
            row += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                what = "no UTF-8" if isinstance(error, UnicodeDecodeError) else "a quote out of place, or a huge cell"
                raise FileError(f"{self._path}: row {row}: expected CSV in UTF-8. Received: {what}") from None
            if cells:
                yield cells
            else:
                row -= 1

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        places = [self.names.index(name) for name in names]
        with self._open() as file:
            rows = self._reader(file)
            next(rows)
            block: list[list[str]] = []
            for row, cells in enumerate(rows, 1):
                if len(cells) != len(self.names):
                    raise FileError(f"{self._path}: row {row}: expected {len(self.names)} cells. Received: "
                                    f"{len(cells)}")
                block.append([cells[place] for place in places])
                if len(block) == ROWS:
                    yield dict(zip(names, zip(*block, strict=True), strict=True))
                    block = []
            if block:
                yield dict(zip(names, zip(*block, strict=True), strict=True))


class ParquetTable(Table):
    """A Parquet file, read with pyarrow."""

    def __init__(self, path: Path):
        try:
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"{path}: Parquet is read with pyarrow, which is not installed: pip install pyarrow"
                             ) from None
        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {path} as Parquet ({type(error).__name__})") from None
        self.names = list(self._file.schema_arrow.names)

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        for batch in self._file.iter_batches(ROWS, columns=list(names)):
            yield {name: _arrow(batch.column(name)) for name in names}


def _arrow(column: Any) -> Cells:
    kind = str(column.type)
    if column.null_count == 0 and kind.startswith(("int", "uint", "float", "double", "half")):
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


class FrameTable(Table):
    """A pandas frame."""

    def __init__(self, frame: Any):
        self._frame = frame
        self.names = [str(name) for name in frame.columns]
        if len(set(self.names)) != len(self.names):
            raise InputError("expected a frame with different names of columns. Received: the same twice")

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        places = [self.names.index(name) for name in names]
        for start in range(0, len(self._frame), ROWS):
            part = self._frame.iloc[start : start + ROWS]
            yield {name: _cells(part.iloc[:, place]) for name, place in zip(names, places, strict=True)}


def _cells(series: Any) -> Cells:
    kind = getattr(series.dtype, "kind", "O")
    plain = isinstance(series.dtype, np.dtype)
    return series.to_numpy() if plain and kind in "fiub" else series.tolist()


class DictTable(Table):
    """Columns in memory."""

    def __init__(self, columns: Mapping[str, Any]):
        self._columns = {str(name): _column(name, values) for name, values in columns.items()}
        self.names = list(self._columns)
        lengths = {len(values) for values in self._columns.values()}
        if len(lengths) != 1:
            raise InputError(f"expected columns of equal length. Received: lengths {sorted(lengths)[:5]}")

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        for start in range(0, len(self._columns[self.names[0]]), ROWS):
            yield {name: self._columns[name][start : start + ROWS] for name in names}


def _column(name: str, values: Any) -> Cells:
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"column {str(name)!r}: expected one value a row. Received: shape {array.shape}")
    return array if array.dtype.kind in "fiub" else array.tolist()


class DatasetTable(Table):
    """A `tf.data.Dataset` of batches of dicts."""

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self.names = [str(name) for name in dataset.element_spec]

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        for batch in self._dataset:
            yield {name: _column(name, _plain(batch[name].numpy())) for name in names}


def _plain(array: np.ndarray) -> Any:
    """Text comes as bytes."""
    if array.dtype.kind not in "OS":
        return array
    return [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in array.ravel()]
