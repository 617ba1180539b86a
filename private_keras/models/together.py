"""Predictions of one model that several threads ask for: one job at a time, which small ones that wait share.

What a small job takes is mostly rounds and calls, the same for one row as for sixteen. So while a job runs, others
wait, and those that can go together then go as one: rows one below the other, in order, and cut apart again afterwards.
All of it happens in one process, whose data it is; nobody else's rows are ever among them.
"""
import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from private_keras.errors import ClusterError, PrivateKerasError

# Rows of a call that may share a job, and of such a job.
MAX_ROWS = 32
MAX_TOGETHER = 64


class Call:
    """Something that needs the model for itself.

    Args:
        arrays: inputs of a prediction that may share a job; None for something else.
    """

    def __init__(self, arrays: Sequence[np.ndarray] | None = None):
        self.arrays = arrays
        self.rows = 0 if arrays is None else len(arrays[0])
        self.kind = () if arrays is None else tuple((array.shape[1:], array.dtype.str) for array in arrays)
        self.awake = threading.Event()
        self.done = False
        self._result: Any = None
        self._error: Exception | None = None

    def fits(self, other: "Call") -> bool:
        """Whether rows of the other one may stand below this one's."""
        return self.arrays is not None and self.kind == other.kind and max(self.rows, other.rows) <= MAX_ROWS

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        """What it gave, or why nothing."""
        self._result, self._error, self.done = result, error, True

    def outcome(self) -> Any:
        """The result; raises the error."""
        if self._error is not None:
            raise self._error
        return self._result


class Together:
    """Calls of one model, in the order in which they come. Thread safe.

    Args:
        predict: runs a batch; called by one thread at a time.
        most: rows that may share a job, for a call of a kind; below 2 where it does not pay.
    """

    def __init__(self, predict: Callable[[list[np.ndarray]], Any], most: Callable[[Call], int]):
        self._predict = predict
        self._most = most
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[Call] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The model is the caller's for a `with` block."""
        call = Call()
        self._wait(call)
        try:
            yield
        finally:
            self._next()

    def run(self, call: Call) -> Any:
        """A prediction's outputs, alone or together with others that wait; raises its error and nobody else's."""
        self._wait(call)
        if call.done:
            return call.outcome()
        group = [call]
        try:
            group = self._group(call)
            if len(group) == 1:
                return self._predict(list(call.arrays))
            self._share(group)
        finally:
            with self._lock:
                unfinished = [other for other in group[1:] if not other.done]
                self._waiting.extendleft(reversed(unfinished))  # the leader was interrupted: they go on without it
            for other in group[1:]:
                if other.done:
                    other.awake.set()
            self._next()
        return call.outcome()

    def _wait(self, call: Call) -> None:
        """Returns when the model is this call's, or another one has done it along."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            self._waiting.append(call)
        try:
            call.awake.wait()
        except BaseException:
            with self._lock:
                waits = call in self._waiting
                if waits:
                    self._waiting.remove(call)
            if not waits and call.awake.is_set() and not call.done:
                self._next()
            raise

    def _next(self) -> None:
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            self._busy = following is not None
        if following is not None:
            following.awake.set()

    def _group(self, call: Call) -> list[Call]:
        """This call and those that go with it, which wait no longer."""
        with self._lock:
            candidates = [other for other in self._waiting if call.fits(other)]
        if not candidates:
            return [call]
        group = [call]
        try:
            room = self._most(call) - call.rows
        except PrivateKerasError:  # what is wrong with larger batches is not this call's trouble
            return group
        with self._lock:
            for other in candidates:
                if other in self._waiting and other.rows <= room:
                    self._waiting.remove(other)
                    group.append(other)
                    room -= other.rows
        return group

    def _share(self, group: list[Call]) -> None:
        """Runs a group as one job. What is wrong with one of them is found by running each by itself."""
        rows = sum(call.rows for call in group)
        # Plans are made for a number of rows: powers of two are few. Rows beyond are the first one's again.
        extra = (1 << (rows - 1).bit_length()) - rows
        parts = zip(*(call.arrays for call in group), strict=True)
        batch = [np.concatenate([*part, np.repeat(part[0][:1], extra, axis=0)]) for part in parts]
        try:
            outputs = self._predict(batch)
        except ClusterError as error:
            for call in group:
                call.finish(error=copy.copy(error))
            return
        except Exception:
            for call in group:
                self._alone(call)
            return
        start = 0
        for call in group:
            stop = start + call.rows
            call.finish(keras.tree.map_structure(partial(_rows, start, stop), outputs))
            start = stop

    def _alone(self, call: Call) -> None:
        try:
            call.finish(self._predict(list(call.arrays)))
        except Exception as error:  # its caller gets it
            call.finish(error=error)


def _rows(start: int, stop: int, array: np.ndarray) -> np.ndarray:
    """A copy, which holds nobody else's rows."""
    return array[start:stop].copy()
