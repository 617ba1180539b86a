"""What every layer of this package adds to Keras' layer of the same name."""
import keras

from private_keras.errors import InputError
from private_keras.forecast import Forecast, Network, forecast
from private_keras.tracing import trace

PACKAGE = "private_keras"
# Keras' class -> ours; how a plain Keras model is converted.
COUNTERPARTS: dict[type, type] = {}


def _is_public(layer: keras.Layer) -> bool:
    return getattr(layer, "_declared_public", False)


def _declare_public(layer: keras.Layer, value: bool) -> None:
    if not isinstance(value, bool):
        raise InputError(f"layer {layer.name!r}: public is True or False. Received: {value!r}")
    layer._declared_public = value


PUBLIC = property(
    _is_public,
    _declare_public,
    doc="Whether the owner declares the weights of this layer, and of layers in it, public: servers know them, and "
    "products with them cost no communication. It cannot be trained on secret data then: set trainable=False.",
)


class SecureLayer:
    """Mixin: a Keras layer whose forward pass runs on shares when its model predicts.

    Called by itself, the layer is Keras' own: it computes in the clear, on arrays and symbolic tensors alike.
    """

    public = PUBLIC

    def cost(
        self, input_shape: tuple[int, ...] | list, batch_size: int = 1, network: str | Network = "local"
    ) -> Forecast:
        """Rounds, bytes and seconds of this layer alone, before anything runs.

        Args:
            input_shape: of one sample, without the batch; a list of shapes for a layer with several inputs.
            batch_size: samples predicted together.
            network: "local", "lan", "wan" or a `Network`.

        Raises:
            UnsupportedError: if the layer cannot run on shares.
        """
        # A copy, because calling a layer adds a node to its graph.
        layer = type(self).from_config(self.get_config())
        several = isinstance(input_shape, list)
        inputs = [keras.Input(shape) for shape in (input_shape if several else [input_shape])]
        model = keras.Model(inputs, layer(inputs if several else inputs[0]))
        return forecast(trace(model, batch_size).plan, network)


def secure(cls: type) -> type:
    """Class decorator: makes the layer known to Keras' serialisation and to the conversion of plain models."""
    keras.saving.register_keras_serializable(PACKAGE)(cls)
    plain = cls.__mro__[2]
    if plain is not keras.Layer:
        COUNTERPARTS[plain] = cls
    return cls
