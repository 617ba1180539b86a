"""One small plan for every primitive, in its several forms, with what NumPy says of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan
from private_keras.ring import noise
from private_keras.ring.numpy_kernel import NumpyKernel

F = 18
UNIT = 2.0**-F
rng = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    """`build` gets a builder with the inputs x, y, ... declared; `expected` gets their real values."""

    op: str
    build: Callable[[PlanBuilder], str]
    expected: Callable[..., np.ndarray]
    inputs: dict[str, np.ndarray]
    fractions: dict[str, int] = field(default_factory=dict)
    tolerance: float = 0.0
    public: tuple[str, ...] = ()

    def plan(self) -> Plan:
        b = PlanBuilder()
        for name, value in self.inputs.items():
            b.input(name, value.shape, self.fractions.get(name, F), "client", public=name in self.public)
        b.output(self.build(b), "result", ["client"])
        return b.build(self.op, "predict")

    def encoded(self) -> dict[str, np.ndarray]:
        return {name: encode(value, self.fractions.get(name, F)) for name, value in self.inputs.items()}

    def given(self, p) -> dict:
        """What a protocol that makes shares of constants takes for the inputs."""
        return {name: v if name in self.public else p.constant(v) for name, v in self.encoded().items()}

    def check(self, opened: np.ndarray) -> None:
        plan = self.plan()
        kind = plan.types[plan.outputs[0].value]
        expected = self.expected(*self.inputs.values())
        assert opened.shape == kind.shape == np.shape(expected)
        assert opened.dtype == np.uint64
        assert np.abs(decode(opened, kind.fraction) - expected).max() <= self.tolerance


def encode(value: np.ndarray, fraction: int) -> np.ndarray:
    return np.asarray(np.rint(value * 2.0**fraction)).astype(np.int64).astype(np.uint64)


def decode(elements: np.ndarray, fraction: int) -> np.ndarray:
    return elements.astype(np.int64) / 2.0**fraction


def exact(*shape: int) -> np.ndarray:
    """Values that 18 fractional bits hold exactly, and whose products 36 do."""
    return rng.integers(-4000, 4000, shape) / 1024.0


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return rng.integers(low, high, shape).astype(float)


def _case(
    op: str, expected, inputs: dict, *, tolerance=0.0, fractions=None, operands=None, public=(), **attributes
) -> Case:
    names = operands or tuple(inputs)
    return Case(
        op, lambda b: b.add(op, *names, layer="zoo", **attributes), expected, inputs, fractions or {}, tolerance,
        public,
    )


def _with_constant(
    op: str, expected, x: np.ndarray, constant: np.ndarray, *, first: bool, tolerance=0.0, fraction=F, **attributes
):
    def build(b: PlanBuilder) -> str:
        c = b.constant(encode(constant, fraction), fraction)
        return b.add(op, *((c, "x") if first else ("x", c)), **attributes)

    return Case(op, build, lambda x: expected(*((constant, x) if first else (x, constant))), {"x": x}, {}, tolerance)


def conv_reference(x, w, strides, padding, dilation, input_dilation, groups, twice=False) -> np.ndarray:
    """Cross-correlation by its definition."""
    space = x.ndim - 2
    spread = np.zeros(
        (x.shape[0], *((n - 1) * d + 1 for n, d in zip(x.shape[1:-1], input_dilation, strict=True)), x.shape[-1])
    )
    spread[(slice(None), *(slice(None, None, d) for d in input_dilation))] = x
    padded = np.pad(spread, [(0, 0), *padding, (0, 0)])
    window = w.shape[:space]
    out = [(padded.shape[1 + i] - (window[i] - 1) * dilation[i] - 1) // strides[i] + 1 for i in range(space)]
    channels, filters = x.shape[-1] // groups, w.shape[-1] // groups
    result = np.zeros((x.shape[0], *out, w.shape[-1]))
    for place in np.ndindex(*out):
        for tap in np.ndindex(*window):
            at = tuple(p * s + t * d for p, s, t, d in zip(place, strides, tap, dilation, strict=True))
            for g in range(groups):
                rows = slice(g * channels, (g + 1) * channels)
                columns = slice(g * filters, (g + 1) * filters)
                result[(slice(None), *place, columns)] += (
                    padded[(slice(None), *at, rows)] @ w[(*tap, slice(None), columns)]
                )
    return result


def pool_reference(x, window, strides, padding, fill, reduce) -> np.ndarray:
    padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=fill)
    out = [(n - w) // s + 1 for n, w, s in zip(padded.shape[1:-1], window, strides, strict=True)]
    result = np.zeros((x.shape[0], *out, x.shape[-1]))
    for place in np.ndindex(*out):
        part = padded[(slice(None), *(slice(p * s, p * s + w) for p, s, w in zip(place, strides, window, strict=True)))]
        result[(slice(None), *place)] = reduce(part, axis=tuple(range(1, x.ndim - 1)))
    return result


def _conv(shape, kernel, **attributes) -> Case:
    attributes.setdefault("groups", 1)
    return _case(
        "conv", lambda x, w: conv_reference(x, w, **attributes), {"x": exact(*shape), "w": exact(*kernel)}, **attributes
    )


def _pool(op: str, shape, **attributes) -> Case:
    fill, reduce = (-np.inf, np.max) if op == "max_pool" else (0, np.sum)
    return _case(
        op, lambda x: pool_reference(x, fill=fill, reduce=reduce, **attributes), {"x": exact(*shape)}, **attributes
    )


def _logic(op: str, expected, kinds: str) -> Case:
    """Truth values as bits ("b", from comparisons), shares ("s", inputs) and public arrays ("p")."""
    reals = {name: exact(5, 4) for name in ("x", "y")}
    truths = {name: integers(0, 2, 5, 4) for name in ("c", "d")}
    fixed = integers(0, 2, 4)

    def build(b: PlanBuilder) -> str:
        zero = b.constant(np.zeros((), np.int64), F)
        made = {
            "b": [b.add("greater_equal", n, zero) for n in reals],
            "s": list(truths),
            "p": [b.constant(encode(fixed, 0), 0)] * 2,
        }
        return b.add(op, *(made[kind][i] for i, kind in enumerate(kinds)))

    def reference(x, y, c, d):
        made = {"b": [x >= 0, y >= 0], "s": [c > 0, d > 0], "p": [fixed > 0] * 2}
        return expected(*(made[kind][i] for i, kind in enumerate(kinds))).astype(float)

    return Case(op, build, reference, {**reals, **truths}, {"c": 0, "d": 0})


def _select(kind: str, public_branch: bool) -> Case:
    inputs = {"x": exact(3, 4), "y": exact(4), "z": exact(2, 3, 4), "c": integers(0, 2, 2, 3, 4)}

    def build(b: PlanBuilder) -> str:
        c = "c" if kind == "share" else b.add("less", "z", b.constant(np.zeros((), np.int64), F))
        other = b.constant(np.asarray(1 << F), F) if public_branch else "y"
        return b.add("select", c, "x", other)

    def expected(x, y, z, c):
        return np.where(c > 0 if kind == "share" else z < 0, x, 1.0 if public_branch else y)

    return Case("select", build, expected, inputs, {"c": 0})


def _bits_moved() -> Case:
    """A comparison's bits through every movement, then counted."""

    def build(b: PlanBuilder) -> str:
        c = b.add("greater_equal", "x", "y")
        c = b.add("transpose", b.add("reshape", c, shape=[2, 3, 2]), axes=[2, 1, 0])
        c = b.add("pad", b.add("gather", c, axis=1, indices=[2, 0, 0]), padding=[[0, 1], [1, 0], [0, 0]])
        c = b.add("broadcast", b.add("concatenate", c, c, axis=0), shape=[2, 6, 4, 2])
        c = b.add("slice", c, start=[0, 5, 0, 0], stop=[2, -7, 4, 2], step=[1, -2, 1, 1])
        return b.add("reduce_sum", c, axes=[0, 3])

    def expected(x, y):
        c = (x >= y).astype(float).reshape(2, 3, 2).transpose(2, 1, 0)
        c = np.pad(c[:, [2, 0, 0]], [[0, 1], [1, 0], [0, 0]])
        c = np.broadcast_to(np.concatenate([c, c]), (2, 6, 4, 2))[:, ::-2]
        return c.sum((0, 3))

    return Case("greater_equal", build, expected, {"x": exact(3, 4), "y": exact(4)})


def _drawn(distribution: str, fraction: int, **attributes) -> Case:
    """Public numbers times a secret: dropout, in short."""
    attributes |= {"shape": [3, 4], "fraction": fraction, "distribution": distribution, "stream": 2}

    def expected(x, seed):
        return x * noise.drawn(NumpyKernel(), int(seed), attributes).astype(np.int64) / 2.0**fraction

    return Case(
        "random", lambda b: b.add("multiply", "x", b.add("random", "seed", **attributes)), expected,
        {"x": X, "seed": np.array(7.0)}, {"seed": 0}, public=("seed",),
    )


def _softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


X, Y = exact(3, 4), exact(2, 1, 4)
TIES = np.array([[1.0, 3.0, 3.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
NEAR = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]])
ONE = {"input_dilation": [1, 1], "dilation": [1, 1]}
SPLINE = {"knots": [-(1 << F), 1 << F], "scale": 2 * F, "fraction": F, "label": "bump"}
ROWS = [[0, 0, 0], [1 << (2 * F), 0, -1], [0, 0, 0]]

CASES = {
    "constant": Case(
        "constant",
        lambda b: b.add("relu", b.constant(encode(NEAR, F), F)),
        lambda x: np.maximum(NEAR, 0),
        {"x": exact(1)},
    ),
    "constant opened": Case("constant", lambda b: b.constant(encode(NEAR, F), F), lambda x: NEAR, {"x": exact(1)}),
    "add": _case("add", np.add, {"x": X, "y": Y}),
    "add to itself": _case("add", lambda x: 2 * x, {"x": X}, operands=("x", "x")),
    "add constant": _with_constant("add", np.add, X, Y, first=False),
    "constant add": _with_constant("add", np.add, Y, X, first=True),
    "subtract": _case("subtract", np.subtract, {"x": X, "y": Y}),
    "subtract constant": _with_constant("subtract", np.subtract, X, Y, first=False),
    "constant subtract": _with_constant("subtract", np.subtract, X, Y, first=True),
    "scalars": _case("multiply", np.multiply, {"x": exact(), "y": exact()}),
    "negate": _case("negate", np.negative, {"x": X}),
    "shift": _case("shift", lambda x: x, {"x": X}, bits=7),
    "truncate": _case("truncate", lambda x: x, {"x": X}, bits=8, tolerance=2.0**-10),
    "rescale": _case(
        "rescale", lambda x, c: x * c, {"x": X, "c": np.array(-0.3125)}, fractions={"c": 20}, public=("c",), bits=20,
        tolerance=2.0**-F,
    ),
    "rescale scalar": _case(
        "rescale", lambda x, c: x * c, {"x": exact(), "c": np.array(3.0)}, fractions={"c": 4}, public=("c",), bits=6,
        tolerance=2.0**-16,
    ),
    "truncate constant": Case(
        "truncate",
        lambda b: b.add("truncate", b.constant(encode(X, F), F), bits=8),
        lambda x: X,
        {"x": exact(1)},
        {},
        2.0**-11,
    ),
    "multiply": _case("multiply", np.multiply, {"x": X, "y": Y}),
    "square": _case("multiply", np.square, {"x": X}, operands=("x", "x")),
    "multiply constant": _with_constant("multiply", np.multiply, X, Y, first=True),
    "multiply constants": Case(
        "multiply",
        lambda b: b.add("multiply", b.constant(encode(X, F), F), b.constant(encode(Y, F), F)),
        lambda x: X * Y,
        {"x": exact(1)},
    ),
    "multiply bits": Case(
        "multiply",
        lambda b: b.add("multiply", "y", b.add("less", "x", "x")),
        lambda x, y: 0 * x * y,
        {"x": X, "y": exact(2, 1, 4)},
    ),
    "matmul": _case("matmul", np.matmul, {"x": exact(2, 1, 3, 5), "y": exact(4, 5, 2)}),
    "matmul constant": _with_constant("matmul", np.matmul, exact(3, 5), exact(5, 2), first=False),
    "constant matmul": _with_constant("matmul", np.matmul, exact(5, 2), exact(3, 5), first=True),
    "matmul twice": _case("matmul", np.matmul, {"x": exact(2, 1, 3, 5), "y": exact(4, 5, 2)}, twice=True),
    "matmul twice, constant": _with_constant("matmul", np.matmul, exact(3, 5), exact(5, 2), first=False, twice=True),
    "constant matmul, twice": _with_constant("matmul", np.matmul, exact(5, 2), exact(3, 5), first=True, twice=True),
    "conv twice": _conv(
        (2, 5, 6, 2), (3, 2, 2, 3), strides=[1, 2], padding=[[1, 1], [0, 1]], twice=True, **ONE
    ),
    "conv 1d": _conv((2, 7, 3), (3, 3, 2), strides=[2], padding=[[1, 0]], dilation=[2], input_dilation=[1]),
    "conv 2d": _conv((2, 5, 6, 2), (3, 2, 2, 3), strides=[1, 2], padding=[[1, 1], [0, 1]], **ONE),
    "conv 2d groups": _conv((1, 4, 4, 4), (2, 2, 2, 4), strides=[1, 1], padding=[[0, 0]] * 2, groups=2, **ONE),
    "conv 2d transposed": _conv(
        (1, 3, 4, 2), (3, 3, 2, 3), strides=[1, 1], padding=[[2, 1], [1, 2]], dilation=[1, 1], input_dilation=[2, 3]
    ),
    "conv 3d": _conv(
        (1, 3, 4, 3, 2),
        (2, 2, 2, 2, 2),
        strides=[1, 2, 1],
        padding=[[1, 0], [0, 0], [1, 1]],
        dilation=[1] * 3,
        input_dilation=[1] * 3,
    ),
    "conv constant": _with_constant(
        "conv",
        lambda x, w: conv_reference(x, w, [1], [[1, 1]], [1], [2], 1),
        exact(2, 5, 2),
        exact(3, 2, 2),
        first=False,
        strides=[1],
        padding=[[1, 1]],
        dilation=[1],
        input_dilation=[2],
    ),
    "reshape": _case("reshape", lambda x: x.reshape(2, 6), {"x": X}, shape=[2, 6]),
    "transpose": _case("transpose", lambda x: x.transpose(2, 0, 1), {"x": Y}, axes=[2, 0, 1]),
    "concatenate": _case("concatenate", lambda x, y: np.concatenate([x, y], 1), {"x": X, "y": exact(3, 2)}, axis=1),
    "concatenate constant": _with_constant(
        "concatenate", lambda x, y: np.concatenate([x, y]), X, X, first=False, axis=0
    ),
    "slice": _case("slice", lambda x: x[1:, ::-2], {"x": X}, start=[1, 3], stop=[3, -5], step=[1, -2]),
    "pad": _case("pad", lambda x: np.pad(x, [[1, 0], [2, 3]]), {"x": X}, padding=[[1, 0], [2, 3]]),
    "gather": _case("gather", lambda x: x[:, [3, 0, 3]], {"x": X}, axis=1, indices=[3, 0, 3]),
    "broadcast": _case("broadcast", lambda x: np.broadcast_to(x, (5, 3, 4)), {"x": X}, shape=[5, 3, 4]),
    "reduce_sum": _case("reduce_sum", lambda x: x.sum((0, 2)), {"x": exact(2, 3, 4)}, axes=[2, 0]),
    "reduce_sum keepdims": _case("reduce_sum", lambda x: x.sum(1, keepdims=True), {"x": X}, axes=[1], keepdims=True),
    "reduce_sum all": _case("reduce_sum", np.sum, {"x": X}, axes=[0, 1]),
    "sum_pool": _pool("sum_pool", (2, 5, 6, 2), window=[2, 3], strides=[2, 1], padding=[[0, 1], [1, 1]]),
    "max_pool": _pool("max_pool", (2, 6, 4, 2), window=[2, 2], strides=[2, 2], padding=[[0, 0], [0, 0]]),
    "max_pool padded": _pool("max_pool", (1, 5, 6, 2), window=[3, 2], strides=[2, 3], padding=[[1, 2], [1, 0]]),
    "max_pool 1d": _pool("max_pool", (2, 7, 3), window=[3], strides=[1], padding=[[1, 1]]),
    "max_pool 3d": _pool("max_pool", (1, 4, 3, 4, 1), window=[2, 1, 2], strides=[2, 2, 2], padding=[[0, 0]] * 3),
    "relu": _case("relu", lambda x: np.maximum(x, 0), {"x": X}),
    "relu truncated": _case("relu", lambda x: np.maximum(x, 0), {"x": X}, truncate=8, tolerance=2.0**-10),
    "gate": _case("gate", lambda x, y: np.where(x > 0, y, 0), {"x": TIES, "y": exact(2, 4)}),
    "gate truncated": _case(
        "gate", lambda x, y: np.where(x > 0, y, 0), {"x": X, "y": exact(3, 4)}, truncate=8, tolerance=2.0**-10
    ),
    "abs": _case("abs", np.abs, {"x": X}),
    "sign": _case("sign", np.sign, {"x": np.array([-3.0, 0.0, UNIT, -UNIT, 8.0])}),
    "maximum": _case("maximum", np.maximum, {"x": X, "y": Y}),
    "minimum": _case("minimum", np.minimum, {"x": X, "y": Y}),
    "maximum constant": _with_constant("maximum", np.maximum, X, np.array(0.5), first=True),
    "reduce_max": _case("reduce_max", lambda x: x.max(0), {"x": exact(5, 3)}, axis=0),
    "reduce_min": _case("reduce_min", lambda x: x.min(1, keepdims=True), {"x": exact(3, 6)}, axis=1, keepdims=True),
    "argmax": _case("argmax", lambda x: x.argmax(1), {"x": TIES}, axis=1),
    "argmin": _case("argmin", lambda x: x.argmin(1), {"x": -TIES}, axis=1),
    "greater_equal": _case("greater_equal", lambda x, y: (x >= y) + 0.0, {"x": NEAR, "y": NEAR[::-1]}),
    "greater_equal moved": _bits_moved(),
    "less": _case("less", lambda x, y: (x < y) + 0.0, {"x": NEAR, "y": np.array([1.0, 1.0, 2.0])}),
    "equal": _case(
        "equal",
        lambda x, y: (x == y) + 0.0,
        {"x": integers(0, 3, 20), "y": integers(0, 3, 20)},
        fractions={"x": 0, "y": 0},
    ),
    "not bits": _logic("logical_not", np.logical_not, "b"),
    "not share": _logic("logical_not", np.logical_not, "s"),
    "and bits": _logic("logical_and", np.logical_and, "bb"),
    "and mixed": _logic("logical_and", np.logical_and, "bs"),
    "and public": _logic("logical_and", np.logical_and, "pb"),
    "or bits": _logic("logical_or", np.logical_or, "bb"),
    "or shares": _logic("logical_or", np.logical_or, "ss"),
    "or mixed": _logic("logical_or", np.logical_or, "sb"),
    "or public": _logic("logical_or", np.logical_or, "bp"),
    "select by bits": _select("bits", False),
    "select by share": _select("share", False),
    "select constant": _select("bits", True),
    "random bernoulli": _drawn("bernoulli", 0, probability=3 << 30),
    "random uniform": _drawn("uniform", 18),
    "random normal": _drawn("normal", 12),
    "one_hot": _case(
        "one_hot", lambda x: np.eye(5)[x.astype(int)], {"x": integers(0, 5, 2, 3)}, fractions={"x": 0}, depth=5
    ),
    "exp": _case("exp", np.exp, {"x": NEAR}, tolerance=3e-3),
    "reciprocal": _case("reciprocal", np.reciprocal, {"x": np.array([0.25, 1.0, 3.5])}, tolerance=2e-3),
    "rsqrt": _case("rsqrt", lambda x: x**-0.5, {"x": np.array([0.25, 1.0, 3.5])}, tolerance=2e-3),
    "sqrt declared": _case(
        "sqrt", np.sqrt, {"x": np.array([2.0**-30, 0.0, 3.5])}, tolerance=2e-4, fractions={"x": 40}, low=-40, high=4,
        fraction=24,
    ),
    "sqrt": _case("sqrt", np.sqrt, {"x": np.array([0.25, 1.0, 3.5])}, tolerance=2e-3),
    "log": _case("log", np.log, {"x": np.array([0.25, 1.0, 3.5])}, tolerance=2e-3),
    "softmax": _case("softmax", lambda x: _softmax(x, 1), {"x": NEAR}, tolerance=1e-3, axis=1),
    "softmax before a truncation": _case(
        "softmax", lambda x: _softmax(x, 1), {"x": NEAR}, tolerance=1e-3, axis=1, truncate=3
    ),
    "softmax first axis": _case("softmax", lambda x: _softmax(x, 0), {"x": NEAR}, tolerance=1e-3, axis=0),
    "spline": _case(
        "spline",
        lambda x: np.where(np.abs(x) < 1, 1 - x**2, 0),
        {"x": np.linspace(-2, 1.9, 9)},
        coefficients=ROWS,
        tolerance=3 * UNIT,
        **SPLINE,
    ),
    "spline with tails": _case(
        "spline",
        lambda x: np.where(np.abs(x) < 1, 1 - x**2, 0) + np.maximum(x, 0),
        {"x": np.linspace(-2, 1.9, 9)},
        **{**SPLINE, "knots": [-(1 << F), 0, 1 << F]},
        coefficients=[ROWS[0], ROWS[1], ROWS[1], ROWS[2]],
        slopes=[0, 1],
        tolerance=4 * UNIT,
    ),
    "polynomial": _case(
        "spline",
        lambda x: 0.5 + x - 2 * x**2,
        {"x": X},
        knots=[],
        coefficients=[[1 << (2 * F - 1), 1 << F, -2]],
        scale=2 * F,
        fraction=F,
        tolerance=2 * UNIT,
    ),
}
