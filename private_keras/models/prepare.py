"""The loop of `prepare`: arguments, and Keras' progress bar."""
from typing import Any

import keras
import numpy as np

from private_keras.errors import InputError
from private_keras.models.execution import Execution
from private_keras.models.stock import Told
from private_keras.models.training.feeds import BATCH_SIZE
from private_keras.models.training.options import count as require_count


def prepare(execution: Execution, count: Any, batch_size: Any, refill: Any, verbose: str | int) -> None:
    """See `PrivateModel.prepare`."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
        raise InputError(f"count: expected how many predictions are to be ready, 0 or more. Received: {count!r}")
    require_count("batch_size", batch_size)
    if not isinstance(refill, bool):
        raise InputError(f"refill: expected True or False. Received: {refill!r}")
    execution.prepare(int(batch_size or BATCH_SIZE), int(count), refill, lambda missing: _told(missing, verbose))


def _told(missing: int, verbose: str | int) -> Told:
    """What shows how many of those missing are made."""
    if missing <= 0 or verbose == 0:
        return lambda done: None
    bar = keras.utils.Progbar(missing, verbose=1 if verbose == "auto" else verbose, unit_name="prediction")
    return lambda done: bar.update(done)
