"""Functions of order: maxima, their places, signs. All exact, for differences below 2^62."""
import math

import numpy as np

from private_keras.protocols.functions import local
from private_keras.protocols.protocol import Bits, Protocol, Share

PAIRS_UP_TO = 16  # longest axis whose elements are all compared with each other at once
GROUP = 8  # longer axes are cut in runs of this length: 28 comparisons per run, one more level per factor of 8
PAIRS = 1 << 14  # so many comparisons at once take no longer than the rounds of a tournament that they save


def maximum(p: Protocol, x: Share, y: Share, width: int = 62) -> Share:
    """max(x, y) elementwise, broadcast; exact. Cost: one relu (mask 1 round, compare 3); `width` as there."""
    return local.add(p, y, p.relu(local.subtract(p, x, y), width=width))


def minimum(p: Protocol, x: Share, y: Share) -> Share:
    """min(x, y) elementwise, broadcast; exact. Cost: one relu (mask 1 round, compare 3)."""
    return local.subtract(p, x, p.relu(local.subtract(p, x, y)))


def absolute(p: Protocol, x: Share) -> Share:
    """|x|; exact. Cost: one relu (mask 1 round, compare 3)."""
    return local.subtract(p, local.scale(p, p.relu(x), 2), x)


def sign(p: Protocol, x: Share) -> Share:
    """-1, 0 or 1 as integers; exact. Cost: mask 1 round, compare 3 with two thresholds, 16 bytes."""
    steps = p.bits_to_share(p.compare(x, [0, 1]))
    return local.offset(p, local.reduce_sum(p, steps, 0), -1)


def pairs_fit(shape: tuple[int, ...]) -> bool:
    """Whether all pairs along the last axis are to be compared at once, for their maximum."""
    n, count = shape[-1], math.prod(shape)
    return n <= PAIRS_UP_TO and count * (n - 1) // 2 <= PAIRS


def reduce_max(p: Protocol, x: Share, axis: int, width: int = 62) -> Share:
    """Maximum over one axis, removed; exact.

    Large tensors: a tournament of halves, ceil(log2 n) levels of one relu (4 rounds each), n - 1 relus in all. Where no
    more than 2^14 comparisons are needed, all pairs of up to 16 elements at once (mask 1 round, compare 3, AND 1 or 2),
    or of runs of 8. Differences between any two elements must be below 2^width.
    """
    x = local.axis_last(p, x, axis)
    while (n := x.shape[-1]) > 1:
        if n > 2 and pairs_fit(x.shape):
            x = local.reshape(p, _first(p, x, width), (*x.shape[:-1], 1))
        elif n > PAIRS_UP_TO and x.size * (GROUP - 1) // 2 <= PAIRS:
            x = _first(p, _cut(p, x)[0], width)
        else:
            x = _halved(p, x, width)
    return local.reshape(p, x, x.shape[:-1])


def _halved(p: Protocol, x: Share, width: int) -> Share:
    n, half = x.shape[-1], x.shape[-1] // 2
    first, second = (local.run(p, x, at, at + half) for at in (0, half))
    best = maximum(p, first, second, width)
    return best if n % 2 == 0 else _join(p, best, local.take(p, x, np.arange(n - 1, n), -1))


def _first(p: Protocol, x: Share, width: int) -> Share:
    """The maximum of all pairs along the last axis, removed."""
    p.mask(x)
    return local.reduce_sum(p, p.multiply_bits(winners(p, x, width), x), -1)


def argmax(p: Protocol, x: Share, axis: int) -> Share:
    """Index of the maximum over one axis, removed; an integer, the lowest index where several are equal; exact.

    Up to 16 elements: all pairs at once (n (n - 1) / 2 comparisons, mask 1 round, compare 3, AND 1 or 2). More: runs of
    8, then the winners of the runs, and so on: 6 or 7 rounds for each factor of 8.
    """
    x = local.axis_last(p, x, axis)
    index = None
    while x.shape[-1] > PAIRS_UP_TO:
        x, index = _runs(p, x, index)
    return _selected(p, winners(p, x), index)


def winners(p: Protocol, x: Share, width: int = 62) -> Bits:
    """One-hot bits of the maximum over the last axis of 1 to 16 elements, the lowest index where several are equal.

    Differences between any two elements must be below 2^width.
    """
    n = x.shape[-1]
    if n == 1:
        return p.bits_not(p.bits_linear(lambda b: b[0], x.shape, p.compare(local.scale(p, x, 0), [1], 2)))
    first, second = np.triu_indices(n, 1)
    pair = np.zeros((n, n), np.int64)
    pair[first, second] = np.arange(len(first))
    pair[second, first] = np.arange(len(first)) + len(first)
    pair = pair[~np.eye(n, dtype=bool)]
    gaps = local.subtract(p, local.take(p, x, first, -1), local.take(p, x, second, -1))
    ahead = p.compare(gaps, [0], width)
    shape = (*x.shape[:-1], n, n - 1)
    rearranged = p.bits_linear(
        lambda a, b: np.concatenate([a[0], b[0]], -1)[..., pair].reshape(shape), shape, ahead, p.bits_not(ahead)
    )
    return p.bits_and(rearranged, len(shape) - 1)


def _cut(p: Protocol, x: Share) -> tuple[Share, np.ndarray]:
    """The last axis in runs, and the place of each element of each run."""
    n = x.shape[-1]
    runs = -(-n // GROUP)
    # The last run is filled with copies of the last element: they come later, so they never win against it.
    places = np.minimum(np.arange(runs * GROUP), n - 1)
    x = local.reshape(p, local.take(p, x, places, -1), (*x.shape[:-1], runs, GROUP))
    return x, places.reshape(runs, GROUP)


def _runs(p: Protocol, x: Share, index: Share | None) -> tuple[Share, Share]:
    """The maximum of each run of the last axis, and its index in the whole axis; `index` is that of x's elements."""
    x, places = _cut(p, x)
    wins = winners(p, x)
    if index is None:
        p.mask(x)
        return local.reduce_sum(p, p.multiply_bits(wins, x), -1), _places(p, wins, places)
    index, _ = _cut(p, index)
    p.mask(x, index)
    return tuple(local.reduce_sum(p, p.multiply_bits(wins, y), -1) for y in (x, index))


def _selected(p: Protocol, wins: Bits, index: Share | None) -> Share:
    """The index that a one-hot row of bits names."""
    if index is None:
        return _places(p, wins, np.arange(wins.shape[-1]))
    return local.reduce_sum(p, p.multiply_bits(wins, index), -1)


def _places(p: Protocol, wins: Bits, places: np.ndarray) -> Share:
    """The public number that each one-hot row of bits names."""
    weights = places.astype(local.U)
    hot = p.bits_to_share(wins)
    return p.linear(lambda a: (a * weights).sum(-1, dtype=local.U), hot.shape[:-1], hot)


def _join(p: Protocol, x: Share, y: Share) -> Share:
    shape = (*x.shape[:-1], x.shape[-1] + y.shape[-1])
    return p.linear(lambda a, b: np.concatenate([a, b], -1), shape, x, y)
