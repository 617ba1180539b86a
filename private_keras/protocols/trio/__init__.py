"""The default protocol: two servers evaluate on masked values, a third deals correlated randomness over the masks.

Semi-honest, three servers, at most one corrupted, Z_2^64. Functionalities, simulation argument and sources stand in
docs/security.md; each method says its cost, error and leakage.
"""
from private_keras.protocols.trio.ahead import EVALUATORS, PIECE_BYTES, Ahead, CountingAhead, Supply
from private_keras.protocols.trio.counting import CountingTrio
from private_keras.protocols.trio.evaluator import Evaluator
from private_keras.protocols.trio.helper import Helper
from private_keras.protocols.trio.supplied import Supplied
from private_keras.ring.kernel import Kernel
from private_keras.transport.channel import Channel

__all__ = [
    "EVALUATORS", "PIECE_BYTES", "Ahead", "CountingAhead", "CountingTrio",
    "Evaluator", "Helper", "Supplied", "Supply", "make_party",
]  # fmt: skip


def make_party(party: int, kernel: Kernel, channels: dict[int, Channel], keys: dict[int, bytes]) -> Evaluator | Helper:
    """One server's side of one job.

    Args:
        party: 0 or 1 evaluate, 2 helps.
        kernel: ring arithmetic.
        channels: by peer index; the helper only sends, and only to server 1.
        keys: by peer index, 16 bytes that this job alone shares with that peer.
    """
    if party == 2:
        return Helper(kernel, channels, keys)
    return Evaluator(party, kernel, channels, keys)
