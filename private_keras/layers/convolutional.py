"""Layers of Keras' `convolutional` family: one product per output whatever the window, and one truncation."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class Conv1D(SecureLayer, keras.layers.Conv1D):
    """Convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Conv1DTranspose(SecureLayer, keras.layers.Conv1DTranspose):
    """Transposed convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Conv2D(SecureLayer, keras.layers.Conv2D):
    """Convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Conv2DTranspose(SecureLayer, keras.layers.Conv2DTranspose):
    """Transposed convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Conv3D(SecureLayer, keras.layers.Conv3D):
    """Convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class Conv3DTranspose(SecureLayer, keras.layers.Conv3DTranspose):
    """Transposed convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class DepthwiseConv1D(SecureLayer, keras.layers.DepthwiseConv1D):
    """Depthwise convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class DepthwiseConv2D(SecureLayer, keras.layers.DepthwiseConv2D):
    """Depthwise convolution: one product per output, one truncation; off by 2^-18 or so."""


@secure
class SeparableConv1D(SecureLayer, keras.layers.SeparableConv1D):
    """Depthwise, then pointwise convolution: two products, two truncations; off by 2^-17 or so."""


@secure
class SeparableConv2D(SecureLayer, keras.layers.SeparableConv2D):
    """Depthwise, then pointwise convolution: two products, two truncations; off by 2^-17 or so."""


# Keras' other names for the same classes.
Convolution1D = Conv1D
Convolution1DTranspose = Conv1DTranspose
Convolution2D = Conv2D
Convolution2DTranspose = Conv2DTranspose
Convolution3D = Conv3D
Convolution3DTranspose = Conv3DTranspose
SeparableConvolution1D = SeparableConv1D
SeparableConvolution2D = SeparableConv2D
