"""Public tensors: part of the plan, known to everybody."""
import base64
import binascii
from typing import Any

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.primitives.attributes import SHAPE, Base64, Int
from private_keras.plan.primitives.primitive import Primitive
from private_keras.plan.records import TensorType


def encode(values: np.ndarray, fraction: int) -> dict[str, Any]:
    """Attributes of a `constant` step that holds ring elements, int64 or uint64 of any shape."""
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise PlanError(f"constant: expected ring elements, int64 or uint64. Received: dtype {values.dtype}")
    raw = values.astype("<u8" if values.dtype.kind == "u" else "<i8").tobytes()
    return {"values": base64.b64encode(raw).decode("ascii"), "shape": list(values.shape), "fraction": int(fraction)}


def decode(attributes: dict[str, Any]) -> np.ndarray:
    """The ring elements, uint64, of a `constant` step's attributes."""
    values = np.frombuffer(base64.b64decode(attributes["values"]), dtype="<u8")
    return values.astype(np.uint64).reshape(attributes["shape"])


def _constant(attributes: dict[str, Any]) -> TensorType:
    shape = limits.shape(attributes["shape"], "attribute 'shape'")
    result = TensorType(shape, attributes["fraction"])
    expected = 8 * result.size
    text = attributes["values"]
    # Length first, so that nothing is decoded that the shape does not announce.
    if len(text) == 4 * ((expected + 2) // 3):
        try:
            if len(base64.b64decode(text, validate=True)) == expected:
                return result
        except (binascii.Error, ValueError):
            pass
    raise PlanError(f"attribute 'values': expected base64 of {expected} bytes. Received: {len(text)} characters")


PRIMITIVES = (
    Primitive(
        "constant", (0, 0), _constant,
        {"values": Base64(), "shape": SHAPE, "fraction": Int(0, limits.MAX_FRACTION)},
    ),
)
