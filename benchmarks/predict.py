"""Seconds of `predict` on the embedded cluster: the first call with everything it starts, and later ones.

    python benchmarks/predict.py

Prints for each model: seconds of the first prediction (for the first model with the start of the cluster), the median
of later ones with one row and with 128, the same for plain Keras, rounds and bytes of all servers for one row, and the
largest difference. Figures are wall-clock seconds of the whole call, on whatever machine this runs.
"""

import statistics
import time

import keras
import numpy as np

import private_keras as pk
from private_keras.cluster import current

layers = keras.layers
CALLS = 15


def networks() -> dict[str, tuple[tuple[int, ...], list]]:
    """The digits model of the demo, and networks A to D of tf-encrypted's benchmark."""

    def conv(n, k, **more):
        return layers.Conv2D(n, k, activation="relu", **more)

    def dense(n):
        return layers.Dense(n, activation="relu")

    return {
        "digits CNN 8x8": (
            (8, 8, 1),
            [
                conv(16, 3, padding="same"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                dense(64),
                layers.Dense(10, activation="softmax"),
            ],
        ),
        "A: dense 784-128-128-10": ((784,), [dense(128), dense(128), layers.Dense(10)]),
        "B: 16@5, pool, 16@5, pool, 100, 10": (
            (28, 28, 1),
            [
                conv(16, 5),
                layers.MaxPooling2D(),
                conv(16, 5),
                layers.MaxPooling2D(),
                layers.Flatten(),
                dense(100),
                layers.Dense(10),
            ],
        ),
        "C: 20@5, pool, 50@5, pool, 500, 10": (
            (28, 28, 1),
            [
                conv(20, 5),
                layers.MaxPooling2D(),
                conv(50, 5),
                layers.MaxPooling2D(),
                layers.Flatten(),
                dense(500),
                layers.Dense(10),
            ],
        ),
        "D: 5@5 stride 2, 100, 10": (
            (28, 28, 1),
            [conv(5, 5, strides=2), layers.Flatten(), dense(100), layers.Dense(10)],
        ),
    }


def median_seconds(call) -> float:
    """Median of CALLS calls after one that is not counted."""
    call()
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measure(name: str, shape: tuple[int, ...], stack: list) -> None:
    """One line of the table."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([keras.Input(shape), *stack])
    model = pk.convert(plain)
    one, many = (rng.uniform(0, 1, (n, *shape)).astype("float32") for n in (1, 128))
    began = time.perf_counter()
    model.predict(one, verbose=0)
    first = time.perf_counter() - began
    row = median_seconds(lambda: model.predict(one, verbose=0))
    last = current().stats.last
    rows = median_seconds(lambda: model.predict(many, batch_size=128, verbose=0))
    keras_row = median_seconds(lambda: plain.predict(one, verbose=0))
    keras_rows = median_seconds(lambda: plain.predict(many, batch_size=128, verbose=0))
    error = np.abs(model.predict(many, batch_size=128, verbose=0) - plain.predict(many, verbose=0)).max()
    print(
        f"{name:36s} {first:7.2f} {row:8.4f} {rows:9.4f} {keras_row:8.4f} {keras_rows:9.4f} {last.rounds:6d} "
        f"{last.bytes:12,d} {error:8.1e}"
    )


def main() -> None:
    """Prints the table."""
    heads = (
        f"{'first':>7s} {'1 row':>8s} {'128 rows':>9s} {'Keras 1':>8s} {'Keras 128':>9s} {'rounds':>6s} {'bytes':>12s}"
    )
    print(f"{'model':36s} {heads} {'error':>8s}")
    for name, (shape, stack) in networks().items():
        measure(name, shape, stack)


if __name__ == "__main__":
    main()
