"""Operations of keras.ops on secret tensors, one function each."""

import keras
import numpy as np
from keras import ops

from tests.layer_cases.case import Case


def fixed(function):
    """A model with a fixed batch, for operations that cannot do without."""

    def make():
        x = keras.Input(batch_shape=(3, 2, 3, 4))
        return keras.Model(x, function(x))

    return make


ONE = {
    "add": lambda x: x + 1.5,
    "subtract-from": lambda x: 1.5 - x,
    "multiply": lambda x: x * 0.3,
    "multiply-array": lambda x: x * np.array([0.5, 1.5, -2.0, 3.0], "float32"),
    "divide": lambda x: x / 7.0,
    "negative": lambda x: -x,
    "square": ops.square,
    "cube": lambda x: x**3,
    "power-5": lambda x: ops.power(x * 0.5, 5),
    "abs": ops.abs,
    "sign": ops.sign,
    "maximum": lambda x: ops.maximum(x, 0.2),
    "minimum": lambda x: ops.minimum(x, 0.2),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "where": lambda x: ops.where(x > 0.1, x, -2.0),
    "where-public": lambda x: ops.where(np.array([True, False, True, False]), x, x * 2),
    "greater": lambda x: ops.cast(x > 0.3, "float32"),
    "less-equal": lambda x: ops.cast(x <= 0.3, "float32") * x,
    "logical": lambda x: ops.cast(ops.logical_and(x > -0.5, ops.logical_not(x > 0.5)), "float32"),
    "logical-or": lambda x: ops.cast(ops.logical_or(x > 0.5, x < -0.5), "float32"),
    "logical-xor": lambda x: ops.cast(ops.logical_xor(x > 0.5, x > -0.5), "float32"),
    "sum": lambda x: ops.sum(x, axis=1),
    "sum-keepdims": lambda x: ops.sum(x, axis=(1, 2), keepdims=True),
    "mean": lambda x: ops.mean(x, axis=-1),
    "var": lambda x: ops.var(x, axis=-1, keepdims=True),
    "std": lambda x: ops.std(x, axis=-1),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x, axis=(1, 2)),
    "ptp": lambda x: ops.max(x, axis=-1) - ops.min(x, axis=-1),
    "argmax": lambda x: ops.argmax(x, axis=-1),
    "argmin": lambda x: ops.argmin(x, axis=1),
    "prod": lambda x: ops.prod(x, axis=-1),
    "any": lambda x: ops.any(x > 1.0, axis=-1),
    "all": lambda x: ops.all(x > -1.0, axis=-1),
    "count-nonzero": lambda x: ops.count_nonzero(ops.relu(x), axis=-1),
    "average": lambda x: ops.average(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "moments": lambda x: ops.moments(x, axes=[-1]),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "swapaxes": lambda x: ops.swapaxes(x, 1, -1),
    "moveaxis": lambda x: ops.moveaxis(x, 1, -1),
    "reshape": lambda x: ops.reshape(x, (-1, 6, 4)),
    "expand-squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 2), 2) + 1.0,
    "stack": lambda x: ops.stack([x, x * 2, x + 1], axis=2),
    "split": lambda x: ops.split(x, 2, axis=-1),
    "split-at": lambda x: ops.split(x, [1, 3], axis=-1),
    "unstack": lambda x: ops.unstack(x, axis=1),
    "slice": lambda x: x[:, 1:, ::2],
    "slice-backwards": lambda x: x[:, ::-1, -1],
    "index": lambda x: x[:, 0, None, ..., 2],
    "take": lambda x: ops.take(x, [2, 0, 2, -1], axis=-1),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 2], [1, 1]]),
    "pad-value": lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 2], [1, 1]], constant_values=1.5),
    "pad-reflect": lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 0], [1, 1]], mode="reflect"),
    "pad-symmetric": lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 0], [0, 1]], mode="symmetric"),
    "repeat": lambda x: ops.repeat(x, 3, axis=2),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 2)),
    "flip": lambda x: ops.flip(x, axis=1),
    "roll": lambda x: ops.roll(x, 1, axis=2),
    "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "broadcast": lambda x: ops.broadcast_to(x[0], (3, 2, 3, 4)),
    "tril": lambda x: ops.tril(x),
    "triu": lambda x: ops.triu(x, 1),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "cumsum": lambda x: ops.cumsum(x, axis=2),
    "diff": lambda x: ops.diff(x, axis=2),
    "trace": lambda x: ops.trace(x, axis1=1, axis2=2),
    "full": lambda x: x + ops.ones_like(x) - ops.zeros_like(x),
    "einsum": lambda x: ops.einsum("bijk,bljk->bil", x, x),
    "einsum-trace": lambda x: ops.einsum("bijk->bkj", x),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "dot": lambda x: ops.dot(x, np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2)),
    "tensordot": lambda x: ops.tensordot(
        x, np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4), axes=[[2, 3], [0, 1]]
    ),
    "exp": lambda x: ops.exp(x * 0.5),
    "sigmoid": ops.sigmoid,
    "erf": ops.erf,
    "one-hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 4),
    "normalize": lambda x: ops.normalize(x, axis=-1),
    "normalize-1": lambda x: ops.normalize(x, axis=-1, order=1),
    "layer-normalization": lambda x: ops.layer_normalization(x, axis=-1),
    "softmax-none": lambda x: ops.softmax(x, axis=1),
    "log-softmax": lambda x: ops.log_softmax(x, axis=-1),
    "reciprocal-signed": lambda x: 1.0 / (x + ops.sign(x) * 0.5),
    "divide-no-nan": lambda x: ops.divide_no_nan(x, ops.abs(x) + 1.0),
    "norm": lambda x: ops.norm(x, axis=-1),
    "top-k": lambda x: ops.max(x, axis=-1, keepdims=True) - x,
    "isfinite": lambda x: ops.where(ops.isfinite(x), x, 0.0),
    "slice-update": lambda x: ops.slice_update(x, (0, 0, 1, 0), x[:, :, :1] * 2),
    "floor-of-int": lambda x: ops.cast(ops.argmax(x, axis=-1), "float32") * 0.25,
}
POSITIVE = {
    "log": ops.log,
    "sqrt": ops.sqrt,
    "rsqrt": ops.rsqrt,
    "reciprocal": ops.reciprocal,
    "power-half": lambda x: x**0.5,
    "power-minus-1": lambda x: x**-1.0,
    "log1p": ops.log1p,
    "log2": ops.log2,
    "ratio": lambda x: x / (x + ops.flip(x, axis=1)),
}
CASES = [Case(name, lambda f=f: f, [(2, 3, 4)]) for name, f in ONE.items()]
CASES += [Case(f"{name}-positive", lambda f=f: f, [(7,)], positive=True, scale=2.0) for name, f in POSITIVE.items()]
CASES += [
    Case("rearrange", fixed(lambda x: ops.rearrange(x, "b h w c -> b (h w) c"))),
    Case("integers", lambda: lambda x: ops.cast(x, "float32") * 0.5 + ops.cast(x == 3, "float32"), [(6,)], high=6),
    Case("one-hot-integers", lambda: lambda x: ops.one_hot(x, 6, axis=1), [(5,)], high=6),
    Case("two", lambda: lambda xs: ops.matmul(xs[0], ops.transpose(xs[1], (0, 2, 1))) * 0.5, [(3, 4), (2, 4)]),
    Case("compare", lambda: lambda xs: ops.where(xs[0] > xs[1], xs[0], xs[1] * 0.5), [(6,), (6,)]),
]
