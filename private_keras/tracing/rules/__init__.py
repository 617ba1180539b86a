"""Rules: one short function for each Keras operation, in one table by operation class.

A rule is called with the lowering, the operation (for its configuration) and the operation's arguments, tensors as
`Value`s; it writes steps and returns the results. It raises `UnsupportedError` for what cannot run on shares.
"""

from collections.abc import Callable
from typing import Any

from private_keras.tracing.rules import (
    activation,
    arithmetic,
    attention,
    comparison,
    convolution,
    core,
    counting,
    image,
    linear,
    losses,
    movement,
    noise,
    normalization,
    pooling,
    ranking,
    reduction,
    sequences,
)
from private_keras.tracing.rules.refused import GENERAL, REFUSED

__all__ = ["GENERAL", "REFUSED", "TABLE"]

TABLE: dict[type, Callable[..., Any]] = {
    **linear.RULES,
    **convolution.RULES,
    **pooling.RULES,
    **normalization.RULES,
    **activation.RULES,
    **arithmetic.RULES,
    **comparison.RULES,
    **reduction.RULES,
    **movement.RULES,
    **counting.RULES,
    **ranking.RULES,
    **core.RULES,
    **image.RULES,
    **attention.RULES,
    **sequences.RULES,
    **losses.RULES,
    **noise.RULES,
}
