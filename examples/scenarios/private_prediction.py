"""Private prediction: a model owner and a prediction client, neither of whom sees what the other has.

    python examples/scenarios/private_prediction.py

The model owner trains in the clear, on its own machine, and puts the weights on the servers for the client to use. The
client's images are shares from the moment they leave its machine, and only the client gets the predictions.
"""

import keras
import numpy as np
import tensorflow as tf
from parties import main, refused, report, waited_for
from sklearn.datasets import load_digits

import private_keras as pk

IMAGES = 8
ROLES = {"model-owner": ["owner"], "prediction-client": ["analyst", "owner"]}


# --- at the model owner -----------------------------------------------------------------------------------------------
def provide_model() -> keras.Model:
    """Trained on the owner's own images, in the clear."""
    digits = load_digits()
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(digits.data[IMAGES:] / 16, digits.target[IMAGES:], epochs=3, verbose=0)
    return model


def model_owner() -> None:
    model = pk.convert(provide_model())
    allowed = pk.Policy(use=["prediction-client"], plans=["predict"], reveal_to=["prediction-client"], uses=100)
    model.save_shares("digits", policy=allowed)
    report(shared="digits")


# --- at the prediction client -----------------------------------------------------------------------------------------
def provide_input() -> np.ndarray:
    """Preparing data is plain TensorFlow, before anything is shared."""
    raw = tf.data.Dataset.from_tensor_slices(load_digits().images[:IMAGES])
    return np.stack(list(raw.map(lambda image: tf.reshape(image / 16.0, [64])).as_numpy_iterator()))


def prediction_client() -> None:
    model = waited_for(lambda: pk.models.load_shares("model-owner/digits"))
    probabilities = model.predict(provide_input(), verbose=0)
    report(digits=probabilities.argmax(axis=1), probabilities=probabilities)
    report(refused=refused(model.reveal))  # the weights are the model owner's


if __name__ == "__main__":
    main({"model-owner": model_owner, "prediction-client": prediction_client}, ROLES)
