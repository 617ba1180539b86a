"""Softmax over one axis."""

from private_keras.protocols import tables
from private_keras.protocols.functions import local
from private_keras.protocols.functions.exponential import binary, exp2_nonpositive
from private_keras.protocols.functions.order import pairs_fit, reduce_max, winners
from private_keras.protocols.functions.positive import CURVE, reciprocal
from private_keras.protocols.functions.spline import polynomial
from private_keras.protocols.protocol import Protocol, Share, times

WEIGHT = tables.RECIPROCAL_OF_SUM_FRACTION  # fractional bits of the exponentials
LONGEST_ONE_WINDOW = 128  # up to here small terms may err by a hundredth of themselves: 2e-7 each
LONGEST_DIRECT = 1024  # the table of 1 / sum ends here; longer axes use `reciprocal`


def softmax(p: Protocol, x: Share, fraction: int, axis: int, result_fraction: int | None = None) -> Share:
    """e^(x_i - max) / sum_j e^(x_j - max) along one axis.

    Domain: |x| < 2^42, differences between elements below 2^61 in ring units. Error: at most 1e-4 for up to 1000
    elements.

    Args:
        x: any shape.
        fraction: fractional bits of x, 12 to 44.
        axis: the axis that sums to 1.
        result_fraction: fractional bits of the result, 12 to 20; `fraction` if not given.

    Cost (trio), for masked x: 12 rounds and those of the maximum, which takes 5 where all pairs are compared, else one
    and those of `reduce_max`; above 1024 elements 8 more.
    """
    x = local.axis_last(p, x, axis)
    n, result_fraction = x.shape[-1], result_fraction or fraction
    if n == 1:
        return local.axis_back(p, local.offset(p, local.scale(p, x, 0), 1 << result_fraction), axis)
    # The maximum is taken away after the change of base, and where it is found in one step, both take place at once.
    p.mask(x)
    u = binary(p, x, fraction)
    largest = local.reshape(p, _largest(p, x, u), (*x.shape[:-1], 1))
    weights = exp2_nonpositive(p, local.subtract(p, u, largest), WEIGHT, n <= LONGEST_ONE_WINDOW)
    total = local.reduce_sum(p, weights, -1)
    p.mask(weights, total)
    inverse = local.reshape(p, _reciprocal_of_sum(p, total, n), (*x.shape[:-1], 1))
    product = p.bilinear(times, x.shape, weights, inverse)
    return local.axis_back(p, p.truncate(product, WEIGHT + CURVE - result_fraction), axis)


def _largest(p: Protocol, x: Share, u: Share) -> Share:
    """u where x is largest along the last axis; another u may be a unit larger."""
    if not pairs_fit(x.shape):
        return reduce_max(p, u, -1)
    wins, _ = p.rounds.together(lambda: winners(p, x), lambda: p.mask(u))
    return local.reduce_sum(p, p.multiply_bits(wins, u), -1)


def _reciprocal_of_sum(p: Protocol, total: Share, n: int) -> Share:
    """1 / total at `CURVE` fractional bits, for total in [1, n] at `WEIGHT`."""
    if n > LONGEST_DIRECT:
        return reciprocal(p, total, WEIGHT, 0, n.bit_length(), CURVE)
    table = tables.RECIPROCAL_OF_SUM
    knots = [k for k in table.knots if k < n << WEIGHT]
    bits = p.compare(total, knots, WEIGHT + n.bit_length() + 1)
    curve = polynomial(p, total, bits, table.coefficients[: len(knots) + 1])
    return p.truncate(curve, table.scale - CURVE)
