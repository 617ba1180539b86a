"""Integer tables of 2^x: the same on every machine, because evaluators must multiply by the very same factor.

2^(h/2^9) and 2^(l/2^18) for h, l < 512, scaled by 2^62 and rounded, by exact decimal arithmetic (60 digits).
"""

from decimal import Context, Decimal
from functools import cache

import numpy as np

FRACTION = 18
HALF = FRACTION // 2


@cache
def tables() -> tuple[np.ndarray, np.ndarray]:
    """(coarse, fine): 512 words each, round(2^62 * 2^(i/2^9)) and round(2^62 * 2^(i/2^18))."""
    context = Context(prec=60)
    ln2 = context.ln(Decimal(2))

    def entry(i: int, bits: int) -> int:
        value = context.multiply(
            context.exp(context.divide(context.multiply(ln2, Decimal(i)), Decimal(2**bits))), Decimal(2**62)
        )
        return int(value.to_integral_value())

    size = 1 << HALF
    coarse = np.array([entry(i, HALF) for i in range(size)], np.uint64)
    fine = np.array([entry(i, FRACTION) for i in range(size)], np.uint64)
    return coarse, fine
