"""Every primitive, in its several forms, as something to take gradients of; inputs keep away from kinks."""
import itertools

import numpy as np

from private_keras.plan.builder import PlanBuilder
from tests.plan_zoo import F, encode

rng = np.random.default_rng(11)
calls = itertools.count()


def reals(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Values apart from each other, from 0 and from those of other calls, which 18 bits hold exactly."""
    count = int(np.prod(shape))
    grid = np.linspace(low, high, 2 * count + 2)[rng.permutation(2 * count + 2)[:count]]
    grid = np.round(grid * 256) / 256 + (1 + next(calls) % 63) / 2**14
    return grid.reshape(shape)


def one(op: str, inputs: dict, names=None, **attributes):
    return lambda b: b.add(op, *(names or inputs), layer="zoo", **attributes), inputs, {}


def two(op: str, x, y, **attributes):
    return one(op, {"x": x, "y": y}, **attributes)


def conv(x, w, **attributes):
    rank = len(x) - 2
    full = {"strides": [1] * rank, "padding": [[0, 0]] * rank, "dilation": [1] * rank, "input_dilation": [1] * rank}
    return two("conv", reals(*x), reals(*w), **(full | attributes))


def constant(b: PlanBuilder, value, fraction=F) -> str:
    return b.constant(encode(np.asarray(value, float), fraction), fraction)


def built(build, fractions=None, **inputs):
    return build, inputs, fractions or {}


def spline(b: PlanBuilder, x: str, **attributes) -> str:
    full = {"knots": [-(1 << F), 0, 1 << F], "scale": 2 * F, "fraction": F, "slopes": [0, 0], "slope_bits": 0}
    return b.add("spline", x, **(full | attributes))


def _select(b: PlanBuilder) -> str:
    return b.add("select", b.add("less", "x", constant(b, 0.1)), "x", "y")


ROWS = [[0, 0, 0], [1 << (2 * F), 1 << F, -1], [1 << (2 * F), 1 << (F - 1), 3], [5, 7 << F, 0]]

CASES = {
    "constant": built(lambda b: b.add("add", "x", constant(b, [1.0, 2.0])), x=reals(3, 2)),
    "add": two("add", reals(3, 4), reals(2, 1, 4)),
    "add scalar": two("add", reals(3, 4), reals()),
    "add to itself": one("add", {"x": reals(3, 4)}, ("x", "x")),
    "subtract": two("subtract", reals(4), reals(2, 3, 1)),
    "subtract itself": one("subtract", {"x": reals(3, 4)}, ("x", "x")),
    "negate": one("negate", {"x": reals(3)}),
    "shift": one("shift", {"x": reals(3)}, bits=5),
    "truncate": built(lambda b: b.add("truncate", b.add("multiply", "x", "y"), bits=F), x=reals(3), y=reals(3)),
    "multiply": two("multiply", reals(3, 1), reals(2, 1, 4)),
    "square": one("multiply", {"x": reals(3, 4)}, ("x", "x")),
    "multiply constant": built(lambda b: b.add("multiply", "x", constant(b, [1.5, -2.0])), x=reals(3, 2)),
    "multiply number": built(lambda b: b.add("multiply", constant(b, [[0.375]]), "x"), x=reals(2)),
    "multiply long": built(
        lambda b: b.add("multiply", b.add("truncate", b.add("multiply", "x", "y"), bits=12), "y"),
        x=reals(3), y=reals(3),
    ),
    "matmul": two("matmul", reals(3, 4), reals(4, 2)),
    "matmul batch": two("matmul", reals(2, 1, 3, 4), reals(5, 4, 2)),
    "matmul rows": two("matmul", reals(2, 3, 4), reals(4, 2)),
    "matmul columns": two("matmul", reals(3, 4), reals(2, 4, 2)),
    "matmul square": one("matmul", {"x": reals(3, 3)}, ("x", "x")),
    "matmul constant": built(lambda b: b.add("matmul", "x", constant(b, reals(3, 2))), x=reals(2, 3)),
    "conv 1d": conv((2, 7, 3), (3, 3, 2), strides=[2], padding=[[1, 0]], dilation=[2]),
    "conv 2d": conv((2, 5, 6, 2), (3, 2, 2, 3), strides=[1, 2], padding=[[1, 1], [0, 1]]),
    "conv 2d left over": conv((1, 6, 8, 1), (3, 3, 1, 2), strides=[2, 3], dilation=[1, 2]),
    "conv 2d wide padding": conv((1, 3, 3, 1), (2, 2, 1, 2), strides=[2, 1], padding=[[3, 4], [2, 0]]),
    "conv 2d groups": conv((2, 4, 4, 4), (2, 2, 2, 6), groups=2),
    "conv 2d depthwise": conv((2, 4, 4, 3), (2, 2, 1, 6), groups=3, strides=[2, 1]),
    "conv 2d transposed": conv((1, 3, 4, 2), (3, 3, 2, 3), padding=[[2, 1], [1, 2]], input_dilation=[2, 3]),
    "conv 2d transposed wide": conv((1, 3, 3, 2), (2, 2, 2, 1), padding=[[4, 1], [0, 3]], input_dilation=[3, 2]),
    "conv 3d": conv((1, 3, 4, 3, 2), (2, 2, 2, 2, 2), strides=[1, 2, 1], padding=[[1, 0], [0, 0], [1, 1]]),
    "reshape": one("reshape", {"x": reals(3, 4)}, shape=[2, 6]),
    "transpose": one("transpose", {"x": reals(2, 3, 4)}, axes=[2, 0, 1]),
    "concatenate": two("concatenate", reals(3, 4), reals(3, 2), axis=1),
    "concatenate itself": one("concatenate", {"x": reals(3, 4)}, ("x", "x"), axis=0),
    "slice": one("slice", {"x": reals(3, 8)}, start=[1, 6], stop=[3, -9], step=[1, -2]),
    "slice steps": one("slice", {"x": reals(9, 4)}, start=[1, 0], stop=[9, 3], step=[3, 1]),
    "pad": one("pad", {"x": reals(3, 4)}, padding=[[1, 0], [2, 3]]),
    "gather": one("gather", {"x": reals(3, 4)}, axis=1, indices=[3, 0, 3, 3, 1]),
    "gather some": one("gather", {"x": reals(5, 2)}, axis=0, indices=[4, 1]),
    "gather order": one("gather", {"x": reals(3, 2)}, axis=0, indices=[2, 0, 1]),
    "gather twice": one("gather", {"x": reals(2, 3)}, axis=1, indices=[0, 0, 1, 1, 2, 2]),
    "gather one": one("gather", {"x": reals(40, 2)}, axis=0, indices=[0] * 30 + [7] * 3 + [39]),
    "broadcast": one("broadcast", {"x": reals(3, 1)}, shape=[5, 3, 4]),
    "reduce_sum": one("reduce_sum", {"x": reals(2, 3, 4)}, axes=[2, 0]),
    "reduce_sum keepdims": one("reduce_sum", {"x": reals(2, 3)}, axes=[1], keepdims=True),
    "reduce_sum all": one("reduce_sum", {"x": reals(2, 3)}, axes=[0, 1]),
    "sum_pool": one("sum_pool", {"x": reals(2, 4, 6, 2)}, window=[2, 3], strides=[2, 3], padding=[[0, 0]] * 2),
    "sum_pool left over": one(
        "sum_pool", {"x": reals(1, 5, 7, 1)}, window=[2, 3], strides=[2, 3], padding=[[0, 0]] * 2
    ),
    "sum_pool overlap": one(
        "sum_pool", {"x": reals(1, 5, 6, 2)}, window=[2, 3], strides=[2, 1], padding=[[0, 1], [1, 1]]
    ),
    "sum_pool wide": one("sum_pool", {"x": reals(1, 5, 1)}, window=[2], strides=[3], padding=[[3, 2]]),
    "relu": one("relu", {"x": reals(3, 4)}),
    "rescale": built(
        lambda b: b.add("rescale", b.add("multiply", "x", "y"), b.constant(np.array(-327_680), 20), bits=20 + F),
        x=reals(3), y=reals(3),
    ),
    "relu truncated": one("relu", {"x": reals(3, 4)}, truncate=6),
    "gate": two("gate", reals(3, 4), reals(3, 4)),
    "gate truncated": two("gate", reals(3, 4), reals(3, 4), truncate=6),
    "abs": one("abs", {"x": reals(3, 4)}),
    "sign": one("sign", {"x": reals(3)}),
    "maximum": two("maximum", reals(3, 4), reals(2, 1, 4)),
    "minimum": two("minimum", reals(4), reals(3, 4)),
    "maximum itself": one("maximum", {"x": reals(3)}, ("x", "x")),
    "maximum constant": built(lambda b: b.add("maximum", constant(b, 0.5), "x"), x=reals(3, 4)),
    "reduce_max": one("reduce_max", {"x": reals(5, 3)}, axis=0),
    "reduce_min": one("reduce_min", {"x": reals(3, 6)}, axis=1, keepdims=True),
    "max_pool": one("max_pool", {"x": reals(2, 6, 4, 2)}, window=[2, 2], strides=[2, 2], padding=[[0, 0]] * 2),
    "max_pool padded": one(
        "max_pool", {"x": reals(1, 5, 6, 2)}, window=[3, 2], strides=[2, 3], padding=[[1, 2], [1, 0]]
    ),
    "max_pool left over": one(
        "max_pool", {"x": reals(1, 5, 7, 1)}, window=[2, 3], strides=[2, 3], padding=[[0, 0]] * 2
    ),
    "argmax": one("argmax", {"x": reals(2, 4)}, axis=1),
    "argmin": one("argmin", {"x": reals(2, 4)}, axis=1),
    "greater_equal": two("greater_equal", reals(3), reals(3)),
    "less": two("less", reals(3), reals(3)),
    "equal": two("equal", reals(3), reals(3)),
    "logical_not": built(lambda b: b.add("logical_not", b.add("less", "x", "y")), x=reals(3), y=reals(3)),
    "logical_and": built(lambda b: b.add("logical_and", b.add("less", "x", "y"), b.add("less", "y", "x")), x=reals(3),
                         y=reals(3)),
    "logical_or": built(lambda b: b.add("logical_or", b.add("less", "x", "y"), b.add("less", "y", "x")), x=reals(3),
                        y=reals(3)),
    "select": built(_select, x=reals(3, 4), y=reals(2, 1, 4)),
    "one_hot": built(
        lambda b: b.add("multiply", "x", b.add("one_hot", b.add("argmax", "x", axis=1), depth=4)), x=reals(3, 4)
    ),
    "exp": one("exp", {"x": reals(3)}),
    "reciprocal": one("reciprocal", {"x": reals(4, low=0.25, high=4.0)}),
    "reciprocal declared": one("reciprocal", {"x": reals(4, low=0.5, high=4.0)}, low=-2, high=4, fraction=24),
    "rsqrt": one("rsqrt", {"x": reals(4, low=0.25, high=4.0)}),
    "sqrt": one("sqrt", {"x": reals(4, low=0.25, high=4.0)}),
    "sqrt declared": built(
        lambda b: b.add("sqrt", b.add("shift", "x", bits=22), low=-20, high=8, fraction=24),
        x=reals(4, low=0.25, high=4.0),
    ),
    "log": one("log", {"x": reals(4, low=0.25, high=4.0)}),
    "softmax": one("softmax", {"x": reals(3, 4)}, axis=1),
    "softmax first axis": one("softmax", {"x": reals(3, 4)}, axis=0),
    "spline": built(lambda b: spline(b, "x", coefficients=ROWS), x=reals(9)),
    "spline with tails": built(
        lambda b: spline(b, "x", coefficients=ROWS, slopes=[3, -7], slope_bits=2), x=reals(9)
    ),
    "spline of one slope": built(
        lambda b: spline(b, "x", knots=[], coefficients=[[0, 3 << F]], slopes=[5, 5], slope_bits=1), x=reals(5)
    ),
    "spline of one knot": built(
        lambda b: spline(b, "x", knots=[0], coefficients=[[0, 0], [0, 0]], slopes=[3, 16], slope_bits=4), x=reals(9)
    ),
    "spline of one knot aside": built(
        lambda b: spline(b, "x", knots=[1 << (F - 1)], coefficients=[[0, 1 << F, 0], [5, 3 << (F - 2), 0]]), x=reals(9)
    ),
    "spline of long scale": built(
        lambda b: spline(b, "x", coefficients=[[a << 22 for a in row] for row in ROWS], scale=58), x=reals(9)
    ),
    "spline to short": built(
        lambda b: spline(b, "x", knots=[], coefficients=[[0, 1 << 4, 1]], scale=20, fraction=14), x=reals(5)
    ),
}
