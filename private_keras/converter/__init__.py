"""Model files to plain Keras models, without ever running code that a file brings along.

Every name in a file's configuration is looked up in a closed table, every size is checked before memory is allocated,
and anything that is not right is an `errors.FileError` with the path, what is wrong and what to do.
"""
from private_keras.converter.read import check_weights, model_from_json, read_model

__all__ = ["check_weights", "model_from_json", "read_model"]
