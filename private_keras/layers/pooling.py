"""Layers of Keras' `pooling` family."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class AveragePooling1D(SecureLayer, keras.layers.AveragePooling1D):
    """A sum, which is local, and one product with a public number."""


@secure
class AveragePooling2D(SecureLayer, keras.layers.AveragePooling2D):
    """A sum, which is local, and one product with a public number."""


@secure
class AveragePooling3D(SecureLayer, keras.layers.AveragePooling3D):
    """A sum, which is local, and one product with a public number."""


@secure
class MaxPooling1D(SecureLayer, keras.layers.MaxPooling1D):
    """A tournament of comparisons over the window; exact."""


@secure
class MaxPooling2D(SecureLayer, keras.layers.MaxPooling2D):
    """A tournament of comparisons over the window; exact."""


@secure
class MaxPooling3D(SecureLayer, keras.layers.MaxPooling3D):
    """A tournament of comparisons over the window; exact."""


@secure
class GlobalAveragePooling1D(SecureLayer, keras.layers.GlobalAveragePooling1D):
    """A sum, which is local, and one product with a public number."""


@secure
class GlobalAveragePooling2D(SecureLayer, keras.layers.GlobalAveragePooling2D):
    """A sum, which is local, and one product with a public number."""


@secure
class GlobalAveragePooling3D(SecureLayer, keras.layers.GlobalAveragePooling3D):
    """A sum, which is local, and one product with a public number."""


@secure
class GlobalMaxPooling1D(SecureLayer, keras.layers.GlobalMaxPooling1D):
    """A tournament of comparisons over the window; exact."""


@secure
class GlobalMaxPooling2D(SecureLayer, keras.layers.GlobalMaxPooling2D):
    """A tournament of comparisons over the window; exact."""


@secure
class GlobalMaxPooling3D(SecureLayer, keras.layers.GlobalMaxPooling3D):
    """A tournament of comparisons over the window; exact."""


@secure
class AdaptiveAveragePooling1D(SecureLayer, keras.layers.AdaptiveAveragePooling1D):
    """A sum, which is local, and one product with a public number."""


@secure
class AdaptiveAveragePooling2D(SecureLayer, keras.layers.AdaptiveAveragePooling2D):
    """A sum, which is local, and one product with a public number."""


@secure
class AdaptiveAveragePooling3D(SecureLayer, keras.layers.AdaptiveAveragePooling3D):
    """A sum, which is local, and one product with a public number."""


@secure
class AdaptiveMaxPooling1D(SecureLayer, keras.layers.AdaptiveMaxPooling1D):
    """A tournament of comparisons over the window; exact."""


@secure
class AdaptiveMaxPooling2D(SecureLayer, keras.layers.AdaptiveMaxPooling2D):
    """A tournament of comparisons over the window; exact."""


@secure
class AdaptiveMaxPooling3D(SecureLayer, keras.layers.AdaptiveMaxPooling3D):
    """A tournament of comparisons over the window; exact."""


# Keras' other names for the same classes.
AvgPool1D = AveragePooling1D
AvgPool2D = AveragePooling2D
AvgPool3D = AveragePooling3D
MaxPool1D = MaxPooling1D
MaxPool2D = MaxPooling2D
MaxPool3D = MaxPooling3D
GlobalAvgPool1D = GlobalAveragePooling1D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalAvgPool3D = GlobalAveragePooling3D
GlobalMaxPool1D = GlobalMaxPooling1D
GlobalMaxPool2D = GlobalMaxPooling2D
GlobalMaxPool3D = GlobalMaxPooling3D
