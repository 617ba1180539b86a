"""What `compile` can refuse before any data are there."""
import warnings
from typing import Any

import keras

from private_keras.errors import UnsupportedError
from private_keras.models.training.labels import by_output
from private_keras.tracing.training.losses import labels, wants_probabilities
from private_keras.tracing.training.optimizers import REFUSED


def checked_optimizer(optimizer: Any) -> Any:
    """The optimiser as an object.

    Raises:
        UnsupportedError: one that cannot run on shares.
        ValueError: from Keras, one that it does not know.
    """
    made = keras.optimizers.get(optimizer) if optimizer is not None else None
    for kind, reason in REFUSED.items():
        if isinstance(made, kind):
            raise UnsupportedError(f"optimizer {kind.__name__} cannot run on shares: {reason}")
    return made


# Names that Keras makes a metric of when it knows outputs and targets.
_CHOSEN = ("accuracy", "acc", "crossentropy", "ce")


def check_compiled(model: keras.Model) -> None:
    """Refuses losses that cannot run on shares, and names that are no metric.

    Raises:
        UnsupportedError: naming what and the reason.
        ValueError: from Keras, a name that it does not know.
    """
    measured = model._compile_metrics
    if measured is not None:
        for metric in keras.tree.flatten((measured._user_metrics, measured._user_weighted_metrics)):
            if isinstance(metric, str) and metric not in _CHOSEN:
                keras.metrics.get(metric)
    compiled = model._compile_loss
    if compiled is None:
        return
    for loss in keras.tree.flatten(compiled._user_loss):
        if loss is not None:
            labels(loss, (None, 1))
    _warn_of_logits(model)


def _warn_of_logits(model: keras.Model) -> None:
    """Cross-entropy of numbers that are no probabilities: Keras clips them and learns little, here they diverge."""
    outputs = getattr(getattr(model, "_functional", None) or model, "outputs", None) or []
    names = list(getattr(model, "output_names", None) or [tensor.name for tensor in outputs])
    losses = by_output(model._compile_loss._user_loss, names) if len(names) == len(outputs) else None
    for name, output, loss in zip(names, outputs, losses or [], strict=False):
        layer = output._keras_history.operation
        linear = getattr(layer, "activation", None) is keras.activations.linear and hasattr(layer, "kernel")
        if linear and not isinstance(loss, list | tuple | dict) and loss is not None and wants_probabilities(loss):
            warnings.warn(
                f"model {model.name!r}: output {name!r} has no activation, and its loss expects probabilities. Give "
                f"layer {layer.name!r} a softmax or sigmoid, or the loss from_logits=True.",
                stacklevel=4,
            )
