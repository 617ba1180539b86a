"""Layers of Keras' `regularization` family: identities when predicting."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class ActivityRegularization(SecureLayer, keras.layers.ActivityRegularization):
    """The identity when predicting: costs nothing."""


@secure
class AlphaDropout(SecureLayer, keras.layers.AlphaDropout):
    """The identity when predicting: costs nothing."""


@secure
class Dropout(SecureLayer, keras.layers.Dropout):
    """The identity when predicting: costs nothing."""


@secure
class GaussianDropout(SecureLayer, keras.layers.GaussianDropout):
    """The identity when predicting: costs nothing."""


@secure
class GaussianNoise(SecureLayer, keras.layers.GaussianNoise):
    """The identity when predicting: costs nothing."""


@secure
class SpatialDropout1D(SecureLayer, keras.layers.SpatialDropout1D):
    """The identity when predicting: costs nothing."""


@secure
class SpatialDropout2D(SecureLayer, keras.layers.SpatialDropout2D):
    """The identity when predicting: costs nothing."""


@secure
class SpatialDropout3D(SecureLayer, keras.layers.SpatialDropout3D):
    """The identity when predicting: costs nothing."""
