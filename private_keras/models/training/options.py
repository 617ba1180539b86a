"""Arguments of `fit` and `evaluate`, checked before anything else happens."""
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from keras.src.random.seed_generator import make_default_seed
from keras.src.utils.rng_utils import get_random_seed

from private_keras.errors import InputError
from private_keras.models.training.shuffle import Shuffle

SEED_BITS = 48
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,79}")


@dataclass(frozen=True)
class Options:
    """Of one `fit`; see `PrivateModel.fit`."""

    batch_size: int | None
    epochs: int
    shuffle: Shuffle
    class_weight: Mapping[int, float] | None
    initial_epoch: int
    steps_per_epoch: int | None
    validation_steps: int | None
    validation_batch_size: int | None
    validation_freq: int | list[int]
    open_metrics: int | Literal["epoch"]
    checkpoint_every: int | None
    checkpoint: str | None
    resume: bool
    seed: int

    def validates(self, epoch: int) -> bool:
        """Whether validation data are due after an epoch, counted from 0."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return epoch + 1 in self.validation_freq

    def opens(self, step: int) -> bool:
        """Whether metrics are opened after so many steps of an epoch."""
        return self.open_metrics != "epoch" and step % self.open_metrics == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps of an epoch."""
        return self.checkpoint_every is not None and step % self.checkpoint_every == 0


def options(given: Mapping[str, Any]) -> Options:
    """Arguments of `fit`, by name.

    Raises:
        InputError: an argument that is none.
    """
    for name in ("batch_size", "steps_per_epoch", "validation_steps", "validation_batch_size", "checkpoint_every"):
        count(name, given[name])
    for name in ("epochs", "initial_epoch"):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"{name}: expected an integer of at least 0. Received: {value!r}")
    if given["shuffle"] not in (True, False, "batch"):
        raise InputError(f"shuffle: expected True, False or 'batch'. Received: {given['shuffle']!r}")
    frequency = given["validation_freq"]
    if isinstance(frequency, list | tuple | set | range):
        frequency = list(frequency)
    else:
        count("validation_freq", frequency, optional=False)
    if given["open_metrics"] != "epoch":
        count("open_metrics", given["open_metrics"], optional=False, other="'epoch' or ")
    name = given["checkpoint"]
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise InputError(f"checkpoint: expected a name of up to 80 letters, digits and _ . : / -. Received: {name!r}")
    if name is None and (given["resume"] or given["checkpoint_every"] is not None):
        raise InputError("resume and checkpoint_every go with the name of a checkpoint: fit(..., checkpoint='name')")
    return Options(**{**given, "validation_freq": frequency, "resume": bool(given["resume"]),
                      "seed": checked_seed(given["seed"])})


def checked_seed(seed: int | None) -> int:
    """The seed, or another one: after `keras.utils.set_random_seed` the same in each run of a program, as in Keras."""
    if seed is None:
        return secrets.randbits(SEED_BITS) if get_random_seed() is None else make_default_seed()
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << SEED_BITS:
        raise InputError(f"seed: expected None or an integer from 0 to below 2^{SEED_BITS}. Received: {seed!r}")
    return int(seed)


def count(name: str, value: Any, optional: bool = True, other: str = "") -> None:
    """Passes an integer of at least 1.

    Raises:
        InputError: something else.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        expected = other or ("None or " if optional else "")
        raise InputError(f"{name}: expected {expected}an integer of at least 1. Received: {value!r}")
