"""The face: Keras' names, loaded lazily by servers and at once by a program; every layer that Keras has."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import private_keras as pk
from private_keras.layers.secure import COUNTERPARTS, SecureLayer

HEAVY = ("tensorflow", "keras", "h5py")
REPORT = f"import json, sys; print(json.dumps([m in sys.modules for m in {HEAVY!r}]))"


def loaded(command: list[str]) -> list[bool]:
    """Which heavy libraries a process has loaded when it ends; the command prints the report as its last line."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_program_loads_keras_at_import_and_prints_nothing(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(f"import private_keras as pk\n{REPORT}\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == [True, True, True]


def test_the_command_line_loads_no_keras(tmp_path):
    script = tmp_path / "private-keras"
    script.write_text(f"import private_keras.cli\n{REPORT}\n")
    assert loaded([str(script)]) == [False] * 3
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "private_keras", "--version"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    modules = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "private_keras" in modules and not modules & set(HEAVY)


def test_lazy_names_are_found_in_a_tool(tmp_path):
    script = tmp_path / "private-keras"
    script.write_text(f"import private_keras as pk\npk.errors, pk.connect\n{REPORT}\n")
    assert loaded([str(script)]) == [False] * 3
    script.write_text(f"import private_keras as pk\npk.Sequential\n{REPORT}\n")
    assert loaded([str(script)]) == [True] * 3


def test_names():
    for name in dir(pk):
        getattr(pk, name)
    assert set(pk.__all__) <= set(dir(pk))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pk.nonsense  # noqa: B018
    assert pk.Input is keras.Input and pk.losses.mean_squared_error is keras.losses.mean_squared_error


def test_every_public_module_of_keras_is_there_or_left_out_on_purpose():
    absent = {n for n in dir(keras) if not n.startswith("_") and not hasattr(pk, n)}
    # Devices, distribution, export and quantisation are about where and how plaintext runs.
    with pytest.raises(AttributeError, match="private_keras.convert"):
        pk.applications  # noqa: B018
    assert absent == {
        "applications",
        "DTypePolicy",
        "FloatDTypePolicy",
        "Quantizer",
        "RematScope",
        "StatelessScope",
        "SymbolicScope",
        "device",
        "distillation",
        "distribution",
        "export",
        "legacy",
        "quantizers",
        "remat",
        "src",
        "wrappers",
    }


# --- layers -----------------------------------------------------------------------------------------------------------
KERAS_LAYERS = sorted(n for n in dir(keras.layers) if not n.startswith("_"))


@pytest.mark.parametrize("name", KERAS_LAYERS)
def test_every_name_of_keras_layers(name):
    ours, theirs = getattr(pk.layers, name), getattr(keras.layers, name)
    if isinstance(theirs, type) and issubclass(theirs, keras.layers.Layer) and name not in ("Layer",):
        assert issubclass(ours, SecureLayer) and issubclass(ours, theirs)
        assert COUNTERPARTS[theirs] is ours
        assert ours.__doc__ and ours.__doc__ != theirs.__doc__


CONFIGURATIONS = [
    ("Dense", {"units": 3, "activation": "relu"}, (4,)),
    ("Conv1D", {"filters": 2, "kernel_size": 3}, (6, 2)),
    ("Conv2D", {"filters": 2, "kernel_size": 3, "dilation_rate": 2}, (8, 8, 2)),
    ("Conv3DTranspose", {"filters": 2, "kernel_size": 2}, (3, 3, 3, 1)),
    ("DepthwiseConv2D", {"kernel_size": 3}, (6, 6, 2)),
    ("SeparableConv1D", {"filters": 2, "kernel_size": 3}, (6, 2)),
    ("MaxPooling2D", {"strides": 1}, (4, 4, 1)),
    ("GlobalAveragePooling1D", {}, (4, 2)),
    ("AdaptiveMaxPooling1D", {"output_size": 2}, (4, 2)),
    ("BatchNormalization", {"epsilon": 0.1}, (3,)),
    ("LayerNormalization", {}, (3,)),
    ("GroupNormalization", {"groups": 2}, (4,)),
    ("Dropout", {"rate": 0.5}, (3,)),
    ("SpatialDropout2D", {"rate": 0.5}, (3, 3, 2)),
    ("Flatten", {}, (3, 2)),
    ("Permute", {"dims": (2, 1)}, (3, 2)),
    ("UpSampling2D", {"size": 2}, (2, 2, 1)),
    ("ZeroPadding1D", {"padding": 2}, (3, 2)),
    ("Cropping2D", {"cropping": 1}, (4, 4, 1)),
    ("Activation", {"activation": "gelu"}, (3,)),
    ("Activation", {"activation": "tanh", "approximation": "polynomial"}, (3,)),
    ("ReLU", {"max_value": 2.0}, (3,)),
    ("ReLU", {"approximation": "polynomial"}, (3,)),
    ("Sigmoid", {"approximation": [0.5, 0.25]}, (3,)),
    ("LeakyReLU", {"negative_slope": 0.1}, (3,)),
    ("PReLU", {}, (3,)),
    ("ELU", {}, (3,)),
    ("Softmax", {"axis": -1}, (3,)),
    ("LSTM", {"units": 2}, (3, 2)),
    ("GRU", {"units": 2, "return_sequences": True}, (3, 2)),
    ("Rescaling", {"scale": 0.5}, (3,)),
]


@pytest.mark.parametrize("name, config, shape", CONFIGURATIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_layers_are_keras_layers(name, config, shape):
    """Symbolic and concrete calls, configuration there and back, and the same numbers as Keras."""
    layer = getattr(pk.layers, name)(**config)
    assert layer(keras.Input(shape)).shape[0] is None
    x = np.random.default_rng(3).normal(size=(2, *shape)).astype("float32")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    again(keras.Input(shape))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), again(x))
    if hasattr(keras.layers, name) and "approximation" not in config:
        plain = getattr(keras.layers, name)(**config)
        plain(keras.Input(shape))
        plain.set_weights(layer.get_weights())
        np.testing.assert_array_equal(layer(x), plain(x))


@pytest.mark.parametrize(
    "name, function, domain, error",
    [
        ("relu", lambda x: np.maximum(x, 0), 5, 0.17),
        ("tanh", np.tanh, 3, 0.041),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 5, 0.012),
    ],
)
def test_polynomials_are_as_close_as_they_say(name, function, domain, error):
    x = np.linspace(-domain, domain, 1001, dtype="float32")
    y = keras.ops.convert_to_numpy(pk.layers.Activation(name, approximation="polynomial")(x))
    assert 0.5 * error < np.abs(y - function(x)).max() <= error


def test_polynomials_of_ones_own():
    x = np.linspace(-2, 2, 9, dtype="float32")
    for coefficients in ([3.0], [1, 2], [1, 2, 3], [0, 0, 0, 1], [1, -1, 1, -1, 1]):
        y = keras.ops.convert_to_numpy(pk.layers.ReLU(approximation=coefficients)(x))
        np.testing.assert_allclose(y, np.polynomial.polynomial.polyval(x, coefficients), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pk.layers.ReLU(approximation="chebyshev"),
        lambda: pk.layers.ReLU(approximation=[]),
        lambda: pk.layers.Activation("gelu", approximation="polynomial"),
        lambda: pk.layers.ReLU(max_value=6, approximation="polynomial"),
    ],
)
def test_approximations_that_do_not_exist(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_cost_of_a_layer():
    layer = pk.layers.Dense(4)
    local, wide = layer.cost((3,), batch_size=2), layer.cost((3,), batch_size=2, network="wan")
    assert local.rounds == wide.rounds >= 1 and local.bytes == wide.bytes > 0 and wide.seconds > local.seconds
    assert not layer.built
    assert pk.layers.Add().cost([(3,), (3,)]).bytes == 2 * 8 * 3
    assert "Cost of" in str(local) and "<table>" in local._repr_html_()
    slow = layer.cost((3,), network=pk.Network(rtt=1.0, bandwidth=1e6))
    assert slow.seconds > slow.rounds / 2, "both ends send at once: a round takes half a round trip"
    with pytest.raises(pk.errors.InputError, match="'lan'"):
        layer.cost((3,), network="moon")
    with pytest.raises(pk.errors.InputError, match="rtt"):
        pk.Network(rtt=-1.0, bandwidth=1e6)
    with pytest.raises(pk.errors.UnsupportedError):
        pk.layers.Hashing(num_bins=3).cost((1,))


def test_functional_forms():
    a, b = np.float32([[1, 2]]), np.float32([[3, 5]])
    for name in ("add", "average", "concatenate", "maximum", "minimum", "multiply", "subtract"):
        np.testing.assert_array_equal(getattr(pk.layers, name)([a, b]), getattr(keras.layers, name)([a, b]))
    np.testing.assert_array_equal(pk.layers.dot([a, b], axes=1), keras.layers.dot([a, b], axes=1))
