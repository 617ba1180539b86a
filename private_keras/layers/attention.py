"""Layers of Keras' `attention` family: products and a softmax per row of scores."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class AdditiveAttention(SecureLayer, keras.layers.AdditiveAttention):
    """Tanh of every pair, a softmax, one product."""


@secure
class Attention(SecureLayer, keras.layers.Attention):
    """Two products and a softmax."""


@secure
class GroupQueryAttention(SecureLayer, keras.layers.GroupQueryAttention):
    """Four projections, two products and a softmax."""


@secure
class MultiHeadAttention(SecureLayer, keras.layers.MultiHeadAttention):
    """Four projections, two products and a softmax."""
