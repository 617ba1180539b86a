"""How large one party's part of a shared tensor is; see server/material.py."""

import numpy as np

SEED_BYTES = 16
WORD = np.dtype("<u8")
HELPER = 2


def seed_bytes(party: int) -> int:
    """Bytes of the seeds of one tensor's masks that a party gets."""
    return SEED_BYTES * (2 if party == HELPER else 1)


def material_bytes(party: int, elements: int) -> int:
    """Bytes on the wire for one party."""
    return seed_bytes(party) + (0 if party == HELPER else WORD.itemsize * elements)


def stored_bytes(elements: int) -> int:
    """Bytes that a server keeps for a tensor: mask and words."""
    return 2 * WORD.itemsize * elements
