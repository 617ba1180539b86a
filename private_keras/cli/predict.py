"""`private-keras predict`: a model's predictions on shares, for this client or for somebody else."""

import argparse
from pathlib import Path

import numpy as np

from private_keras.cli.named import (
    add_plans,
    check_model,
    check_one,
    check_out,
    opened_data,
    opened_model,
    read_array,
    write_plans,
)
from private_keras.cluster import connect
from private_keras.errors import InputError, UnsupportedError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "predict", help="predict on shares",
        description="Predicts on shares with a Keras model, or one that was saved on the servers, and writes the "
        "result, or sends it to somebody else.",
    )  # fmt: skip
    command.add_argument("model", help="a .h5 or .keras file, or the name of saved shares: model-owner/digits")
    command.add_argument("data", help="inputs as a .npy file, rows first, or the name of shared data: hospital-a/x")
    command.add_argument("--out", type=Path, help="where to write the predictions, a .npy file")
    command.add_argument("--to", metavar="PARTY", help="who gets the predictions, and nobody else")
    command.add_argument("--called", metavar="NAME", help="with --to: what they are called there (default: result)")
    command.add_argument("--batch-size", type=int, default=32, help="rows in one job (default: 32)")
    add_plans(command)
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    if given.plans is None or given.out is not None or given.to is not None:
        check_one(out=given.out, to=given.to)
    check_out(given.out)
    if given.out is not None and given.out.suffix != ".npy":
        raise InputError(f"--out: expected a .npy file. Received: {given.out.name}")
    array = read_array(given.data)
    check_model(given.model)
    with connect(given.config, identity=given.identity) as cluster:
        model, data = opened_model(given.model), opened_data(given.data, array)
        to = {} if given.to is None else {"to": given.to, "name": given.called}
        if given.plans is not None:
            write_plans(given.plans, model.predict, data, batch_size=given.batch_size, **to)
            return 0
        result = model.predict(data, batch_size=given.batch_size, verbose=0, **to)
        print(cluster.stats)
    if given.to is not None:
        print(f"{result.shape} sent to {result.to} as {result.name}")
        return 0
    if not isinstance(result, np.ndarray):
        raise UnsupportedError("the command writes one array, and this model has several outputs; use Python for it")
    with open(given.out, "xb") as file:
        np.save(file, result)
    print(f"{result.shape} written to {given.out}")
    return 0
