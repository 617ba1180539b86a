"""Fixed point: real numbers as ring elements, x -> round(x * 2^fraction) mod 2^64, two's complement."""

import numpy as np

from private_keras.errors import InputError

# |value| <= 2^VALUE_BITS in ring units is what a user may share; protocol steps need |z| < 2^62 and get the rest as
# headroom.
VALUE_BITS = 45
DEFAULT_FRACTION = 18


def encode(values: np.ndarray, fraction: int, name: str = "values") -> np.ndarray:
    """Real numbers to ring elements, rounded to nearest.

    Args:
        values: real array, any shape; float, int or bool.
        fraction: fractional bits.
        name: what the array is, for errors.

    Raises:
        InputError: not numeric, not finite, or |value| > 2^(VALUE_BITS - fraction).
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected real numbers. Received dtype: {array.dtype}")
    real = array.astype(np.float64)
    limit = 2.0 ** (VALUE_BITS - fraction)
    if not real.size or max(-real.min(), real.max()) <= limit:  # false for NaN
        real *= 2.0**fraction
        return np.rint(real, out=real).astype(np.int64).view(np.uint64)
    if not np.isfinite(real).all():
        bad = int(np.size(real) - np.isfinite(real).sum())
        raise InputError(
            f"{name}: {bad} of {real.size} values are NaN or infinite; clean the data first (shape {real.shape})"
        )
    raise InputError(
        f"{name}: some values are outside [-{limit:g}, {limit:g}], the range of fixed point with {fraction} "
        f"fractional bits (shape {real.shape}); scale the data, for example to [0, 1]"
    )


def decode(elements: np.ndarray, fraction: int) -> np.ndarray:
    """Ring elements to float64: signed value / 2^fraction."""
    return elements.astype(np.int64).astype(np.float64) / 2.0**fraction
