"""Reads a `.keras` file, a zip archive: checks its table of contents first, then reads only the two members needed."""
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from private_keras.converter import hdf5
from private_keras.converter.config import MAX_BYTES
from private_keras.errors import FileError, PrivateKerasError

_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Archive:
    """The two members that make a model."""

    config: bytes
    weights: Path


@contextmanager
def opened(path: Path, directory: Path) -> Iterator[Archive]:
    """Checks and opens a `.keras` file; whatever fails in the body is reported as a `FileError` of this file.

    Args:
        path: of the file.
        directory: private to this process; the weights are unpacked there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, str(path), path.stat().st_size)
            config = archive.read(_CONFIG)
            weights = directory / _WEIGHTS
            with archive.open(_WEIGHTS) as member, weights.open("wb") as copy:
                while block := member.read(1 << 20):
                    copy.write(block)
        yield Archive(config, weights)
    except PrivateKerasError:
        raise
    except Exception as error:  # zipfile, zlib and Keras raise nearly everything on damaged files
        raise hdf5.damaged(str(path), error) from error


def _check(archive: zipfile.ZipFile, path: str, size: int) -> None:
    members = archive.infolist()
    found = [m.filename for m in members]
    if len(set(found)) != len(found):
        raise FileError(f"{path}: two members have the same name, so that readers would disagree on the model. The "
                        "file is hostile.")
    for name in (_CONFIG, _WEIGHTS):
        if name not in found:
            raise FileError(f"{path}: lacks {name!r}; received members {sorted(found)[:10]}. It was not written by "
                            "Keras 3 with model.save(...), or is damaged.")
    if extra := sorted(set(found) - {_CONFIG, _WEIGHTS, _METADATA}):
        raise FileError(f"{path}: has members besides the model: {extra[:5]}. Vocabularies of text layers (assets) "
                        "cannot be used "
                        "on shares: leave such layers out of the model and apply them before predict.")
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"{path}: member {member.filename!r} is encrypted or compressed in a way that Keras does "
                            "not use.")
        if member.file_size > hdf5.SLACK + hdf5.MAX_EXPANSION * size:
            raise FileError(f"{path}: member {member.filename!r} declares {member.file_size} bytes in a file of "
                            f"{size}: a zip bomb.")
        if member.filename != _WEIGHTS and member.file_size > MAX_BYTES:
            raise FileError(f"{path}: member {member.filename!r} has {member.file_size} bytes; at most {MAX_BYTES} are "
                            "read.")
