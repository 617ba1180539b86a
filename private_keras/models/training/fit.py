"""The loop of `fit`: Keras' callbacks and progress bar around jobs in which servers run many steps by themselves."""
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing

from private_keras.cluster import Cluster, current
from private_keras.errors import ClusterError, DivergenceError, InputError
from private_keras.models import inputs
from private_keras.models.training import averages, checkpoint, outset
from private_keras.models.training.evaluate import evaluation_feed, require_compiled, run_evaluation
from private_keras.models.training.feeds import ArrayFeed, Feed, Segment, feed, is_stream
from private_keras.models.training.jobs import Jobs, Logs
from private_keras.models.training.labels import checked
from private_keras.models.training.options import Options
from private_keras.models.training.watch import acts_on_batches, refuse


def fit(
    model: keras.Model, jobs: Jobs, x: Any, y: Any, sample_weight: Any, validation_data: Any, validation_split: float,
    verbose: str | int, callbacks: Any, options: Options,
) -> keras.callbacks.History:
    """See `PrivateModel.fit`."""
    require_compiled(model, "fit")
    resumed = checkpoint.find(options) if options.resume else None
    if resumed is not None:
        options = resumed.applied(options)
    if validation_split and validation_data is None:
        (x, y, sample_weight), validation_data = _split(model, x, y, sample_weight, validation_split)
    train = feed(
        model, x, y, sample_weight, batch_size=options.batch_size, steps=options.steps_per_epoch,
        shuffle=options.shuffle, class_weight=options.class_weight, seed=options.seed,
        check=lambda traced, columns: checked(model, traced, columns), number=options.initial_epoch,
    )  # fmt: skip
    if isinstance(train, ArrayFeed):
        traced = jobs.steps.train(train.columns, train.size, options.seed)
        values = train.prepare(traced)
        if resumed is None:
            outset.check(model, jobs.holdings, traced, values)
    validation = None
    if validation_data is not None:
        val_x, val_y, val_weight = _unpacked(model, validation_data)
        size = options.validation_batch_size or options.batch_size
        validation = evaluation_feed(
            model, jobs, val_x, val_y, val_weight, None if is_stream(val_x) else size, options.validation_steps
        )
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_history=True, add_progbar=verbose != 0, verbose=verbose, epochs=options.epochs,
            steps=train.num_batches, model=model,
        )  # fmt: skip
    refuse(callbacks.callbacks)
    return _Fit(model, jobs, train, validation, callbacks, options, resumed).run()


class _Fit:
    """One run of `fit`."""

    def __init__(
        self, model: keras.Model, jobs: Jobs, train: Feed, validation: Feed | None,
        callbacks: keras.callbacks.CallbackList, options: Options, resumed: checkpoint.Checkpoint | None,
    ):
        self._model = model
        self._jobs = jobs
        self._train = train
        self._validation = validation
        self._callbacks = callbacks
        self._options = options
        self._resumed = resumed
        self._every = acts_on_batches(callbacks.callbacks, "train")
        self._cluster: Cluster = current()

    def run(self) -> keras.callbacks.History:
        model, options = self._model, self._options
        skip = 0
        if self._resumed is not None:
            checkpoint.take(model, self._jobs, self._cluster, self._resumed)
            skip = self._resumed.step
            if isinstance(self._train, ArrayFeed):
                self._train.seek(self._resumed.position)
        model.stop_training = False
        self._callbacks.on_train_begin()
        initial = model._initial_epoch or options.initial_epoch
        logs: Logs | None = None
        for epoch in range(initial, options.epochs):
            logs = self._epoch(epoch, skip)
            skip = 0
            if model.stop_training:
                break
        if options.epochs > 0:
            averages.finish(model, self._jobs, self._cluster)
        self._callbacks.on_train_end(logs)
        return model.history

    def _epoch(self, epoch: int, skip: int) -> Logs | None:
        """One epoch; `skip` steps of it were done before."""
        model, callbacks = self._model, self._callbacks
        if not skip:
            self._jobs.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        before = self._jobs.snapshot()
        try:
            self._steps(epoch, skip)
            logs = self._jobs.open(self._cluster, guard=True)
        except DivergenceError:
            self._jobs.restore(before)
            if not any(isinstance(c, keras.callbacks.TerminateOnNaN) for c in callbacks.callbacks):
                raise
            logs = {"loss": float("nan")}
            for callback in callbacks.callbacks:
                if isinstance(callback, keras.callbacks.TerminateOnNaN):
                    callback.on_train_batch_end(0, logs)
            callbacks.on_epoch_end(epoch, logs)
            model.stop_training = True
            return logs
        except ClusterError as error:
            raise self._advised(error) from error
        if self._validation is not None and self._options.validates(epoch):
            results = run_evaluation(model, self._jobs, self._validation, 0, callbacks)
            logs.update({f"val_{name}": value for name, value in results.items()})
        callbacks.on_epoch_end(epoch, logs)
        if self._options.checkpoint is not None:
            self._save(epoch + 1, 0, self._train.position)
        return logs

    def _steps(self, epoch: int, skip: int) -> None:
        model, callbacks, options = self._model, self._callbacks, self._options
        position = self._train.position
        steps = skip
        for segment in self._train.segments(self._stops, skip):
            begin = None if self._every else self._progress(segment)
            callbacks.on_train_batch_begin(segment.first)
            traced = self._jobs.steps.train(segment.sample, segment.rows, options.seed)
            given = self._train.given(self._cluster, traced, segment)
            self._jobs.run(self._cluster, traced, given, segment.steps, begin)
            steps = segment.first + segment.steps
            logs = self._jobs.open(self._cluster, guard=True) if options.opens(steps) else {}
            callbacks.on_train_batch_end(steps - 1, logs)
            if options.saves(steps):
                self._jobs.check(self._cluster)
                self._save(epoch, steps, position)
            if model.stop_training:
                break
        if not steps:
            raise InputError(f"model {model.name!r}: expected at least one batch. Received: data without any")

    def _stops(self, step: int) -> bool:
        every = self._every and step % self._model.steps_per_execution == 0
        return every or self._options.opens(step) or self._options.saves(step)

    def _progress(self, segment: Segment) -> Callable[[int], None]:
        def on_step(done: int) -> None:
            if done < segment.steps:  # the last one is told when the job has ended
                self._callbacks.on_train_batch_end(segment.first + done - 1, {})

        return on_step

    def _save(self, epoch: int, step: int, position: tuple[int, int]) -> None:
        fit = checkpoint.Progress(epoch, step, position, self._options.seed)
        checkpoint.save(self._model, self._jobs, self._cluster, self._options.checkpoint, fit)

    def _advised(self, error: ClusterError) -> ClusterError:
        """The error with what to do about this fit."""
        name = self._options.checkpoint
        advice = (
            f"Go on with the same arguments and fit(..., checkpoint={name!r}, resume=True)." if name else
            "fit(..., checkpoint='name') would keep the last epoch on the servers' disks, to resume from."
        )
        return type(error)(f"fit of model {self._model.name!r} ended: {error}. {advice}")


def _split(model: keras.Model, x: Any, y: Any, sample_weight: Any, share: float) -> tuple:
    if not isinstance(share, float) or not 0 < share < 1:
        raise InputError(f"validation_split: expected a number between 0 and 1. Received: {share!r}")
    if is_stream(x):
        raise InputError(f"model {model.name!r}: validation_split needs arrays. Received: {type(x).__name__}; give "
                         "validation_data")
    if inputs.is_secret((x, y, sample_weight)):
        return _split_rows(model, (x, y, sample_weight), share)
    try:
        return array_slicing.train_validation_split((x, y, sample_weight), validation_split=share)
    except ValueError as error:
        raise InputError(f"model {model.name!r}: validation_split: {str(error).splitlines()[0][:200]}") from None


def _split_rows(model: keras.Model, data: Any, share: float) -> tuple[Any, Any]:
    """As Keras does, of data with secret tensors among them: public rows, the first and the last."""
    x, y, sample_weight = (
        np.asarray(part) if isinstance(part, list | tuple) and inputs.is_nested_numbers(part) else part for part in data
    )
    data = keras.tree.map_structure(
        lambda leaf: leaf if leaf is None else inputs.as_array(model, "validation_split", leaf, "argument"),
        (x, y, sample_weight),
    )
    rows = len(next(leaf for leaf in keras.tree.flatten(data) if leaf is not None))
    first = math.floor(rows * (1.0 - share))
    if first in (0, rows):
        raise InputError(f"model {model.name!r}: validation_split: expected at least one row on each side. Received: "
                         f"{share} of {rows} rows")

    def part(rows: slice) -> Any:
        return keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], data)

    return part(slice(first)), part(slice(first, None))


def _unpacked(model: keras.Model, validation_data: Any) -> tuple:
    try:
        return keras.utils.unpack_x_y_sample_weight(validation_data)
    except ValueError:
        raise InputError(
            f"model {model.name!r}: expected validation_data as (x, y) or (x, y, sample_weight). Received: "
            f"{type(validation_data).__name__} of {len(validation_data)} parts"
        ) from None
