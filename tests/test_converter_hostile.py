"""Damaged and hostile files: a `FileError` that names the file, never another exception or a look at other files."""

import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.converter import check_weights, read_model
from private_keras.errors import FileError
from tests import keras2

LAYERS = keras.layers


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """Small good files of each kind."""
    folder = tmp_path_factory.mktemp("good")
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2, "relu"), LAYERS.Dense(1)])
    model.save(folder / "keras.h5")
    model.save(folder / "keras.keras")
    weights = {"dense": {"kernel": np.ones((3, 2), "float32"), "bias": np.ones(2, "float32")}}
    keras2.write(
        folder / "keras2.h5",
        keras2.sequential([keras2.input_layer("i", [3]), keras2.dense("dense", 2, "relu")]),
        weights,
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(path: Path, match: str) -> None:
    with pytest.raises(FileError, match=match) as raised:
        read_model(path)
    assert path.name in str(raised.value)


def loads_or_is_refused(path: Path) -> None:
    try:
        read_model(path)
    except FileError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("name", ["keras.h5", "keras.keras", "keras2.h5"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes(files, tmp_path, name, data):
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(content)
    loads_or_is_refused(path)


@pytest.mark.parametrize("name", ["keras.h5", "keras.keras", "keras2.h5"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_truncated(files, tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(files[name][: data.draw(st.integers(0, len(files[name]) - 1))])
    loads_or_is_refused(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"model", os.urandom(500)])
def test_not_a_model(tmp_path, content):
    path = tmp_path / "m.h5"
    path.write_bytes(content)
    refused(path, "Expected|another format|damaged")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "absent.h5", "no such file")
    (tmp_path / "folder.h5").mkdir()
    refused(tmp_path / "folder.h5", "is no file")


# --- configurations ---------------------------------------------------------------------------------------------------
def archive(path: Path, config: object, weights: bytes | None = None, more: dict | None = None) -> Path:
    if weights is None:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_group("layers")
        weights = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, content in (more or {}).items():
            file.writestr(name, content)
    return path


def sequential(*layers: dict) -> dict:
    first = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 3], "name": "i"},
        "registered_name": None,
    }
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [first, *layers]},
        "registered_name": None,
    }


def dense(**config: object) -> dict:
    return {
        "module": "keras.layers",
        "class_name": "Dense",
        "registered_name": None,
        "config": {"name": "d", "units": 2, **config},
    }


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("keras.src.saving.saving_lib", "H5IOStore"),
        ("keras.utils", "get_file"),
        ("keras.saving", "load_model"),
        ("keras.layers", "TorchModuleWrapper"),
        ("keras.layers", "Lambda"),
        ("keras.layers", "deserialize"),
        ("keras.layers", "TFSMLayer"),
        ("antigravity", "Dense"),
        ("keras_hub.models", "Backbone"),
        (None, "deserialize"),
        (None, "__lambda__"),
        (None, "__typespec__"),
    ],
)
def test_names_outside_the_table(tmp_path, module, name):
    layer = {
        "module": module,
        "class_name": name,
        "registered_name": None,
        "config": {"name": "evil", "module_path": "x"},
    }
    refused(archive(tmp_path / "m.keras", sequential(layer)), name)
    hidden = dense(kernel_initializer={**layer, "config": {}})
    refused(archive(tmp_path / "n.keras", sequential(hidden)), name)


def test_functions_outside_the_table(tmp_path):
    def named(name: object) -> dict:
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}

    for name in ("eval", "system", "get_file", "deserialize"):
        refused(archive(tmp_path / "m.keras", sequential(dense(activation=named(name)))), name)
    refused(archive(tmp_path / "m.keras", sequential(dense(activation=named({"a": 1})))), "function")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "3",
        "{",
        "null",
        '{"class_name": 3, "config": {}}',
        '{"class_name": "Sequential"}',
        "{}",
        "[" * 100_000,
        '{"a":' * 5000,
        '{"module": [], "class_name": "Dense", "config": {}}',
        "1" * 100_000,
        json.dumps(dense()),
        json.dumps({"class_name": "Sequential", "config": {"layers": "x"}}),
    ],
)
def test_configurations_that_are_none(tmp_path, config):
    refused(archive(tmp_path / "m.keras", config), "damaged|not a model|not part of Keras|nested")


def test_a_small_file_cannot_ask_for_a_huge_model(tmp_path):
    refused(archive(tmp_path / "m.keras", sequential(dense(units=10**9))), "parameters")
    keras2.write(
        tmp_path / "m.h5", keras2.sequential([keras2.input_layer("i", [10**5]), keras2.dense("d", 10**9, "relu")]), {}
    )
    refused(tmp_path / "m.h5", "parameters")
    layer = {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, 2**40], "name": "i"},
    }
    refused(archive(tmp_path / "n.keras", sequential(layer)), "elements")


@pytest.mark.parametrize("before", [None, []], ids=["first use", "after other models"])
def test_the_refused_model_leaves_nothing_behind(tmp_path, before):
    keras.src.backend.common.global_state.set_global_attribute("uninitialized_variables", before)
    refused(archive(tmp_path / "m.keras", sequential(dense(units=10**9))), "parameters")
    # Keras fills what is pending when a scope ends; a forgotten huge variable would take all memory here.
    with keras.StatelessScope():
        keras.Variable(keras.initializers.Zeros(), shape=(3,))
    assert keras.Sequential([keras.Input((2,)), LAYERS.Dense(1)]).count_params() == 3


# --- archives ---------------------------------------------------------------------------------------------------------
def test_duplicate_members(tmp_path):
    path = archive(tmp_path / "m.keras", sequential(dense()))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", json.dumps(sequential()))
    refused(path, "same name")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "assets/vocabulary.txt", "model.weights.npz", "a\\b"])
def test_further_members(tmp_path, name):
    refused(archive(tmp_path / "m.keras", sequential(dense()), more={name: b"x"}), "besides the model")
    assert not (tmp_path.parent / "evil").exists()


def test_zip_bomb(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", json.dumps(sequential(dense())))
        with file.open("model.weights.h5", "w") as member:
            for _ in range(64):
                member.write(bytes(1 << 20))
    refused(path, "zip bomb")


def test_missing_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("hello.txt", "x")
    refused(tmp_path / "m.keras", "config.json")


# --- HDF5 -------------------------------------------------------------------------------------------------------------
def hostile_h5(path: Path, change: object) -> Path:
    weights = {"d": {"kernel": np.ones((3, 2), "float32"), "bias": np.ones(2, "float32")}}
    keras2.write(path, keras2.sequential([keras2.input_layer("i", [3]), keras2.dense("d", 2, "relu")]), weights)
    read_model(path)
    with h5py.File(path, "a") as file:
        group = file["model_weights/d"]
        del group["d/kernel:0"]
        change(group, file)
    return path


def replaced(**options: object) -> object:
    return lambda group, file: group.create_dataset("d/kernel:0", **options)


def link(target: object) -> object:
    def change(group, file):
        group["d/kernel:0"] = target

    return change


def virtual(group, file):
    layout = h5py.VirtualLayout((3, 2), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 2))
    group.create_virtual_dataset("d/kernel:0", layout)


def cycle(group, file):
    group["d/kernel:0"] = file["model_weights"]


CHANGES = {
    "external link": (link(h5py.ExternalLink("/etc/passwd", "/x")), "link"),
    "soft link": (link(h5py.SoftLink("/model_weights/d/d/bias:0")), "link"),
    "virtual": (virtual, "other files"),
    "external storage": (replaced(shape=(3, 2), dtype="float32", external=[("/etc/passwd", 0, 24)]), "other files"),
    "cycle": (cycle, "two names"),
    "text": (replaced(data=np.array([[b"ab"] * 2] * 3)), "type"),
    "compound": (replaced(shape=(3, 2), dtype=[("a", "f4")]), "type"),
    "variable length": (replaced(shape=(3, 2), dtype=h5py.vlen_dtype(np.float32)), "type"),
    "objects": (replaced(shape=(3, 2), dtype=h5py.ref_dtype), "type"),
    "array type": (replaced(shape=(3,), dtype=np.dtype(("f4", (2,)))), "type"),
    "bomb": (replaced(shape=(2**20, 2**20), dtype="float32", chunks=(1024, 1024), compression="gzip"), "declare"),
    "wrong shape": (replaced(data=np.ones((2, 3), "float32")), "damaged"),
    "rank": (replaced(data=np.ones((1,) * 9, "float32")), "axes"),
    "missing": (lambda group, file: None, "damaged"),
    "empty": (replaced(data=h5py.Empty("f4")), "shape"),
    "named type": (lambda group, file: group.__setitem__("d/kernel:0", np.dtype("f4")), "neither"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_hostile_hdf5(tmp_path, case):
    change, match = CHANGES[case]
    path = hostile_h5(tmp_path / "m.h5", change)
    refused(path, match)
    if case not in ("wrong shape", "missing"):
        with pytest.raises(FileError, match=match):
            check_weights(path)


def test_attributes_of_strange_types(tmp_path):
    def change(group, file):
        file.attrs["model_config"] = 3.5

    refused(hostile_h5(tmp_path / "m.h5", change), "text")

    def reference(group, file):
        file.attrs["model_config"] = file.ref

    refused(hostile_h5(tmp_path / "n.h5", reference), "attribute")
