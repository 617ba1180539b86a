"""What plans call a program's things: Keras' names, without the numbers that Keras gives them in the order in which a
program makes them. Names are part of a plan's digest, and a second optimizer of the same class makes no other plan.
"""

import inspect
import re

import keras
from keras.src.utils.naming import to_snake_case

_LONGEST = 200
_TENSOR = re.compile(r"keras_tensor(_[0-9]+)?")
_OPTIMIZERS = "|".join(sorted(to_snake_case(name) for name in dir(keras.optimizers)
                              if inspect.isclass(getattr(keras.optimizers, name))))  # fmt: skip
_NUMBERED = re.compile(rf"((?:optimizer/[0-9]+/)?(?:{_OPTIMIZERS}))_[0-9]+/")


def label(name: str) -> str:
    """A label for an input that the program calls so; empty for what it gave no name to."""
    return "" if _TENSOR.fullmatch(name) else "".join(c for c in name if c.isprintable())[:_LONGEST]


def path_of(path: str) -> str:
    """A variable's path, as labels and names of states have it."""
    return _NUMBERED.sub(r"\1/", path, count=1)[-_LONGEST:] if _NUMBERED.match(path) else path[-_LONGEST:]
