"""Faces looked for in several pictures at once, while later ones are still being decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue

import cv2
import numpy as np
from numpy.typing import NDArray

from mer_runtime.inputs.face import FaceDetector, open_again
from mer_runtime.inputs.tracking import Face, see
from mer_runtime.inputs.window_faces import EVERY, FaceCrops, crop_faces, crop_person, follow_faces
from mer_runtime.spec import VideoSpec

Picture = NDArray[np.uint8]


class FaceSearch:
    """The faces of one window after another, each in a ``with`` statement of its own.

    Threads that take a picture each serve better than OpenCV's own within one picture, so those
    rest inside the statement. A detector serves one thread at a time: each thread has its own.

    Args:
        open_detector: called once, in the caller's thread, when the first picture comes.
        threads: how many look for faces. With 1, and with a detector that can't be opened
            again, that is the caller's, once it asks for the crops.
        every: see ``window_faces.crop_faces``.
    """

    def __init__(
        self, open_detector: Callable[[], FaceDetector], threads: int, *, every: int = EVERY
    ) -> None:
        self._open_detector = open_detector
        self._threads = threads
        self._every = every
        self._detector: FaceDetector | None = None
        self._idle: SimpleQueue[FaceDetector] = SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._before: Picture | None = None
        self._seen: dict[int, Future[tuple[Face, ...]]] = {}

    def __enter__(self) -> FaceSearch:
        self._opencv_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._forget()
        cv2.setNumThreads(self._opencv_threads)

    def watch(self, place: int, picture: Picture) -> None:
        """Begin to look for faces in picture ``place`` of a window: a ``picks.Watcher``."""
        if place == 0:
            self._forget()
        self._open()
        if self._pool is None:
            return
        repeated = self._before is not None and np.array_equal(picture, self._before)
        if place % self._every == 0 and not repeated:
            self._seen[place] = self._pool.submit(self._detect, picture)
        self._before = picture

    def crop(self, frames: Picture, spec: VideoSpec) -> FaceCrops | None:
        """The crops of ``window_faces.crop_faces``, from all pictures of a window.

        Args:
            frames: (n, H, W, 3) uint8 RGB, the pictures that were watched.
        """
        detector, pool = self._open(), self._pool
        if pool is None:
            return crop_faces(frames, spec, detector, every=self._every)

        def look(places: Sequence[int]) -> list[tuple[Face, ...]]:
            for place in places:
                if place not in self._seen:
                    self._seen[place] = pool.submit(self._detect, frames[place])
            return [self._seen[place].result() for place in places]

        return crop_person(frames, follow_faces(frames, look, self._every), spec)

    def _open(self) -> FaceDetector:
        if self._detector is None:
            self._detector = self._open_detector()
            self._idle.put(self._detector)
            another = open_again(self._detector) if self._threads > 1 else None
            if another is not None:
                self._idle.put(another)
                self._pool = ThreadPoolExecutor(self._threads, "mer-face")
        return self._detector

    def _detect(self, picture: Picture) -> tuple[Face, ...]:
        detector = self._borrow()
        try:
            return see(picture, detector)
        finally:
            self._idle.put(detector)

    def _borrow(self) -> FaceDetector:
        try:
            return self._idle.get_nowait()
        except Empty:
            another = open_again(self._open())
            return self._idle.get() if another is None else another

    def _forget(self) -> None:
        for found in self._seen.values():
            found.cancel()
        self._seen.clear()
        self._before = None
