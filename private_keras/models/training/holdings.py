"""The values of a model's variables on the servers: weights, optimiser slots and metrics, by name of their state.

A value that a step has computed is known to nobody: the Keras variable is filled with NaN, so that nothing in the clear
can mistake an old value for it. A value that the user assigns to a variable counts from then on: it is seen by its
digest, whatever way it came in.
"""
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from private_keras.cluster import Cluster, Handle
from private_keras.cluster.shares import Share, delete_abandoned
from private_keras.errors import ClusterError, HandleNotFound
from private_keras.tracing.training.traced import State
from private_keras.tracing.training.weights import sanitised

LOST = (
    "the values that training gave to {count} variables of model {model!r} are gone, because a server was started anew "
    "or their cluster was closed. The model has the values again that it had before. Go on from a checkpoint: "
    "fit(..., checkpoint=name, resume=True), or private_keras.models.load_shares(name)."
)
ELSEWHERE = (
    "the values that training gave to {count} variables of model {model!r} are on another cluster than the one in use, "
    "and stay there. Use that one; or call set_weights(get_weights()) there, which opens them to you, and come back."
)


@dataclass(frozen=True)
class Held:
    """One variable on the servers.

    Attributes:
        state: what it is in plans.
        digest: of the Keras variable, when this began to count.
        share: where the value is.
        known: the last value that the client knew.
        secret: whether the value is another one now, which the client does not know.
        start: of a metric, the share of its value after a reset.
    """

    state: State
    digest: bytes
    share: Share
    known: np.ndarray = field(repr=False)
    secret: bool = False
    start: Share | None = None


Snapshot = Mapping[str, Held]
# Public numbers of an optimiser that steps change: the iteration, products of momenta.
Counters = list[tuple[keras.Variable, np.ndarray]]


class Holdings:
    """Of one model. One thread at a time."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._held: dict[str, Held] = {}
        self._offered: dict[str, Share] = {}
        self._origin: Counters = []
        self._veils = True

    @property
    def secret(self) -> bool:
        """Whether a weight has a value that the client does not know."""
        return any(held.secret and held.state.kind == "weight" and self._counts(held) for held in self._held.values())

    @property
    def known(self) -> bool:
        """Whether the client knows the values of all weights and of the optimiser."""
        return not self._offered and not any(h.secret and h.state.kind != "metric" for h in self.current().values())

    def copy(self) -> "Holdings":
        """Holdings that begin as these are; what they come to hold changes neither these nor the model's variables."""
        made = Holdings(self._model)
        made._held, made._offered, made._origin = dict(self._held), dict(self._offered), self._origin
        made._veils = False
        return made

    def handles(self, cluster: Cluster, states: Iterable[State]) -> dict[str, Handle]:
        """Handles of states by name; shares the client's value of those that are not there or were assigned since.

        Raises:
            HandleNotFound: secret values were lost with their servers. The client's last values are put back.
        """
        delete_abandoned()
        self.require_live(cluster)
        result = {}
        for state in states:
            held = self._held.get(state.name)
            if held is None or held.state.variable is not state.variable or not self._counts(held):
                held = None
            elif not held.share.live(cluster):
                held = None
            if held is None and place_of(state.name) in self._offered:
                self.adopt(state, self._offered.pop(place_of(state.name)))
                held = self._held[state.name]
            if held is None:
                held = self._held[state.name] = self._shared(cluster, state)
            result[state.name] = held.share.handle
        return result

    def put(self, cluster: Cluster, handles: Mapping[str, Handle]) -> None:
        """New values that a job has computed, by name of the state, which `handles` gave before."""
        self._note_origin()
        for name, handle in handles.items():
            self.place(name, Share(cluster, handle))

    def place(self, name: str, share: Share) -> None:
        """A new value of a state that is held already."""
        held = self._held[name]
        if self._veils and held.state.kind != "metric" and not held.secret:
            veil(held.state.variable)
        self._held[name] = replace(held, share=share, secret=True, digest=digest(held.state.variable))

    def adopt(self, state: State, share: Share) -> None:
        """A value that is on the servers already, of a state that may not be held yet."""
        if state.name not in self._held or self._held[state.name].state.variable is not state.variable:
            known = keras.ops.convert_to_numpy(state.variable).copy()
            self._held[state.name] = Held(state, digest(state.variable), share, known)
        elif not self._counts(self._held[state.name]):
            known = keras.ops.convert_to_numpy(state.variable).copy()
            self._held[state.name] = replace(self._held[state.name], known=known, secret=False)
        self.place(state.name, share)

    def offer(self, shares: Mapping[str, Share]) -> None:
        """Values on the servers by place ("weight/0"), each for a state that will be asked for, instead of all others.

        Weights are taken at once.
        """
        secret = [held for held in self.current().values() if held.secret and held.state.kind != "metric"]
        if secret:
            self._put_back(secret)
        self._held.clear()
        self._offered.clear()
        self._note_origin()
        self._offered = dict(shares)
        for i, variable in enumerate(self._model.weights):
            share = self._offered.pop(f"weight/{i}", None)
            if share is not None:
                self.adopt(self.state(variable, share.handle.fraction), share)

    @property
    def offered(self) -> dict[str, Share]:
        """What nobody asked for yet, by place."""
        return dict(self._offered)

    def state(self, variable: keras.Variable, fraction: int) -> State:
        """The state of a weight."""
        place = next(i for i, weight in enumerate(self._model.weights) if weight is variable)
        name = f"weight/{place}/{sanitised(variable.path)}"
        return State(name, "weight", tuple(variable.shape), fraction, variable)

    def find(self, variable: keras.Variable) -> Held | None:
        """What is held of a variable and counts."""
        for held in self._held.values():
            if held.state.variable is variable and self._counts(held):
                return held
        return None

    def reset_metrics(self) -> None:
        """Metrics begin anew with the values of their Keras variables."""
        self._offered = {place: share for place, share in self._offered.items() if not place.startswith("metric/")}
        for name, held in list(self._held.items()):
            if held.state.kind != "metric":
                continue
            if held.start is None:
                del self._held[name]
            else:
                self._held[name] = replace(held, share=held.start, secret=False)

    def snapshot(self) -> Snapshot:
        """All values as they are. Costs nothing but the servers' memory."""
        return dict(self._held)

    def restore(self, snapshot: Snapshot) -> None:
        """Takes values back, of weights also what the client knew."""
        since = {name: held for name, held in self._held.items() if name not in snapshot}
        for held in (*since.values(), *snapshot.values()):
            if held.state.kind != "metric" and (held.state.name in since or not held.secret):
                held.state.variable.assign(held.known)
        self._held = {
            name: replace(held, digest=digest(held.state.variable)) for name, held in snapshot.items()
        }

    def current(self) -> dict[str, Held]:
        """All that is held and counts, by name."""
        return {name: held for name, held in self._held.items() if self._counts(held)}

    def _note_origin(self) -> None:
        """Called before values become secret: the counters that go with what the client knows."""
        if self.known:
            self._origin = self.counters()

    def _put_back(self, secret: Iterable[Held]) -> None:
        """The client's last values, and the counters that go with them."""
        for held in secret:
            held.state.variable.assign(held.known)
        for variable, value in self._origin:
            variable.assign(value)

    def counters(self) -> Counters:
        """The optimiser's, as they are; the learning rate is its user's and none of them."""
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is None:
            return []
        states = {id(held.state.variable) for held in self._held.values()}
        states.add(id(optimizer._learning_rate))
        return [
            (v, keras.ops.convert_to_numpy(v).copy())
            for v in optimizer.variables if not len(v.shape) and id(v) not in states
        ]  # fmt: skip

    def _counts(self, held: Held) -> bool:
        return held.digest == digest(held.state.variable)

    def _shared(self, cluster: Cluster, state: State) -> Held:
        value = keras.ops.convert_to_numpy(state.variable).copy()
        handle = cluster.share(value.astype(np.float64), state.fraction, f"{self._model.name}: {state.variable.path}")
        share = Share(cluster, handle)
        start = share if state.kind == "metric" else None
        return Held(state, digest(state.variable), share, value, False, start)

    def require_live(self, cluster: Cluster) -> None:
        """Secret values are on this cluster.

        Raises:
            HandleNotFound: they were lost with their servers, and the client's last values are put back; or they are on
                another cluster, and nothing changes.
        """
        lost = [h for h in self.current().values() if h.secret and not h.share.live(cluster)]
        if not any(held.state.kind != "metric" for held in lost):
            for held in lost:
                del self._held[held.state.name]
            return
        if any(held.state.kind != "metric" and _lives(held.share) for held in lost):
            raise HandleNotFound(ELSEWHERE.format(count=len(lost), model=self._model.name))
        self._put_back(lost)
        self._held.clear()
        raise HandleNotFound(LOST.format(count=len(lost), model=self._model.name))


def _lives(share: Share) -> bool:
    """Whether it is on the cluster where it was put."""
    try:
        return share.cluster is not None and share.live(share.cluster)
    except ClusterError:  # closed, or cannot be reached
        return False


def place_of(name: str) -> str:
    """What a state's name has in common with that of another copy of the model, whose paths may differ."""
    return "/".join(name.split("/")[:2])


def veil(variable: keras.Variable) -> None:
    """Fills a variable with NaN where its dtype has it."""
    if "float" in keras.backend.standardize_dtype(variable.dtype):
        variable.assign(np.full(variable.shape, np.nan))


def digest(variable: keras.Variable) -> bytes:
    """Of a variable's value. About 1 ms per megabyte."""
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
    return hashlib.sha256(array.view(np.uint8).reshape(-1) if array.ndim else array.tobytes()).digest()
