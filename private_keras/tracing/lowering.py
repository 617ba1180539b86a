"""Lowering: writes plan steps for traced operations and keeps the books on fractions, constants and weights.

Fractions are lazy: a product keeps its long fraction through additions and movements, and is truncated where a step
needs the working fraction. So a bias is added before the truncation, and a skip connection joins two products under
one.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from private_keras.errors import UnsupportedError
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.gradients import UNFOLDED, unfold
from private_keras.tracing.values import Known, Product, Refused, Secret, Value

# Intermediate results are taken to be below 2^20 in absolute value, and ring elements must stay below 2^62.
HEADROOM = 20
LONGEST = 62 - HEADROOM - 1
SPARE = 4


class Lowering:
    """State of one lowering.

    Attributes:
        fraction: the plan's working fraction.
        approximation: "accurate" or "fast", for functions that are splines.
        builder: the plan being written.
        layer: path of the Keras layer whose operation is being lowered.
        weights: plaintext of each weight input declared so far, by name.
        training: whether gradients will be taken of what is written.
        joints: by value, how its gradient goes to values before it, instead of through the steps between.
        logits: by value that is a softmax or sigmoid, which of them and what of.
        seeds: by public input that is a random seed, the number that a layer asks for, or None.
    """

    def __init__(self, fraction: int, approximation: str, owner: str, training: bool = False):
        self.fraction = fraction
        self.approximation = approximation
        self.owner = owner
        self.builder = PlanBuilder()
        self.layer = ""
        self.weights: dict[str, np.ndarray] = {}
        self.training = training
        self.joints: dict[str, Any] = {}
        self.logits: dict[str, tuple[str, Secret]] = {}
        self.seeds: dict[str, int | None] = {}
        self._streams = 0
        self._weight_names: dict[tuple[str, int], str] = {}
        self._scaled: dict[tuple[str, int], Secret] = {}
        self._products: dict[int, tuple[Product, Secret]] = {}
        self._positive: set[str] = set()

    # --- writing -------------------------------------------------------------------------------------------------
    def step(self, op: str, *operands: Secret, **attributes: Any) -> Secret:
        """Adds a step; operands must have the fractions the primitive wants.

        In training maxima are written as relus, whose comparisons the gradient uses again.
        """
        names = [x.name for x in operands]
        if self.training and op in UNFOLDED:
            return self.secret(unfold(self.builder, op, *names, layer=self.layer, **attributes))
        return self.secret(self.builder.add(op, *names, layer=self.layer, **attributes))

    def product_step(self, op: str, x: Secret, y: Secret, **attributes: Any) -> Secret:
        """Adds a matmul or conv of operands at any fractions.

        One of two secrets that is truncated anyway is held twice, which is less work for servers and one bit more to
        truncate.
        """
        makers = (self.builder.maker(operand.name) for operand in (x, y))
        public = any(maker is not None and maker.op == "constant" for maker in makers)
        twice = not public and x.fraction + y.fraction > self.fraction
        return self.step(op, x, y, **attributes, twice=twice)

    def secret(self, name: str) -> Secret:
        kind = self.builder.type(name)
        return Secret(name, tuple(kind.shape), kind.fraction)

    def refuse(self, operation: str, advice: str) -> UnsupportedError:
        """The error to raise for `operation` in the current layer."""
        return UnsupportedError(f"{operation} cannot run on shares: {advice}")

    def positive(self, x: Secret) -> Secret:
        """Notes that x cannot be negative, by what it is, so that a division by it needs no sign."""
        self._positive.add(x.name)
        return x

    def is_positive(self, x: Secret) -> bool:
        return x.name in self._positive

    def random(self, shape: Sequence[int], fraction: int, distribution: str, seed: int | None, **more: Any) -> Secret:
        """Numbers that all servers draw alike, other ones in each step of a run and at each call of this."""
        name = "public/seed" if seed is None else f"public/seed/{seed}"
        if name not in self.seeds:
            self.builder.input(name, (), 0, self.owner, label="random seed", public=True)
            self.seeds[name] = seed
        self._streams += 1
        return self.step(
            "random",
            self.secret(name),
            shape=list(shape),
            fraction=fraction,
            distribution=distribution,
            stream=self._streams - 1,
            **more,
        )

    # --- operands ------------------------------------------------------------------------------------------------
    def as_secret(self, x: Value) -> Secret:
        """x as a value of the plan, at whatever fraction it has; known values at the working fraction."""
        if isinstance(x, Secret):
            return x
        if isinstance(x, Product):
            return self._write_product(x)
        return self.known(x, 0 if integral(x) else self.fraction)

    def at(self, x: Value, fraction: int | None = None) -> Secret:
        """x at exactly this fraction (the working one by default): shifted up, truncated down, or encoded."""
        fraction = self.fraction if fraction is None else fraction
        if isinstance(x, Known):
            return self.known(x, fraction)
        x = self.as_secret(x)
        if x.fraction == fraction:
            return x
        key = (x.name, fraction)
        if key not in self._scaled:
            if x.fraction < fraction:
                self._scaled[key] = self.step("shift", x, bits=fraction - x.fraction)
            else:
                self._scaled[key] = self.step("truncate", x, bits=x.fraction - fraction)
            if self.is_positive(x):
                self.positive(self._scaled[key])
        return self._scaled[key]

    def operand(self, x: Value, spare: int = 0) -> Secret:
        """x for a product: at most the working fraction, shorter if it has no more bits (truth values, integers).

        `spare`: bits it may have above that, where the other operand is at the working fraction: saves a truncation.
        """
        if isinstance(x, Known):
            return self.as_secret(x)
        x = self.as_secret(x)
        return x if x.fraction <= self.fraction + spare else self.at(x)

    def common(self, *xs: Value) -> list[Secret]:
        """All xs at one fraction, the longest among the secret ones, truncating only what is too long to meet."""
        secrets = [x if isinstance(x, Known) else self.as_secret(x) for x in xs]
        fractions = [x.fraction for x in secrets if isinstance(x, Secret)]
        longest = max(fractions) if fractions else self.fraction
        if longest < self.fraction and any(isinstance(x, Known) and not integral(x) for x in secrets):
            longest = self.fraction
        large = max(
            (float(np.max(np.abs(x.value), initial=0)) for x in secrets if isinstance(x, Known) and not x.secret),
            default=0,
        )
        if longest > LONGEST or large * 2.0**longest >= 2.0**60:
            longest = self.fraction
        return [self.at(x, longest) for x in secrets]

    def known(self, x: Known, fraction: int) -> Secret:
        """A known value in the plan: a constant if it is public, an input of the model owner if not."""
        if not x.secret:
            return self.secret(self.builder.constant(encode(x.value, fraction, self.layer), fraction, layer=self.layer))
        key = (x.identity, fraction)
        if key not in self._weight_names:
            check(x.value, fraction, x.label)
            name = "w" + hashlib.sha256(f"{x.identity}@{fraction}".encode()).hexdigest()[:16]
            self.builder.input(name, x.shape, fraction, self.owner, label=x.label[-200:])
            self._weight_names[key] = name
            self.weights[name] = x.value
        return self.secret(self._weight_names[key])

    # --- known values --------------------------------------------------------------------------------------------
    def derive(self, what: str, function: Callable[..., np.ndarray], *xs: Known) -> Known:
        """A known value computed from known values in float64. `what` names function and parameters completely."""
        value = np.asarray(function(*(np.asarray(x.value, dtype=np.float64) for x in xs)))
        identity = digest(what, *(x.identity for x in xs))
        label = next((x.label for x in xs if x.secret), "")
        return Known(value, any(x.secret for x in xs), identity, f"{label} ({what})" if label else what)

    def product(self, op: str, x: Value, w: Known, attributes: dict[str, Any], shape: tuple[int, ...]) -> Product:
        """A product with known weights that waits for factors and terms to fold in; weights are checked now."""
        check(w.value, self.fraction, w.label)
        return Product(op, self.operand(x, SPARE), w, None, attributes, shape, self.layer)

    # --- products ------------------------------------------------------------------------------------------------
    def _write_product(self, p: Product) -> Secret:
        done = self._products.get(id(p))
        if done is not None:
            return done[1]
        here, self.layer = self.layer, p.layer
        y = self.product_step(p.op, p.x, self.at(p.weight), **p.attributes)
        if p.bias is not None:
            y = self.step("add", y, self.known(p.bias, y.fraction))
        self.layer = here
        self._products[id(p)] = (p, y)
        return y


def encode(value: np.ndarray, fraction: int, label: str) -> np.ndarray:
    """Ring units, int64, rounded to nearest."""
    check(value, fraction, label)
    return np.rint(np.asarray(value, dtype=np.float64) * 2.0**fraction).astype(np.int64)


def check(value: np.ndarray, fraction: int, label: str) -> None:
    """Refuses known values that fixed point cannot hold, before anything is shared.

    Raises:
        UnsupportedError: for values that are not finite, or not below 2^62 ring units.
    """
    if not float(np.max(np.abs(value), initial=0)) < 2.0 ** (62 - fraction):  # NaN fails too
        raise UnsupportedError(
            f"'{label}' holds values that are not finite or not below 2^{62 - fraction}; expected values in that "
            "range. Scale the model's weights."
        )


def digest(*parts: Any) -> str:
    """A short name for an expression, from the names of its parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]


def integral(x: Known) -> bool:
    """Whether x is made of integers that may be public knowledge as such."""
    return x.value.dtype.kind in "iub" or (not x.secret and np.array_equal(x.value, np.rint(x.value)))


def shape_of(x: Value) -> tuple[int, ...]:
    return tuple(x.shape)


def axis_of(axis: int, x: Value | Sequence[int]) -> int:
    """A non-negative axis."""
    rank = len(x if isinstance(x, list | tuple) else x.shape)
    return axis + rank if axis < 0 else axis


def refused(*xs: Any) -> bool:
    return any(isinstance(x, Refused) for x in xs)
