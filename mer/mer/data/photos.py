"""Face photos sorted into folders by emotion, as FER2013 is: for pre-training the encoder."""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.errors import CorpusError
from mer_runtime.errors import MerWarning
from mer_runtime.inputs.listing import HIDDEN, describe_left_out, is_hidden, walk_files

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

    Photos of another size are resized to 48 x 48; colour ones become grey. Hidden files (macOS's
    ``._x``, ``__MACOSX``) and what isn't a picture are left out, with a ``MerWarning``.

    Raises:
        CorpusError: there is no such folder or archive, no photo in it, or one that is called a
            photo can't be decoded.
    """
    left_out: Counter[str] = Counter()
    rows = []
    for name, data in sorted(_entries(source, half, left_out), key=lambda row: row[0]):
        photo = _decode(data)
        if photo is not None:
            rows.append((name, photo))
        elif PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES:
            raise CorpusError(f"{source}: {name} is not a picture")
        else:
            left_out["not a picture"] += 1
    if not rows:
        raise CorpusError(f"{source} holds no photos {half}/LABEL/*.jpg")
    if left_out:
        told = f"{source}, {half}: {describe_left_out(left_out)}"
        warnings.warn(told, MerWarning, stacklevel=2)
    labels = tuple(sorted({PurePosixPath(name).parent.name for name, _ in rows}))
    pixels = np.stack([photo for _, photo in rows])
    classes = np.array([labels.index(PurePosixPath(name).parent.name) for name, _ in rows])
    return Photos(pixels, classes.astype(np.int64), labels)


def _entries(source: Path, half: str, left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """``half/LABEL/FILE`` and what it holds; hidden ones are counted."""
    if source.is_dir():
        if not (source / half).is_dir():
            return
        for path in walk_files(source / half, left_out):
            name = path.relative_to(source)
            if len(name.parts) == 3:
                yield name.as_posix(), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                member = PurePosixPath(entry.filename)
                if entry.is_dir() or member.parts[-3:-2] != (half,):
                    continue
                if any(map(is_hidden, member.parts)):
                    left_out[HIDDEN] += 1
                else:
                    yield entry.filename, archive.read(entry)
    except (OSError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{source} is neither a folder nor a zip file of photos") from error


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    """A picture as (48, 48) uint8 grey, or None."""
    if not data:
        return None
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        return None
    if grey.shape != (PHOTO_SIZE, PHOTO_SIZE):
        grey = cv2.resize(grey, (PHOTO_SIZE, PHOTO_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)
