"""What training makes small, recorded: the compiled loss, losses that layers add, and regularisers of weights."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from private_keras.errors import UnsupportedError
from private_keras.tracing.symbolic import Graph
from private_keras.tracing.training.weights import Weights

# An output's own loss, and how many samples it is a mean of: (metric that reports it, loss, samples).
Part = tuple[keras.metrics.Metric, keras.KerasTensor, int]


def record_loss(
    model: keras.Model, graph: Graph, x: Any, y: Any, sample_weight: Any, weights: Weights, training: bool
) -> tuple[keras.KerasTensor, list[Part]]:
    """The total loss as Keras computes it, by the model's own `compute_loss` if it has one; to be called in recording.

    Args:
        model: compiled model whose call was recorded.
        graph: what was recorded.
        x: structure of the model's inputs.
        y: structure of targets, or None.
        sample_weight: tensor of one weight for each sample, or None.
        weights: stand-ins of the model's variables.
        training: as in Keras.

    Returns:
        The loss, and the parts of it that Keras reports for models with several outputs.

    Raises:
        UnsupportedError: there is nothing to make small.
    """
    added = list(graph.losses)
    for variable in model.trainable_weights:
        if variable.regularizer is not None:
            added.append(variable.regularizer(weights.stand_in(variable)))
    parts: list[Part] = []
    with _losses(model, graph, added), _collected(model._compile_loss, parts):
        if type(model).compute_loss is not keras.Model.compute_loss:
            loss = model._compute_loss(x=x, y=y, y_pred=graph.outputs, sample_weight=sample_weight, training=training)
        else:
            # Keras' own adds up a list of tensors in one operation, which takes no symbolic ones.
            terms = [model._aggregate_additional_loss(term) for term in added]
            if model._compile_loss is not None:
                terms.insert(0, model._compile_loss(y, graph.outputs, sample_weight))
            terms = [term for term in terms if term is not None]
            if not terms:
                raise UnsupportedError("there is no loss. Give `compile` a `loss`, or add one with `add_loss`.")
            loss = functools.reduce(ops.add, terms)
    return loss, parts


@contextmanager
def _losses(model: keras.Model, graph: Graph, added: list[Any]) -> Iterator[None]:
    """`model.losses` is `added`; losses of earlier calls on arrays are laid aside."""
    kept = [(vars(layer), vars(layer).get("_losses")) for layer in graph.layers]
    override = vars(model).get("_losses_override")
    try:
        for attributes, _ in kept:
            attributes["_losses"] = []
        vars(model)["_losses_override"] = added
        yield
    finally:
        vars(model)["_losses_override"] = override
        for attributes, losses in kept:
            attributes["_losses"] = losses


@contextmanager
def _collected(loss: Any, parts: list[Part]) -> Iterator[None]:
    """The metrics in which Keras keeps the losses of several outputs get nothing; what they would get is collected."""
    undo: list[Callable[[], Any]] = []

    def collect(metric: keras.metrics.Metric) -> None:
        vars(metric)["update_state"] = lambda value, sample_weight=None: parts.append((metric, value, sample_weight))
        undo.append(lambda: vars(metric).pop("update_state", None))

    def build(*args: Any) -> None:
        type(loss).build(loss, *args)
        for metric in loss.metrics:
            collect(metric)

    try:
        if loss is not None and loss.built:
            for metric in loss.metrics:
                collect(metric)
        elif loss is not None:
            vars(loss)["build"] = build
            undo.append(lambda: vars(loss).pop("build", None))
        yield
    finally:
        for put_back in undo:
            put_back()
