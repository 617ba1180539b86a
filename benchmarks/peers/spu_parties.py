"""SecretFlow's SPU: ABY3 among three processes over loopback, 64-bit ring, 18 fractional bits, its defaults otherwise.

    /path/to/spu/bin/python -m benchmarks.peers.spu_parties relu matmul-1024 A-predict-128

Timed: `Runtime.run` between two barriers of the link, the slowest party. Needs `pip install spu`.
"""

import os
import socket
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import spu
import spu.utils.frontend

from benchmarks.peers.parties import Arrays, main, record, timed, together
from benchmarks.suite import data

PARTIES = 3
STEPS = 20
RATE = 0.1
FRACTION = 18


def pool(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


FUNCTIONS = {
    "matmul-1024": jnp.matmul, "matmul-128": jnp.matmul, "multiply": jnp.multiply, "relu": jax.nn.relu,
    "max-pool": pool, "sigmoid": jax.nn.sigmoid, "exp": jnp.exp, "reciprocal": lambda x: 1.0 / x, "sqrt": jnp.sqrt,
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
}  # fmt: skip


def forward(stack: list, weights: list, x):
    """A network of `data.STACKS`."""
    places = iter(range(0, len(weights), 2))
    for number, (kind, *rest) in enumerate(stack, start=1):
        if kind == "pool":
            x = pool(x)
        elif kind == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            at = next(places)
            if kind == "conv":
                _, _, stride, padding = rest
                numbers = ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(
                    x, weights[at], (stride, stride), padding.upper(), dimension_numbers=numbers
                )
            else:
                x = x @ weights[at]
            x = x + weights[at + 1]
            x = jax.nn.relu(x) if number < len(stack) else x
    return x


def work(name: str) -> tuple[Callable, list[np.ndarray], int]:
    """What to compute, of what, and how many steps that is. KeyError for what is not written."""
    if name in FUNCTIONS:
        return FUNCTIONS[name], list(data.primitive(name)), 1
    if name.startswith("logistic-"):
        return _logistic(name)
    network, _, what = name.partition("-")
    kind, *rest = what.split("-")
    stack = data.stack(network)[1]
    weights = data.weights(network)
    if kind == "step" and not rest:
        x, labels = data.samples(network, 128)

        def step(x, y, *weights):
            z, back = jax.vjp(lambda w: forward(stack, w, x), list(weights))
            (gradients,) = back((jax.nn.softmax(z, axis=-1) - y) * (1.0 / len(labels)))
            return [w - RATE * g for w, g in zip(weights, gradients, strict=True)]

        return step, [x, np.eye(data.CLASSES)[labels], *weights], 1
    if kind == "step":
        raise KeyError(name)
    rows = int(rest[0] if kind == "predict" else kind)
    return lambda x, *weights: forward(stack, weights, x), [data.samples(network, rows)[0], *weights], 1


def _logistic(name: str) -> tuple[Callable, list[np.ndarray], int]:
    _, kind, rows, *more = name.split("-")
    x, y, w, b = data.logistic()
    if kind == "predict":
        return lambda x, w, b: jax.nn.sigmoid(x @ w + b), [x[: int(rows)], w, b], 1
    if kind != "step" or more:
        raise KeyError(name)
    batches = data.logistic_rows(int(rows), STEPS)

    def steps(x, y, w, b):
        for batch in batches:
            part = slice(int(batch[0]), int(batch[-1]) + 1)
            error = jax.nn.sigmoid(x[part] @ w + b) - y[part]
            w, b = w - data.RATE / len(batch) * (x[part].T @ error), b - data.RATE / len(batch) * error.sum(0)
        return w, b

    return steps, [x, y, np.zeros_like(w), np.zeros_like(b)], STEPS


def settings() -> spu.RuntimeConfig:
    """Protocol, ring and fixed point."""
    return spu.RuntimeConfig(protocol=spu.ProtocolKind.ABY3, field=spu.FieldType.FM64, fxp_fraction_bits=FRACTION)


def party(rank: int, ports: list[int], code: bytes, inputs: list[str], outputs: list[str], shares: list, runs: int):
    """One process: its shares in, seconds and its shares of the results out."""
    description = spu.link.Desc()
    description.recv_timeout_ms = 1_200_000
    for other, port in enumerate(ports):
        description.add_party(f"party{other}", f"127.0.0.1:{port}")
    link = spu.link.create_brpc(description, rank)
    runtime = spu.Runtime(link, settings())
    for name, share in zip(inputs, shares, strict=True):
        runtime.set_var(name, share)
    program = spu.Executable(name="work", input_names=inputs, output_names=outputs, code=code)
    seconds, _ = timed(lambda: runtime.run(program), link.barrier, runs)
    return seconds, [runtime.get_var(name) for name in outputs]


def measure(name: str, runs: int, seconds: float) -> dict[str, object]:
    """A line of results."""
    function, arguments, steps = work(name)
    with jax.experimental.enable_x64():
        expected = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(function(*arguments))]
    small = [np.asarray(array, np.float32) for array in arguments]
    inputs = [f"in{i}" for i in range(len(small))]
    secret = [spu.Visibility.VIS_SECRET] * len(small)

    def named(*arrays):
        return function(*arrays)

    program, _ = spu.utils.frontend.compile(
        spu.utils.frontend.Kind.JAX, named, small, {}, inputs, secret, lambda out: [f"out{i}" for i in range(len(out))]
    )
    io = spu.Io(PARTIES, settings())
    shares = [io.make_shares(array, spu.Visibility.VIS_SECRET) for array in small]
    outputs = list(program.output_names)
    ports = _ports()
    rest = (program.code, list(program.input_names), outputs)
    each = [(ports, *rest, [share[rank] for share in shares], runs) for rank in range(PARTIES)]
    found = together(party, PARTIES, each, seconds)
    results: Arrays = [io.reconstruct([parts[i] for _, parts in found]) for i in range(len(outputs))]
    return record(name, [times for times, _ in found], results, expected, steps)


def _ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(PARTIES)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    main("SPU", spu.__version__, measure)
