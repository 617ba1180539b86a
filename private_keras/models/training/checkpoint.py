"""Models and runs of `fit` on the servers' disks: values as shares, everything public as a text beside them.

The text comes back from servers and is not trusted: it is parsed and checked like a file from a stranger.
"""
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from private_keras.cluster import Cluster, current
from private_keras.cluster.shares import Share
from private_keras.errors import FileError, InputError
from private_keras.models.training.holdings import place_of
from private_keras.models.training.jobs import Jobs
from private_keras.models.training.options import Options
from private_keras.server.policy import Policy

OWNER_ONLY = Policy()
FORMAT = "private_keras.model/1"


@dataclass(frozen=True)
class Progress:
    """How far a `fit` is.

    Attributes:
        epoch: that is begun or next, from 0.
        step: steps of it that are done.
        position: of the data when the epoch begins: passes, and batches of the present pass.
        seed: of shuffle and dropout.
    """

    epoch: int
    step: int
    position: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """What is saved under a name.

    Attributes:
        name: of it.
        shares: by place, "weight/0".
        about: the text, parsed.
        progress: of a fit; None for what `save_shares` saved.
    """

    name: str
    shares: dict[str, Share]
    about: dict[str, Any]
    progress: Progress | None

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def position(self) -> tuple[int, int]:
        return self.progress.position

    def applied(self, options: Options) -> Options:
        """Options of a fit that goes on from here."""
        return dataclasses.replace(options, initial_epoch=self.progress.epoch, seed=self.progress.seed)


def save(
    model: keras.Model, jobs: Jobs, cluster: Cluster, name: str, progress: Progress | None = None,
    policy: Policy = OWNER_ONLY,
) -> None:  # fmt: skip
    """Saves weights, optimiser and metrics as shares, with the model's configuration.

    Raises:
        ClusterError: a server without room or a directory for it.
    """
    jobs.holdings.require_live(cluster)
    held = jobs.holdings.current()
    shares = {place_of(label): item.share for label, item in held.items() if item.state.kind != "metric" or progress}
    shares |= jobs.holdings.offered
    for i, variable in enumerate(model.weights):
        if f"weight/{i}" not in shares:  # the client knows it: it was not needed yet, or it is public
            value = keras.ops.convert_to_numpy(variable).astype(np.float64)
            fraction = 18 if "float" in keras.backend.standardize_dtype(variable.dtype) else 0
            shares[f"weight/{i}"] = Share(cluster, cluster.share(value, fraction, variable.path))
    about = json.dumps(_about(model, jobs, progress), sort_keys=True)
    cluster.save(name, {place: share.handle for place, share in shares.items()}, about, policy)


def _about(model: keras.Model, jobs: Jobs, progress: Progress | None) -> dict[str, Any]:
    counted = {place_of(name): value.tolist() for name, value in jobs.tallies.items()} if progress else {}
    return {
        "format": FORMAT,
        "name": model.name,
        "model": _config(model),
        "public": [i for i, layer in enumerate(model._flatten_layers()) if getattr(layer, "public", False)],
        "optimizer": _public_scalars(model, jobs),
        "tallies": counted,
        "progress": None if progress is None else dataclasses.asdict(progress),
    }


def _public_scalars(model: keras.Model, jobs: Jobs) -> list[float | int | None]:
    """Of an optimiser's variables those that are public: iterations, learning rate, products of momenta."""
    if not model.compiled or model.optimizer is None:
        return []
    if model.built and not model.optimizer.built:  # by the first step, or whoever loads the model
        model.optimizer.build(model.trainable_variables)
    held = {id(item.state.variable) for item in jobs.holdings.current().values()}
    return [
        None if len(variable.shape) or id(variable) in held else keras.ops.convert_to_numpy(variable).item()
        for variable in model.optimizer.variables
    ]


def _config(model: keras.Model) -> str | None:
    """Layers and compilation as JSON; None for a model that cannot be written down."""
    try:
        return model.to_json()
    except (NotImplementedError, TypeError, ValueError):
        return None


def read(cluster: Cluster, name: str, owner: str | None = None) -> Checkpoint:
    """What is saved under a name, by this client or by `owner`.

    Raises:
        HandleNotFound: nothing is.
        FileError: what servers give is not what `save` writes.
    """
    handles, text = cluster.load(name, owner)
    shares = {place: Share(cluster, handle) for place, handle in handles.items()}
    try:
        about = json.loads(text)
        if not isinstance(about, dict) or about["format"] != FORMAT:
            raise ValueError("another format")
        for key, kinds in _KINDS.items():
            if not isinstance(about[key], kinds):
                raise ValueError(f"{key} is of type {type(about[key]).__name__}")
        if not all(item is None or isinstance(item, int | float) for item in about["optimizer"]):
            raise ValueError("optimizer is damaged")
        about["tallies"] = {str(k): np.asarray(v, np.float64) for k, v in about["tallies"].items()}
        progress = None if about["progress"] is None else _progress(about["progress"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(
            f"{name!r} was not saved by save_shares or fit of this release ({type(error).__name__}: "
            f"{str(error)[:80]}); save it again"
        ) from None
    return Checkpoint(name, shares, about, progress)


_KINDS = {
    "name": str, "model": str | None, "public": list, "optimizer": list, "tallies": dict, "progress": dict | None,
}  # fmt: skip


def _progress(given: dict[str, Any]) -> Progress:
    position = given["position"]
    numbers = [given["epoch"], given["step"], given["seed"], *position]
    if len(position) != 2 or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in numbers):
        raise ValueError("progress is damaged")
    return Progress(given["epoch"], given["step"], (position[0], position[1]), given["seed"])


def find(options: Options) -> Checkpoint | None:
    """The checkpoint that a fit goes on from; None if there is none yet.

    Raises:
        InputError: it is a model that was saved outside of `fit`.
    """
    cluster = current()
    if options.checkpoint not in cluster.saved():
        return None
    found = read(cluster, options.checkpoint)
    if found.progress is None:
        raise InputError(
            f"checkpoint {found.name!r} was saved by save_shares, not by a fit that could be resumed. Load it with "
            "private_keras.models.load_shares, and give another name."
        )
    return found


def take(model: keras.Model, jobs: Jobs, cluster: Cluster, found: Checkpoint) -> None:
    """Gives a model the values of a checkpoint.

    Raises:
        InputError: they are those of a model with other weights.
    """
    shapes = {f"weight/{i}": tuple(v.shape) for i, v in enumerate(model.weights)}
    theirs = {place: s.handle.shape for place, s in found.shares.items() if place.startswith("weight/")}
    if shapes != theirs:
        raise InputError(
            f"checkpoint {found.name!r} is of a model {found.about['name']!r} with weights of other shapes. Expected: "
            f"{list(shapes.values())[:8]}. Received: {list(theirs.values())[:8]}"
        )
    jobs.holdings.offer(found.shares)
    jobs.begin(found.about["tallies"])
    if model.compiled and model.optimizer is not None:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        scalars = found.about["optimizer"]
        if len(scalars) != len(model.optimizer.variables):
            raise InputError(
                f"checkpoint {found.name!r} was saved with another optimizer than {type(model.optimizer).__name__} of "
                f"model {model.name!r}, or with other trainable weights. Compile the model as it was"
            )
        for variable, value in zip(model.optimizer.variables, scalars, strict=True):
            if value is not None and not len(variable.shape):
                variable.assign(value)
