"""Checks an HDF5 file before any of it is read into memory or handed to Keras.

HDF5 can point at other files, load filter plugins, declare terabytes in a few bytes and nest without end. A file of
weights needs none of that: plain numbers in plain groups.
"""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from private_keras.errors import FileError, PrivateKerasError

MAX_OBJECTS = 200_000
MAX_DEPTH = 64
MAX_RANK = 8
MAX_ATTRIBUTE_BYTES = 1 << 26
# Keras writes weights uncompressed. Data sets may declare this many times the bytes of the file, and a little more.
MAX_EXPANSION = 100
SLACK = 1 << 24
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


@contextmanager
def opened(path: Path, shown: str) -> Iterator[tuple[h5py.File, int]]:
    """Opens and checks an HDF5 file, and counts the elements of its data sets.

    Whatever fails in the body is reported as a `FileError` of the file that the user knows as `shown`.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file, check(file, shown, path.stat().st_size)
    except PrivateKerasError:
        raise
    except Exception as error:  # h5py and Keras raise nearly everything on damaged files
        raise damaged(shown, error) from error


def damaged(path: str, error: Exception) -> FileError:
    """The error for a file that a library could not read; carries the library's first line."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return FileError(f"{path}: cannot be read as a Keras model ({type(error).__name__}: {reason[:300]}). It is "
                     "truncated, damaged "
                     "or of another format: copy it again, or load it with Keras and save it again.")


def check(file: h5py.File, path: str, size: int) -> int:
    """Walks the whole file and refuses what a file of weights does not need.

    Args:
        file: open for reading.
        path: for errors.
        size: of the file in bytes.

    Returns:
        Elements in all data sets together.

    Raises:
        FileError: links, foreign storage, filters, types, or sizes that no Keras file has.
    """
    seen, stack, declared, elements = set(), [(file["/"], 0)], 0, 0
    while stack:
        group, depth = stack.pop()
        if depth > MAX_DEPTH or len(seen) + len(group) > MAX_OBJECTS:
            raise FileError(f"{path}: has more groups than any Keras model. The file is damaged or hostile.")
        _check_attributes(group, path)
        for name in group:
            where = f"{path}: {group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise FileError(f"{where} is a link, possibly to another file; links are not followed. The file is "
                                "hostile.")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise FileError(f"{where} is stored under two names. The file is damaged or hostile.")
            seen.add(address)
            if isinstance(item, h5py.Group):
                stack.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                _check_attributes(item, path)
                count, item_bytes = _check_dataset(item, where)
                elements, declared = elements + count, declared + count * item_bytes
            else:
                raise FileError(f"{where} is neither a group nor a data set. The file is damaged or hostile.")
            if declared > SLACK + MAX_EXPANSION * size:
                raise FileError(f"{where}: data sets declare {declared} bytes in a file of {size}. The file is damaged "
                                "or hostile.")
    return elements


def _check_dataset(data: h5py.Dataset, where: str) -> tuple[int, int]:
    if data.dtype.kind not in "fiub" or data.dtype.subdtype is not None:
        raise FileError(f"{where} has type {data.dtype}; weights are floats or integers. The file is damaged or "
                        "hostile.")
    if data.shape is None or len(data.shape) > MAX_RANK:
        raise FileError(f"{where} has shape {data.shape}; weights have at most {MAX_RANK} axes. The file is damaged or "
                        "hostile.")
    if data.is_virtual or data.external:
        raise FileError(f"{where} is stored in other files, which are not opened. The file is hostile.")
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if not filters <= _FILTERS:
        raise FileError(f"{where} needs HDF5 filters {sorted(filters - _FILTERS)}, which load plugins. Save it without "
                        "them.")
    return math.prod(data.shape), data.dtype.itemsize


def _check_attributes(item: h5py.Group | h5py.Dataset, path: str) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        text = h5py.check_string_dtype(attribute.dtype) is not None
        size = math.prod(attribute.shape or ()) * attribute.dtype.itemsize
        if not (text or attribute.dtype.kind in "fiub") or size > MAX_ATTRIBUTE_BYTES:
            raise FileError(f"{path}: attribute {name!r} of {item.name} has type {attribute.dtype} and shape "
                            f"{attribute.shape}; expected text or numbers. The file is damaged or hostile.")
