"""What is known of data that were read once, and how to read them again as numbers."""
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

FORMAT = "private_keras.data/1"
# Beyond these sizes fixed point cannot hold them: real numbers, integers.
REAL_BITS = 20
INTEGER_BITS = 30


@dataclass(frozen=True)
class Data:
    """Numbers that can be shared.

    Attributes:
        shape: of all of them, rows first.
        dtype: they are shared as.
        small: whether they are below 2^20 in size, so that integers can be used as real numbers.
        columns: names of the columns of a table; empty for arrays.
        categories: by column, the categories in the order of their codes. They stay here.
        blocks: reads the data again, in blocks of whole rows, checked.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    small: bool
    columns: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(repr=False)
    blocks: Callable[[], Iterator[np.ndarray]] = field(repr=False)

    @property
    def real(self) -> bool:
        """Whether they are real numbers."""
        return self.dtype.kind == "f"

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def about(self) -> str:
        """What those who may use the data, and the servers, can read of them, beside shape and dtype."""
        return json.dumps({"format": FORMAT, "columns": list(self.columns), "small": self.small}, sort_keys=True)

    def array(self) -> np.ndarray:
        """All of them, in memory."""
        blocks = list(self.blocks())
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
