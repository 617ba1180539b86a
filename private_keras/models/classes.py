"""`Sequential` and `Model`: Keras' own classes, predicting on shares."""
import keras
from keras.src.models.functional import Functional as KerasFunctional

from private_keras.layers.secure import PACKAGE
from private_keras.models.private import PrivateModel


@keras.saving.register_keras_serializable(PACKAGE)
class Sequential(PrivateModel, keras.Sequential):
    """`keras.Sequential` whose `predict` runs on secret shares."""


@keras.saving.register_keras_serializable(PACKAGE)
class Model(PrivateModel, keras.Model):
    """`keras.Model` whose `predict` runs on secret shares: `Model(inputs, outputs)`, or a subclass with its own `call`.

    A subclass writes `call` with layers and `keras.ops`; what cannot be traced is refused before anything is shared.
    """

    def __new__(cls, *args, **kwargs):
        if cls is Model and _functional(args, kwargs):
            return KerasFunctional.__new__(Functional, *args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        if _functional(args, kwargs):
            # A subclass that hands inputs and outputs to its base. Keras rewrites the bases of the class for it; a
            # class of this one object does the same without changing other objects.
            cls = type(self)
            self.__class__ = type(cls.__name__, (cls, Functional), {"__module__": cls.__module__})
            KerasFunctional.__init__(self, *args, **kwargs)
        else:
            super().__init__(*args, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class Functional(Model, KerasFunctional):
    """What `Model(inputs, outputs)` makes."""

    def __init__(self, inputs, outputs, name=None, **kwargs):
        KerasFunctional.__init__(self, inputs, outputs, name=name, **kwargs)


def _functional(args: tuple, kwargs: dict) -> bool:
    """Whether these are arguments of a Functional model, as Keras decides it."""
    return len(args) == 2 or (len(args) == 1 and "outputs" in kwargs) or ("inputs" in kwargs and "outputs" in kwargs)
