"""Layers of Keras' `core` family."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class Dense(SecureLayer, keras.layers.Dense):
    """Matrix product, bias and activation: one product per output, one truncation; off by 2^-18 or so."""


@secure
class EinsumDense(SecureLayer, keras.layers.EinsumDense):
    """Einsum with a kernel: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Embedding(SecureLayer, keras.layers.Embedding):
    """Secret indices: a one-hot vector per index, times the table; exact to one truncation."""


@secure
class ReversibleEmbedding(SecureLayer, keras.layers.ReversibleEmbedding):
    """Secret indices: a one-hot vector per index, times the table; exact to one truncation."""


@secure
class Identity(SecureLayer, keras.layers.Identity):
    """Costs nothing."""


@secure
class InputLayer(SecureLayer, keras.layers.InputLayer):
    """Where secret data enters; costs the sharing of the data, 8 bytes per element and evaluating server."""


@secure
class Lambda(SecureLayer, keras.layers.Lambda):
    """Holds Python code, which is never loaded from a file; a model built in code is traced if keras.ops suffice."""


@secure
class Masking(SecureLayer, keras.layers.Masking):
    """Compares every element with `mask_value`."""


@secure
class Wrapper(SecureLayer, keras.layers.Wrapper):
    """Costs what the wrapped layer costs."""
