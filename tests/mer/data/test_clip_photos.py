"""Faces of a cache's training clips among the photos that train an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mer.data.cache import Cache
from mer.data.clip_photos import CROPS, add_clips
from mer.data.photos import Photos
from mer.errors import CorpusError

SIDE = 16


def make_photos(*labels: str, channels: int = 1) -> Photos:
    """Two black photos of each label."""
    classes = np.arange(len(labels)).repeat(2)
    return Photos(np.zeros((len(classes), SIDE, SIDE, channels), np.uint8), classes, labels)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_cache: Callable[..., Path]) -> Cache:
    """Actors 1 and 2 train, 5 tests, 11 validates; actor 1's happy clip shows no face."""
    folder = tmp_path_factory.mktemp("clips") / "cache"
    return Cache.open(write_cache(folder, without_face=["01-01-03-01-01-01-01"]))


def test_training_clips_alone_under_labels_of_the_same_name(cache: Cache) -> None:
    photos = make_photos("angry", "happy", "fear")
    more = add_clips(photos, cache)
    assert more.labels == photos.labels
    assert (more.pixels[:6] == 0).all()
    assert (more.classes[:6] == photos.classes).all()
    # Two actors' anger, one actor's happiness; the cache says fearful, not fear.
    assert np.bincount(more.classes[6:], minlength=3).tolist() == [2 * CROPS, CROPS, 0]
    crops = [
        cache.crops(row)[frame]
        for row in cache.select("train")
        if cache.spec.labels[cache.rows[row].emotion] in ("happy", "angry")
        and cache.rows[row].has_face
        for frame in range(CROPS)
    ]
    grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).mean() for crop in crops]
    found = more.pixels[6:].mean(axis=(1, 2, 3))
    assert found == pytest.approx(grey, abs=1)  # as shrinking and rounding leave it


def test_labels_may_stand_for_several(cache: Cache) -> None:
    photos = make_photos("fear", "neutral", channels=3)
    more = add_clips(photos, cache, {"fear": ("fearful",), "neutral": ("neutral", "Calm")})
    assert np.bincount(more.classes).tolist() == [2 + 2 * CROPS, 2 + 4 * CROPS]
    assert more.pixels.shape[1:] == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (("fear",), {"joy": ("happy",)}, "the photos have no label 'joy': they have fear"),
        (("fear",), {"fear": ("afraid",)}, "the corpus has no label 'afraid'"),
        (("fear",), None, "no face whose label stands for one of fear"),
    ],
)
def test_refusals(
    cache: Cache, labels: tuple[str, ...], classes: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        add_clips(make_photos(*labels), cache, classes)
