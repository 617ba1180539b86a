"""What a tensor of a trace can be: known to the client, secret on the servers, or a product not yet written."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Known:
    """A value that the client computes: a public constant, or, if `secret`, something that depends on weights.

    Attributes:
        value: plaintext.
        secret: whether it must be shared rather than written in the plan.
        identity: names the expression (which weight, which operations), never the value: the same for every batch size.
        label: what people read.
    """

    value: np.ndarray = field(repr=False)
    secret: bool
    identity: str
    label: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape


@dataclass(frozen=True)
class Secret:
    """A value of the plan. Real value = ring element / 2^fraction."""

    name: str
    shape: tuple[int, ...]
    fraction: int


@dataclass(frozen=True)
class Product:
    """A matmul or conv with known weights, and a bias per output channel, that waits for scales to fold into them.

    Attributes:
        op: `matmul` or `conv`.
        x: the secret operand.
        weight: last axis is the output channel.
        bias: None, or of shape (channels,).
        attributes: of the step.
        shape: of the result.
        layer: that it belongs to.
    """

    op: str
    x: Secret
    weight: Known
    bias: Known | None
    attributes: dict[str, Any]
    shape: tuple[int, ...]
    layer: str


@dataclass(frozen=True)
class Refused:
    """Stands for a result that could not be lowered, so that the search for further findings can go on."""

    shape: tuple[int, ...]


Value = Known | Secret | Product | Refused
