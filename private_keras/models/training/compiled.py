"""What `compile` can refuse before any data are there."""
from typing import Any

import keras

from private_keras.errors import UnsupportedError
from private_keras.tracing.training.losses import labels
from private_keras.tracing.training.optimizers import REFUSED


def checked_optimizer(optimizer: Any) -> Any:
    """The optimiser as an object.

    Raises:
        UnsupportedError: one that cannot run on shares.
        ValueError: from Keras, one that it does not know.
    """
    made = keras.optimizers.get(optimizer) if optimizer is not None else None
    for kind, reason in REFUSED.items():
        if isinstance(made, kind):
            raise UnsupportedError(f"optimizer {kind.__name__} cannot run on shares: {reason}")
    return made


def check_compiled(model: keras.Model) -> None:
    """Refuses losses that cannot run on shares, and steps that are none.

    Raises:
        UnsupportedError: naming what and the reason.
    """
    compiled = model._compile_loss
    if compiled is None:
        return
    for loss in keras.tree.flatten(compiled._user_loss):
        if loss is not None:
            labels(loss, (None, 1))
