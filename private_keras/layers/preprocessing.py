"""Layers of Keras' `preprocessing` family. Those for text and strings belong before sharing."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class CategoryEncoding(SecureLayer, keras.layers.CategoryEncoding):
    """Secret integers to one-hot vectors."""


@secure
class Discretization(SecureLayer, keras.layers.Discretization):
    """One comparison per boundary."""


@secure
class HashedCrossing(SecureLayer, keras.layers.HashedCrossing):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class Hashing(SecureLayer, keras.layers.Hashing):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class IntegerLookup(SecureLayer, keras.layers.IntegerLookup):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class MelSpectrogram(SecureLayer, keras.layers.MelSpectrogram):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class Normalization(SecureLayer, keras.layers.Normalization):
    """A product with known numbers; off by 2^-18 or so."""


@secure
class Pipeline(SecureLayer, keras.layers.Pipeline):
    """Costs what its layers cost."""


@secure
class Rescaling(SecureLayer, keras.layers.Rescaling):
    """A product with a public number: one truncation."""


@secure
class STFTSpectrogram(SecureLayer, keras.layers.STFTSpectrogram):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class StringLookup(SecureLayer, keras.layers.StringLookup):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class TextVectorization(SecureLayer, keras.layers.TextVectorization):
    """Cannot run on shares; apply it to the data before predict."""
