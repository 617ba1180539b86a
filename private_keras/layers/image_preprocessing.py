"""Layers of Keras' image preprocessing: identities when predicting, or work for before sharing."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class AugMix(SecureLayer, keras.layers.AugMix):
    """The identity when predicting: costs nothing."""


@secure
class AutoContrast(SecureLayer, keras.layers.AutoContrast):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class CenterCrop(SecureLayer, keras.layers.CenterCrop):
    """Moves elements only: no communication, exact."""


@secure
class ContrastLimitedAdaptiveHistogramEqualization(
    SecureLayer, keras.layers.ContrastLimitedAdaptiveHistogramEqualization
):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class CutMix(SecureLayer, keras.layers.CutMix):
    """The identity when predicting: costs nothing."""


@secure
class Equalization(SecureLayer, keras.layers.Equalization):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class MaxNumBoundingBoxes(SecureLayer, keras.layers.MaxNumBoundingBoxes):
    """Cannot run on shares; apply it to the data before predict."""


@secure
class MixUp(SecureLayer, keras.layers.MixUp):
    """The identity when predicting: costs nothing."""


@secure
class RandAugment(SecureLayer, keras.layers.RandAugment):
    """The identity when predicting: costs nothing."""


@secure
class RandomBrightness(SecureLayer, keras.layers.RandomBrightness):
    """The identity when predicting: costs nothing."""


@secure
class RandomColorDegeneration(SecureLayer, keras.layers.RandomColorDegeneration):
    """The identity when predicting: costs nothing."""


@secure
class RandomColorJitter(SecureLayer, keras.layers.RandomColorJitter):
    """The identity when predicting: costs nothing."""


@secure
class RandomContrast(SecureLayer, keras.layers.RandomContrast):
    """The identity when predicting: costs nothing."""


@secure
class RandomCrop(SecureLayer, keras.layers.RandomCrop):
    """The identity when predicting: costs nothing."""


@secure
class RandomElasticTransform(SecureLayer, keras.layers.RandomElasticTransform):
    """The identity when predicting: costs nothing."""


@secure
class RandomErasing(SecureLayer, keras.layers.RandomErasing):
    """The identity when predicting: costs nothing."""


@secure
class RandomFlip(SecureLayer, keras.layers.RandomFlip):
    """The identity when predicting: costs nothing."""


@secure
class RandomGaussianBlur(SecureLayer, keras.layers.RandomGaussianBlur):
    """The identity when predicting: costs nothing."""


@secure
class RandomGrayscale(SecureLayer, keras.layers.RandomGrayscale):
    """The identity when predicting: costs nothing."""


@secure
class RandomHue(SecureLayer, keras.layers.RandomHue):
    """The identity when predicting: costs nothing."""


@secure
class RandomInvert(SecureLayer, keras.layers.RandomInvert):
    """The identity when predicting: costs nothing."""


@secure
class RandomPerspective(SecureLayer, keras.layers.RandomPerspective):
    """The identity when predicting: costs nothing."""


@secure
class RandomPosterization(SecureLayer, keras.layers.RandomPosterization):
    """The identity when predicting: costs nothing."""


@secure
class RandomRotation(SecureLayer, keras.layers.RandomRotation):
    """The identity when predicting: costs nothing."""


@secure
class RandomSaturation(SecureLayer, keras.layers.RandomSaturation):
    """The identity when predicting: costs nothing."""


@secure
class RandomSharpness(SecureLayer, keras.layers.RandomSharpness):
    """The identity when predicting: costs nothing."""


@secure
class RandomShear(SecureLayer, keras.layers.RandomShear):
    """The identity when predicting: costs nothing."""


@secure
class RandomTranslation(SecureLayer, keras.layers.RandomTranslation):
    """The identity when predicting: costs nothing."""


@secure
class RandomZoom(SecureLayer, keras.layers.RandomZoom):
    """The identity when predicting: costs nothing."""


@secure
class Resizing(SecureLayer, keras.layers.Resizing):
    """Products with public numbers, where Keras writes it so; better done before predict."""


@secure
class Solarization(SecureLayer, keras.layers.Solarization):
    """Cannot run on shares; apply it to the data before predict."""
