"""Layers of Keras' `merging` family, and the functions that create and call them."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class Add(SecureLayer, keras.layers.Add):
    """Local, exact."""


@secure
class Average(SecureLayer, keras.layers.Average):
    """Local sum and a product with a public number."""


@secure
class Concatenate(SecureLayer, keras.layers.Concatenate):
    """Moves elements only: no communication, exact."""


@secure
class Dot(SecureLayer, keras.layers.Dot):
    """One product per output, one truncation; off by 2^-18 or so."""


@secure
class Maximum(SecureLayer, keras.layers.Maximum):
    """One comparison per element; exact."""


@secure
class Minimum(SecureLayer, keras.layers.Minimum):
    """One comparison per element; exact."""


@secure
class Multiply(SecureLayer, keras.layers.Multiply):
    """Elementwise: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Subtract(SecureLayer, keras.layers.Subtract):
    """Local, exact."""


def add(inputs: list, **kwargs: object) -> object:
    """Functional form of `Add`."""
    return Add(**kwargs)(inputs)


def average(inputs: list, **kwargs: object) -> object:
    """Functional form of `Average`."""
    return Average(**kwargs)(inputs)


def concatenate(inputs: list, axis: int = -1, **kwargs: object) -> object:
    """Functional form of `Concatenate`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: list, axes: int | tuple[int, int] = -1, **kwargs: object) -> object:
    """Functional form of `Dot`."""
    return Dot(axes=axes, **kwargs)(inputs)


def maximum(inputs: list, **kwargs: object) -> object:
    """Functional form of `Maximum`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: list, **kwargs: object) -> object:
    """Functional form of `Minimum`."""
    return Minimum(**kwargs)(inputs)


def multiply(inputs: list, **kwargs: object) -> object:
    """Functional form of `Multiply`."""
    return Multiply(**kwargs)(inputs)


def subtract(inputs: list, **kwargs: object) -> object:
    """Functional form of `Subtract`."""
    return Subtract(**kwargs)(inputs)
