"""Secret tensors as Keras records operations on them."""
import keras
import numpy as np

from private_keras.tensor.sources import Source
from private_keras.tracing.expression import maker


class Root(keras.KerasTensor):
    """Where recording begins: a tensor on the servers, or rows of a tensor.

    Attributes:
        source: the shares; None for rows of something recorded.
        base: what it is rows of; None for shares.
        rows: numbers of rows; None for all.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: str, source: Source | None = None, base: keras.KerasTensor | None = None,
        rows: np.ndarray | None = None,
    ):
        super().__init__(shape, dtype=dtype)
        self.source = source
        self.base = base
        self.rows = rows


def sources(tensor: keras.KerasTensor) -> list[Source]:
    """All shares that a tensor depends on, each once, in the order in which it names them."""
    found: dict[int, Source] = {}
    seen: set[int] = set()
    waiting = [tensor]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Root):
            if each.source is not None:
                found.setdefault(id(each.source), each.source)
            else:
                waiting.append(each.base)
            continue
        made = maker(each)
        if made is not None:
            waiting.extend(reversed(made[0].input_tensors))
    return list(found.values())
