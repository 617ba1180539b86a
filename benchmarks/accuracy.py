"""Training on shares against plain Keras: three networks, two optimisers, three seeds, scikit-learn's digits.

    python benchmarks/accuracy.py [name of a network, "MLP" for instance] [--picture docs/figures/training.png]

Both runs start from the same weights and see the same batches, at a rate that falls to 0. (Plain Keras itself, started
from weights that differ by 1e-4, ends up to two points apart in single runs of these networks.) Prints the test
accuracy of both for each seed, their difference in points and its mean, the largest difference of a loss in any epoch,
and seconds on shares. About half an hour on two cores for all.
"""
import argparse
import time
from pathlib import Path

import keras
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import private_keras as pk

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - the backend is chosen first

SEEDS = (0, 1, 2)
BATCH = 64
layers = keras.layers


def mlp() -> keras.Model:
    """64-64-64-10."""
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])


def lenet() -> keras.Model:
    """Two convolutions with max pooling, two dense layers."""
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(6, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])


def normalized() -> keras.layers.Layer:
    """Batch normalisation whose moving averages follow within the few steps of these runs."""
    return layers.BatchNormalization(momentum=0.8)


def resnet() -> keras.Model:
    """A convolution and two residual blocks, all with batch normalisation, the second with stride 2."""
    inputs = keras.Input((8, 8, 1))
    x = normalized()(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs))
    x = layers.Activation("relu")(x)
    for filters, stride in ((8, 1), (16, 2)):
        y = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        y = layers.Activation("relu")(normalized()(y))
        y = normalized()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        if stride > 1:
            x = normalized()(layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x))
        x = layers.Activation("relu")(layers.Add()([x, y]))
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def decay(rate: float, epochs: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that ends at 0, so that the last epochs do not swing."""
    return keras.optimizers.schedules.CosineDecay(rate, 22 * epochs)


def sgd(rate: float):
    return lambda epochs: keras.optimizers.SGD(decay(rate, epochs), momentum=0.9)


def adam(rate: float):
    return lambda epochs: keras.optimizers.Adam(decay(rate, epochs))


# network: how it is built, epochs, optimisers
NETWORKS = {
    "MLP": (mlp, 10, {"SGD": sgd(0.05), "Adam": adam(0.005)}),
    "LeNet": (lenet, 10, {"SGD": sgd(0.05), "Adam": adam(0.01)}),
    "ResNet": (resnet, 6, {"SGD": sgd(0.05), "Adam": adam(0.01)}),
}


def digits(seed: int) -> list[np.ndarray]:
    """Images (rows, 8, 8, 1) from 0 to 1 and labels: train images, test images, train labels, test labels."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    return train_test_split(images, data.target, test_size=0.25, random_state=seed, stratify=data.target)


def run(build, epochs: int, optimizer, seed: int) -> tuple[keras.callbacks.History, keras.callbacks.History, float]:
    """Histories of plain Keras and of training on shares, and seconds on shares."""
    x, test_x, y, test_y = digits(seed)
    keras.utils.set_random_seed(seed)
    plain = build()
    plain.compile(optimizer(epochs), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model = pk.convert(plain)
    options = {
        "batch_size": BATCH, "epochs": epochs, "validation_data": (test_x, test_y), "shuffle": False, "verbose": 0,
    }  # fmt: skip
    expected = plain.fit(x, y, **options)
    began = time.perf_counter()
    history = model.fit(x, y, **options)
    return expected, history, time.perf_counter() - began


def main(only: str, picture: Path | None) -> None:
    """Prints the table, and draws the curves of the first seed."""
    heads = f"{'seed':>4s} {'Keras':>7s} {'shares':>7s} {'points':>7s} {'loss':>8s} {'seconds':>8s}"
    print(f"{'network':8s} {'':5s} {heads}")
    names = [name for name in NETWORKS if name.startswith(only)]
    figure, axes = pyplot.subplots(len(names), 4, figsize=(16, 3.2 * len(names)), layout="constrained", squeeze=False)
    with pk.LocalCluster():
        for row, name in enumerate(names):
            build, epochs, optimizers = NETWORKS[name]
            for place, (optimizer, make) in enumerate(optimizers.items()):
                points = []
                for seed in SEEDS:
                    expected, history, seconds = run(build, epochs, make, seed)
                    before, after = (h.history["val_accuracy"][-1] for h in (expected, history))
                    points.append(100 * (after - before))
                    loss = np.abs(np.subtract(expected.history["loss"], history.history["loss"])).max()
                    print(
                        f"{name:8s} {optimizer:5s} {seed:4d} {before:7.4f} {after:7.4f} {points[-1]:7.2f} "
                        f"{loss:8.1e} {seconds:8.1f}",
                        flush=True,
                    )
                    if seed == SEEDS[0]:
                        for column, curve in enumerate(("loss", "val_accuracy")):
                            axis = axes[row, 2 * place + column]
                            axis.plot(range(1, epochs + 1), expected.history[curve], "o-", label="plain Keras")
                            axis.plot(range(1, epochs + 1), history.history[curve], "x--", label="on shares")
                            axis.set_title(f"{name}, {optimizer}: {curve}")
                            axis.legend()
                print(f"{name:8s} {optimizer:5s} mean {'':15s} {np.mean(points):7.2f}", flush=True)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, dpi=70)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    main(arguments.only, arguments.picture)
