"""`keras.saving`, but for models: from files, which are checked first, they are private; into files they are opened."""
import os
from typing import Any

import keras
from keras.saving import *  # noqa: F403

from private_keras import converter
from private_keras.models import load_model, save_model

__all__ = [  # noqa: PLE0604
    *(name for name in dir(keras.saving) if not name.startswith("_")), "load_model", "load_weights", "save_model",
    "save_weights",
]


def load_weights(model: keras.Model, filepath: str | os.PathLike, skip_mismatch: bool = False, **kwargs: Any) -> None:
    """As in Keras, after the file was checked.

    Raises:
        FileError: missing, damaged or hostile file.
    """
    converter.check_weights(filepath)
    keras.saving.load_weights(model, filepath, skip_mismatch, **kwargs)


def save_weights(model: keras.Model, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
    """As `model.save_weights(filepath)`: a private model's weights are opened to this client first."""
    model.save_weights(filepath, overwrite=overwrite, **kwargs)
