"""Face photos sorted into folders by emotion, as FER2013 is: for pre-training the encoder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.errors import CorpusError

PHOTO_SIZE = 48  # pixels, FER2013's own
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


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
    rows = sorted(_entries(source, half), key=lambda row: row[0])
    if not rows:
        raise CorpusError(f"{source} holds no photos {half}/LABEL/*.jpg")
    labels = tuple(sorted({PurePosixPath(name).parent.name for name, _ in rows}))
    pixels = np.stack([_decode(source, name, data) for name, data in rows])
    classes = np.array([labels.index(PurePosixPath(name).parent.name) for name, _ in rows])
    return Photos(pixels, classes.astype(np.int64), labels)


def _entries(source: Path, half: str) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in source.glob(f"{half}/*/*"):
            if path.suffix.lower() in PHOTO_SUFFIXES:
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                member = PurePosixPath(name)
                if member.parts[-3:-2] == (half,) and member.suffix.lower() in PHOTO_SUFFIXES:
                    yield name, archive.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{source} is neither a folder nor a zip file of photos") from error


def _decode(source: Path, name: str, data: bytes) -> NDArray[np.uint8]:
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise CorpusError(f"{source}: {name} is not a picture")
    if grey.shape != (PHOTO_SIZE, PHOTO_SIZE):
        grey = cv2.resize(grey, (PHOTO_SIZE, PHOTO_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)
