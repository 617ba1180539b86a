"""Federated averaging: owners of handwritten digits train together, and nobody sees another's digits or update.

    python examples/federated_digits.py [folder for the picture, "out" by default]

Every party is a process of its own, over TLS on this machine: three servers, five owners who have different numbers of
digits and mostly of some classes, and the model's owner, which is this process. Prints the accuracy of the federated
model, of the same model trained on all digits in one place, and of owners who train alone; writes
`federated_digits.png`.
"""
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from curves import draw
from sklearn.datasets import load_digits

import private_keras as pk
from private_keras.cluster.keys import make_keys

OWNERS, ROUNDS = 5, 10
EPOCHS, BATCH = 5, 8  # of an owner in a round
SERVERS = ("server0", "server1", "server2")


def digits(owners: int, seed: int = 0) -> tuple[list[tuple], tuple, tuple]:
    """(x, y) of each owner, of all owners together, and to test with.

    Of each digit every owner has a share drawn from Dirichlet(1): some have many of it, others hardly any.
    """
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    train, test = (x[:1297], y[:1297]), (x[1297:], y[1297:])
    rows: list[list[int]] = [[] for _ in range(owners)]
    for digit in range(10):
        found = np.flatnonzero(train[1] == digit)
        cuts = (np.cumsum(rng.dirichlet([1.0] * owners))[:-1] * len(found)).astype(int)
        for mine, part in zip(rows, np.split(found, cuts), strict=True):
            mine.extend(part)
    return [(train[0][mine], train[1][mine]) for mine in rows], train, test


def network() -> keras.Model:
    """A model in plain Keras, compiled."""
    model = keras.Sequential([
        keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def names(owners: int) -> list[str]:
    """Of owners, as in their certificates."""
    return [f"owner-{index}" for index in range(owners)]


def own(config: str, index: int, owners: int) -> None:
    """What the process of an owner does."""
    data = digits(owners)[0][index]
    pk.connect(config, identity=names(owners)[index])
    pk.federated.Client("model-owner/digits", data).fit(epochs=EPOCHS, batch_size=BATCH)


@contextmanager
def parties(owners: int):
    """Keys and a description in a new directory, three servers and the owners; gives the description's path."""
    with tempfile.TemporaryDirectory() as folder:
        make_keys(Path(folder) / "keys", [*SERVERS, "model-owner", *names(owners)])
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        servers = [
            {"name": name, "control": f"127.0.0.1:{ports[i]}", "data": f"127.0.0.1:{ports[i + 3]}"}
            for i, name in enumerate(SERVERS)
        ]
        config = Path(folder) / "cluster.json"
        everybody = {name: {} for name in ["model-owner", *names(owners)]}
        config.write_text(json.dumps({"protocol": "trio", "servers": servers, "clients": everybody}))
        serve = [sys.executable, "-m", "private_keras", "serve", "--config", str(config)]
        processes = [
            subprocess.Popen([*serve, "--party", str(i), "--storage", f"{folder}/store{i}"], stderr=subprocess.DEVNULL)
            for i in range(3)
        ]
        try:
            connected(config)
            processes += [
                subprocess.Popen([sys.executable, __file__, "owner", str(config), str(i), str(owners)])
                for i in range(owners)
            ]
            yield config
            for process in processes[3:]:
                process.wait(60)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)


def connected(config: Path, seconds: float = 30.0):
    """The cluster, as the model's owner, as soon as its servers answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            return pk.connect(config, identity="model-owner")
        except pk.errors.ServerUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def main(folder: Path, rounds: int = ROUNDS, owners: int = OWNERS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    private, everything, test = digits(owners)
    print("digits of each owner   ", *(len(y) for _, y in private))
    keras.utils.set_random_seed(0)
    model, central = network(), network()
    start = model.get_weights()
    central.set_weights(start)
    with parties(owners):
        server = pk.federated.Server(
            model, names(owners), "digits", deadline=300, validation_data=test,
            optimizer=keras.optimizers.SGD(1.0, momentum=0.5),
        )
        history = server.fit(rounds)
    expected = central.fit(*everything, epochs=rounds * EPOCHS, batch_size=BATCH, validation_data=test, verbose=0)
    alone = []
    for data in private:
        single = network()
        single.set_weights(start)
        single.fit(*data, epochs=rounds * EPOCHS, batch_size=BATCH, verbose=0)
        alone.append(single.evaluate(*test, verbose=0)[1])
    print(f"accuracy, federated     {history.history['val_accuracy'][-1]:.4f}")
    print(f"accuracy, in one place  {expected.history['val_accuracy'][-1]:.4f}")
    print("accuracy, each alone   ", *(f"{each:.4f}" for each in alone))
    path = folder / "federated_digits.png"
    curve = {name: each[EPOCHS - 1 :: EPOCHS] for name, each in expected.history.items()}
    draw(path, "Federated averaging, by round", {"in one place": curve, "federated": history.history},
         ("val_loss", "val_accuracy"))
    print(f"picture                 {path}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["owner"]:
        own(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
