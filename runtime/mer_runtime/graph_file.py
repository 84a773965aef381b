"""A graph's file as a bundle holds it: plain, or packed with gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

#: Ends the name of a packed file.
PACKED_SUFFIX = ".gz"


def read_graph(file: Path) -> bytes:
    """Content of a graph's file, unpacked where its name says that it is packed.

    Raises:
        OSError: it can't be read, or isn't what gzip wrote.
    """
    content = file.read_bytes()
    if file.suffix != PACKED_SUFFIX:
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(f"{file.name} can't be unpacked: {error}") from error


def pack_graph(file: Path) -> Path:
    """Put ``FILE.gz`` in place of ``FILE``; the same content always gives the same bytes.

    Raises:
        OSError: it can't be written.
    """
    packed = file.with_name(f"{file.name}{PACKED_SUFFIX}")
    # gzip.compress notes the system in some versions of Python, and GzipFile a name and a date.
    with packed.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as stream:
        stream.write(file.read_bytes())
    file.unlink()
    return packed
