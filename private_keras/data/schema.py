"""Columns of a table: what their owner declares, what a first look finds, and blocks of cells as numbers."""
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from private_keras.data.cells import Cells, misplaced, numbers, texts
from private_keras.data.data import INTEGER_BITS, REAL_BITS
from private_keras.errors import InputError

MAX_CATEGORIES = 1000
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Declared:
    """What the owner says of the columns.

    Attributes:
        ranges: by column, least and largest value.
        categories: by column, the categories in the order of their codes; None: those that are found, sorted.
        fill: by column, the number for missing values; they are refused without.
        dtype: "float", "int" or None: integers where all columns are.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    categories: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    fill: Mapping[str, float] = field(default_factory=dict)
    dtype: str | None = None

    def check(self, where: str, names: Sequence[str]) -> None:
        """Raises an InputError for columns that are not there, and for declarations that are none."""
        for what, given in (("ranges", self.ranges), ("categories", self.categories), ("fill", self.fill)):
            if not isinstance(given, Mapping):
                raise InputError(f"{where}: {what}: expected a dict by column. Received: {type(given).__name__}")
            unknown = sorted(map(str, set(given) - set(names)))
            if unknown:
                raise InputError(f"{where}: {what}: expected columns among {list(names)[:20]}. Received: {unknown[:5]}")
        for name, limits in self.ranges.items():
            if not _is_range(limits):
                raise InputError(f"{where}: ranges[{name!r}]: expected (least, largest). Received: something else")
        for name, known in self.categories.items():
            if known is not None and (isinstance(known, str) or len(set(map(str, known))) != len(list(known))):
                raise InputError(f"{where}: categories[{name!r}]: expected a list of different names, or None")
            for what, given in (("ranges", self.ranges), ("fill", self.fill)):
                if name in given:
                    raise InputError(f"{where}: {what}[{name!r}]: expected a column of numbers. Received: one of "
                                     "categories, whose codes are numbered here")
        for name, number in self.fill.items():
            if not _is_number(number):
                raise InputError(f"{where}: fill[{name!r}]: expected a finite number. Received: something else")
        if self.dtype not in (None, "float", "int"):
            raise InputError(f"{where}: dtype: expected 'float', 'int' or None. Received: {self.dtype!r}")


@dataclass(frozen=True)
class Field:
    """One column after the first look.

    Attributes:
        whole: whether all its numbers are integers.
        largest: bound on their size.
        categories: in the order of their codes; None for numbers.
    """

    name: str
    whole: bool
    largest: float
    categories: tuple[str, ...] | None


class Column:
    """Looks at one column, block by block.

    Args:
        where: for errors.
    """

    def __init__(self, where: str, name: str, declared: Declared):
        self._where = where
        self._name = name
        self._range = declared.ranges.get(name)
        self._fill = declared.fill.get(name)
        self._dtype = declared.dtype
        self._is_text = name in declared.categories
        known = declared.categories.get(name)
        self._codes = None if known is None else {str(item).strip(): code for code, item in enumerate(known)}
        self._seen: set[str] = set()
        self._whole = True
        self._largest = 0.0

    def look(self, cells: Cells, first: int) -> None:
        """Checks cells, the first of which is in row `first`, counted from 0, and remembers what they are."""
        if self._is_text and self._codes is None:
            found = texts(cells)
            self._refuse_missing(np.array([text is None for text in found]), first)
            self._seen.update(text for text in found if text is not None)
            if len(self._seen) > MAX_CATEGORIES:
                raise InputError(f"{self._where}: column {self._name!r}: expected at most {MAX_CATEGORIES} categories. "
                                 "Received: more. Is it a name or a number of each row?")
            return
        values = self.values(cells, first)
        self._whole = self._whole and values.dtype.kind != "f"
        self._largest = max(self._largest, float(np.abs(values).max(initial=0)))

    def found(self) -> "tuple[Field, Column]":
        """What it is, and what reads it from now on."""
        if self._is_text and self._codes is None:
            self._codes = {text: code for code, text in enumerate(sorted(self._seen))}
            self._largest = max(len(self._codes) - 1, 0)
        names = tuple(self._codes) if self._is_text else None
        return Field(self._name, self._whole, self._largest, names), self

    def values(self, cells: Cells, first: int) -> np.ndarray:
        """The numbers of cells, checked: int64 or float64."""
        if self._is_text:
            return self._coded(cells, first)
        read = numbers(cells)
        if isinstance(read, int):
            raise misplaced(self._where, self._name, first + read + 1, "a number", "text",
                            f"categories={{{self._name!r}: None}} (--categories {self._name}) numbers categories.")
        values, missing = read
        if self._fill is None:
            self._refuse_missing(missing, first)
        elif missing.any():
            whole = float(self._fill).is_integer() and values.dtype.kind != "f"
            values = np.where(missing, int(self._fill) if whole else float(self._fill), values)
        if values.dtype.kind == "f":
            self._refuse(~np.isfinite(values), first, "a finite number", "infinity")
            if self._dtype == "int":
                self._refuse(values != np.rint(values), first, "a whole number", "a fraction",
                             "dtype='float' (--as float) keeps it.")
        if self._range is not None:
            low, high = self._range
            outside = (values < low) | (values > high)
            self._refuse(outside, first, f"a number from {low} to {high}", "one outside")
        whole = self._dtype == "int" or values.dtype.kind != "f" and self._dtype != "float"
        bits = INTEGER_BITS if whole else REAL_BITS
        # As real numbers: the least integer has no size among integers.
        self._refuse(np.abs(values.astype(np.float64)) >= 2.0**bits, first, f"a number below 2^{bits} in size",
                     "a larger one", "Scale the column.")
        return values.astype(np.int64) if self._dtype == "int" else values

    def _coded(self, cells: Cells, first: int) -> np.ndarray:
        found = texts(cells)
        self._refuse_missing(np.array([text is None for text in found]), first)
        codes = np.fromiter((self._codes.get(text, -1) for text in found), np.int64, len(found))
        self._refuse(codes < 0, first, f"one of the {len(self._codes)} categories that are listed", "another one")
        return codes

    def _refuse_missing(self, missing: np.ndarray, first: int) -> None:
        advice = "" if self._is_text else (
            f"fill={{{self._name!r}: number}} (--fill {self._name}=NUMBER) puts a number there."
        )
        self._refuse(missing, first, "a value", "none", advice)

    def _refuse(self, bad: np.ndarray, first: int, expected: str, received: str, advice: str = "") -> None:
        if bad.any():
            row = first + int(np.argmax(bad)) + 1
            more = int(bad.sum()) - 1
            if more:
                received += f", and in {more} more rows of this block"
            raise misplaced(self._where, self._name, row, expected, received, advice)


def only(declared: Declared, names: Sequence[str]) -> Declared:
    """What is declared of these columns."""
    return dataclasses.replace(
        declared, **{
            what: {name: value for name, value in getattr(declared, what).items() if name in names}
            for what in ("ranges", "categories", "fill")
        },
    )  # fmt: skip


def _is_range(limits: Any) -> bool:
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        return False
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in limits) and limits[0] <= limits[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and abs(value) <= _LARGEST
