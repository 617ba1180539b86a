"""An evaluator's side of a job that `ahead` has made ready: the helper has done its part, and is not there."""
import numpy as np

from private_keras.errors import FrameError
from private_keras.protocols.protocol import Linear
from private_keras.protocols.trio.ahead import Supply
from private_keras.protocols.trio.dealing import in_pieces
from private_keras.protocols.trio.evaluator import HELPER, Evaluator, Take
from private_keras.protocols.trio.party import U
from private_keras.protocols.trio.shares import TrioShare
from private_keras.ring.kernel import Kernel
from private_keras.ring.steps import Factor, Words
from private_keras.transport.channel import Channel
from private_keras.transport.recorded import Recorded

NONE = np.zeros(0, U)


class Supplied(Evaluator):
    """See `Protocol` for the methods. Sends what `Evaluator` sends, to the bit.

    Args:
        channel: to the other evaluator.
        key: shared with the other evaluator, fresh; it blinds what is opened.
        supply: of the walk of this plan over the same masks.
    """

    def __init__(self, party: int, kernel: Kernel, channel: Channel, key: bytes, supply: Supply):
        self._helper = Recorded(f"server{HELPER}", NONE if supply.dealt is None else supply.dealt, supply.ends)
        other = 1 - party
        super().__init__(party, kernel, {other: channel, HELPER: self._helper}, {other: key, HELPER: supply.key})
        self._supply = supply

    def finish(self) -> None:
        """Called before results are given out.

        Raises:
            FrameError: the job drew or read otherwise than the walk; its result is wrong.
        """
        if self._draws[HELPER] != self._supply.draws or self._helper.left:
            raise FrameError("the job took another way than the walk that was made ahead of it; its result is withheld")

    def weight(self, m: np.ndarray, l: np.ndarray, operand: np.ndarray) -> TrioShare:  # noqa: E741
        """A stored value, with m - 2 l made before: half as much to read where it is large and the batch small."""
        return TrioShare(m.shape, m=m, l=l, z=operand, masked=True)

    def _dealt_words(self, count: int) -> Words:
        if self.party == 0:
            return super()._dealt_words(count)
        # Where they lie: to copy them would take longer than to use them.
        nbytes = count * U(0).nbytes
        self._helper.expect(self.step(HELPER), nbytes)
        return self._helper.taken(nbytes).view(U)

    def _dealing(self, words: int) -> Take:
        if self.party == 0 or not in_pieces(words):
            return super()._dealing(words)
        self._helper.expect(self.step(HELPER), words * U(0).nbytes)
        return lambda count: self._helper.taken(count * U(0).nbytes).view(U)

    def linear(self, fn: Linear, shape: tuple[int, ...], *xs: TrioShare) -> TrioShare:
        result = super().linear(fn, shape, *xs)
        if result.masked and all(x.z is not None for x in xs):
            result.z = np.asarray(fn(*(x.z for x in xs)))
        return result

    def _operand(self, x: TrioShare) -> Factor:
        return super()._operand(x) if x.z is None else x.z
