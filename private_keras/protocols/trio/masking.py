"""What everybody has in common who walks a plan with `trio`: the declared cost, and which shares are masked when."""
from abc import abstractmethod
from collections.abc import Sequence

from private_keras.protocols.protocol import Cost, Protocol
from private_keras.protocols.rounds import Opened, Rounds, Settle
from private_keras.protocols.trio import costs
from private_keras.protocols.trio.shares import TrioShare
from private_keras.ring.kernel import Kernel


class Masking(Protocol):
    """Evaluators, the helper and the count: they pass the same rounds and mask the same shares in the same order."""

    name = "trio"
    parties = 3

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.rounds = Rounds()
        self._charges: dict[Cost, int] = {}

    @property
    def cost(self) -> Cost:
        """What the steps so far have declared."""
        return sum((cost * times for cost, times in self._charges.items()), Cost(self.rounds.count))

    def charge(self, *costs: Cost) -> None:
        """Declares what a step sends. Counted, since jobs repeat steps; added up only when somebody asks."""
        for cost in costs:
            self._charges[cost] = self._charges.get(cost, 0) + 1

    def mask(self, *xs: TrioShare) -> None:
        todo = _additive(xs)
        if not todo:
            self.settle(xs)  # another branch may be masking some of them
        elif self.rounds.alone:
            opened, settle = self._covered(todo)
            settle(self.rounds.open(opened))
        else:
            self._post(todo)
            self.settle(xs)

    def begin(self, *xs: TrioShare) -> None:
        todo = _additive(xs)
        if todo:
            self._post(todo)

    def _post(self, todo: list[TrioShare]) -> None:
        ticket = self.rounds.post(*self._covered(todo))
        if not ticket.done:
            for x in todo:
                x.opening = ticket

    def _covered(self, xs: list[TrioShare]) -> tuple[Opened, Settle]:
        total = sum([x.size for x in xs])
        self.charge(costs.exchange(total))
        return self._cover(xs, total)

    def settling(self, xs: Sequence[TrioShare]) -> bool:
        for x in xs:
            if x.opening is not None:
                return True
        return False

    def settle(self, xs: Sequence[TrioShare]) -> None:
        for x in xs:
            if x.opening is not None:
                self.rounds.wait(x.opening)

    @abstractmethod
    def _cover(self, xs: list[TrioShare], total: int) -> tuple[Opened, Settle]:
        """Masks additive shares with fresh draws: what this party opens, and what gives them their new form then."""


def _additive(xs: Sequence[TrioShare]) -> list[TrioShare]:
    """Those that are in the additive form and nobody is masking, each once."""
    found = [x for x in xs if not x.masked and x.opening is None]
    return found if len(found) < 2 else list({id(x): x for x in found}.values())
