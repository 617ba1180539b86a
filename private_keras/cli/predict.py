"""`private-keras predict`: a model file's predictions on shares, from one array file to another."""

import argparse
from pathlib import Path

import numpy as np

from private_keras.cluster import connect
from private_keras.errors import FileError, UnsupportedError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "predict", help="predict on shares", description="Loads a Keras model, predicts on shares, writes the result."
    )
    command.add_argument("model", type=Path, help="a .h5 or .keras file")
    command.add_argument("data", type=Path, help="inputs as a NumPy .npy file, rows first")
    command.add_argument("--out", type=Path, required=True, help="where to write the predictions, a .npy file")
    command.add_argument("--batch-size", type=int, default=32, help="rows in one job (default: 32)")
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    if given.out.exists():
        raise FileError(f"{given.out} exists and is not overwritten")
    if not given.out.parent.is_dir():
        raise FileError(f"{given.out}: there is no directory {given.out.parent}; make it first")
    try:
        with open(given.data, "rb") as file:
            data = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot read {given.data} as one NumPy array: {error}. Write it with numpy.save(path, array)"
        ) from None
    # Keras takes seconds to load, and no other command needs it.
    from private_keras.models import load_model

    model = load_model(given.model)
    with connect(given.config, identity=given.identity) as cluster:
        result = model.predict(data, batch_size=given.batch_size, verbose=0)
        print(cluster.stats)
    if not isinstance(result, np.ndarray):
        raise UnsupportedError("the command writes one array, and this model has several outputs; use Python for it")
    with open(given.out, "xb") as file:
        np.save(file, result)
    print(f"{result.shape} written to {given.out}")
    return 0
