"""An evaluator's side of a job that `ahead` has made ready: the helper has done its part, and is not there."""
import math

import numpy as np

from private_keras.errors import FrameError
from private_keras.protocols.protocol import Bilinear, Linear
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.ahead import NEITHER, RIGHT, Supply
from private_keras.protocols.trio.dealing import in_pieces
from private_keras.protocols.trio.evaluator import HELPER, Evaluator, Take
from private_keras.protocols.trio.party import U, add_product
from private_keras.protocols.trio.shares import TrioShare
from private_keras.ring.kernel import Kernel
from private_keras.ring.steps import Words
from private_keras.transport.channel import Channel
from private_keras.transport.recorded import Recorded

NONE = np.zeros(0, U)


class Supplied(Evaluator):
    """See `Protocol` for the methods. Sends what `Evaluator` sends, to the bit, for one product where that needs two.

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
        self._known = iter(supply.known)
        self._parts = iter(supply.parts)

    def finish(self) -> None:
        """Called before results are given out.

        Raises:
            FrameError: the job drew or read otherwise than the walk; its result is wrong.
        """
        if self._draws[HELPER] != self._supply.draws or self._helper.left or next(self._known, None) is not None:
            raise FrameError("the job took another way than the walk that was made ahead of it; its result is withheld")

    def weight(self, m: np.ndarray, l: np.ndarray, z: np.ndarray) -> TrioShare:  # noqa: E741
        """A stored value, with m - l computed before: what products of evaluator 0 start from."""
        return TrioShare(m.shape, m=m, l=l, z=z, masked=True)

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

    def bilinear(self, op: Bilinear, shape: tuple[int, ...], x: TrioShare, y: TrioShare) -> TrioShare:
        self.mask(x, y)
        known = next(self._known, NEITHER)
        if known == NEITHER:
            return super().bilinear(op, shape, x, y)
        fixed = y if known == RIGHT else x
        if self.party == 0:
            self._draws[HELPER] += 1  # of what was dealt, which is in the part made ahead
            part = next(self._parts).reshape(shape)
            factor = fixed.z if fixed.z is not None else np.asarray(fixed.m - fixed.l)
            add_product(op, part, *((x.m, factor) if known == RIGHT else (factor, y.m)))
        else:
            part = self._dealt_words(math.prod(shape)).reshape(shape)
            add_product(op, part, *((x.m, fixed.l) if known == RIGHT else (fixed.l, y.m)), subtract=True)
        self.charge(costs.dealt(part.size))
        return TrioShare(shape, z=part, masked=False)
