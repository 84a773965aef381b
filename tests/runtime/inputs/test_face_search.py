"""Faces found by several threads are those that one finds."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mer_runtime.errors import FaceDetectorError
from mer_runtime.inputs.face import Box, FaceDetector, HaarDetector, YuNetDetector
from mer_runtime.inputs.face_search import FaceSearch
from mer_runtime.inputs.media import read_window
from mer_runtime.inputs.window_faces import EVERY, crop_faces
from mer_runtime.spec import Detector, Spec, VideoSpec

SPEC = Spec()
Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module")
def frames(sample_clip: Path) -> Pictures:
    """Part of the sample's window, with a frame shown twice and two that show nothing."""
    pictures = read_window(sample_clip, SPEC).frames
    assert pictures is not None
    pictures[4] = pictures[3]
    pictures[6:8] = 90
    return pictures[2:9]


def search_all(search: FaceSearch, frames: Pictures) -> None:
    for place, picture in enumerate(frames):
        search.watch(place, picture)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_equals_crop_faces(threads: int, frames: Pictures) -> None:
    expected = crop_faces(frames, SPEC.video, HaarDetector(), every=EVERY)
    assert expected is not None
    search = FaceSearch(HaarDetector, threads)
    for _ in range(2):  # detectors are used again
        with search:
            search_all(search, frames)
            faces = search.crop(frames, SPEC.video)
        assert faces is not None
        np.testing.assert_array_equal(faces.crops, expected.crops)
        np.testing.assert_array_equal(faces.found, expected.found)
        assert faces.boxes == expected.boxes


@pytest.mark.parametrize("threads", [2, 3])
def test_equals_crop_faces_with_yunet(threads: int, frames: Pictures, yunet: Path) -> None:
    expected = crop_faces(frames, SPEC.video, YuNetDetector(yunet), every=EVERY)
    assert expected is not None
    with FaceSearch(lambda: YuNetDetector(yunet), threads) as search:
        search_all(search, frames)
        faces = search.crop(frames, SPEC.video)
    assert faces is not None
    np.testing.assert_array_equal(faces.crops, expected.crops)
    assert faces.boxes == expected.boxes


def test_no_face_anywhere() -> None:
    grey = np.full((3, 120, 160, 3), 128, np.uint8)
    with FaceSearch(HaarDetector, 2) as search:
        search_all(search, grey)
        assert search.crop(grey, VideoSpec(frames=3)) is None


def test_place_0_begins_anew(frames: Pictures) -> None:
    """A file that is decoded again: what was found before doesn't count."""
    expected = crop_faces(frames, SPEC.video, HaarDetector(), every=EVERY)
    assert expected is not None
    with FaceSearch(HaarDetector, 2) as search:
        search_all(search, frames[3:])
        search_all(search, frames)
        faces = search.crop(frames, SPEC.video)
    assert faces is not None
    assert faces.boxes == expected.boxes


class OwnDetector:
    """A user's: it knows one thread alone."""

    name: Detector = "haar"

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def detect(self, frame: NDArray[np.uint8]) -> Box | None:
        return Box(10, 10, 50, 50)

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        self.threads.add(threading.get_ident())
        return [Box(10, 10, 50, 50)]


def test_own_kind_of_detector_stays_in_one_thread(frames: Pictures) -> None:
    detector = OwnDetector()
    with FaceSearch(lambda: detector, 4) as search:
        search_all(search, frames)
        faces = search.crop(frames, SPEC.video)
    assert faces is not None
    assert set(faces.boxes) == {Box(10, 10, 50, 50)}
    assert detector.threads == {threading.get_ident()}


def test_detector_is_opened_with_the_first_picture(frames: Pictures) -> None:
    def refuse() -> FaceDetector:
        raise FaceDetectorError("no such detector")

    with FaceSearch(refuse, 2) as search, pytest.raises(FaceDetectorError, match="no such"):
        search.watch(0, frames[0])


class FailingDetector(HaarDetector):
    """Finds what Haar finds, but stumbles over a black picture."""

    def detect_all(self, frame: NDArray[np.uint8]) -> list[Box]:
        if not frame.any():
            raise cv2.error("black")
        return super().detect_all(frame)


def test_failure_in_a_thread_reaches_the_caller(frames: Pictures) -> None:
    frames = frames.copy()
    frames[0] = 0
    search = FaceSearch(FailingDetector, 2)
    # The first thread's detector is the one given.
    with search:
        search.watch(0, frames[0])
        with pytest.raises(cv2.error, match="black"):
            search.crop(frames[:1], SPEC.video)


def test_opencvs_own_threads_rest_meanwhile(frames: Pictures) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        with FaceSearch(HaarDetector, 2) as search:
            assert cv2.getNumThreads() == 1
            search_all(search, frames)
        assert cv2.getNumThreads() == 2
        with suppress(KeyboardInterrupt), FaceSearch(HaarDetector, 2) as search:
            search_all(search, frames)
            raise KeyboardInterrupt
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_leaving_early_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (72, 128, 3), np.uint8)
    different = [np.roll(picture, i, axis=0) for i in range(60)]
    left, begun = threading.Event(), []

    def wait(detector: HaarDetector, frame: Pictures) -> list[Box]:
        begun.append(frame)
        left.wait(60)
        return []

    monkeypatch.setattr(HaarDetector, "detect_all", wait)
    with FaceSearch(HaarDetector, 2, every=1) as search:
        for place, one in enumerate(different):
            search.watch(place, one)
    left.set()
    # Of 60 searches, those that hadn't begun were cancelled: each of the two threads had one.
    with search:
        search.watch(0, different[0])
        search.crop(np.stack(different[:1]), SPEC.video)
    assert len(begun) <= 3
