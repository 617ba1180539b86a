"""Layers of Keras' `normalization` family."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class BatchNormalization(SecureLayer, keras.layers.BatchNormalization):
    """When predicting, a product with known numbers, folded into a linear layer before it: then it costs nothing."""


@secure
class GroupNormalization(SecureLayer, keras.layers.GroupNormalization):
    """Mean, variance and a reciprocal square root per group of channels."""


@secure
class LayerNormalization(SecureLayer, keras.layers.LayerNormalization):
    """Mean, variance and a reciprocal square root per row."""


@secure
class RMSNormalization(SecureLayer, keras.layers.RMSNormalization):
    """Mean of squares and a reciprocal square root per row."""


@secure
class SpectralNormalization(SecureLayer, keras.layers.SpectralNormalization):
    """When predicting, the wrapped layer with a kernel normalised beforehand."""


@secure
class UnitNormalization(SecureLayer, keras.layers.UnitNormalization):
    """Sum of squares and a reciprocal square root per row."""
