"""What each step of `trio` sends, payload bytes; rounds are counted where they take place, since steps share them.

Tests hold the wire to this.
"""

from functools import lru_cache

from private_keras.protocols.protocol import Cost
from private_keras.ring import tree
from private_keras.ring.kernel import plane_words

WORD = 8
# Plans repeat a few shapes; a server must not remember every size that it ever saw.
KEPT = 1024


@lru_cache(KEPT)
def exchange(words: int) -> Cost:
    """Both evaluators send `words` to each other."""
    return Cost(0, (((0, 1), WORD * words), ((1, 0), WORD * words)), 0)


@lru_cache(KEPT)
def dealt(words: int) -> Cost:
    """The helper sends `words` to evaluator 1 (evaluator 0 draws its part from the common key), ahead of inputs."""
    return Cost(0, (((2, 1), WORD * words),), WORD * words)


@lru_cache(KEPT)
def compare(n: int, thresholds: int, width: int) -> Cost:
    """All thresholds together: what is dealt and what is opened."""
    return dealt(sum(compared_deals(n, thresholds, width))) + exchange(sum(openings(n, thresholds, width)))


@lru_cache(KEPT)
def compared_deals(n: int, thresholds: int, width: int) -> tuple[int, ...]:
    """Words that are dealt for a comparison: the digits once, then each level's products for all thresholds."""
    words, levels = plane_words(n), range(len(tree.levels(width)))
    return (words * tree.digit_planes(width), *(thresholds * words * tree.product_planes(width, i) for i in levels))


@lru_cache(KEPT)
def openings(n: int, thresholds: int, width: int) -> tuple[int, ...]:
    """Words that a comparison opens, one round after the other: the levels of the tree, then the masked result."""
    words = thresholds * plane_words(n)
    return (*(words * tree.opened_planes(width, level) for level in range(len(tree.levels(width)))), words)


def piece_words(shape: tuple[int, ...]) -> int:
    """Words that are dealt for each element of a polynomial in pieces, whose coefficients have this shape."""
    pieces, terms = shape
    return (terms == 3) + terms * (pieces - 1)


@lru_cache(KEPT)
def carry(n: int, bits: int) -> Cost:
    """The two narrow words of a truncation: r >> bits in full, the top bit of r as `bits` bits."""
    return dealt(n + carry_words(n, bits, 1))


def carry_words(n: int, bits: int, party: int) -> int:
    """Words that an evaluator's shares of n bits mod 2^bits take: upper bits of words that it draws, or planes."""
    return plane_words(n) * bits if party else n
