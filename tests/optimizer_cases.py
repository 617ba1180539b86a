"""An optimiser's update as a plan of its own, run step by step beside Keras' own optimiser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.protocols.simulate import Simulate, SimulatedShare
from private_keras.ring import default_kernel
from private_keras.server.execute import Program
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.training.optimizers import Updates, lower_optimizer

SHAPES = ((7, 5), (5,))
U = np.uint64


def encode(values, fraction: int) -> np.ndarray:
    return np.asarray(np.rint(np.asarray(values, np.float64) * 2.0**fraction)).astype(np.int64).astype(U)


def decode(elements: np.ndarray, fraction: int) -> np.ndarray:
    return elements.astype(np.int64) / 2.0**fraction


def variables(values: Sequence[np.ndarray], constraint=None) -> list[keras.Variable]:
    made = [
        keras.Variable(v.astype("float32"), trainable=True, name=name)
        for v, name in zip(values, ("kernel", "bias"), strict=False)
    ]
    for v in made:
        v.constraint = constraint
    return made


def initial(seed: int = 0, shapes=SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s) * 0.5 for s in shapes]


@dataclass
class Update:
    """One optimiser's step as a plan."""

    plan: Plan
    updates: Updates
    weights: list[str]
    carried: dict[str, str]


def lower(optimizer, trained, gradient_fraction: int = 24, scale: float = 1.0, without: Sequence[int] = ()) -> Update:
    lo = Lowering(18, "accurate", "model-owner")
    weights = [
        lo.secret(lo.builder.input(f"weight/{i}", tuple(v.shape), 18, "model-owner")) for i, v in enumerate(trained)
    ]
    gradients = [
        None if i in without else (lo.secret(lo.builder.input(f"g{i}", w.shape, gradient_fraction, "client")), scale)
        for i, w in enumerate(weights)
    ]
    updates = lower_optimizer(lo, optimizer, trained, weights, gradients)
    carried = {}
    new = {w.name: n for w, n in zip(weights, updates.weights, strict=True)}
    new |= {name: n for name, (_, n) in updates.slots.items()}
    for name, value in new.items():
        carried[name] = f"new/{name}"
        lo.builder.output(value.name, f"new/{name}", (), carry=name)
    return Update(optimise(lo.builder.build("update", "train")), updates, [w.name for w in weights], carried)


class Run:
    """Steps of an update on the arithmetic of the servers, with states carried from one to the next."""

    def __init__(self, update: Update, begin: Sequence[np.ndarray], gradient_fraction: int = 24, scale: float = 1.0):
        self.update = update
        self.program, self.protocol = Program(update.plan), Simulate(default_kernel())
        self.gradient_fraction, self.scale = gradient_fraction, scale
        self.state = {name: encode(v, 18) for name, v in zip(update.weights, begin, strict=True)}
        self.state |= {name: encode(s.variable, s.fraction) for name, (s, _) in update.updates.slots.items()}

    def inputs(self, gradients: Sequence[np.ndarray], public: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ring elements of the plan's inputs in the next step."""
        given = {f"g{i}": encode(g / self.scale, self.gradient_fraction) for i, g in enumerate(gradients)}
        given |= {n: encode(v, self.update.updates.public[n].fraction) for n, v in public.items()}
        return {item.name: {**self.state, **given}[item.name] for item in self.update.plan.inputs}

    def step(self, gradients: Sequence[np.ndarray], public: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The weights after one step more."""
        values = self.inputs(gradients, public)
        shares = {n: v if n in public else SimulatedShare(v) for n, v in values.items()}
        out = self.program.compute(self.protocol, shares)
        self.state = {name: out[new].value for name, new in self.update.carried.items()}
        return [decode(self.state[name], 18) for name in self.update.weights]


def compare(
    make: Callable[[], keras.Optimizer],
    gradient: float | Sequence[float] = 1e-2,
    steps: int = 6,
    *,
    gradient_fraction: int = 24,
    scale: float = 1.0,
    constraint=None,
    prepare: Callable[[keras.Optimizer], None] | None = None,
    seed: int = 0,
    update: Update | None = None,
) -> tuple[float, float]:
    """Runs both on the same random gradients; returns the largest difference, and how far weights moved.

    `update`: of `make()`, lowered already.
    """
    rng = np.random.default_rng(seed)
    begin = initial(seed)
    theirs = variables(begin, constraint)
    keras_optimizer = make()
    if prepare:
        prepare(keras_optimizer)
    keras_optimizer.build(theirs)
    if update is None:
        optimizer = make()
        if prepare:
            prepare(optimizer)
        update = lower(optimizer, variables(begin, constraint), gradient_fraction, scale)
    run = Run(update, begin, gradient_fraction, scale)
    public = update.updates.schedule(0, steps)
    worst = 0.0
    for step in range(steps):
        size = gradient if np.isscalar(gradient) else gradient[step % len(gradient)]
        gradients = [rng.normal(size=s) * size for s in SHAPES]
        weights = run.step(gradients, {n: v[step] for n, v in public.items()})
        # Keras divides by the factor that the loss was multiplied by.
        factor = keras_optimizer.loss_scale_factor or 1.0
        keras_optimizer.apply([keras.ops.convert_to_tensor((g * factor).astype("float32")) for g in gradients], theirs)
        for ours_now, v in zip(weights, theirs, strict=True):
            worst = max(worst, float(np.abs(ours_now - np.asarray(v)).max()))
    moved = max(float(np.abs(np.asarray(v) - b).max()) for v, b in zip(theirs, begin, strict=True))
    return worst, moved
