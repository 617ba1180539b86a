"""Shapes of products and convolutions, checked in one place for all kernels."""
from collections.abc import Sequence

import numpy as np

from private_keras.errors import KernelError


def matmul_lead(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Leading axes of the product of shapes a (..., m, k) and b (..., k, n).

    Raises:
        KernelError: k differs, or the leading axes do not broadcast.
    """
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise KernelError(f"matmul needs (..., m, k) and (..., k, n). Received: {a} and {b}")
    if a[:-2] == b[:-2]:
        return a[:-2]
    try:
        return np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError as error:
        raise KernelError(f"matmul: leading axes do not broadcast. Received: {a} and {b}") from error


def conv_space(
    x: Sequence[int], w: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]],
    dilation: Sequence[int], groups: int,
) -> tuple[int, ...]:
    """Space axes of the result of `Kernel.conv`.

    Args:
        x: shape (batch, *space, channels).
        w: shape (*window, channels/groups, filters).
        strides: per space axis.
        padding: (before, after) per space axis.
        dilation: per space axis.
        groups: number of groups.

    Raises:
        KernelError: ranks, channels, groups or values that do not fit, or a window larger than the padded input.
    """
    space = len(x) - 2
    if not (
        1 <= space <= 3 and len(w) == len(x) and len(strides) == len(padding) == len(dilation) == space
        and groups >= 1 and x[-1] == w[-2] * groups and w[-1] % groups == 0
    ):
        raise KernelError(f"conv shapes do not fit: x {tuple(x)}, w {tuple(w)}, groups {groups}")
    if any(s < 1 for s in (*strides, *dilation)) or any(p < 0 for pair in padding for p in pair):
        raise KernelError("conv: strides and dilation must be positive and padding not negative")
    out = []
    for size, window, s, (before, after), d in zip(x[1:-1], w[:-2], strides, padding, dilation, strict=True):
        extent = size + before + after - d * (window - 1)
        if extent <= 0:
            raise KernelError(f"conv window {tuple(w[:-2])} is larger than the padded input; space {tuple(x[1:-1])}")
        out.append((extent - 1) // s + 1)
    return tuple(out)


def room(out: np.ndarray | None, shape: tuple[int, ...], subtract: bool, *factors: np.ndarray) -> np.ndarray | None:
    """`out` if a product of `shape` can be added to it.

    Raises:
        KernelError: another shape or dtype, not contiguous, or it overlaps a factor; or nothing to subtract from.
    """
    if out is None:
        if subtract:
            raise KernelError("a product is subtracted from `out`. Received: none")
        return None
    fits = isinstance(out, np.ndarray) and out.dtype == np.uint64 and out.shape == shape
    if not fits or not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise KernelError(f"`out` must be a contiguous, writable uint64 array of shape {shape}")
    for factor in factors:
        if np.may_share_memory(out, factor):
            raise KernelError("`out` must not overlap a factor")
    return out
