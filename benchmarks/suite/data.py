"""Inputs and weights of all workloads, seeded by name, and what float64 makes of them. Needs NumPy alone, so that other
libraries' environments take the same numbers.
"""
import math
from collections.abc import Callable

import numpy as np

Arrays = tuple[np.ndarray, ...]


def rng(name: str) -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng([2024, *name.encode()])


# --- primitives -------------------------------------------------------------------------------------------------------
def _normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: tuple(g.normal(scale=scale, size=shape) for shape in shapes)


def _uniform(low: float, high: float, *shape: int) -> Callable[[np.random.Generator], Arrays]:
    return lambda g: (g.uniform(low, high, shape),)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def max_pool(x: np.ndarray) -> np.ndarray:
    """2 x 2 windows of (batch, height, width, channels)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


# By name: what float64 computes, and its inputs.
PRIMITIVES: dict[str, tuple[Callable, Callable[[np.random.Generator], Arrays]]] = {
    "matmul-1024": (np.matmul, _normal((1024, 1024), (1024, 1024))),
    "matmul-128": (np.matmul, _normal((128, 784), (784, 128))),
    "multiply": (np.multiply, _normal((10**6,), (10**6,))),
    "truncate": (lambda x: x, _normal((10**6,), scale=2.0)),
    "relu": (lambda x: np.maximum(x, 0), _normal((10**6,), scale=2.0)),
    "max-pool": (max_pool, _normal((128, 24, 24, 20))),
    "sigmoid": (sigmoid, _normal((10**5,), scale=2.0)),
    "exp": (np.exp, _uniform(-4, 4, 10**5)),
    "reciprocal": (lambda x: 1 / x, _uniform(0.1, 10, 10**5)),
    "sqrt": (np.sqrt, _uniform(0.01, 100, 10**5)),
    "softmax": (softmax, _normal((1000, 10), scale=2.0)),
}


def primitive(name: str, tiny: bool = False) -> Arrays:
    """Inputs of a primitive; `tiny` keeps a corner of them, of at most 8 along each axis."""
    arrays = PRIMITIVES[name][1](rng(name))
    return tuple(a[tuple(slice(8) for _ in a.shape)] for a in arrays) if tiny else arrays


# --- networks: layers that every library has --------------------------------------------------------------------------
# ("conv", filters, kernel, stride, padding), ("pool",), ("flatten",), ("dense", units). All but the last layer of those
# with weights have a ReLU.
Layer = tuple
VGG16 = [n for block in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)) for n in (*[block[0]] * block[1], "pool")]
STACKS: dict[str, tuple[tuple[int, ...], list[Layer]]] = {
    "A": ((784,), [("dense", 128), ("dense", 128), ("dense", 10)]),
    "B": (
        (28, 28, 1),
        [("conv", 16, 5, 1, "valid"), ("pool",), ("conv", 16, 5, 1, "valid"), ("pool",), ("flatten",), ("dense", 100),
         ("dense", 10)],
    ),
    "C": (
        (28, 28, 1),
        [("conv", 20, 5, 1, "valid"), ("pool",), ("conv", 50, 5, 1, "valid"), ("pool",), ("flatten",), ("dense", 500),
         ("dense", 10)],
    ),
    "D": ((28, 28, 1), [("conv", 5, 5, 2, "valid"), ("flatten",), ("dense", 100), ("dense", 10)]),
    "vgg16": (
        (32, 32, 3),
        [*(("pool",) if n == "pool" else ("conv", n, 3, 1, "same") for n in VGG16), ("flatten",), ("dense", 512),
         ("dense", 512), ("dense", 10)],
    ),
}  # fmt: skip
CLASSES = 10


def narrowed(stack: list[Layer]) -> list[Layer]:
    """The same stack with at most 4 filters and 8 units, for tests."""
    least = {"conv": 4, "dense": 8}
    thin = [(kind, min(rest[0], least[kind]), *rest[1:]) if rest else (kind,) for kind, *rest in stack]
    return [*thin[:-1], stack[-1]]


def stack(name: str, tiny: bool = False) -> tuple[tuple[int, ...], list[Layer]]:
    """Shape of a sample, and layers."""
    shape, layers = STACKS[name]
    return shape, narrowed(layers) if tiny else layers


def weights(name: str, tiny: bool = False) -> list[np.ndarray]:
    """Kernel and bias of each layer that has them, in order; kernels (height, width, channels, filters)."""
    g = rng(name)
    shape, layers = stack(name, tiny)
    shape, result = tuple(shape), []
    for kind, *rest in layers:
        if kind == "conv":
            filters, kernel, stride, padding = rest
            size = (kernel, kernel, shape[-1], filters)
            reach = 0 if padding == "same" else kernel - 1
            shape = (*(-(-(n - reach) // stride) for n in shape[:2]), filters)
        elif kind == "pool":
            shape = (shape[0] // 2, shape[1] // 2, shape[2])
            continue
        elif kind == "flatten":
            shape = (math.prod(shape),)
            continue
        else:
            size = (shape[-1], rest[0])
            shape = (rest[0],)
        fan_in = math.prod(size[:-1])
        result += [g.normal(scale=math.sqrt(2 / fan_in), size=size), g.normal(scale=0.01, size=size[-1:])]
    return result


def samples(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform inputs (count, *shape) and labels (count,)."""
    g = rng(name + " samples")
    return g.uniform(size=(count, *STACKS[name][0])), g.integers(0, CLASSES, count)


# --- logistic regression ----------------------------------------------------------------------------------------------
FEATURES = 100
ROWS = 10_000
RATE = 0.5


def logistic() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (10000, 100), labels (10000, 1) of a hidden linear model; weights (100, 1) and bias (1,) for predictions."""
    g = rng("logistic")
    x = g.normal(size=(ROWS, FEATURES)).clip(-3, 3)
    hidden = g.normal(scale=0.3, size=(FEATURES, 1))
    y = (x @ hidden + g.normal(scale=0.3, size=(ROWS, 1)) > 0).astype(np.float64)
    return x, y, g.normal(scale=0.15, size=(FEATURES, 1)), g.normal(scale=0.1, size=(1,))


def logistic_rows(batch: int, steps: int) -> np.ndarray:
    """Which rows each step takes, (steps, batch)."""
    starts = (np.arange(steps) * batch) % (ROWS - batch + 1)
    return starts[:, None] + np.arange(batch)


def logistic_fit(x: np.ndarray, y: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Weights and, below them, the bias after steps from 0 on rows `batches` (steps, batch), with the exact sigmoid."""
    w, b = np.zeros((x.shape[1], 1)), np.zeros(1)
    for rows in batches:
        error = (sigmoid(x[rows] @ w + b) - y[rows]) / len(rows)
        w, b = w - RATE * x[rows].T @ error, b - RATE * error.sum(0)
    return np.vstack([w, b])


# --- a layer of BERT-base ---------------------------------------------------------------------------------------------
SEQUENCE, HIDDEN, HEADS, INNER = 128, 768, 12, 3072


def bert(tiny: bool = False) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    """Weights by name, an input (1, sequence, hidden), and the number of heads."""
    g = rng("bert")
    length, d, heads, inner = (8, 16, 2, 32) if tiny else (SEQUENCE, HIDDEN, HEADS, INNER)
    spread = 0.03 * math.sqrt(HIDDEN / d)
    p = {}
    for name in "qkvo":
        p[f"w{name}"], p[f"b{name}"] = g.normal(scale=spread, size=(d, d)), g.normal(scale=0.01, size=d)
    p["w1"], p["b1"] = g.normal(scale=spread, size=(d, inner)), g.normal(scale=0.01, size=inner)
    p["w2"], p["b2"] = g.normal(scale=spread, size=(inner, d)), g.normal(scale=0.01, size=d)
    for name in "12":
        p[f"g{name}"], p[f"e{name}"] = 1 + g.normal(scale=0.05, size=d), g.normal(scale=0.01, size=d)
    return p, g.normal(size=(1, length, d)), heads
