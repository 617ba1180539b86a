"""A model's weights in a plan: states on the servers, or public inputs where their owner declares them public."""

import re
from collections.abc import Iterator
from typing import Any

import keras

from private_keras.errors import UnsupportedError
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.names import path_of
from private_keras.tracing.states import StateTensor
from private_keras.tracing.training.traced import PublicInput, State
from private_keras.tracing.values import Secret


class Weights:
    """Stand-ins for a model's variables while it is recorded, and their inputs in the plan.

    Attributes:
        states: declared so far, by name in the plan.
        public: public weights declared so far, by name in the plan.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._index = {id(variable): i for i, variable in enumerate(model.weights)}
        self._tensors: dict[int, StateTensor] = {}
        self._public = {
            id(variable)
            for layer in (model, *model._flatten_layers(include_self=False))
            if getattr(layer, "public", False)
            for variable in layer.weights
        }
        self.states: dict[str, State] = {}
        self.public: dict[str, PublicInput] = {}

    def stand_in(self, variable: keras.Variable) -> StateTensor:
        """The symbolic tensor for a variable."""
        self._index.setdefault(id(variable), len(self._index))
        return self._tensors.setdefault(id(variable), StateTensor(variable))

    def assigned(self) -> Iterator[StateTensor]:
        """The variables that the model changed, in order of their names."""
        return (t for t in self._ordered() if t.assigned)

    def is_public(self, variable: keras.Variable) -> bool:
        """Whether the layer that holds a variable, or one around it, is public."""
        return id(variable) in self._public

    def declare(self, lo: Lowering, variable: keras.Variable) -> Secret:
        """The value of a variable before the step: an input of the plan, declared at its first use."""
        number = self._index[id(variable)]
        kind = keras.backend.standardize_dtype(variable.dtype)
        fraction = lo.fraction if kind.startswith(("float", "bfloat")) else 0
        name = f"weight/{number}/{sanitised(variable.path)}"
        shape = tuple(variable.shape)
        if self.is_public(variable):
            name = f"public/{name}"
            if name not in self.public:
                lo.builder.input(name, shape, fraction, lo.owner, label=path_of(variable.path), public=True)
                self.public[name] = PublicInput(name, shape, fraction, variable)
        elif name not in self.states:
            lo.builder.input(name, shape, fraction, lo.owner, label=path_of(variable.path))
            self.states[name] = State(name, "weight", shape, fraction, variable)
        return lo.secret(name)

    def values(self, lo: Lowering, tensors: list[Any]) -> dict[int, Secret]:
        """Declares the weights whose values before the step are among `tensors`; their values by id of the tensor."""
        used = {id(t) for t in tensors}
        return {
            id(t.initial): self.declare(lo, t.variable) for t in self._ordered() if id(t.initial) in used
        }

    def trainable(self) -> list[keras.Variable]:
        """The model's trainable weights, in Keras' order.

        Raises:
            UnsupportedError: one of them is public; an update computed from secret data would have to be opened.
        """
        for variable in self._model.trainable_weights:
            if self.is_public(variable):
                raise UnsupportedError(
                    f"'{variable.path}' is public and trainable, but what is learned from secret data stays secret. "
                    "Set trainable=False on the public layer, or do not declare it public."
                )
        return list(self._model.trainable_weights)

    def _ordered(self) -> list[StateTensor]:
        return sorted(self._tensors.values(), key=lambda t: self._index[id(t.variable)])


def sanitised(path: str) -> str:
    """A variable's path, made fit for a name in a plan."""
    return re.sub(r"[^A-Za-z0-9_.:/-]", "_", path_of(path))[-150:]
