"""Data at their owner: read in blocks from files, frames and streams, checked, and made numbers.

    data = read("patients.csv", columns=["age", "sex"], ranges={"age": (0, 120)}, categories={"sex": ["f", "m"]})
    data.shape, data.columns, data.categories

Errors name column and row, never a value. Rows are counted from 1, without a file's header.
"""
from private_keras.data.data import Data
from private_keras.data.reading import read

__all__ = ["Data", "read"]
