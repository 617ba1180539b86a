"""Logistic regression on secret shares, compared with plain Keras: 569 biopsies, scikit-learn's breast cancer data.

    python examples/logistic_regression.py [folder for the picture, "out" by default]

Both start from the same weights and see the same batches. Prints accuracy on shares and in the clear and the largest
difference of a weight; writes `logistic_regression.png`.
"""
import sys
import time
from pathlib import Path

import keras
import numpy as np
from curves import draw
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import private_keras as pk

EPOCHS = 10
BATCH = 32


def patients() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measurements (rows, 30), scaled, and labels 0 or 1: train, test, train labels, test labels."""
    data = load_breast_cancer()
    parts = train_test_split(data.data, data.target, test_size=0.25, random_state=0, stratify=data.target)
    scaler = StandardScaler().fit(parts[0])
    return scaler.transform(parts[0]), scaler.transform(parts[1]), parts[2], parts[3]


def network(library) -> keras.Model:
    """The same model in plain Keras or on shares."""
    model = library.Sequential([library.Input((30,)), library.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def main(folder: Path, epochs: int = EPOCHS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, test_x, y, test_y = patients()
    keras.utils.set_random_seed(0)
    plain, model = network(keras), network(pk)
    model.set_weights(plain.get_weights())
    options = {"batch_size": BATCH, "epochs": epochs, "validation_data": (test_x, test_y), "shuffle": False}

    expected = plain.fit(x, y, verbose=0, **options)
    pk.connect()  # three server processes on this machine
    start = time.perf_counter()
    history = model.fit(x, y, **options)
    seconds = time.perf_counter() - start

    opened = model.reveal().get_weights()
    difference = max(np.abs(a - b).max() for a, b in zip(opened, plain.get_weights(), strict=True))
    print(f"accuracy in the clear        {plain.evaluate(test_x, test_y, verbose=0)[1]:.4f}")
    print(f"accuracy encrypted           {model.evaluate(test_x, test_y, verbose=0)[1]:.4f}")
    print(f"largest difference, weights  {difference:.1e}")
    print(f"seconds for {epochs} epochs        {seconds:.2f}")
    path = folder / "logistic_regression.png"
    draw(path, "Logistic regression", {"plain Keras": expected.history, "on shares": history.history},
         ("loss", "accuracy", "val_accuracy"))
    print(f"picture                      {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
