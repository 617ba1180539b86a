"""Transfer learning: a public backbone, a private head, private images.

    python examples/transfer_learning.py [folder for the picture, "out" by default]

A convolutional backbone is trained in the clear on the digits 0 to 4, as somebody might publish one. A hospital's own
images, here the digits 5 to 9, and the head that is trained on them stay secret. The backbone's weights are declared
public, so that its products need no communication. Prints accuracy on shares and in the clear; writes
`transfer_learning.png`.
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

EPOCHS = 6
BATCH = 32


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images (rows, 8, 8, 1) and labels 0 to 4: of the published task (digits 0 to 4), of the private one (5 to 9)."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    published = data.target < 5
    return (images[published], data.target[published]), (images[~published], data.target[~published] - 5)


def backbone() -> keras.Model:
    """Convolutions, trained on the published task."""
    layers = keras.layers
    body = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Flatten(),
    ], name="backbone")
    images, labels = digits()[0]
    task = keras.Sequential([body, layers.Dense(5, activation="softmax")])
    task.compile("adam", "sparse_categorical_crossentropy")
    task.fit(images, labels, epochs=8, batch_size=32, verbose=0)
    return body


def network(body: keras.Model) -> keras.Model:
    """The backbone, which does not learn, and a head that does."""
    body.trainable = False
    model = keras.Sequential([keras.Input((8, 8, 1)), body, keras.layers.Dense(5, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(folder: Path, epochs: int = EPOCHS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    body = backbone()
    images, labels = digits()[1]
    x, test_x, y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    plain = network(body)
    model = pk.convert(plain)
    model.get_layer("backbone").public = True  # its owner says so; what is not declared public stays secret
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
    path = folder / "transfer_learning.png"
    draw(path, "A public backbone, a private head", {"plain Keras": expected.history, "on shares": history.history},
         ("loss", "accuracy", "val_accuracy"))
    print(f"picture                   {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
