"""Writes the golden files; see README.md beside it."""

from pathlib import Path

import keras
import numpy as np

import private_keras as pk
from tests import keras2

HERE = Path(__file__).parent
RNG = np.random.default_rng(20)


def weights(**layers: dict[str, tuple[int, ...]]) -> dict[str, dict[str, np.ndarray]]:
    """Random weights by layer and name."""
    return {
        layer: {
            name: RNG.uniform(*((0.1, 0.9) if "variance" in name else (-0.4, 0.5)), shape).astype("float32")
            for name, shape in shapes.items()
        }
        for layer, shapes in layers.items()
    }


def cnn(layers: object, model: type) -> keras.Model:
    """A small convolutional model with random weights."""
    made = model(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(4, activation="softmax", name="out"),
        ]
    )
    made.set_weights(
        [RNG.uniform(*((0.1, 0.9) if "variance" in v.path else (-0.4, 0.5)), v.shape) for v in made.weights]
    )
    return made


def main() -> None:
    norm = {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)}
    keras2.write(
        HERE / "keras2_sequential.h5",
        keras2.sequential(
            [
                keras2.input_layer("conv_input", [6, 6, 1]),
                keras2.conv2d("conv", 3, batch_input_shape=[None, 6, 6, 1]),
                keras2.batch_normalization("norm"),
                keras2.layer("Flatten", "flat", data_format="channels_last"),
                keras2.dense("out", 4, "softmax"),
            ]
        ),
        weights(conv={"kernel": (3, 3, 1, 3), "bias": (3,)}, norm=norm, out={"kernel": (108, 4), "bias": (4,)}),
    )
    keras2.write(
        HERE / "keras2_functional.h5",
        keras2.functional(
            [
                keras2.input_layer("input_1", [5], inbound=[]),
                keras2.dense("left", 3, "relu", ["input_1"]),
                keras2.dense("right", 3, "tanh", ["input_1"]),
                keras2.layer("Add", "add", ["left", "right"]),
                keras2.dense("out", 2, "sigmoid", ["add"]),
            ],
            ["input_1"],
            ["out"],
        ),
        weights(
            left={"kernel": (5, 3), "bias": (3,)},
            right={"kernel": (5, 3), "bias": (3,)},
            out={"kernel": (3, 2), "bias": (2,)},
        ),
    )
    model = cnn(keras.layers, keras.Sequential)
    model.save(HERE / "keras3.h5")
    model.save(HERE / "keras3.keras")
    cnn(pk.layers, pk.Sequential).save(HERE / "private.keras")
    expected = {}
    for path in sorted([*HERE.glob("*.h5"), *HERE.glob("*.keras")]):
        plain = pk.models.load_model(path)
        x = RNG.uniform(-1, 1, (3, *plain.input_shape[1:])).astype("float32")
        expected[f"{path.name}:x"], expected[f"{path.name}:y"] = x, keras.ops.convert_to_numpy(plain(x, training=False))
    np.savez(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
