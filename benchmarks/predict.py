"""Seconds of `predict` on the embedded cluster: the first call with everything it starts, and later ones.

    python benchmarks/predict.py

Prints for each model: seconds of the first prediction (cluster start, tracing, sharing of weights), the median of later
ones with one row and with 128, the same for plain Keras, rounds and bytes of all servers for one row, largest difference.
Figures are wall-clock seconds of the whole call, on whatever machine this runs.
"""
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import private_keras as pk  # noqa: E402  the log level counts only before the import
import keras  # noqa: E402
import numpy as np  # noqa: E402

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
            [conv(16, 3, padding="same"), layers.MaxPooling2D(), layers.Flatten(), dense(64), layers.Dense(10, activation="softmax")],
        ),
        "A: dense 784-128-128-10": ((784,), [dense(128), dense(128), layers.Dense(10)]),
        "B: 16@5, pool, 16@5, pool, 100, 10": (
            (28, 28, 1),
            [conv(16, 5), layers.MaxPooling2D(), conv(16, 5), layers.MaxPooling2D(), layers.Flatten(), dense(100), layers.Dense(10)],
        ),
        "C: 20@5, pool, 50@5, pool, 500, 10": (
            (28, 28, 1),
            [conv(20, 5), layers.MaxPooling2D(), conv(50, 5), layers.MaxPooling2D(), layers.Flatten(), dense(500), layers.Dense(10)],
        ),
        "D: 5@5 stride 2, 100, 10": ((28, 28, 1), [conv(5, 5, strides=2), layers.Flatten(), dense(100), layers.Dense(10)]),
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


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'model':36s} {'first':>7s} {'1 row':>8s} {'128 rows':>9s} {'Keras 1':>8s} {'Keras 128':>9s} {'rounds':>6s} {'bytes':>12s} {'error':>8s}")
    for name, (shape, stack) in networks().items():
        keras.utils.set_random_seed(0)
        plain = keras.Sequential([keras.Input(shape), *stack])
        model = pk.convert(plain)
        one, many = (rng.uniform(0, 1, (n, *shape)).astype("float32") for n in (1, 128))
        began = time.perf_counter()
        model.predict(one, verbose=0)
        first = time.perf_counter() - began
        row = median_seconds(lambda: model.predict(one, verbose=0))
        last = pk.cluster.current().stats.last
        rows = median_seconds(lambda: model.predict(many, batch_size=128, verbose=0))
        keras_row = median_seconds(lambda: plain.predict(one, verbose=0))
        keras_rows = median_seconds(lambda: plain.predict(many, batch_size=128, verbose=0))
        error = np.abs(model.predict(many, batch_size=128, verbose=0) - plain.predict(many, verbose=0)).max()
        print(
            f"{name:36s} {first:7.2f} {row:8.4f} {rows:9.4f} {keras_row:8.4f} {keras_rows:9.4f} {last.rounds:6d} "
            f"{sum(last.sent):12,d} {error:8.1e}"
        )


if __name__ == "__main__":
    main()
