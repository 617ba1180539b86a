"""`keras.saving`, but for loading: models from files are private, and files are checked first."""
import os
from typing import Any

import keras
from keras.saving import *  # noqa: F403

from private_keras import converter
from private_keras.models import load_model

__all__ = [*(name for name in dir(keras.saving) if not name.startswith("_")), "load_model", "load_weights"]  # noqa: PLE0604


def load_weights(model: keras.Model, filepath: str | os.PathLike, skip_mismatch: bool = False, **kwargs: Any) -> None:
    """As in Keras, after the file was checked.

    Raises:
        FileError: missing, damaged or hostile file.
    """
    converter.check_weights(filepath)
    keras.saving.load_weights(model, filepath, skip_mismatch, **kwargs)
