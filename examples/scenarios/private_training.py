"""Private training: a model owner trains on the data of a data owner. The weights are opened to the model owner alone,
how good they are on the data owner's test data to the data owner alone.

    python examples/scenarios/private_training.py
"""

import keras
import numpy as np
from parties import main, refused, report, waited_for
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

import private_keras as pk

TRAINED, EPOCHS, BATCH = 400, 2, 50
ROLES = {"data-owner": ["owner", "receiver"], "model-owner": ["analyst"]}


# --- at the data owner ------------------------------------------------------------------------------------------------
def provide_data() -> tuple[np.ndarray, np.ndarray]:
    """569 biopsies, 30 measurements each, scaled by their owner."""
    patients = load_breast_cancer()
    return StandardScaler().fit_transform(patients.data), patients.target.reshape(-1, 1)


def data_owner() -> None:
    x, y = provide_data()
    to_train = pk.Policy(use=["model-owner"], plans=["fit"], reveal_to=["model-owner"])
    to_test = pk.Policy(use=["model-owner"], plans=["evaluate"], reveal_to=["data-owner"])
    pk.share(x[:TRAINED], name="train/x", policy=to_train)
    pk.share(y[:TRAINED], name="train/y", policy=to_train)
    pk.share(x[TRAINED:], name="test/x", policy=to_test)
    pk.share(y[TRAINED:], name="test/y", policy=to_test)
    report(shared=pk.shared())
    report(quality=waited_for(lambda: pk.receive("model-owner/quality")))


# --- at the model owner -----------------------------------------------------------------------------------------------
def build_model(library) -> keras.Model:
    """The same in plain Keras and on shares."""
    model = library.Sequential([
        library.Input((30,)), library.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros"),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    return model


def model_owner() -> None:
    names = ("train/x", "train/y", "test/x", "test/y")
    x, y, test_x, test_y = (waited_for(lambda name=name: pk.secret(f"data-owner/{name}")) for name in names)
    model = build_model(pk)
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    model.evaluate(test_x, test_y, batch_size=BATCH, verbose=0, to="data-owner", name="quality")
    report(refused=[
        refused(lambda: model.evaluate(test_x, test_y, batch_size=BATCH, verbose=0)),
        refused(lambda: model.predict(x, verbose=0)), refused(x.reveal),
    ])  # fmt: skip
    report(loss=history.history["loss"], weights=[w.ravel() for w in model.reveal().get_weights()])


if __name__ == "__main__":
    main({"data-owner": data_owner, "model-owner": model_owner}, ROLES)
