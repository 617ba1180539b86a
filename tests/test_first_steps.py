"""What a first script of a Keras user does, and what used to go wrong there."""
import threading

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.errors import InputError

SEED = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def simulate():
    with pk.connect(protocol="simulate") as cluster:
        yield cluster
    pk.cluster.disconnect()


def plain(*layers):
    return keras.Sequential([keras.Input((6,)), *layers])


def agree(private, model, x):
    np.testing.assert_allclose(private.predict(x, verbose=0), model(x).numpy(), atol=2e-3)


def test_a_lambda_of_this_process_is_converted():
    model = plain(keras.layers.Lambda(lambda x, by: x * by, arguments={"by": 3.0}), keras.layers.Dense(2))
    agree(pk.convert(model), model, SEED.normal(size=(4, 6)).astype("float32"))


def test_embedding_with_a_mask_takes_whole_numbers_declared_as_real():
    model = plain(keras.layers.Embedding(20, 4, mask_zero=True), keras.layers.LSTM(3), keras.layers.Dense(1))
    x = SEED.integers(0, 20, (3, 6))
    x[0, 4:] = 0
    agree(pk.convert(model), model, x)
    with pytest.raises(InputError, match="whole numbers"):
        pk.convert(model).predict(x + 0.5, verbose=0)


def test_a_generator_without_tuples_is_refused_without_its_values():
    model = pk.convert(plain(keras.layers.Dense(1)))
    with pytest.raises(InputError, match="Received: ndarray") as caught:
        model.predict((batch for batch in [np.full((2, 6), 1234.5)]), verbose=0)
    assert "1234" not in str(caught.value)


def test_a_compiled_model_comes_back_from_json():
    model = pk.Sequential([pk.Input((6,)), pk.layers.Dense(2)])
    model.compile("adam", "mse")
    assert isinstance(pk.models.model_from_json(model.to_json()).optimizer, keras.optimizers.Adam)


def test_a_file_that_keras_cannot_compile_predicts(tmp_path):
    model = plain(keras.layers.Dense(2))
    model.compile("adam", "mse")  # written to .h5 as a name that Keras does not find again
    model.save(tmp_path / "m.h5")
    with pytest.warns(UserWarning, match="without being compiled"):
        private = pk.models.load_model(tmp_path / "m.h5")
    agree(private, model, SEED.normal(size=(4, 6)).astype("float32"))


def test_models_are_planned_in_several_threads():
    models = [pk.convert(plain(keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1))) for _ in range(4)]
    failures = []

    def plan(model, size):
        try:
            model.plan(size)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=plan, args=(model, 3)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("wrong", [3, {"server0": "a:1"}, b"cluster.json"])
def test_connect_says_what_it_takes(wrong):
    with pytest.raises(pk.errors.InputError, match="path of a cluster.json"):
        pk.connect(wrong)


@pytest.mark.parametrize("wrong", [None, 3, keras.Sequential()])
def test_load_model_says_what_it_takes(wrong):
    with pytest.raises(pk.errors.InputError, match="path of a file"):
        pk.models.load_model(wrong)
