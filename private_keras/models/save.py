"""`save_model`."""
from typing import Any

import keras


def save_model(
    model: keras.Model, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
) -> None:
    """As `model.save(filepath)`: a private model's weights are opened to this client first."""
    model.save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
