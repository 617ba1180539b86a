"""Layers of Keras that run another framework's code: they exist so that a model with one is refused by name."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class FlaxLayer(SecureLayer, keras.layers.FlaxLayer):
    """Runs a Flax module; cannot run on shares. Rebuild it with keras.layers."""


@secure
class JaxLayer(SecureLayer, keras.layers.JaxLayer):
    """Runs a JAX function; cannot run on shares. Rebuild it with keras.layers."""


@secure
class TFSMLayer(SecureLayer, keras.layers.TFSMLayer):
    """Runs a TensorFlow SavedModel; cannot run on shares. Rebuild it with keras.layers."""


@secure
class TorchModuleWrapper(SecureLayer, keras.layers.TorchModuleWrapper):
    """Runs a PyTorch module; cannot run on shares. Rebuild it with keras.layers."""
