"""Layers of Keras' `activations` family, exact or as polynomials; and `Sigmoid`, which Keras has only as a function."""
import keras

from private_keras.layers.polynomial import Approximation, polynomial
from private_keras.layers.secure import SecureLayer, secure


@secure
class Activation(SecureLayer, keras.layers.Activation):
    """Any activation function; costs what the function costs.

    Args:
        activation: as in Keras.
        approximation: None for the function itself, "polynomial" or coefficients: see `polynomial`.
    """

    def __init__(self, activation, approximation: Approximation = None, **kwargs):
        super().__init__(activation, **kwargs)
        self.approximation = approximation
        self._polynomial = polynomial(approximation, getattr(self.activation, "__name__", str(self.activation)))

    def call(self, inputs):
        return super().call(inputs) if self._polynomial is None else self._polynomial(inputs)

    def get_config(self):
        return {**super().get_config(), "approximation": self.approximation}


@secure
class ReLU(SecureLayer, keras.layers.ReLU):
    """One comparison per element, exact; with `approximation`, two products per element and no comparison.

    Args:
        max_value, negative_slope, threshold: as in Keras.
        approximation: None for the exact function, "polynomial" or coefficients: see `polynomial`.
    """

    def __init__(
        self, max_value=None, negative_slope=0.0, threshold=0.0, approximation: Approximation = None, **kwargs
    ):
        super().__init__(max_value, negative_slope, threshold, **kwargs)
        if approximation is not None and (max_value is not None or negative_slope or threshold):
            raise ValueError(
                "approximation replaces max(x, 0): leave max_value, negative_slope and threshold at their defaults. "
                f"Received: max_value={max_value}, negative_slope={negative_slope}, threshold={threshold}"
            )
        self.approximation = approximation
        self._polynomial = polynomial(approximation, "relu")

    def call(self, inputs):
        return super().call(inputs) if self._polynomial is None else self._polynomial(inputs)

    def get_config(self):
        return {**super().get_config(), "approximation": self.approximation}


@secure
class Sigmoid(SecureLayer, keras.Layer):
    """A spline, error below 1e-4; with `approximation`, a polynomial.

    Args:
        approximation: None for the function itself, "polynomial" or coefficients: see `polynomial`.
    """

    def __init__(self, approximation: Approximation = None, **kwargs):
        super().__init__(**kwargs)
        self.approximation = approximation
        self._polynomial = polynomial(approximation, "sigmoid")

    def call(self, inputs):
        return keras.ops.sigmoid(inputs) if self._polynomial is None else self._polynomial(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "approximation": self.approximation}


@secure
class Softmax(SecureLayer, keras.layers.Softmax):
    """A maximum, an exponential and a reciprocal per row: about 21 rounds for 10 classes."""


@secure
class ELU(SecureLayer, keras.layers.ELU):
    """A comparison and an exponential per element."""


@secure
class LeakyReLU(SecureLayer, keras.layers.LeakyReLU):
    """One comparison per element, and a product with a public number."""


@secure
class PReLU(SecureLayer, keras.layers.PReLU):
    """One comparison and one product per element."""
