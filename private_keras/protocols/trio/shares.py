"""Shares and bits of `trio`, as one party holds them.

A secret x is in one of two forms, the same at all parties since the plan decides it:
- masked: m = x + l with l = l0 + l1; evaluator i holds (m, l_i), the helper holds l, and l0 - l1 or how to make it;
- additive: x = z0 + z1; evaluator i holds z_i, the helper holds nothing.
Products and comparisons start from the masked form; their results are additive; `mask` leads back in one round.
A secret bit is s = hat xor lam: both evaluators hold hat, the helper holds lam.
"""
from collections.abc import Callable

import numpy as np

from private_keras.protocols.protocol import Bits, Share
from private_keras.protocols.rounds import Ticket
from private_keras.ring import planes


class TrioShare(Share):
    """Holder of either form. `mask` fills m and l in place, so that a tensor used twice is masked once.

    `skew`, at the helper: makes l0 - l1. Few steps need it, so that it is not kept.
    """

    def __init__(self, shape: tuple[int, ...], *, m: np.ndarray | None = None, l: np.ndarray | None = None,  # noqa: E741
                 z: np.ndarray | None = None, masked: bool, skew: Callable[[], np.ndarray] | None = None):
        self.shape = tuple(shape)
        # NumPy turns results of rank 0 into scalars, whose arithmetic warns where arrays wrap as a ring should.
        self.m = m if m is None or type(m) is np.ndarray else np.asarray(m)
        self.l = l if l is None or type(l) is np.ndarray else np.asarray(l)
        self.z = z if z is None or type(z) is np.ndarray else np.asarray(z)
        self.masked = masked
        self.skew = skew
        self.opening: Ticket | None = None  # in which it will become masked

    def __repr__(self) -> str:
        return f"<share of shape {self.shape}, {'masked' if self.masked else 'additive'}>"


class TrioBits(Bits):
    """The masked words are hat at an evaluator, lam at the helper.

    Args:
        word: a boolean array; or
        planes: one packed plane for each item of the first axis of `shape`.
    """

    def __init__(self, word: np.ndarray | None = None, *, planes: np.ndarray | None = None,
                 shape: tuple[int, ...] | None = None):
        self._word, self._planes = word, planes
        self.shape = tuple(word.shape if word is not None else shape)

    @property
    def word(self) -> np.ndarray:
        """As a boolean array."""
        if self._word is None:
            self._word = planes.unpack_bits(self._planes, self.size // len(self._planes)).reshape(self.shape)
        return self._word

    @property
    def planes(self) -> np.ndarray:
        """As packed planes of equally many elements, one or several."""
        if self._planes is None:
            self._planes = planes.pack_bits(self._word.reshape(1, -1))
        return self._planes

    @property
    def rows(self) -> np.ndarray:
        """As one packed plane for each item of the first axis."""
        if self._planes is not None and len(self._planes) == self.shape[0]:
            return self._planes
        return planes.pack_bits(self.word.reshape(self.shape[0], -1))

    @property
    def plane(self) -> np.ndarray:
        """As one packed plane of all elements."""
        return self.planes[0] if len(self.planes) == 1 else planes.pack_bits(self.word.ravel())

    def __repr__(self) -> str:
        return f"<secret bits of shape {self.shape}>"
