"""What callbacks want to see: which of them act at every batch, and which cannot run on shares."""
from collections.abc import Iterable

import keras
from keras.src.utils.python_utils import is_default

from private_keras.errors import UnsupportedError

_HOOKS = {
    "train": ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end"),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
}


def acts_on_batches(callbacks: Iterable[keras.callbacks.Callback], stage: str) -> bool:
    """Whether a callback does something at each batch, so that each must be a job of its own.

    Args:
        stage: "train" or "test".

    Keras' own callbacks count where they are told to act at batches. A progress bar does not: it moves as servers
    report.
    """
    return any(_acts(callback, hook) for callback in callbacks for hook in _HOOKS[stage])


def _acts(callback: keras.callbacks.Callback, hook: str) -> bool:
    method = getattr(callback, hook)
    if is_default(method):
        return False
    function = getattr(method, "__func__", method)
    owner = next((cls for cls in _QUIET if vars(cls).get(hook) is function), None)
    return owner is None or not _QUIET[owner](callback)


# Keras' callbacks with hooks for batches, and when these do nothing that matters.
_QUIET = {
    keras.callbacks.ProgbarLogger: lambda callback: True,
    # Looks for a loss that is NaN; a diverging run is found when results are opened, and the callback is told then.
    keras.callbacks.TerminateOnNaN: lambda callback: True,
    keras.callbacks.ModelCheckpoint: lambda callback: callback.save_freq == "epoch",
    keras.callbacks.BackupAndRestore: lambda callback: callback.save_freq == "epoch",
    keras.callbacks.TensorBoard: lambda callback: (
        callback.update_freq == "epoch" and not callback._should_trace and not callback.write_steps_per_second
    ),
}


def refuse(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Refuses callbacks that read or write weights in the clear behind the model's back.

    Raises:
        UnsupportedError: says what to do instead.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.SwapEMAWeights):
            raise UnsupportedError(
                "SwapEMAWeights exchanges weights in the clear. Leave it out: with use_ema=True the weights become "
                "their averages at the end of fit."
            )
        if isinstance(callback, keras.callbacks.TensorBoard) and callback.histogram_freq:
            raise UnsupportedError(
                "TensorBoard(histogram_freq=...) needs the weights in the clear after each epoch. Leave it at 0; "
                "model.reveal() gives the weights to their owner."
            )
