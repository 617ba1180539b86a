"""Where the parties of a federation leave things for one another: named shares, and nothing else.

A board belongs to one party. What it puts there is read by those whom the policy names; computing servers learn names,
shapes and the public text, and no number.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from private_keras.errors import PrivateKerasError
from private_keras.plan.plan import Plan
from private_keras.server.policy import Policy


class Unusable(PrivateKerasError):
    """What one owner shared cannot be used, and the others' can.

    Attributes:
        owner, reason: who, and why.
        unwilling: whether it does not let it be used, rather than that it is gone.
    """

    def __init__(self, owner: str, reason: str, unwilling: bool = False):
        super().__init__(f"{owner}: {reason}")
        self.owner = owner
        self.reason = reason
        self.unwilling = unwilling


class Apart(PrivateKerasError):
    """Owners gave servers parts of updates that do not belong together; no mean was computed.

    Attributes:
        owners: who.
    """

    def __init__(self, owners: Sequence[str], reason: str):
        super().__init__(reason)
        self.owners = owners


@dataclass(frozen=True)
class Tensor:
    """What is to be shared: real numbers or integers, and their fractional bits on the servers."""

    values: np.ndarray = field(repr=False)
    fraction: int


@dataclass(frozen=True)
class Listed:
    """Named shares that this party may use.

    Attributes:
        owner: empty for this party itself.
        entries: shape and fractional bits by label.
        created: seconds since 1970, by a server's clock.
    """

    owner: str
    name: str
    entries: dict[str, tuple[tuple[int, ...], int]]
    created: float


class Board(ABC):
    """A party's view."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Who this is, as servers know it from the certificate."""

    @abstractmethod
    def put(self, name: str, tensors: Mapping[str, Tensor], about: str, policy: Policy) -> None:
        """Shares tensors under a name, in place of what was there; all of it or nothing.

        Raises:
            InputError: not finite or out of range; before it is shared.
            ClusterError: servers.
        """

    @abstractmethod
    def forget(self, name: str) -> None:
        """Deletes this party's shares under a name; without effect where there are none."""

    @abstractmethod
    def listed(self) -> list[Listed]:
        """What this party has put there, and what others let it use."""

    @abstractmethod
    def open(self, owner: str, name: str) -> tuple[dict[str, np.ndarray], str]:
        """Opens tensors to this party, whose owner lets it see them; with the text about them.

        Args:
            owner: empty for this party itself.

        Raises:
            HandleNotFound, SecurityError: gone, or not for this party.
        """

    @abstractmethod
    def mean(self, plan: Plan, updates: Mapping[str, str], seed: int) -> dict[str, np.ndarray]:
        """Runs the plan of a mean.

        Args:
            plan: of `aggregate_plan`.
            updates: for each of its owners the name under which it has shared.
            seed: the plan's public input.

        Returns:
            What it opens.

        Raises:
            Unusable: an owner's shares are gone, or its policy does not allow the mean; nothing was opened.
            Apart: owners are to blame that the job failed; updates may be used up.
            ClusterError, SecurityError: the job failed; updates may be used up.
        """
