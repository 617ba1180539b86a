"""Federated averaging: three data owners train on their own machines; servers add up, and only the mean of the updates
is opened, to the model owner.

    python examples/scenarios/federated_averaging.py
"""

import keras
import numpy as np
from parties import main, report
from private_training import TRAINED, provide_data

import private_keras as pk

ROUNDS, EPOCHS, BATCH = 3, 2, 25
OWNERS = ["data-owner-0", "data-owner-1", "data-owner-2"]
ROLES = {"model-owner": ["owner", "analyst"], **dict.fromkeys(OWNERS, ["owner", "analyst"])}


# --- at the data owners -----------------------------------------------------------------------------------------------
def provide_part(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Every owner has some patients, the first fewer than the others."""
    x, y = provide_data()
    start, stop = ((0, 60), (60, 200), (200, TRAINED))[index]
    return x[start:stop], y[start:stop]


def data_owner(index: int) -> None:
    client = pk.federated.Client("model-owner/biopsies", provide_part(index))
    history = client.fit(epochs=EPOCHS, batch_size=BATCH, verbose=0)
    report(rounds=len(history.epoch), refusals=client.refusals)


# --- at the model owner -----------------------------------------------------------------------------------------------
def build_model() -> keras.Model:
    """Plain Keras."""
    model = keras.Sequential([
        keras.Input((30,)), keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros"),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    return model


def model_owner() -> None:
    x, y = provide_data()
    server = pk.federated.Server(
        build_model(), OWNERS, "biopsies", deadline=120, validation_data=(x[TRAINED:], y[TRAINED:])
    )
    history = server.fit(ROUNDS)
    report(accuracy=history.history["val_accuracy"], loss=history.history["val_loss"])


if __name__ == "__main__":
    main({
        "model-owner": model_owner, "data-owner-0": lambda: data_owner(0), "data-owner-1": lambda: data_owner(1),
        "data-owner-2": lambda: data_owner(2),
    }, ROLES)  # fmt: skip
