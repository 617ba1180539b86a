"""Models and data that commands take: files of this machine, or names on the servers."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from private_keras.errors import FileError, InputError

MODELS = (".h5", ".keras")


def seen_path(given: argparse.Namespace) -> Path:
    """Where ends of audit logs are kept, unless the command line says otherwise."""
    return given.config.with_name(f"audit-{given.identity or 'local'}.json")


def check_model(given: str) -> None:
    """Raises a FileError for a model's file that is not there; names are looked up on the servers."""
    if is_file(given, MODELS) and not Path(given).is_file():
        raise FileError(f"there is no file {given}")


def opened_model(given: str) -> Any:
    """A private model from a file, or from what was saved under a name: "digits", "model-owner/digits"."""
    # Keras takes seconds to load, and no other command needs it.
    from private_keras.models import load_model, load_shares

    return load_model(given) if is_file(given, MODELS) else load_shares(given)


def read_array(given: str) -> np.ndarray | None:
    """The array in a `.npy` file; None for a name."""
    if not is_file(given, (".npy",)):
        return None
    try:
        with open(given, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot read {given} as one NumPy array ({type(error).__name__}). Write it with numpy.save(path, array)"
        ) from None


def opened_data(given: str, array: np.ndarray | None) -> Any:
    """What `read_array` gave, or secret tensors by name; several, with commas between, one below the other."""
    if array is not None:
        return array
    from private_keras import ops
    from private_keras.tensor import secret

    tensors = [secret(name) for name in given.split(",")]
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=0)


def is_file(given: str, endings: tuple[str, ...]) -> bool:
    """Whether an argument is a file's path."""
    return Path(given).suffix in endings


def add_plans(command: argparse.ArgumentParser) -> None:
    """Adds the option that has plans written instead of run."""
    command.add_argument(
        "--plans", type=Path, metavar="DIRECTORY",
        help="write the plans that this would run, for owners to inspect and approve, and run nothing",
    )  # fmt: skip


def write_plans(directory: Path, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Writes the plans of a call to a directory, and says which."""
    from private_keras.models import plans

    made = plans(call, *args, **kwargs)
    print(made)
    print("\n".join(f"written to {path}" for path in made.save(directory)))


def check_out(path: Path | None) -> None:
    """Raises a FileError for a file that cannot be written: before anything runs."""
    if path is None:
        return
    if path.exists():
        raise FileError(f"{path} exists and is not overwritten")
    if not path.parent.is_dir():
        raise FileError(f"{path}: there is no directory {path.parent}; make it first")


def check_one(**given: Any) -> None:
    """Raises an InputError unless one of these options is given."""
    count = sum(value is not None for value in given.values())
    if count != 1:
        names = " or ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"expected either {names}. Received: {'both' if count else 'neither'}")
