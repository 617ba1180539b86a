"""Pieces of large steps: what the helper deals for one is made, sent and used before the next, in a core's cache.

A step's dealt words are one message, piece after piece; evaluator 0 draws its shares in the same order. Pieces follow
from public sizes alone, the same ones at all parties.
"""
from functools import lru_cache

from private_keras.protocols.trio.costs import KEPT
from private_keras.ring.kernel import BLOCK_WORDS, plane_words
from private_keras.ring.steps import Words, part

BLOCK = 64 * BLOCK_WORDS  # elements: pieces of bit planes are whole blocks
PIECE_WORDS = 1 << 16
# What is dealt for a smaller step is one piece: more calls would take longer than memory does.
WHOLE_WORDS = 2 * PIECE_WORDS


def in_pieces(words: int) -> bool:
    """Whether a message of so many words travels in pieces."""
    return words > WHOLE_WORDS


@lru_cache(KEPT)
def pieces(n: int, words: int) -> tuple[tuple[int, int], ...]:
    """Runs (begin, end) of n elements for which about `PIECE_WORDS` are dealt, `words` for each block of elements."""
    if not in_pieces(n * words // BLOCK):
        return ((0, n),)
    step = max(2, PIECE_WORDS // words) * BLOCK
    return tuple((begin, min(begin + step, n)) for begin in range(0, n, step))


def of_elements(message: Words, n: int, begin: int, end: int) -> Words:
    """What belongs to elements begin .. end-1, whole blocks, in a message of planes over n elements."""
    if end - begin == n:
        return message
    planes = message.size // plane_words(n)
    return part(message, planes * (begin // 64), planes * plane_words(end - begin))
