"""Arrays from others' hands, in numpy's files: no objects, and no more than the file holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_runtime.archives import read_members

#: Suffix of an array's file in an archive.
ARRAY_SUFFIX = ".npy"
#: Bytes of an archive's arrays together: a hundred golden crops of 512 x 512 are less.
MOST_BYTES = 1 << 27
#: Kinds of numpy's types: booleans, integers, floats and text.
KINDS = "biufU"


def read_array(content: bytes) -> NDArray[Any]:
    """The array of an ``.npy`` file.

    Raises:
        ValueError: it isn't one, holds objects, or another number of bytes than it says.
    """
    stream = BytesIO(content)
    numpys: Any = np.lib.format  # its types are missing
    try:
        version = numpys.read_magic(stream)
        shape, by_column, dtype = numpys.read_array_header_1_0(stream)
    except Exception as error:  # the header is Python's source, and so is what goes wrong with it
        raise ValueError("its header isn't numpy's") from error
    begin = stream.tell()
    fits = (
        version == (1, 0)
        and dtype.kind in KINDS
        and dtype.itemsize > 0
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(shape) * dtype.itemsize == len(content) - begin
    )
    if not fits:
        raise ValueError("its header isn't that of the numbers in it")
    array = np.frombuffer(content, dtype, offset=begin)
    return array.reshape(shape, order="F" if by_column else "C").copy()


def read_arrays(content: bytes, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file that are called so.

    Raises:
        ValueError: it can't be read, or lacks one.
    """
    wanted = {f"{name}{ARRAY_SUFFIX}": name for name in names}
    found: dict[str, NDArray[Any]] = {}
    left = MOST_BYTES
    for file, member in read_members(content, wanted.__contains__, MOST_BYTES):
        left -= len(member)
        if left < 0:
            raise ValueError(f"its arrays have more than {MOST_BYTES >> 20} MB")
        try:
            found[wanted[file]] = read_array(member)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise ValueError(f"it lacks {missing[0]}")
    return found
