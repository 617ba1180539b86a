"""The one plan of kind "aggregate": the mean of several owners' updates, weighted by how many examples each has.

    plan = aggregate_plan([2410], ["clinic-a", "clinic-b", "clinic-c"], limit=4.0)

Whoever runs it receives the mean and nothing else. Servers build it again from what it says of itself and compare
digests (`mean_of`), so that a policy that allows "aggregate" allows this plan, of at least `LEAST_OWNERS` updates or as
many as the policy names ("aggregate:8"), and no other. A mean of fewer is 0: so many updates count after those are left
out that are not sound, lest a limit which one owner alone keeps opens its update.

What owners share is not believed. Who shares a count of examples outside 1 .. `examples`, or an update that is longer
than a small multiple of `limit`, counts as if it had shared nothing: on shares, so that nobody learns it. Lengths are
told from `PROJECTIONS` sums of random elements, with signs, under a public seed that whoever runs the plan draws when
all updates are there:

- *no element is out of range*: if one is above 12 limit in size, each sum is, with a chance of 1/2, above 6 limit
  whatever the other elements are, and all are checked: 2^-64 that it is not noticed. The sum looks at numbers mod 2^63,
  and the mean and the squares use twice the number (one bit shifted), which no other bit of it can enter;
- *the update is no longer than agreed*: the squares of the sums add up to its squared length times half their number,
  less than a fifth off as a rule. Above `_SLACK` times the limit squared it is refused: one of four times the
  limit passes with a chance below 4e-4, one of the limit is refused with a chance below 1e-12 (the tails of
  Achlioptas, J. Comput. Syst. Sci. 2003, for sums of signs: each of our -1, 0, 0, 1 is half a sum of two).

The mean is (sum of count times update) / (sum of counts). The divisor is brought to 1/2 .. 1 by a power of two, which
the dividend takes as well, so that the quotient is as precise for a thousand examples as for a billion. The dividend
has `_GUARD` bits more than the quotient that is opened: as whole units of it, multiplied by 2^k / (sum of counts),
results of some thousand elements would tell the sum of counts by their last digits.

Cost (trio): 34 rounds. Per element of an update, whatever the number of owners: 3 deals and 2 openings; per owner
three times 64 comparisons. Sums of random elements are local: 64 additions for each element of each owner.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan

# With two, each learns the other's update from the mean, if it is passed on.
LEAST_OWNERS = 3
MOST_OWNERS = limits.MAX_OPERANDS
MOST_EXAMPLES = 1 << 20
# Limits of the limit, as powers of two.
LEAST_LIMIT, MOST_LIMIT = -10, 14
PROJECTIONS = 64
SEED = "seed"
CLIENT = "client"

_TAIL = 6  # a sum of random elements of an honest update is above so many limits with a chance below 1e-15
_SLACK = 3  # of the squared length, as 64 sums tell it
_MOST_FRACTION, _LEAST_FRACTION = 22, 12
_ROOM = 61  # bits of any value
_LENGTH_BITS = 15  # of a limit where lengths are squared
_INVERSE, _QUOTIENT = 28, 22  # fractional bits of the divisor's inverse while it is refined, and in the product
_GUARD = 8  # bits that the dividend has more than the result
_EVEN = 1 << 31  # a chance of one half
_NAME = re.compile(
    r"mean of at least ([0-9]{1,5}) updates, length up to ([0-9.e+-]{1,32}), examples up to ([0-9]{1,9})"
)


@dataclass(frozen=True)
class Mean:
    """What a plan of kind "aggregate" opens the mean of.

    Attributes:
        owners: who may be in it.
        minimum: the fewest that are, or it is 0: what a policy's `least_owners` is compared with.
    """

    owners: tuple[str, ...]
    minimum: int


def update_fraction(owners: int, limit: float, examples: int = MOST_EXAMPLES) -> int:
    """Fractional bits that owners share updates with: as many as the sums have room for, 22 at most.

    Args:
        owners: how many there can be in a mean, at most.
        limit: largest Euclidean length of an update.
        examples: the most that one owner may have.

    Raises:
        PlanError: no room for 12 bits.
    """
    _checked(owners, limit, examples)
    # Dividend: 12 limits at most in each element, times the sum of counts, twice, brought to a power of two.
    room = _ROOM - 6 - _span(owners, examples) - _bits(limit)
    if room < _LEAST_FRACTION:
        raise PlanError(
            f"a mean of {owners} owners: expected a smaller product of owners, examples and length of an update. "
            f"Received: length up to {limit:g} and up to {examples} examples each, which leave {room} fractional bits"
        )
    return min(_MOST_FRACTION, room)


def aggregate_plan(
    sizes: Sequence[int], owners: Sequence[str], limit: float, examples: int = MOST_EXAMPLES, fraction: int = 0,
    minimum: int = LEAST_OWNERS,
) -> Plan:
    """The weighted mean of the owners' updates, opened to whoever runs it.

    Inputs are, for each owner, `OWNER/examples`, the number of its examples, shape (1, 1), an integer, and
    `OWNER/update/J`, shape (1, sizes[J]), with `fraction` fractional bits; both as the owner's named shares hold them
    (`examples`, `update/J`). The public input `seed` is an integer below 2^45, fresh for each run. Outputs: `mean/J`.

    Args:
        sizes: elements of each part of an update.
        owners: at least `LEAST_OWNERS` parties, in any order.
        limit: largest Euclidean length of an update, all parts together.
        examples: the most that one owner may have; who says more counts as nothing.
        fraction: of the updates; 0: what `update_fraction` says of so many owners. It is chosen for all that could take
            part, and fewer may.
        minimum: the fewest sound updates that it is the mean of.

    Raises:
        PlanError: arguments that do not fit.
    """
    owners = sorted(owners)
    if len(set(owners)) != len(owners) or not LEAST_OWNERS <= len(owners) <= MOST_OWNERS or CLIENT in owners:
        raise PlanError(
            f"a mean of updates: expected {LEAST_OWNERS} to {MOST_OWNERS} owners, each once, by the names in their "
            f"certificates. Received: {len(owners)}, of which {len(set(owners))} are different"
        )
    most = update_fraction(len(owners), limit, examples)
    fraction = fraction or most
    if not _LEAST_FRACTION <= fraction <= most:
        raise PlanError(f"fraction: expected {_LEAST_FRACTION} to {most} bits. Received: {fraction}")
    limits.integer(minimum, LEAST_OWNERS, len(owners), "minimum")
    b = PlanBuilder()
    counts = [b.input(f"{owner}/examples", (1, 1), 0, owner, "examples") for owner in owners]
    parts = [
        [b.input(f"{owner}/update/{part}", (1, int(size)), fraction, owner, "update") for owner in owners]
        for part, size in enumerate(sizes)
    ]
    seed = b.input(SEED, (), 0, CLIENT, "seed", public=True)
    weights = b.add("concatenate", *counts, axis=1)
    updates = [b.add("concatenate", *part, axis=0) for part in parts]
    sound = _sound(b, weights, _projections(b, updates, seed), fraction, limit, examples)
    weights = b.add("multiply", weights, sound)
    scale, inverse = _inverse(b, weights, _span(len(owners), examples))
    many = b.add("reduce_sum", sound, axes=[1], keepdims=True)
    scale = b.add("multiply", scale, b.add("greater_equal", many, b.constant(np.array(minimum, np.int64), 0)))
    for part, update in enumerate(updates):
        total = b.add("matmul", weights, b.add("shift", update, bits=1))
        total = b.add("multiply", total, scale)
        widest = min(_ROOM - 5 - _bits(limit), limits.MAX_FRACTION) - _QUOTIENT
        cut = max(0, b.type(total).fraction - widest)
        total = b.add("truncate", total, bits=cut) if cut else total
        result = min(fraction + 1, b.type(total).fraction - _GUARD)
        mean = b.add("multiply", total, inverse)
        mean = b.add("truncate", mean, bits=b.type(mean).fraction - result)
        b.output(mean, f"mean/{part}", [CLIENT])
    name = f"mean of at least {minimum} updates, length up to {float(limit)!r}, examples up to {examples}"
    return b.build(name, "aggregate")


def mean_of(plan: Plan) -> Mean:
    """Whose mean a plan of kind "aggregate" opens: for a server, before it runs it under another's policy.

    Raises:
        PlanError: it is not what `aggregate_plan` gives for its owners, sizes and limits.
    """
    found = _NAME.fullmatch(plan.name)
    owners = sorted({item.owner for item in plan.inputs if item.owner != CLIENT})
    if plan.kind == "aggregate" and found and owners:
        parts = [item.type for item in plan.inputs if item.name.startswith(f"{owners[0]}/update/")]
        if parts and all(len(part.shape) == 2 for part in parts):
            sizes = [part.shape[1] for part in parts]
            try:
                minimum, limit, examples = int(found[1]), float(found[2]), int(found[3])
            except ValueError:
                raise _other(plan) from None
            if aggregate_plan(sizes, owners, limit, examples, parts[0].fraction, minimum).digest == plan.digest:
                return Mean(tuple(owners), minimum)
    raise _other(plan)


def _other(plan: Plan) -> PlanError:
    return PlanError(
        f"plan {plan.name!r}: expected the plan of a mean of updates as `aggregate_plan` builds it. Received: another "
        f"one, of kind {plan.kind!r}"
    )


def _projections(b: PlanBuilder, updates: Sequence[str], seed: str) -> str:
    """Sums of each owner's elements times -1, 0, 0 or 1, (owners, PROJECTIONS): local."""
    total = ""
    for part, update in enumerate(updates):
        plus, minus = (
            b.add("random", seed, shape=[b.type(update).shape[1], PROJECTIONS], fraction=0, distribution="bernoulli",
                  probability=_EVEN, stream=2 * part + sign)
            for sign in (0, 1)
        )  # fmt: skip
        projected = b.add("matmul", update, b.add("subtract", plus, minus))
        total = b.add("add", total, projected) if total else projected
    return total


def _sound(b: PlanBuilder, weights: str, projections: str, fraction: int, limit: float, examples: int) -> str:
    """For each owner 1 where all that it shared is in range, else 0, (1, owners)."""
    owners = b.type(projections).shape[0]
    both = b.add("concatenate", projections, b.add("negate", projections), axis=1)
    least = b.constant(np.array(-math.floor(_TAIL * limit * 2**fraction), np.int64), fraction)
    inside = b.add("reduce_sum", b.add("greater_equal", both, least), axes=[1])
    cut = min(fraction, max(0, _bits(limit) + fraction - _LENGTH_BITS))
    # Of twice the sums, as in the mean: a sum that was shared with the bit that no comparison sees has no other square.
    short = b.add("truncate", b.add("shift", projections, bits=1), bits=cut + 1)
    squares = b.add("reduce_sum", b.add("multiply", short, short), axes=[1])
    most = math.floor(_SLACK * PROJECTIONS / 2 * (limit * 2.0 ** (fraction - cut)) ** 2)
    length = b.add("less", squares, b.constant(np.array(most, np.int64), b.type(squares).fraction))
    count = b.add("reshape", weights, shape=[owners])
    some = b.add("greater_equal", count, b.constant(np.array(1, np.int64), 0))
    few = b.add("less", count, b.constant(np.array(examples + 1, np.int64), 0))
    holds = b.add("add", b.add("add", inside, length), b.add("add", some, few))
    sound = b.add("greater_equal", holds, b.constant(np.array(2 * PROJECTIONS + 3, np.int64), 0))
    return b.add("reshape", sound, shape=[1, owners])


def _inverse(b: PlanBuilder, weights: str, bits: int) -> tuple[str, str]:
    """A power of two that brings the sum of weights to 1/2 .. 1, and the inverse of what it is then; each (1, 1)."""
    total = b.add("reduce_sum", b.add("shift", weights, bits=1), axes=[1], keepdims=True)
    powers = np.array([[2 << j for j in range(1, bits + 1)]], np.int64)
    above = b.add("greater_equal", total, b.constant(powers, 1))
    less = b.constant(np.array([[1 << (bits - j)] for j in range(1, bits + 1)], np.int64), bits + 1)
    scale = b.add("subtract", b.constant(np.array([[1 << bits]], np.int64), bits + 1), b.add("matmul", above, less))
    divisor = b.add("multiply", total, scale)
    guess = b.add("reciprocal", divisor, low=-1, high=0, fraction=_INVERSE)
    cut = b.type(divisor).fraction - (limits.MAX_FRACTION - _INVERSE)
    divisor = b.add("truncate", divisor, bits=cut) if cut > 0 else divisor
    # One step of Newton's: an error of e becomes one of e squared.
    product = b.add("multiply", divisor, guess)
    two = b.constant(np.array(2 << b.type(product).fraction, np.int64), b.type(product).fraction)
    rest = b.add("subtract", two, product)
    rest = b.add("truncate", rest, bits=b.type(rest).fraction - _INVERSE)
    return scale, b.add("truncate", b.add("multiply", guess, rest), bits=2 * _INVERSE - _QUOTIENT)


def _span(owners: int, examples: int) -> int:
    """Octaves that a sum of counts may be in; the inverse wants a divisor of 12 fractional bits."""
    return max(10, _bits(owners * examples))


def _bits(most: float) -> int:
    """The least power of two that is not below a number."""
    mantissa, exponent = math.frexp(most)
    return exponent - (mantissa == 0.5)


def _checked(owners: int, limit: float, examples: int) -> None:
    if not 1 <= owners <= MOST_OWNERS:
        raise PlanError(f"a mean of updates: expected up to {MOST_OWNERS} owners. Received: {owners}")
    if not (math.isfinite(limit) and 2.0**LEAST_LIMIT <= limit <= 2.0**MOST_LIMIT):
        raise PlanError(
            f"a mean of updates: expected a largest length from 2^{LEAST_LIMIT} to 2^{MOST_LIMIT}. Received: {limit!r}"
        )
    limits.integer(examples, 1, MOST_EXAMPLES, "a mean of updates: most examples of an owner")
