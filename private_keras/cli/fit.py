"""`private-keras fit`: trains a model on shared data."""

import argparse
from pathlib import Path

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


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "fit", help="train on shares",
        description="Trains a compiled Keras model, or one that was saved on the servers, on data that are shared. "
        "Prints loss and metrics of each epoch, which are opened to you.",
    )  # fmt: skip
    command.add_argument("model", help="a compiled .keras or .h5 file, or the name of saved shares: model-owner/digits")
    what = "a .npy file, or the name of shared data: hospital-a/x; of several owners, one below the other: a/x,b/x"
    command.add_argument("x", help=f"inputs: {what}")
    command.add_argument("y", help="targets: the same")
    command.add_argument("--epochs", type=int, default=1, help="passes over the data (default: 1)")
    command.add_argument("--batch-size", type=int, default=32, help="rows in one step (default: 32)")
    command.add_argument("--seed", type=int, help="of the public shuffle, dropout and noise")
    command.add_argument("--save", metavar="NAME", help="keep the trained weights on the servers, as shares")
    command.add_argument("--out", type=Path, help="open the trained weights to you and write a .keras file")
    add_plans(command)
    command.add_argument("--config", type=Path, help="the cluster's description; without it, three servers start here")
    command.add_argument("--identity", help="the client's name, for a cluster over TLS")
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> int:
    if given.plans is None:
        check_one(save=given.save, out=given.out)
    check_out(given.out)
    arrays = read_array(given.x), read_array(given.y)
    check_model(given.model)
    with connect(given.config, identity=given.identity) as cluster:
        model = opened_model(given.model)
        x, y = (opened_data(name, array) for name, array in zip((given.x, given.y), arrays, strict=True))
        how = {"epochs": given.epochs, "batch_size": given.batch_size, "seed": given.seed, "verbose": 0}
        if given.plans is not None:
            write_plans(given.plans, model.fit, x, y, **how)
            return 0
        history = model.fit(x, y, **how).history
        for epoch in range(len(history["loss"])):
            print(f"epoch {epoch + 1}: {', '.join(f'{name} {values[epoch]:.4f}' for name, values in history.items())}")
        if given.save is not None:
            model.save_shares(given.save)
        else:
            model.save(given.out)
        print(cluster.stats)
    print(f"saved as {given.save} on the servers" if given.save is not None else f"written to {given.out}")
    return 0
