"""CrypTen: two processes over loopback, 64-bit ring, 16 fractional bits, its defaults.

    /path/to/crypten/bin/python -m benchmarks.peers.crypten_parties relu matmul-1024 A-predict-128

In its default mode party 0 makes the triples, so that it could open everything; they are made within the timed call.
Timed: between two barriers, the slower party. Needs `pip install torch`, then CrypTen 0.4.1 without its dependencies,
and omegaconf, onnx, pyyaml, scipy, requests, pandas, scikit-learn, ml_dtypes.
"""

import logging
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.peers.parties import Arrays, Times, main, record, timed, together
from benchmarks.suite import data

warnings.filterwarnings("ignore")
# Where CrypTen's reader of ONNX files, which is not used here, looks in vain in a newer torch.
sys.modules.setdefault("torch.onnx.symbolic_registry", types.ModuleType("torch.onnx.symbolic_registry"))
logging.disable(logging.WARNING)
import crypten  # noqa: E402 - the module above comes first
import crypten.communicator  # noqa: E402

PARTIES = 2
STEPS = 20
RATE = 0.1


def pool(x):
    return x.max_pool2d(2, stride=2) if crypten.is_encrypted_tensor(x) else torch.nn.functional.max_pool2d(x, 2)


def convolve(x, kernel, stride: int, padding: int):
    if crypten.is_encrypted_tensor(x):
        return x.conv2d(kernel, stride=stride, padding=padding)
    return torch.nn.functional.conv2d(x, kernel, stride=stride, padding=padding)


FUNCTIONS: dict[str, Callable] = {
    "matmul-1024": lambda x, y: x.matmul(y), "matmul-128": lambda x, y: x.matmul(y), "multiply": lambda x, y: x * y,
    "relu": lambda x: x.relu(), "max-pool": pool, "sigmoid": lambda x: x.sigmoid(), "exp": lambda x: x.exp(),
    "reciprocal": lambda x: x.reciprocal(), "sqrt": lambda x: x.sqrt(), "softmax": lambda x: x.softmax(-1),
}  # fmt: skip


def forward(stack: list, weights: Sequence, x):
    """A network of `data.STACKS`, channels first."""
    places = iter(range(0, len(weights), 2))
    for number, (kind, *rest) in enumerate(stack, start=1):
        if kind == "pool":
            x = pool(x)
        elif kind == "flatten":
            x = x.flatten(start_dim=1)
        else:
            at = next(places)
            if kind == "conv":
                _, size, stride, padding = rest
                x = convolve(x, weights[at], stride, size // 2 if padding == "same" else 0)
                x = x + weights[at + 1].view(1, -1, 1, 1)
            else:
                x = x.matmul(weights[at]) + weights[at + 1]
            x = x.relu() if number < len(stack) else x
    return x


def first_channels(array: np.ndarray, kernel: bool = False) -> np.ndarray:
    """Images and kernels as torch has them; others as they are."""
    if array.ndim != 4:
        return array
    return np.ascontiguousarray(array.transpose((3, 2, 0, 1) if kernel else (0, 3, 1, 2)))


def work(name: str) -> tuple[Callable[[list], Sequence], list[np.ndarray], int]:
    """What to compute, of what, and how many steps that is. KeyError for what is not written."""
    if name in FUNCTIONS:
        arrays = [first_channels(array) for array in data.primitive(name)]
        return lambda given: [FUNCTIONS[name](*given)], arrays, 1
    if name.startswith("logistic-"):
        return _logistic(name)
    network, _, what = name.partition("-")
    kind, *rest = what.split("-")
    stack = data.stack(network)[1]
    weights = [first_channels(array, kernel=True) for array in data.weights(network)]
    if kind == "step" and not rest:
        x, labels = data.samples(network, 128)
        arrays = [first_channels(x), np.eye(data.CLASSES)[labels], *weights]
        return lambda given: _step(stack, *given), arrays, 1
    if kind == "step":
        raise KeyError(name)
    rows = int(rest[0] if kind == "predict" else kind)
    arrays = [first_channels(data.samples(network, rows)[0]), *weights]
    return lambda given: [forward(stack, given[1:], given[0])], arrays, 1


def _step(stack: list, x, y, *weights) -> list:
    """Weights after a step of gradient descent on the cross-entropy."""
    off, on = (crypten.no_grad, crypten.enable_grad) if crypten.is_encrypted_tensor(x) else (
        torch.no_grad, torch.enable_grad)  # fmt: skip
    with on():
        for weight in weights:
            weight.requires_grad, weight.grad = True, None
        z = forward(stack, weights, x)
        with off():
            slope = (z.softmax(-1) - y) * (1.0 / len(y))
        z.backward(slope)
    with off():
        return [weight - weight.grad * RATE for weight in weights]


def _logistic(name: str) -> tuple[Callable[[list], Sequence], list[np.ndarray], int]:
    _, kind, rows, *more = name.split("-")
    x, y, w, b = data.logistic()
    if kind == "predict":
        return lambda given: [(given[0].matmul(given[1]) + given[2]).sigmoid()], [x[: int(rows)], w, b], 1
    if kind != "step" or more:
        raise KeyError(name)
    batches = data.logistic_rows(int(rows), STEPS)

    def steps(given: list) -> Sequence:
        x, y, w, b = given
        for batch in batches:
            part = slice(int(batch[0]), int(batch[-1]) + 1)
            error = (x[part].matmul(w) + b).sigmoid() - y[part]
            w = w - x[part].t().matmul(error) * (data.RATE / len(batch))
            b = b - error.sum(0) * (data.RATE / len(batch))
        return w, b

    return steps, [x, y, np.zeros_like(w), np.zeros_like(b)], STEPS


def party(rank: int, meeting: str, name: str, runs: int) -> tuple[Times, Arrays]:
    """One process: seconds, and the opened results."""
    os.environ.update(
        WORLD_SIZE=str(PARTIES), RANK=str(rank), DISTRIBUTED_BACKEND="gloo", RENDEZVOUS=f"file://{meeting}",
        GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    torch.set_num_threads(1)
    crypten.init()
    function, arrays, _ = work(name)
    with crypten.no_grad():
        given = [crypten.cryptensor(torch.tensor(array, dtype=torch.float64), src=0) for array in arrays]

        def run():
            return function(given)

        seconds, result = timed(run, crypten.communicator.get().barrier, runs)
        # Its own decoding opens some negative numbers 1 too low, so the ring elements are decoded here.
        return seconds, [r._tensor.reveal().double().numpy() / r._tensor.encoder.scale for r in result]


def measure(name: str, runs: int, seconds: float) -> dict[str, object]:
    """A line of results."""
    function, arrays, steps = work(name)
    expected = [r.detach().numpy() for r in function([torch.tensor(array, dtype=torch.float64) for array in arrays])]
    with tempfile.TemporaryDirectory() as directory:
        found = together(party, PARTIES, [(f"{directory}/meeting", name, runs)] * PARTIES, seconds)
    return record(name, [times for times, _ in found], found[0][1], expected, steps)


if __name__ == "__main__":
    main("CrypTen", crypten.__version__, measure)
