"""Softmax over one axis."""
import numpy as np

from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.functions.exponential import exp_for_sum, exp_nonpositive
from private_keras.protocols.functions.order import reduce_max, winners
from private_keras.protocols.functions.positive import CURVE, reciprocal
from private_keras.protocols.functions.spline import polynomial
from private_keras.protocols.protocol import Protocol, Share

PAIRS_UP_TO = 12  # axes up to here find their maximum by all pairs: 5 rounds, where a tournament takes 15
WEIGHT = tables.RECIPROCAL_OF_SUM_FRACTION  # fractional bits of the exponentials
LONGEST_ONE_WINDOW = 64  # up to here small terms may err by a hundredth of themselves: 2e-7 each
LONGEST_DIRECT = 1024  # the table of 1 / sum ends here; longer axes use `reciprocal`


def softmax(p: Protocol, x: Share, fraction: int, axis: int) -> Share:
    """e^(x_i - max) / sum_j e^(x_j - max) along one axis.

    Domain: differences between elements below 2^61 in ring units. Error: at most 1e-4 for up to 1000 elements.

    Args:
        x: any shape.
        fraction: fractional bits of x and of the result, 12 to 20.
        axis: the axis that sums to 1.

    Cost (trio), for masked x: 17 rounds and those of the maximum, which takes 5 for up to 12 elements and
    4 ceil(log2 n) - 1 for more; above 64 elements 1 more, above 1024 elements 9 more. 330 to 560 bytes per element.
    """
    x = local.axis_last(p, x, axis)
    n = x.shape[-1]
    if n == 1:
        return local.axis_back(p, local.offset(p, local.scale(p, x, 0), 1 << fraction), axis)
    largest = local.reshape(p, _largest(p, x), (*x.shape[:-1], 1))
    exponential = exp_nonpositive if n <= LONGEST_ONE_WINDOW else exp_for_sum
    weights = exponential(p, local.subtract(p, x, largest), fraction, WEIGHT)
    total = local.reduce_sum(p, weights, -1)
    p.mask(weights, total)
    inverse = local.reshape(p, _reciprocal_of_sum(p, total, n), (*x.shape[:-1], 1))
    product = p.bilinear(np.multiply, x.shape, weights, inverse)
    return local.axis_back(p, p.truncate(product, WEIGHT + CURVE - fraction), axis)


def _largest(p: Protocol, x: Share) -> Share:
    if x.shape[-1] > PAIRS_UP_TO:
        return reduce_max(p, x, -1)
    p.mask(x)
    return local.reduce_sum(p, p.multiply_bits(winners(p, x), x), -1)


def _reciprocal_of_sum(p: Protocol, total: Share, n: int) -> Share:
    """1 / total at `CURVE` fractional bits, for total in [1, n] at `WEIGHT`."""
    if n > LONGEST_DIRECT:
        return reciprocal(p, total, WEIGHT, 0, n.bit_length(), CURVE)
    table = tables.RECIPROCAL_OF_SUM
    knots = [k for k in table.knots if k < n << WEIGHT]
    bits = p.compare(total, knots, WEIGHT + n.bit_length() + 1)
    curve = polynomial(p, total, bits, table.coefficients[: len(knots) + 1])
    return p.truncate(curve, table.scale - CURVE)
