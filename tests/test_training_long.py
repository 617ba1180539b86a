"""A thousand steps of network A (784-128-128-10): no drift, no catastrophic value, on shares, simulated and in float.

Whatever rounds differently ends elsewhere: which relus are open decides about the next gradient, and a change of one
unit grows. So runs are held to plain Keras started from weights that differ by about one unit (1e-5).

    pytest -m long tests/test_training_long.py -s     # prints the largest differences
"""
import keras
import numpy as np
import pytest
from keras import layers

import private_keras as pk

BATCH, BATCHES, EPOCHS = 128, 50, 20
RATE = 0.05


def data() -> tuple[np.ndarray, np.ndarray]:
    """Ten clusters in 784 dimensions, from 0 to 1, and their numbers: learnable, but not at once."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, BATCH * BATCHES)
    centres = rng.uniform(0.3, 0.7, (10, 784))
    return np.clip(centres[labels] + rng.normal(0, 0.35, (len(labels), 784)), 0, 1).astype("float32"), labels


def trained(library, start: list[np.ndarray], epochs: int) -> tuple[list[np.ndarray], dict]:
    """Weights after training from `start`, and the history."""
    model = library.Sequential([
        library.Input((784,)),
        library.layers.Dense(128, activation="relu"),
        library.layers.Dense(128, activation="relu"),
        library.layers.Dense(10),
    ])
    model.set_weights(start)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), loss, metrics=["accuracy"])
    history = model.fit(*data(), batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights(), history.history


def start() -> list[np.ndarray]:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((784,)), *(layers.Dense(n) for n in (128, 128, 10))]
    return keras.Sequential(stack).get_weights()


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def shaken(first: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [w + 1e-5 * rng.standard_normal(w.shape) for w in first]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_steps():
    first = start()
    exact, expected = trained(keras, first, EPOCHS)
    float_again, _ = trained(keras, shaken(first), EPOCHS)
    with pk.LocalCluster():
        shares, history = trained(pk, first, EPOCHS)
    simulated, _ = trained_simulated(first, EPOCHS)
    moved, apart = distance(exact, first), distance(float_again, exact)
    losses = np.abs(np.subtract(history["loss"], expected["loss"])).max()
    print(
        f"\nafter {BATCHES * EPOCHS} steps weights moved by up to {moved:.2f}; largest difference of a weight: "
        f"shares to float {distance(shares, exact):.1e}, simulated to float {distance(simulated, exact):.1e}, "
        f"shares to simulated {distance(shares, simulated):.1e}, float to float from weights that differ by 1e-5 "
        f"{apart:.1e}; largest difference of an epoch's loss {losses:.1e}"
    )
    assert moved > 0.1
    assert max(distance(shares, exact), distance(simulated, exact), distance(shares, simulated)) < 4 * apart + 1e-3
    assert losses < 1e-2


def test_fifty_steps_simulated():
    first = start()
    exact, expected = trained(keras, first, 1)
    float_again, _ = trained(keras, shaken(first), 1)
    simulated, history = trained_simulated(first, 1)
    assert distance(exact, first) > 0.03
    assert distance(simulated, exact) < 4 * distance(float_again, exact) + 1e-4
    assert abs(history["loss"][0] - expected["loss"][0]) < 2e-3


def trained_simulated(first: list[np.ndarray], epochs: int) -> tuple[list[np.ndarray], dict]:
    with pk.connect(protocol="simulate"):
        return trained(pk, first, epochs)
