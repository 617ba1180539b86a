"""The loop of `predict`: Keras' data adapters, callbacks and progress bar around batches that run on shares."""
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.trainers.epoch_iterator import EpochIterator

from private_keras.cluster.results import Address, Delivery
from private_keras.errors import InputError
from private_keras.models.execution import Execution
from private_keras.models.inputs import Data
from private_keras.models.training.feeds import BATCH_SIZE, is_stream, tuples
from private_keras.models.training.options import count


def predict(
    model: keras.Model, execution: Execution, x: Any, batch_size: int | None, verbose: str | int, steps: int | None,
    callbacks: Any, to: str | None, name: str | None,
) -> Any:
    """See `PrivateModel.predict`."""
    count("batch_size", batch_size)
    count("steps", steps)
    if name is not None and to is None:
        raise InputError("predict: name goes with to, for somebody else to receive the result under")
    execution.look()
    arrays: list[Data] = []
    if not is_stream(x):
        batch_size = batch_size or BATCH_SIZE
        arrays = execution.arrays(x, batch_size)  # all rows, before the first is shared
    if isinstance(x, types.GeneratorType):
        x = tuples(model, x)
    if arrays:
        batches = _Slices(arrays, batch_size, steps)
    else:
        batches = EpochIterator(x=x, batch_size=batch_size, steps_per_epoch=steps, shuffle=False)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_progbar=verbose != 0, verbose=verbose, epochs=1, steps=batches.num_batches, model=model
        )
    address = None if to is None else Address(to, name, batches.num_batches)
    if address is not None and batches.num_batches is None:
        raise InputError(f"model {model.name!r}: expected data whose number of batches is known, since what is sent to "
                         f"{to} says how many parts it has. Received: {type(x).__name__}; give steps")
    results = []
    model.stop_predicting = False
    callbacks.on_predict_begin()
    for begin, end, (data,) in batches:
        callbacks.on_predict_batch_begin(begin)
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        outputs = execution.run(batch) if address is None else execution.run(batch, to, address.part(len(results)))
        results.append(outputs)
        callbacks.on_predict_batch_end(end, {"outputs": outputs})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    if not results:
        raise InputError(f"model {model.name!r}: expected at least one batch. Received: data without any")
    if address is not None:
        return Delivery(address.to, address.name, _together(results))
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts, axis=0), *results)


def _together(shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> Any:
    """Shapes of batches one below the other: of the only output, or by name."""
    whole = {name: (sum(part[name][0] for part in shapes), *shape[1:]) for name, shape in shapes[0].items()}
    return next(iter(whole.values())) if len(whole) == 1 else whole


class _Slices:
    """Batches of arrays and secret tensors, which are checked already: Keras' `EpochIterator` does not slice the latter
    and takes longer than a small model's client for the former.
    """

    def __init__(self, arrays: Sequence[Data], size: int, steps: int | None):
        self._arrays = arrays
        self._size = size
        available = -(-len(arrays[0]) // size)
        self.num_batches = available if steps is None else min(steps, available)

    def __iter__(self) -> Iterator[tuple[int, int, tuple]]:
        for i in range(self.num_batches):
            parts = [array[i * self._size : (i + 1) * self._size] for array in self._arrays]
            yield i, i, ((parts if len(parts) > 1 else parts[0],),)
