"""What a loss expects of its targets, so that a mistake is found before anything is shared.

How losses are computed is in `tracing.rules.losses` and `tracing.entropy`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import losses

from private_keras.errors import InputError, UnsupportedError
from private_keras.tracing.lowering import HEADROOM
from private_keras.tracing.rules.refused import CTC


@dataclass(frozen=True)
class Labels:
    """What targets of a loss may be.

    Attributes:
        low, high: least and largest; infinite where any number does.
        integer: whether they are whole numbers, which the plan takes at fraction 0.
        besides: numbers outside that range which mean something else, as `ignore_class` does.
    """

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    besides: tuple[int, ...] = ()

    def check(self, values: np.ndarray, name: str) -> None:
        """Refuses targets that are no labels of this kind, without saying which they are.

        Args:
            values: real numbers or integers of any shape.
            name: of the target, for the message.

        Raises:
            InputError: values outside the range, not finite, or not whole where classes are expected.
        """
        values = np.asarray(values, np.float64)
        fit = np.isfinite(values) & (values >= self.low) & (values <= self.high)
        if self.integer:
            fit &= values == np.rint(values)
        wrong = np.count_nonzero(~(fit | np.isin(values, self.besides)))
        if wrong:
            kind = "classes" if self.integer else "numbers"
            more = "".join(f" or {n}" for n in self.besides)
            if self.low == -math.inf:
                raise InputError(f"{name}: expected finite numbers. Received: NaN or infinity in {wrong} of "
                                 f"{values.size} elements. Replace them, or leave out their rows.")
            raise InputError(
                f"{name}: expected {kind} from {self.low:g} to {self.high:g}{more}. Received: {wrong} of {values.size} "
                f"that are not. {'Number classes from 0.' if self.integer else 'Scale them, or choose another loss.'}"
            )


_CLASSES = ("sparse_categorical_crossentropy", "categorical_generalized_cross_entropy")
_PROBABILITIES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "kl_divergence",
)
_SIGNS = ("hinge", "squared_hinge", "categorical_hinge")
# Losses whose targets have the shape of the output, axis by axis.
_SAME_SHAPE = (*_PROBABILITIES, "dice", "tversky", "categorical_hinge")


def labels(loss: Any, output_shape: Sequence[int | None]) -> Labels:
    """What targets of a loss may be.

    Args:
        loss: as in `compile`: a name, a function, a `keras.losses.Loss`; for losses that are not Keras' own any real
            number may be a target.
        output_shape: of the model's output; its last axis is that of classes.

    Raises:
        UnsupportedError: for CTC, which cannot run on shares.
        ValueError: a name that is no loss, as in Keras.
    """
    name, options = _named(loss)
    if name == "ctc":
        raise UnsupportedError(f"loss 'ctc' cannot run on shares: {CTC}")
    if name in _CLASSES:
        ignored = options.get("ignore_class")
        return Labels(0, int(output_shape[-1]) - 1, True, () if ignored is None else (int(ignored),))
    if name == "circle":
        return Labels(-(2**HEADROOM), 2**HEADROOM, True)
    if name in _PROBABILITIES:
        return Labels(0, 1)
    return Labels(-1, 1) if name in _SIGNS else Labels()


def wants_probabilities(loss: Any) -> bool:
    """Whether a loss is a cross-entropy of Keras that was not told to expect logits."""
    name, options = _named(loss)
    return name.endswith("crossentropy") and not options.get("from_logits", False)


def check_shapes(loss: Any, target_shape: Sequence[int], output_shape: Sequence[int], output: str) -> None:
    """Refuses targets whose shape does not fit a loss of Keras and an output, or would be repeated to fit it.

    Args:
        loss: as in `compile`.
        target_shape, output_shape: with the batch.
        output: name of the output, for the message.

    Raises:
        InputError: saying shapes and which loss or encoding fits.
        UnsupportedError, ValueError: as `labels`.
    """
    name, _ = _named(loss)
    target, outputs = tuple(target_shape), tuple(output_shape)
    if name in _CLASSES:
        if target not in (outputs[:-1], (*outputs[:-1], 1)):
            raise _misfit(
                output, name, target, outputs, f"one class for each of {outputs[:-1]}. For rows of {outputs[-1]} "
                "probabilities use 'categorical_crossentropy'."
            )
        return
    squeezed = {target, (*target, 1), target[:-1] if target[-1:] == (1,) else target}
    if name in _SAME_SHAPE and outputs not in squeezed and (outputs[:-1] != target or outputs[-1:] != (1,)):
        advice = f"targets of shape {outputs}."
        if name.startswith("categorical") and target in (outputs[:-1], (*outputs[:-1], 1)):
            advice += " For numbers of classes use 'sparse_categorical_crossentropy', or keras.utils.to_categorical."
        elif name.startswith("binary") and target in (outputs[:-1], (*outputs[:-1], 1)):
            advice += (" For two classes use one output with a sigmoid, or, after a softmax, "
                       "'sparse_categorical_crossentropy'.")
        raise _misfit(output, name, target, outputs, advice)
    if name and name != "circle" and target == outputs[:-1] and outputs[-1:] != (1,):
        raise _misfit(output, name, target, outputs, f"targets of shape {outputs}. A number for each row goes with one "
                      "output, Dense(1); classes with 'sparse_categorical_crossentropy'.")


def _misfit(output: str, name: str, target: tuple[int, ...], outputs: tuple[int, ...], advice: str) -> InputError:
    return InputError(
        f"loss '{name}' of output '{output}', which has shape {outputs}: expected {advice} Received: targets of shape "
        f"{target}"
    )


def _named(loss: Any) -> tuple[str, dict[str, Any]]:
    """Keras' name of a loss function and its options; "" for what is not Keras' own."""
    found = losses.get(loss)
    options: dict[str, Any] = {}
    if isinstance(found, keras.losses.Loss):
        options = getattr(found, "_fn_kwargs", {})
        found = getattr(found, "fn", None)
    own: Callable[..., Any] | None = getattr(losses, getattr(found, "__name__", ""), None)
    return (found.__name__ if own is found and found is not None else ""), options
