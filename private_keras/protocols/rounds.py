"""Rounds that independent branches share: who waits for the other evaluator at the same time sends one message.

A branch is a step of a plan, or a part of one, in a greenlet of its own. It *posts* what it opens and *waits*; when
every branch waits, all that was posted goes in one message, and all go on. So a plan has the rounds of its longest
chain, not those of all its steps. Which branch runs when depends on the plan alone, never on a value or on time: both
evaluators send the same messages, and all three servers draw randomness in the same order.
"""

from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from private_keras.errors import PrivateKerasError

# A message of more words than this goes by itself, at once: to copy it would take longer than the round that it saves.
ALONE_WORDS = 1 << 17

# What is opened: words, or their number where a party only keeps in step with the evaluators.
Opened = np.ndarray | int
Settle = Callable[[Any], None]


class _Branch(greenlet):
    """A greenlet that switches to its parent when it waits; in the parent's context, which says where NumPy's arrays
    come from.
    """

    def __init__(self, run: Callable[[], None], parent: greenlet):
        super().__init__(run, parent)
        self.gr_context = copy_context()


class Ticket:
    """A message that was posted.

    Attributes:
        size: its words.
        owner: number of the outermost branch that posted it, -1 outside of all.
        done: whether it went.
        reply: what the other evaluator sent for it; None where nothing is sent.
    """

    __slots__ = ("message", "size", "owner", "done", "reply", "_then")

    def __init__(self, message: Opened, owner: int, then: Settle | None):
        self.message: Opened | None = message
        self.size = message if isinstance(message, int) else message.size
        self.owner = owner
        self.done = False
        self.reply: np.ndarray | None = None
        self._then = then

    def settle(self, reply: np.ndarray | None) -> None:
        """The message went, and this came back."""
        self.message, self.reply, self.done = None, reply, True
        if self._then is not None:
            self._then(reply)


class Rounds:
    """One party's rounds in one job. One thread at a time.

    Args:
        exchange: sends words to the other evaluator and returns its words of the same number; None for a party that
            does not take part and only keeps in step.
        told: called with the tickets of each round after it.

    Attributes:
        count: rounds so far.
        current: number of the outermost branch that runs, -1 outside of all.
        posted: messages that wait for the next round.
    """

    def __init__(
        self,
        exchange: Callable[[np.ndarray], np.ndarray] | None = None,
        told: Callable[[Sequence[Ticket]], None] | None = None,
    ):
        self._exchange = exchange
        self._told = told
        self.posted: list[Ticket] = []
        self.count = 0
        self.current = -1

    def post(self, message: Opened, then: Settle | None = None) -> Ticket:
        """Hands over what is to be opened; it goes with the next round, or at once if it is large.

        Args:
            message: words, uint64, one axis; not to be changed until the ticket is done.
            then: called with the other evaluator's words before any branch goes on.
        """
        ticket = Ticket(message, self.current, then)
        if ticket.size > ALONE_WORDS:
            self._round([ticket])
        else:
            self.posted.append(ticket)
        return ticket

    def wait(self, ticket: Ticket) -> np.ndarray | None:
        """The other evaluator's words, when the round is over. Other branches run meanwhile."""
        while not ticket.done:
            self._next()
        return ticket.reply

    @property
    def alone(self) -> bool:
        """Whether nothing else can go with what is opened now, so that it need not wait for company."""
        return not self.posted and self._told is None and not isinstance(getcurrent(), _Branch)

    def open(self, message: Opened) -> np.ndarray | None:
        """`post` and `wait`."""
        if self.alone:
            self.count += 1
            return None if self._exchange is None else self._exchange(message)
        return self.wait(self.post(message))

    def together(self, *branches: Callable[[], Any]) -> list[Any]:
        """Runs independent branches, which share their rounds; their results."""
        results: list[Any] = [None] * len(branches)

        def work(number: int) -> None:
            results[number] = branches[number]()

        self.run(range(len(branches)), work, lambda number: ())
        return results

    def run(
        self, ready: Iterable[int], work: Callable[[int], None], after: Callable[[int], Iterable[int]],
        local: Callable[[int], bool] = lambda number: False,
    ) -> None:
        """Runs numbered branches, the smallest number that can go on first.

        Args:
            ready: branches that can start.
            work: does the work of a branch.
            after: called when a branch has ended; which others can start now.
            local: whether a branch that starts now will not wait.

        Raises:
            Whatever a branch raises; no other goes on then.
        """
        here = getcurrent()
        outermost = self.current < 0
        heap = list(ready)
        heapify(heap)
        waiting: dict[int, _Branch] = {}
        try:
            while heap or waiting:
                while heap:
                    number = heappop(heap)
                    branch = waiting.pop(number, None)
                    if outermost:
                        self.current = number
                    if branch is None and (not heap and not waiting or local(number)):
                        # It does not wait, or nothing else could run while it waits: it needs no greenlet.
                        work(number)
                    else:
                        branch = branch or _Branch(partial(work, number), here)
                        branch.switch()
                        if not branch.dead:
                            waiting[number] = branch
                            continue
                    for other in after(number):
                        heappush(heap, other)
                if waiting:
                    self._next()
                    heap = sorted(waiting)
        finally:
            if outermost:
                self.current = -1
            for branch in waiting.values():
                branch.throw(GreenletExit)

    def _next(self) -> None:
        """Until the next round is over: in a branch others run meanwhile, outside of all the round takes place now."""
        here = getcurrent()
        if isinstance(here, _Branch):
            here.parent.switch()
        else:
            self._flush()

    def _flush(self) -> None:
        tickets, self.posted = self.posted, []
        if not tickets:
            raise PrivateKerasError("a step waits for a round in which nothing is sent; this is a fault, report it")
        self._round(tickets)

    def _round(self, tickets: list[Ticket]) -> None:
        self.count += 1
        if self._exchange is None:
            for ticket in tickets:
                ticket.settle(None)
        elif len(tickets) == 1:
            ticket = tickets[0]
            ticket.settle(self._exchange(ticket.message))
        else:
            theirs, at = self._exchange(np.concatenate([ticket.message for ticket in tickets])), 0
            for ticket in tickets:
                ticket.settle(theirs[at : at + ticket.size])
                at += ticket.size
        if self._told is not None:
            self._told(tickets)
