"""The main job on three real server processes: a model file, encrypted prediction, and what the servers got to see."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import private_keras as pk

MARGIN = 0.01
PROBABILITY_ERROR = 2e-3


@pytest.fixture(scope="module")
def cluster():
    with pk.LocalCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = (data.images / 16.0).astype("float32")[..., None]
    return train_test_split(x, data.target, test_size=0.25, random_state=0, stratify=data.target)
PAGE = 4096


def cnn():
    return [
        keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]


def mlp():
    return [
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]


def lenet():
    return [
        keras.layers.UpSampling2D(2),
        keras.layers.Conv2D(6, 5, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(16, 5, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(120, activation="relu"),
        keras.layers.Dense(84, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]


def agree(plain: np.ndarray, private: np.ndarray) -> None:
    """The acceptance rule: same class where the two top scores differ by more than MARGIN, and close probabilities."""
    assert private.shape == plain.shape and private.dtype == plain.dtype
    top = np.sort(plain, axis=-1)
    clear = top[..., -1] - top[..., -2] > MARGIN
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(private.argmax(-1)[clear], plain.argmax(-1)[clear])
    assert np.abs(private - plain).max() <= PROBABILITY_ERROR


@pytest.mark.parametrize(("layers", "suffix"), [(cnn, "h5"), (cnn, "keras"), (mlp, "h5"), (lenet, "h5")])
def test_digits_from_a_file(cluster, digits, tmp_path, layers, suffix):
    x_train, x_test, y_train, y_test = digits
    keras.utils.set_random_seed(1)
    plain = keras.Sequential([keras.Input((8, 8, 1)), *layers()])
    plain.compile("adam", "sparse_categorical_crossentropy")
    plain.fit(x_train, y_train, epochs=12, batch_size=32, verbose=0)
    path = tmp_path / f"digits.{suffix}"
    plain.save(path)

    model = pk.models.load_model(path)
    expected = plain.predict(x_test, verbose=0)
    got = model.predict(x_test, batch_size=128, verbose=0)
    agree(expected, got)
    assert (expected.argmax(-1) == y_test).mean() > 0.9, "the plaintext model has learned something"
    # The last batch is partial (450 = 3 * 128 + 66); batches of one give the same classes.
    agree(expected[:3], model.predict(x_test[:3], batch_size=1, verbose=0))


def residual_block(x, filters, stride):
    y = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.ReLU()(y)
    y = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = keras.layers.BatchNormalization()(y)
    if stride != 1 or x.shape[-1] != filters:
        x = keras.layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


def test_small_resnet(cluster):
    """Batch normalisation, skip connections and strides, 32x32x3, random weights and random moving statistics."""
    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(2)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, padding="same")(inputs)))
    for filters, stride in [(8, 1), (16, 2), (32, 2)]:
        x = residual_block(x, filters, stride)
    x = keras.layers.GlobalAveragePooling2D()(x)
    plain = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights(
                [rng.uniform(0.7, 1.3, n), rng.normal(0, 0.2, n), rng.normal(0, 0.2, n), rng.uniform(0.3, 1.5, n)]
            )
    images = rng.uniform(0, 1, (6, 32, 32, 3)).astype("float32")
    plain.layers[-1].set_weights([w * 4 for w in plain.layers[-1].get_weights()])
    model = pk.convert(plain)
    agree(plain.predict(images, verbose=0), model.predict(images, batch_size=4, verbose=0))


def patterns(values: np.ndarray, fractions=(0, 18, 36)) -> dict[str, list[bytes]]:
    """What a tensor looks like in memory: four neighbouring values as floats and in fixed point, from some places."""
    flat = np.ascontiguousarray(values, np.float64).ravel()
    starts = [i for i in range(0, len(flat) - 4, max(1, len(flat) // 40)) if (np.abs(flat[i : i + 4]) > 1e-3).all()]
    starts = starts[:: max(1, len(starts) // 3)][:3]
    assert len(starts) == 3
    found = {"float32": [], "float64": []} | {f"fixed{f}": [] for f in fractions if f}
    for i in starts:
        four = flat[i : i + 4]
        found["float32"].append(four.astype("<f4").tobytes())
        found["float64"].append(four.astype("<f8").tobytes())
        for f in fractions:
            if f:
                found[f"fixed{f}"].append(np.rint(four * 2.0**f).astype("<i8").tobytes())
    return found


def written(piece: bytes) -> bytes:
    """Without pages of zeros, where nothing stands and searching takes longest; the first behind others stays."""
    whole = len(piece) // PAGE * PAGE
    used = np.frombuffer(piece[:whole], np.uint8).reshape(-1, PAGE).any(axis=1)
    used[1:] |= used[:-1].copy()
    return np.frombuffer(piece[:whole], np.uint8).reshape(-1, PAGE)[used].tobytes() + piece[whole:]


def found_in_memory(pid: int, needles: dict[str, list[bytes]]) -> set[str]:
    """Names of those needles that stand in a process' writable memory."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            region, permissions = line.split()[:2]
            if not permissions.startswith("rw") or "[v" in line:
                continue
            start, end = (int(v, 16) for v in region.split("-"))
            for at in range(start, end, 1 << 24):
                try:
                    memory.seek(at)
                    # Pieces overlap, so that no match is cut.
                    piece = written(memory.read(min((1 << 24) + 64, end - at)))
                except (OSError, ValueError):
                    continue
                found |= {name for name, ns in needles.items() if name not in found and any(n in piece for n in ns)}
    return found


def test_no_server_ever_holds_a_plaintext(cluster, tmp_path):
    """Servers' memory, files and logs after several predictions hold no input, weight or output in any encoding."""
    rng = np.random.default_rng(5)
    plain = keras.Sequential([keras.Input((40,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(50)])
    model = pk.convert(plain)
    x = rng.uniform(0.5, 1, (32, 40)).astype("float32")
    for _ in range(3):
        y = model.predict(x, verbose=0)
    weights = np.concatenate([w.ravel() for w in plain.get_weights() if w.any()])
    pids = cluster.pids
    assert len(pids) == 3
    needles = {
        f"{name} as {encoding}": bits
        for name, values in {"input": x, "weights": weights, "output": y}.items()
        for encoding, bits in patterns(values).items()
    }
    for party, pid in enumerate(pids):
        assert not found_in_memory(pid, needles), f"plaintext in the memory of server {party}"
    # The search itself works: this process does hold them.
    assert "input as float32" in found_in_memory(os.getpid(), {"input as float32": needles["input as float32"]})
    for file in [f for f in Path(cluster.directory).rglob("*") if f.is_file()]:
        content = file.read_bytes()
        assert not [name for name, bits in needles.items() if any(n in content for n in bits)], file
