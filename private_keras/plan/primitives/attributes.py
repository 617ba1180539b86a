"""Readers of attributes: each turns a value of unknown kind into its normal form, or refuses it.

Normal form is what JSON gives back: int, bool, str, and lists of those. Tuples and NumPy integers are taken too.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan import limits


class Field(ABC):
    """Reader of one attribute; `default` is used where it is not `required`."""

    required: bool = True
    default: Any = None

    @abstractmethod
    def read(self, value: Any, what: str) -> Any:
        """The value in normal form; PlanError, naming `what`, if it is not allowed."""


def _int(value: Any, low: int, high: int, what: str) -> int:
    return limits.integer(int(value) if isinstance(value, np.integer) else value, low, high, what)


def _items(value: Any, most: int, what: str) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) > most:
        raise PlanError(f"{what}: expected a list of at most {most} items. Received: {limits.shown(value)}")
    return value


@dataclass(frozen=True)
class Int(Field):
    """An integer in low .. high."""

    low: int
    high: int
    required: bool = True
    default: int | None = None

    def read(self, value: Any, what: str) -> int:
        return _int(value, self.low, self.high, what)


@dataclass(frozen=True)
class Bool(Field):
    """True or false, not 0 or 1."""

    required: bool = True
    default: bool | None = None

    def read(self, value: Any, what: str) -> bool:
        if not isinstance(value, bool):
            raise PlanError(f"{what}: expected true or false. Received: {limits.shown(value)}")
        return value


@dataclass(frozen=True)
class Ints(Field):
    """A list of integers in low .. high; one for each axis, unless `most` says otherwise."""

    low: int
    high: int
    most: int = limits.MAX_RANK
    required: bool = True
    default: tuple[int, ...] | None = None

    def read(self, value: Any, what: str) -> list[int]:
        return [_int(v, self.low, self.high, what) for v in _items(value, self.most, what)]


@dataclass(frozen=True)
class Rows(Field):
    """A list of lists of integers in low .. high, each row of `fewest` to `longest` of them."""

    low: int
    high: int
    fewest: int
    longest: int
    most: int = limits.MAX_RANK

    def read(self, value: Any, what: str) -> list[list[int]]:
        rows = [_items(row, self.longest, what) for row in _items(value, self.most, what)]
        if any(len(row) < self.fewest for row in rows):
            expected = f"rows of {self.fewest} to {self.longest} integers"
            raise PlanError(f"{what}: expected {expected}. Received: {limits.shown(value)}")
        return [[_int(v, self.low, self.high, what) for v in row] for row in rows]


@dataclass(frozen=True)
class Text(Field):
    """Printable text for people, without meaning to servers."""

    required: bool = True
    default: str | None = None

    def read(self, value: Any, what: str) -> str:
        return limits.text(value, what)


@dataclass(frozen=True)
class Base64(Field):
    """Bytes in base64; which and how many is for the type rule to say."""

    def read(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or not value.isascii():
            raise PlanError(f"{what}: expected base64 text. Received: {limits.shown(value)}")
        return value


SIZE = limits.MAX_ELEMENTS
SHAPE = Ints(1, SIZE)
AXIS = Int(0, limits.MAX_RANK - 1)
AXES = Ints(0, limits.MAX_RANK - 1)
PADDING = Rows(0, SIZE, 2, 2)
# Bits that a comparison looks at: |x - t| < 2^width is known for whatever x is compared with.
WIDTH = Int(1, 62, required=False, default=62)
