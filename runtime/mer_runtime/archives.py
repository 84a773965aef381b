"""Zip files from others' hands: members read one by one, none larger than it may be."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

#: How ``numpy.savez`` and every common tool pack.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


def read_members(
    source: Path | bytes, wanted: Callable[[str], bool], largest: int
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted member, in the archive's order.

    Nothing is written, so a name may be any.

    Args:
        source: a file, or its content.
        largest: bytes of a member, unpacked.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no zip file, or a wanted member is damaged, encrypted, packed in an
            uncommon way, or larger.
    """
    try:
        with zipfile.ZipFile(BytesIO(source) if isinstance(source, bytes) else source) as archive:
            for info in archive.infolist():
                if not wanted(info.filename):
                    continue
                name = info.filename
                if info.flag_bits & ENCRYPTED:
                    raise ValueError(f"{name} is encrypted")
                if info.compress_type not in METHODS:
                    raise ValueError(f"{name} is packed in a way that isn't read (deflate is)")
                if info.file_size > largest:
                    raise ValueError(f"{name} has more than {largest} bytes")
                yield name, archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"not a whole zip file: {error}") from error
