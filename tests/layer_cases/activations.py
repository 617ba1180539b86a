"""Activation layers and every function of keras.activations."""

import keras
from keras import layers

from tests.layer_cases.case import Case

NAMES = [
    "relu",
    "leaky_relu",
    "relu6",
    "softmax",
    "celu",
    "elu",
    "log_softmax",
    "log_sigmoid",
    "sigmoid",
    "sparse_sigmoid",
    "softplus",
    "softsign",
    "soft_shrink",
    "sparse_plus",
    "silu",
    "squareplus",
    "gelu",
    "glu",
    "tanh",
    "tanh_shrink",
    "exponential",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "hard_shrink",
    "linear",
    "mish",
    "selu",
    "swish",
]
CASES = []
for name in NAMES:
    CASES.append(Case(f"{name}-layer", lambda n=name: layers.Activation(n), [(10,)], scale=2.0))
    CASES.append(
        Case(
            f"{name}-wide",
            lambda n=name: layers.Activation(n),
            [(4, 6)],
            scale={"exponential": 0.5, "glu": 2.0}.get(name, 6.0),
        )
    )
    if name != "glu":
        CASES.append(Case(f"{name}-dense", lambda n=name: layers.Dense(6, activation=n), [(5,)]))
for name in ("relu6", "hard_tanh", "hard_shrink", "soft_shrink"):
    CASES.append(Case(f"{name}-conv", lambda n=name: layers.Conv2D(3, 3, activation=n), [(5, 5, 2)], scale=3.0))
CASES += [
    Case("relu-max-dense", lambda: lambda x: layers.ReLU(max_value=1.0)(layers.Dense(5)(x)), [(4,)], scale=2.0),
    Case("clip-dense", lambda: lambda x: keras.ops.clip(layers.Dense(5)(x), -0.5, 0.25), [(4,)]),
    Case("threshold", lambda: lambda x: keras.activations.threshold(x, 0.5, -1.0), [(9,)]),
    Case("gelu-tanh", lambda: lambda x: keras.activations.gelu(x, approximate=True), [(9,)]),
    Case("elu-alpha", lambda: lambda x: keras.activations.elu(x, alpha=0.5), [(9,)]),
    Case("celu-alpha", lambda: lambda x: keras.activations.celu(x, alpha=2.0), [(9,)]),
    Case("soft-shrink-1", lambda: lambda x: keras.activations.soft_shrink(x, 1.0), [(9,)]),
    Case("squareplus-b", lambda: lambda x: keras.activations.squareplus(x, b=1.0), [(9,)]),
    Case("relu", lambda: layers.ReLU(), [(3, 4)]),
    Case("relu-max", lambda: layers.ReLU(max_value=1.0), [(3, 4)]),
    Case("relu-slope", lambda: layers.ReLU(negative_slope=0.3), [(3, 4)]),
    Case("relu-threshold", lambda: layers.ReLU(threshold=0.4), [(3, 4)]),
    Case("relu-all", lambda: layers.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.3), [(3, 4)]),
    Case("leaky", lambda: layers.LeakyReLU(), [(3, 4)]),
    Case("leaky-0.3", lambda: layers.LeakyReLU(negative_slope=0.3), [(8,)]),
    Case("leaky-0", lambda: layers.LeakyReLU(negative_slope=0.0), [(8,)]),
    Case("prelu", lambda: layers.PReLU(), [(3, 4)]),
    Case("prelu-shared", lambda: layers.PReLU(shared_axes=[1, 2]), [(3, 4, 2)]),
    Case("prelu-vector", lambda: layers.PReLU(), [(9,)]),
    Case("elu", lambda: layers.ELU(), [(8,)]),
    Case("elu-0.3", lambda: layers.ELU(alpha=0.3), [(3, 4)]),
    Case("elu-2", lambda: layers.ELU(alpha=2.0), [(8,)]),
    Case("softmax", lambda: layers.Softmax(), [(10,)], scale=3.0),
    Case("softmax-axis", lambda: layers.Softmax(axis=1), [(4, 3)]),
    Case("softmax-axes", lambda: layers.Softmax(axis=(1, 2)), [(4, 3)]),
    Case("softmax-large", lambda: layers.Softmax(), [(5,)], scale=200.0),
]
