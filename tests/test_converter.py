"""Reading model files: weights and predictions equal Keras', whatever version wrote them."""

import json
import zipfile

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.converter import check_weights, model_from_json, read_model
from private_keras.errors import FileError
from tests import keras2

RNG = np.random.default_rng(7)


def cnn() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def branches() -> keras.Model:
    layers = keras.layers
    image, age = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="age")
    x = layers.add([layers.Conv2D(4, 3, padding="same")(image), layers.Conv2D(4, 1)(image)])
    x = layers.GlobalAveragePooling2D()(keras.ops.relu(x)[:, 1:] * 2.0)
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(3), layers.LeakyReLU(0.3)], name="inner")
    y = inner(layers.concatenate([x, age]))
    return keras.Model([image, age], [y, x])


def randomised(model: keras.Model) -> keras.Model:
    model.set_weights([RNG.uniform(0.1, 1, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def same(a: keras.Model, b: keras.Model) -> None:
    assert len(a.get_weights()) == len(b.get_weights()) > 0
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    inputs = [RNG.normal(size=(2, *t.shape[1:])).astype("float32") for t in a.inputs]
    for x, y in zip(outputs(a, inputs), outputs(b, inputs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def outputs(model: keras.Model, inputs: list) -> list:
    flat = isinstance(getattr(model, "_inputs_struct", None), list)
    return keras.tree.flatten(model(inputs if flat else inputs[0]))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "no_extension"])
def test_reads_what_keras_3_writes(tmp_path, name):
    model = randomised(cnn())
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / ("m.keras" if name == "no_extension" else name))
    if name == "no_extension":
        (tmp_path / "m.keras").rename(tmp_path / name)
    read = read_model(tmp_path / name)
    same(model, read)
    assert getattr(read.loss, "__name__", read.loss) == "categorical_crossentropy"
    assert isinstance(read.optimizer, keras.optimizers.Adam)
    assert read_model(tmp_path / name, compile=False).compiled is False


def test_reads_operations_nested_models_and_several_inputs(tmp_path):
    model = randomised(branches())
    model.save(tmp_path / "m.keras")
    same(model, read_model(tmp_path / "m.keras"))


def test_says_that_operations_do_not_survive_in_h5(tmp_path):
    branches().save(tmp_path / "m.h5")
    with pytest.raises(FileError, match=r"m\.h5.*Save the model as \.keras"):
        read_model(tmp_path / "m.h5")


def weights_of(*layers: tuple[str, dict[str, tuple]]) -> dict:
    return {
        name: {key: RNG.uniform(0.1, 1, shape).astype("float32") for key, shape in saved.items()}
        for name, saved in layers
    }


def test_reads_a_sequential_model_of_keras_2(tmp_path):
    weights = weights_of(
        ("conv2d", {"kernel": (3, 3, 1, 4), "bias": (4,)}),
        ("batch_normalization", {"gamma": (4,), "beta": (4,), "moving_mean": (4,), "moving_variance": (4,)}),
        ("depthwise_conv2d", {"depthwise_kernel": (3, 3, 4, 1), "bias": (4,)}),
        ("dense", {"kernel": (144, 10), "bias": (10,)}),
    )
    description = keras2.sequential(
        [
            keras2.input_layer("conv2d_input", [8, 8, 1]),
            keras2.conv2d("conv2d", 4, batch_input_shape=[None, 8, 8, 1]),
            keras2.batch_normalization("batch_normalization"),
            keras2.depthwise("depthwise_conv2d"),
            keras2.layer("Flatten", "flatten", data_format="channels_last"),
            keras2.layer("Dropout", "dropout", rate=0.2, noise_shape=None, seed=None),
            keras2.dense("dense", 10, "softmax"),
        ]
    )
    keras2.write(tmp_path / "m.h5", description, weights)
    model = read_model(tmp_path / "m.h5")
    layers = keras.layers
    expected = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    expected.set_weights([value for saved in weights.values() for value in saved.values()])
    same(expected, model)
    assert model.loss.__name__ == "categorical_crossentropy" and isinstance(model.optimizer, keras.optimizers.Adam)


def test_reads_a_functional_model_of_keras_2(tmp_path):
    weights = weights_of(
        ("a", {"kernel": (4, 3), "bias": (3,)}),
        ("b", {"kernel": (4, 3), "bias": (3,)}),
        ("out", {"kernel": (3, 2), "bias": (2,)}),
    )
    description = keras2.functional(
        [
            keras2.input_layer("input_1", [4], inbound=[]),
            keras2.dense("a", 3, "relu", ["input_1"]),
            keras2.dense("b", 3, "tanh", ["input_1"]),
            keras2.layer("Add", "add", ["a", "b"]),
            keras2.layer("LeakyReLU", "leaky", ["add"], alpha=0.25),
            keras2.dense("out", 2, "sigmoid", ["leaky"]),
        ],
        ["input_1"],
        ["out"],
    )
    keras2.write(tmp_path / "m.h5", description, weights, training=None)
    x = keras.Input((4,))
    a, b = keras.layers.Dense(3, "relu")(x), keras.layers.Dense(3, "tanh")(x)
    y = keras.layers.Dense(2, "sigmoid")(keras.layers.LeakyReLU(0.25)(keras.layers.Add()([a, b])))
    expected = keras.Model(x, y)
    expected.set_weights([value for saved in weights.values() for value in saved.values()])
    model = read_model(tmp_path / "m.h5")
    same(expected, model)
    assert not model.compiled


RECURRENT = {
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "time_major": False,
    "units": 3,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "implementation": 2,
}


def test_reads_recurrent_layers_of_keras_2(tmp_path):
    weights = weights_of(
        ("embedding", {"embeddings": (7, 5)}),
        ("lstm", {"kernel": (5, 12), "recurrent_kernel": (3, 12), "bias": (12,)}),
    )
    layers = [
        keras2.layer("Embedding", "embedding", batch_input_shape=[None, 4], input_dim=7, output_dim=5, input_length=4),
        keras2.layer("LSTM", "lstm", **RECURRENT),
    ]
    keras2.write(tmp_path / "m.h5", keras2.sequential(layers), weights)
    expected = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(7, 5), keras.layers.LSTM(3)])
    expected.set_weights([value for saved in weights.values() for value in saved.values()])
    model = read_model(tmp_path / "m.h5", compile=False)
    x = RNG.integers(0, 7, (3, 4))
    np.testing.assert_allclose(model(x), expected(x), rtol=1e-6)


@pytest.mark.parametrize("value, key", [(True, "time_major"), (2, "groups")])
def test_refuses_what_keras_3_cannot_do(tmp_path, value, key):
    bad = (
        keras2.layer("LSTM", "bad", **{**RECURRENT, key: value})
        if key == "time_major"
        else keras2.depthwise("bad", groups=value)
    )
    keras2.write(tmp_path / "m.h5", keras2.sequential([keras2.input_layer("i", [8, 8, 2]), bad]), {})
    with pytest.raises(FileError, match=f"'bad'.*{key}="):
        read_model(tmp_path / "m.h5")


@pytest.mark.parametrize("kind", ["TFOpLambda", "SlicingOpLambda", "Lambda", "TensorFlowOpLayer"])
def test_refuses_layers_that_hold_code(tmp_path, kind):
    layers = [keras2.input_layer("i", [4]), keras2.layer(kind, "tf.math.add", function=["YWJj", None, None])]
    keras2.write(tmp_path / "m.h5", keras2.sequential(layers), {})
    with pytest.raises(FileError, match=f"{kind}.*'tf.math.add'.*keras.ops"):
        read_model(tmp_path / "m.h5")


class Scale(keras.layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale


def test_custom_layers_are_loaded_only_when_vouched_for(tmp_path):
    model = randomised(keras.Sequential([keras.Input((4,)), Scale(name="mine")]))
    model.save(tmp_path / "m.keras")
    with pytest.raises(FileError, match=r"Scale.*'mine'.*custom_objects=\{'Scale'"):
        read_model(tmp_path / "m.keras")
    same(model, read_model(tmp_path / "m.keras", custom_objects={"Scale": Scale}))


def test_weights_files_are_checked_before_keras_reads_them(tmp_path):
    model = randomised(cnn())
    model.save_weights(tmp_path / "m.weights.h5")
    check_weights(tmp_path / "m.weights.h5")
    data = (tmp_path / "m.weights.h5").read_bytes()
    (tmp_path / "m.weights.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="m.weights.h5"):
        check_weights(tmp_path / "m.weights.h5")
    with pytest.raises(FileError, match="no such file"):
        check_weights(tmp_path / "absent.weights.h5")


def test_a_file_of_weights_alone_is_no_model(tmp_path):
    cnn().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(FileError, match="load_weights"):
        read_model(tmp_path / "m.weights.h5")


def test_json(tmp_path):
    model = model_from_json(cnn().to_json())
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in cnn().layers]
    with pytest.raises(FileError, match="JSON"):
        model_from_json("{")


def test_the_original_file_is_not_changed(tmp_path):
    cnn().save(tmp_path / "m.h5")
    before = (tmp_path / "m.h5").read_bytes()
    read_model(tmp_path / "m.h5")
    assert (tmp_path / "m.h5").read_bytes() == before


def test_the_optimizer_of_a_keras_3_archive_goes_on_where_it_was(tmp_path):
    model = cnn()
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), "mse")
    model.optimizer.build(model.trainable_variables)
    for i, variable in enumerate(model.optimizer.variables):
        variable.assign(np.full(variable.shape, i + 1, variable.dtype))
    model.save(tmp_path / "m.keras")
    assert "compile_config" in json.loads(zipfile.ZipFile(tmp_path / "m.keras").read("config.json"))
    read = pk.models.load_model(tmp_path / "m.keras")
    assert read.optimizer.momentum == 0.5 and int(read.optimizer.iterations) == 1
    assert len(read.optimizer.variables) == len(model.optimizer.variables) > 3
    for i, variable in enumerate(read.optimizer.variables):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), i + 1)
    assert not read_model(tmp_path / "m.keras", compile=False).compiled
