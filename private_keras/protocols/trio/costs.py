"""What each step of `trio` sends: rounds between the evaluators, and payload bytes. Tests hold the wire to this."""

from functools import lru_cache

from private_keras.protocols.protocol import Cost
from private_keras.ring import tree
from private_keras.ring.kernel import plane_words

WORD = 8
# Plans repeat a few shapes; a server must not remember every size that it ever saw.
KEPT = 1024


@lru_cache(KEPT)
def exchange(words: int, rounds: int = 1) -> Cost:
    """Both evaluators send `words` to each other."""
    return Cost(rounds, (((0, 1), WORD * words), ((1, 0), WORD * words)), 0)


@lru_cache(KEPT)
def dealt(words: int) -> Cost:
    """The helper sends `words` to evaluator 1 (evaluator 0 draws its part from the common key), ahead of inputs."""
    return Cost(0, (((2, 1), WORD * words),), WORD * words)


@lru_cache(KEPT)
def compare(n: int, thresholds: int, width: int) -> Cost:
    """All thresholds together: two levels of the tree and the masked result (62 bits: 3 rounds)."""
    words = plane_words(n)
    depth = len(tree.levels(width))
    products = sum(tree.product_planes(width, i) for i in range(depth))
    cost = dealt(words * (tree.digit_planes(width) + thresholds * products))
    for level in range(depth):
        cost += exchange(words * thresholds * tree.opened_planes(width, level))
    return cost + exchange(words * thresholds)


@lru_cache(KEPT)
def carry(n: int, bits: int) -> Cost:
    """The two narrow words of a truncation: r >> bits in full, the top bit of r as `bits` bits."""
    return dealt(n + plane_words(n) * bits)
