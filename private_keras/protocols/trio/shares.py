"""Shares and bits of `trio`, as one party holds them.

A secret x is in one of two forms, the same at all parties since the plan decides it:
- masked: m = x + l with l = l0 + l1; evaluator i holds (m, l_i), the helper holds l;
- additive: x = z0 + z1; evaluator i holds z_i, the helper holds nothing.
Products and comparisons start from the masked form; their results are additive; `mask` leads back in one round.
A secret bit is s = hat xor lam: both evaluators hold hat, the helper holds lam.
"""
import numpy as np

from private_keras.protocols.protocol import Bits, Share


class TrioShare(Share):
    """Holder of either form. `mask` fills m and l in place, so that a tensor used twice is masked once."""

    def __init__(self, shape: tuple[int, ...], *, m: np.ndarray | None = None, l: np.ndarray | None = None,  # noqa: E741
                 z: np.ndarray | None = None, masked: bool):
        self.shape = tuple(shape)
        # NumPy turns results of rank 0 into scalars, whose arithmetic warns where arrays wrap as a ring should.
        self.m, self.l, self.z = (None if a is None else np.asarray(a) for a in (m, l, z))
        self.masked = masked

    def __repr__(self) -> str:
        return f"<share of shape {self.shape}, {'masked' if self.masked else 'additive'}>"


class TrioBits(Bits):
    """`word` is hat at an evaluator, lam at the helper: a boolean array."""

    def __init__(self, word: np.ndarray):
        self.word = word
        self.shape = word.shape

    def __repr__(self) -> str:
        return f"<secret bits of shape {self.shape}>"
