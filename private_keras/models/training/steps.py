"""The traced steps of a model: traced once for each kind, batch size and form of data, until what they hold changes."""
import copy
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from private_keras.errors import InputError, UnsupportedError
from private_keras.models.training.columns import Columns
from private_keras.models.training.labels import check_targets
from private_keras.tracing.training.results import trace_results
from private_keras.tracing.training.step import trace_step
from private_keras.tracing.training.traced import TracedResults, TracedStep

T = TypeVar("T")
_RANDOM = "random"
_FACTOR = 8


class Steps:
    """Of one model."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._valid_for: tuple = ()
        self._traced_at = 0
        self._cache: dict[tuple, Any] = {}

    def copy(self) -> "Steps":
        """Steps that are traced from here on are not these'."""
        made = copy.copy(self)
        made._cache = dict(self._cache)
        return made

    def predict(self, batch_size: int) -> TracedStep:
        """The step that predicts with weights on the servers."""
        return self._cached(("predict", batch_size), lambda: trace_step(self._model, "predict", batch_size))

    def evaluate(self, columns: Columns, batch_size: int) -> TracedStep:
        """The step that updates metrics."""
        return self._step("evaluate", columns, batch_size, 0)

    def train(self, columns: Columns, batch_size: int, seed: int) -> TracedStep:
        """The step that updates weights, optimiser and metrics.

        Args:
            seed: of dropout and noise.
        """
        step = self._step("train", columns, batch_size, 0)
        if any(item.op == _RANDOM for item in step.plan.steps):
            return self._step("train", columns, batch_size, seed)
        return step

    def results(self, step: TracedStep) -> TracedResults:
        """What opens metrics after steps like this one."""
        metrics = tuple((s.name, s.fraction) for s in step.states.values() if s.kind == "metric")
        key = ("results", step.plan.kind, metrics, tuple(step.tallies))
        return self._cached(key, lambda: trace_results(self._model, step))

    def _step(self, kind: str, columns: Columns, batch_size: int, seed: int) -> TracedStep:
        if not self._model.compiled:
            raise InputError(f"model {self._model.name!r} is not compiled. Call compile(optimizer, loss) before.")
        refuse_own_steps(self._model)
        if not self._model.built:
            _build(self._model, columns)
        weighted = columns.weight is not None

        def trace() -> TracedStep:
            check_targets(self._model, columns)
            return trace_step(
                self._model, kind, batch_size, y=columns.targets, sample_weight=weighted, seed=seed
            )

        return self._cached((kind, batch_size, columns.kind, seed), trace)

    def _cached(self, key: tuple, make: Callable[[], T]) -> T:
        now = self._basis()
        optimizer = self._model.optimizer if self._model.compiled else None
        iteration = 0 if optimizer is None else int(optimizer._iterations)
        # Schedules begin at the iteration that they were traced at: weights of an earlier one may have been loaded.
        if now != self._valid_for or iteration < self._traced_at:
            self._valid_for = now
            self._traced_at = 0
            self._cache.clear()
        if key not in self._cache:
            if not self._model.built:
                raise _unbuilt(self._model)
            self._cache[key] = make()
            self._traced_at = max(self._traced_at, iteration)
        return self._cache[key]

    def _basis(self) -> tuple:
        """What plans depend on besides the model's architecture."""
        model = self._model
        layers = model._flatten_layers()
        flags = tuple((layer.trainable, bool(getattr(layer, "public", False))) for layer in layers)
        if not model.compiled:
            return (flags,)
        # The objects themselves, so that another one at the same address is not taken for them.
        parts = (model.optimizer, model._compile_loss, model._compile_metrics)
        return (flags, *map(_Same, parts), _settings(model.optimizer))


def _build(model: keras.Model, columns: Columns) -> None:
    """Builds a model of one input for the shape of the data, as Keras does in the first fit."""
    if len(columns.x) != 1:
        raise _unbuilt(model)
    shape = (None, *columns.x[0].shape[1:])
    try:
        if isinstance(model, keras.Sequential):
            model.build(shape)
        else:
            model(keras.KerasTensor(shape))
    except (TypeError, ValueError) as error:
        raise InputError(f"model {model.name!r} cannot be built for data of shape {columns.x[0].shape}: {error}. Begin "
                         "it with keras.Input(shape).") from error
    if not model.built:
        raise _unbuilt(model)


def _unbuilt(model: keras.Model) -> InputError:
    return InputError(
        f"model {model.name!r} is not built, so that its shapes are unknown. Begin it with keras.Input(shape), or call "
        "model.build(shape)."
    )


class _Same:
    """Equal for the same object alone."""

    def __init__(self, item: Any):
        self._item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._item is self._item

    def __hash__(self) -> int:
        return id(self._item)


def _settings(optimizer: keras.optimizers.Optimizer | None) -> str:
    """What may be set on an optimiser between two fits, but for the learning rate's value, read in every job."""
    if optimizer is None:
        return ""
    config = optimizer.get_config()
    config["learning_rate"] = _size(optimizer._learning_rate)
    return json.dumps(config, sort_keys=True, default=repr)


def _size(rate: Any) -> int:
    """Of a learning rate: plans are made for its size and not for its value."""
    if not isinstance(rate, keras.Variable):
        return 0
    value = abs(float(keras.ops.convert_to_numpy(rate)))
    return round(math.log(value, _FACTOR)) if 0 < value < math.inf else 0


def refuse_own_steps(model: keras.Model) -> None:
    """A step that Keras would run in the clear is not ours to run.

    Raises:
        UnsupportedError: the model has a train_step or test_step of its own, or is to run eagerly.
    """
    for name in ("train_step", "test_step"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise UnsupportedError(
                f"model {model.name!r}: {type(model).__name__}.{name} is Python code that computes in the clear. Write "
                "the loss in compute_loss or as a keras.losses.Loss, and what the model does in call."
            )
    if model.run_eagerly:
        raise UnsupportedError(
            f"model {model.name!r} was compiled with run_eagerly=True, but steps run on servers. Leave it out; "
            'pk.connect(protocol="simulate") runs the same steps in this process.'
        )
