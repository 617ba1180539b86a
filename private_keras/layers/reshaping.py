"""Layers of Keras' `reshaping` family: movements of elements, local to each server."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class Cropping1D(SecureLayer, keras.layers.Cropping1D):
    """Moves elements only: no communication, exact."""


@secure
class Cropping2D(SecureLayer, keras.layers.Cropping2D):
    """Moves elements only: no communication, exact."""


@secure
class Cropping3D(SecureLayer, keras.layers.Cropping3D):
    """Moves elements only: no communication, exact."""


@secure
class Flatten(SecureLayer, keras.layers.Flatten):
    """Moves elements only: no communication, exact."""


@secure
class Permute(SecureLayer, keras.layers.Permute):
    """Moves elements only: no communication, exact."""


@secure
class RepeatVector(SecureLayer, keras.layers.RepeatVector):
    """Moves elements only: no communication, exact."""


@secure
class Reshape(SecureLayer, keras.layers.Reshape):
    """Moves elements only: no communication, exact."""


@secure
class UpSampling1D(SecureLayer, keras.layers.UpSampling1D):
    """Moves elements only: no communication, exact."""


@secure
class UpSampling2D(SecureLayer, keras.layers.UpSampling2D):
    """"nearest" moves elements only: no communication, exact. Other interpolations are products with public numbers."""


@secure
class UpSampling3D(SecureLayer, keras.layers.UpSampling3D):
    """Moves elements only: no communication, exact."""


@secure
class ZeroPadding1D(SecureLayer, keras.layers.ZeroPadding1D):
    """Moves elements only: no communication, exact."""


@secure
class ZeroPadding2D(SecureLayer, keras.layers.ZeroPadding2D):
    """Moves elements only: no communication, exact."""


@secure
class ZeroPadding3D(SecureLayer, keras.layers.ZeroPadding3D):
    """Moves elements only: no communication, exact."""
