"""Face photos sorted into folders by emotion, as FER2013 is: for pre-training the encoder."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.errors import CorpusError
from mer_runtime.archives import read_members
from mer_runtime.errors import MerWarning
from mer_runtime.inputs.listing import HIDDEN, describe_left_out, is_hidden, walk_files
from mer_runtime.inputs.still import decode_picture

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
#: Bytes of a photo's file.
MOST_BYTES = 1 << 25
#: Share of the training photos that are held out to choose by.
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Photos:
    """One half of a photo set.

    Attributes:
        pixels: (N, S, S, C) uint8 RGB; C is 1 where no photo has a colour. S is the side of the
            largest photo, at most what was asked for.
        classes: (N,) int64, places in ``labels``.
        labels: in alphabetical order.
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    labels: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of pixels, classes and labels."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.labels)).encode())
        digest.update(self.pixels.tobytes())
        digest.update(self.classes.tobytes())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.intp]) -> Photos:
        """Those of these rows."""
        return Photos(self.pixels[rows], self.classes[rows], self.labels)


def load_photos(source: Path, half: str, size: int) -> Photos:
    """Read ``half/LABEL/*.jpg`` from a folder or zip file.

    Photos larger than ``size`` are shrunk to it; smaller ones are kept as they are, and brought
    to the side of the largest. One that isn't square is squeezed.
    Hidden files (macOS's ``._x``, ``__MACOSX``) and what isn't a picture are left out, with a
    ``MerWarning``.

    Args:
        size: pixels.

    Raises:
        CorpusError: there is no such folder or archive, no photo in it, or one that is called a
            photo can't be decoded.
    """
    left_out: Counter[str] = Counter()
    rows = []
    try:
        for name, data in _entries(source, half, left_out):
            photo = _decode(name, data, size)
            if photo is not None:
                rows.append((name, photo))
            elif PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES:
                raise CorpusError(f"{source}: {name} is not a picture (JPEG or PNG)")
            else:
                left_out["not a picture"] += 1
    except (OSError, ValueError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(
            f"{source} is neither a folder nor a zip file of photos that can be read: {error}"
        ) from error
    rows.sort(key=lambda row: row[0])
    if not rows:
        raise CorpusError(f"{source} holds no photos {half}/LABEL/*.jpg")
    if left_out:
        told = f"{source}, {half}: {describe_left_out(left_out)}"
        warnings.warn(told, MerWarning, stacklevel=2)
    labels = tuple(sorted({PurePosixPath(name).parent.name for name, _ in rows}))
    decoded = [photo for _, photo in rows]
    side = max(max(photo.shape[:2]) for photo in decoded)
    squares = [resize_photo(photo, side) for photo in decoded]
    if all((photo == photo[..., :1]).all() for photo in squares):
        squares = [photo[..., :1] for photo in squares]
    classes = np.array([labels.index(PurePosixPath(name).parent.name) for name, _ in rows])
    return Photos(np.stack(squares), classes.astype(np.int64), labels)


def load_halves(source: Path, size: int) -> tuple[Photos, Photos]:
    """Training and test photos, their classes numbered alike.

    Raises:
        CorpusError: as ``load_photos``, or the halves have other labels.
    """
    train, test = (load_photos(source, half, size) for half in ("train", "test"))
    if train.labels != test.labels:
        odd = sorted(set(train.labels) ^ set(test.labels))
        raise CorpusError(
            f"{source}: {', '.join(odd)} stand in one of train and test alone: give both halves "
            "the same folders"
        )
    return train, test


def split_photos(photos: Photos, share: float = VALIDATION_SHARE) -> tuple[Photos, Photos]:
    """Hold out a share of the photos, by a hash of each, so that no seed or order decides.

    Raises:
        CorpusError: a part would be empty.
    """
    marks = np.array(
        [
            int.from_bytes(hashlib.sha256(photo.tobytes()).digest()[:4], "big")
            for photo in photos.pixels
        ]
    )
    held = marks < share * 2**32
    if held.all() or not held.any():
        raise CorpusError(f"{len(held)} training photos are too few to hold some out")
    return photos.take(np.flatnonzero(~held)), photos.take(np.flatnonzero(held))


def _entries(source: Path, half: str, left_out: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """``half/LABEL/FILE`` and what it holds; hidden ones are counted."""
    if source.is_dir():
        if not (source / half).is_dir():
            return
        for path in walk_files(source / half, left_out):
            name = path.relative_to(source)
            if len(name.parts) == 3:
                if path.stat().st_size > MOST_BYTES:
                    raise ValueError(f"{name} has more than {MOST_BYTES} bytes")
                yield name.as_posix(), path.read_bytes()
        return

    def is_photo(name: str) -> bool:
        member = PurePosixPath(name)
        if name.endswith("/") or member.parts[-3:-2] != (half,):
            return False
        if any(map(is_hidden, member.parts)):
            left_out[HIDDEN] += 1
            return False
        return True

    yield from read_members(source, is_photo, MOST_BYTES)


def _decode(name: str, data: bytes, size: int) -> NDArray[np.uint8] | None:
    """A picture (H, W, 3) uint8 RGB, no side above ``size``, or None."""
    try:
        photo = decode_picture(data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if photo is None:
        return None
    return resize_photo(photo, size) if max(photo.shape[:2]) > size else photo


def resize_photo(photo: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) as (side, side, 3), squeezed where it isn't square."""
    if photo.shape[:2] == (side, side):
        return photo
    method = cv2.INTER_AREA if min(photo.shape[:2]) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (side, side), interpolation=method), np.uint8)
