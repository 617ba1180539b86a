"""Layers that turn integers and ranges into categories, written in `keras.ops`."""

from typing import Any

import numpy as np
from keras import layers, ops

from private_keras.errors import UnsupportedError


def category_encoding(layer: layers.CategoryEncoding, inputs: Any, count_weights: Any = None) -> Any:
    return _encoded(inputs, layer.output_mode, layer.num_tokens, layer.compute_dtype, layer.sparse, count_weights)


def discretization(layer: layers.Discretization, inputs: Any) -> Any:
    """How many boundaries lie at or below x. Boundaries come from data, so they are shared like weights."""
    boundaries = np.asarray(layer.bin_boundaries, "float32")
    above = ops.greater_equal(ops.expand_dims(inputs, -1), boundaries)
    indices = ops.sum(ops.cast(above, "int32"), axis=-1)
    depth = len(boundaries) + 1
    if layer.output_mode == "int":
        return indices
    return _encoded(indices, layer.output_mode, depth, layer.compute_dtype, layer.sparse, None)


def _encoded(indices: Any, mode: str, depth: int, dtype: str, sparse: bool, weights: Any) -> Any:
    if sparse:
        raise UnsupportedError("sparse outputs are not available on shares; use sparse=False.")
    if not indices.dtype.startswith(("int", "uint")):
        indices = ops.cast(indices, "int32")
    if mode == "one_hot":
        if len(indices.shape) > 1 and indices.shape[-1] == 1:
            indices = ops.squeeze(indices, -1)
        return ops.one_hot(indices, depth, dtype=dtype)
    hot = ops.one_hot(indices, depth, dtype=dtype)
    if weights is not None:
        hot = ops.multiply(hot, ops.expand_dims(weights, -1))
    total = ops.sum(hot, axis=1 if len(indices.shape) > 1 else 0)
    return total if mode == "count" else ops.cast(ops.greater(total, 0), dtype)


LAYERS = {layers.CategoryEncoding: category_encoding, layers.Discretization: discretization}
