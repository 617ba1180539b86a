"""`evaluate`, `train_on_batch` and `test_on_batch`."""
from collections.abc import Mapping
from typing import Any

import keras

from private_keras.cluster import current
from private_keras.cluster.results import Address, Delivery
from private_keras.errors import DivergenceError, InputError
from private_keras.models import inputs
from private_keras.models.training import columns as data
from private_keras.models.training import outset
from private_keras.models.training.feeds import ArrayFeed, Feed, feed
from private_keras.models.training.jobs import Jobs, Logs
from private_keras.models.training.labels import checked
from private_keras.models.training.options import count
from private_keras.models.training.watch import acts_on_batches


def evaluate(
    model: keras.Model, jobs: Jobs, x: Any, y: Any, sample_weight: Any, batch_size: int | None, verbose: str | int,
    steps: int | None, callbacks: Any, address: Address | None = None,
) -> Logs | Delivery:
    """See `PrivateModel.evaluate`; returns results by name, or what says that they were sent to `address`."""
    require_compiled(model, "evaluate")
    count("batch_size", batch_size)
    count("steps", steps)
    batches = evaluation_feed(model, jobs, x, y, sample_weight, batch_size, steps)
    return run_evaluation(model, jobs, batches, verbose, callbacks, address)


def evaluation_feed(
    model: keras.Model, jobs: Jobs, x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None
) -> Feed:
    """Data to evaluate on; arrays are checked."""
    made = feed(
        model, x, y, sample_weight, batch_size=batch_size, steps=steps, shuffle=False, class_weight=None, seed=0,
        check=lambda traced, columns: checked(model, traced, columns),
    )  # fmt: skip
    if isinstance(made, ArrayFeed):
        made.prepare(jobs.steps.evaluate(made.columns, made.size))
    return made


def run_evaluation(
    model: keras.Model, jobs: Jobs, batches: Feed, verbose: str | int, callbacks: Any, address: Address | None = None
) -> Logs | Delivery:
    """Runs over all batches, then opens the results."""
    if isinstance(batches, ArrayFeed):
        batches.seek((0, 0))
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_progbar=verbose != 0, verbose=verbose, epochs=1, steps=batches.num_batches, model=model
        )
    cluster = current()
    model.stop_evaluating = False
    callbacks.on_test_begin()
    jobs.reset_metrics()
    every = acts_on_batches(callbacks.callbacks, "test")
    stride = model.steps_per_execution
    done = 0
    for segment in batches.segments(lambda step: every and step % stride == 0):
        traced = jobs.steps.evaluate(segment.sample, segment.rows)
        given = batches.given(cluster, traced, segment)
        callbacks.on_test_batch_begin(segment.first)
        jobs.run(cluster, traced, given, segment.steps, _progress(callbacks, segment.first, segment.steps))
        done = segment.first + segment.steps
        callbacks.on_test_batch_end(done - 1, {})
        if model.stop_evaluating:
            break
    if not done:
        raise InputError(f"model {model.name!r}: expected at least one batch. Received: data without any")
    if address is not None:
        names = jobs.deliver(cluster, address)
        callbacks.on_test_end({})
        return Delivery(address.to, address.name, dict.fromkeys(names, ()))
    logs = jobs.open(cluster, guard=False)
    callbacks.on_test_end(logs)
    return logs


def _progress(callbacks: keras.callbacks.CallbackList, first: int, steps: int) -> Any:
    def on_step(done: int) -> None:
        if done < steps:  # the last one is told when the job has ended
            callbacks.on_test_batch_end(first + done - 1, {})

    return on_step


def on_batch(
    model: keras.Model, jobs: Jobs, train: bool, x: Any, y: Any, sample_weight: Any,
    class_weight: Mapping[int, float] | None, seed: int,
) -> Logs:
    """One step on one batch; returns its results by name."""
    require_compiled(model, "train_on_batch" if train else "test_on_batch")
    columns = data.read(model, x, y, sample_weight, class_weight)
    traced = jobs.steps.train(columns, columns.rows, seed) if train else jobs.steps.evaluate(columns, columns.rows)
    values = checked(model, traced, columns)
    if train:
        outset.check(model, jobs.holdings, traced, values)
    cluster = current()
    used = {item.name for item in traced.plan.inputs}
    before = jobs.snapshot()
    jobs.reset_metrics()
    jobs.run(cluster, traced, inputs.given(cluster, {name: value for name, value in values.items() if name in used}))
    try:
        return jobs.open(cluster, guard=train)
    except DivergenceError:
        jobs.restore(before)
        raise


def require_compiled(model: keras.Model, method: str) -> None:
    """Raises an InputError for a model that was not compiled."""
    if not model.compiled:
        raise InputError(f"{method}: model {model.name!r} is not compiled. Call compile(optimizer, loss) before.")
