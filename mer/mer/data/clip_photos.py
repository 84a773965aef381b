"""Faces of a cache's training clips, as photos: an encoder meets the faces of its corpus."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mer.data.cache import Cache
from mer.data.classes import Classes, place_classes
from mer.data.photos import Photos, resize_photo
from mer.errors import CorpusError

#: Crops taken from each clip, spread over those that show a face.
CROPS = 3


def add_clips(photos: Photos, cache: Cache, classes: Classes | None = None) -> Photos:
    """``photos``, and behind them crops of the training actors' clips.

    Crops are brought to the photos' size, and to grey where those are grey. Clips of validation
    and test actors are never read.

    Args:
        classes: for labels of the photos which of the cache's labels they stand for. Without,
            labels of one name belong together, and the others are passed over.

    Raises:
        CorpusError: ``classes`` names a label that the photos or the cache don't have, or no
            crop is left.
    """
    places = _match(photos.labels, cache.spec.labels, classes)
    side, channels = photos.pixels.shape[1], photos.pixels.shape[3]
    crops, numbers = [], []
    for row in cache.select("train"):
        number = places.get(cache.rows[row].emotion)
        if number is None:
            continue
        found = np.flatnonzero(cache.found(row))
        if not found.size:
            continue
        spread = found[np.linspace(0, len(found) - 1, min(CROPS, len(found))).round().astype(int)]
        for crop in cache.crops(row)[spread]:
            crops.append(_fit(crop, side, channels))
            numbers.append(number)
    if not crops:
        labels = ", ".join(photos.labels)
        raise CorpusError(f"{cache.path} has no face whose label stands for one of {labels}")
    return Photos(
        np.concatenate((photos.pixels, np.stack(crops))),
        np.concatenate((photos.classes, np.array(numbers, np.int64))),
        photos.labels,
    )


def _match(labels: Sequence[str], theirs: Sequence[str], classes: Classes | None) -> dict[int, int]:
    """Places in a cache's labels to places in ours."""
    if classes is None:
        classes = {label: (label,) for label in labels if label in theirs}
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise CorpusError(f"the photos have no label {unknown[0]!r}: they have {', '.join(labels)}")
    ours = [labels.index(name) for name in classes]
    return {place: ours[number] for place, number in place_classes(theirs, classes).items()}


def _fit(crop: NDArray[np.uint8], side: int, channels: int) -> NDArray[np.uint8]:
    """A crop (S, S, 3) RGB as (side, side, channels)."""
    fitted = resize_photo(crop, side)
    if channels == 1:
        return np.asarray(cv2.cvtColor(fitted, cv2.COLOR_RGB2GRAY)[..., None], np.uint8)
    return fitted
