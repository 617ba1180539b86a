"""Train a convolutional network on encrypted handwritten digits, compared with plain Keras.

    python examples/train_digits_cnn.py [folder for the picture, "out" by default]

Both start from the same weights and see the same batches. Prints accuracy on shares and in the clear; writes
`train_digits_cnn.png`.
"""
import sys
import time
from pathlib import Path

import keras
import numpy as np
from curves import draw
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import private_keras as pk

EPOCHS = 5
BATCH = 64


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images (rows, 8, 8, 1) from 0 to 1 and labels: train images, test images, train labels, test labels."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    return train_test_split(images, data.target, test_size=0.25, random_state=0, stratify=data.target)


def network(library) -> keras.Model:
    """The same model in plain Keras or on shares."""
    layers = library.layers
    model = library.Sequential([
        library.Input((8, 8, 1)),
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile(
        optimizer=keras.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def main(folder: Path, epochs: int = EPOCHS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, test_x, y, test_y = digits()
    keras.utils.set_random_seed(0)
    plain, model = network(keras), network(pk)
    model.set_weights(plain.get_weights())
    options = {"batch_size": BATCH, "epochs": epochs, "validation_data": (test_x, test_y), "shuffle": False}

    expected = plain.fit(x, y, verbose=0, **options)
    cluster = pk.connect()  # three server processes on this machine
    start = time.perf_counter()
    history = model.fit(x, y, **options)
    seconds = time.perf_counter() - start

    print(f"accuracy in the clear     {plain.evaluate(test_x, test_y, verbose=0)[1]:.4f}")
    print(f"accuracy encrypted        {model.evaluate(test_x, test_y, verbose=0)[1]:.4f}")
    print(f"seconds for {epochs} epochs      {seconds:.1f}")
    print(cluster.stats)
    path = folder / "train_digits_cnn.png"
    draw(path, "A small CNN on digits, Adam", {"plain Keras": expected.history, "on shares": history.history},
         ("loss", "accuracy", "val_accuracy"))
    print(f"picture                   {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
