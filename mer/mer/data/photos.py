"""Face photos sorted into folders by emotion, as FER2013 is: for pre-training the encoder."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.errors import CorpusError
from mer_runtime.archives import read_members

PHOTO_SIZE = 48  # pixels, FER2013's own
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
#: Of a photo's file, and pixels of its longer side.
MOST_BYTES, MOST_SIDE = 1 << 25, 4096
#: How their files begin, and JPEG's markers of a frame's header (SOF; not DHT, JPG, DAC).
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Photos:
    """One half of a photo set: ``pixels`` (N, 48, 48) uint8 grey, ``classes`` (N,) int64."""

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    labels: tuple[str, ...]


def load_photos(source: Path, half: str) -> Photos:
    """Read ``half/LABEL/*.jpg`` from a folder or zip file; labels in alphabetical order.

    Photos of another size are resized to 48 x 48; colour ones become grey.

    Raises:
        CorpusError: there is no such folder or archive, no photo in it, or one can't be decoded.
    """
    try:
        rows = sorted(
            ((name, _decode(name, data)) for name, data in _entries(source, half)),
            key=lambda row: row[0],
        )
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{source} is neither a folder nor a zip file of photos that can be read: {error}"
        ) from error
    if not rows:
        raise CorpusError(f"{source} holds no photos {half}/LABEL/*.jpg")
    labels = tuple(sorted({PurePosixPath(name).parent.name for name, _ in rows}))
    pixels = np.stack([photo for _, photo in rows])
    classes = np.array([labels.index(PurePosixPath(name).parent.name) for name, _ in rows])
    return Photos(pixels, classes.astype(np.int64), labels)


def _entries(source: Path, half: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each photo, one after the other."""
    if source.is_dir():
        for path in source.glob(f"{half}/*/*"):
            if path.suffix.lower() in PHOTO_SUFFIXES:
                name = path.relative_to(source).as_posix()
                if path.stat().st_size > MOST_BYTES:
                    raise ValueError(f"{name} has more than {MOST_BYTES} bytes")
                yield name, path.read_bytes()
        return

    def is_photo(name: str) -> bool:
        member = PurePosixPath(name)
        return member.parts[-3:-2] == (half,) and member.suffix.lower() in PHOTO_SUFFIXES

    yield from read_members(source, is_photo, MOST_BYTES)


def _decode(name: str, data: bytes) -> NDArray[np.uint8]:
    size = read_size(data)
    if size is None or max(size) > MOST_SIDE:
        raise ValueError(f"{name} is not a picture (JPEG or PNG, of at most {MOST_SIDE} pixels)")
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        grey = None
    if grey is None:
        raise ValueError(f"{name} is not a picture")
    if grey.shape != (PHOTO_SIZE, PHOTO_SIZE):
        grey = cv2.resize(grey, (PHOTO_SIZE, PHOTO_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def read_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG or JPEG says in its header; None where it is neither."""
    if data.startswith(PNG):
        width, height = struct.unpack_from(">II", data[:24].ljust(24, b"\0"), 16)
        return (width, height) if width and height else None
    if not data.startswith(JPEG):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in FRAMES:  # length, precision, height, width
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (width, height) if width and height else None
        # Fill bytes stand alone; a segment says its length.
        at += 1 if kind == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
